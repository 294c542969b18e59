"""Conversations side by side: each gets its own answers, in order, and nothing is asked twice."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import EngineStopped
from rlaif.generation.conversations import (
    Conversation,
    ConversationCounts,
    ConversationModel,
    ConversationRows,
    ConversationRunner,
    PartialRows,
    Query,
)
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationRequest, Result
from rlaif.store.text_cache import GeneratedText, TextCache, text_key
from rlaif.store.verdict_cache import VerdictCache
from tests.generation.helpers import Watched


def ask(text: str, role: str = "writer") -> Query:
    return Query(role, GenerationRequest("", list(text.encode()), 100))


def echo(text: str, request: GenerationRequest) -> str:
    return f"<{text}>"


def run(
    folder: Path, conversations: list[Conversation], workers: dict[str, ConversationModel]
) -> tuple[list[ConversationRows], ConversationCounts]:
    found: list[ConversationRows] = []
    with (
        closing(TextCache(folder / "t.sqlite")) as texts,
        closing(VerdictCache(folder / "v.sqlite")) as verdicts,
    ):
        runner = ConversationRunner(workers, texts, verdicts, on_rows=found.append)
        runner.run(conversations)
    return found, runner.counts


def talk(name: str, steps: int) -> Conversation:
    """Asks step by step, each time about the last answer."""
    said = name
    for _ in range(steps):
        (answer,) = yield [ask(said)]
        assert isinstance(answer, GeneratedText)
        assert answer.text == f"<{said}>"
        said = answer.text
    return [("rows", {"name": name, "said": said})]


def test_each_chain_hears_its_own_answers_and_rows_come_in_order(tmp_path: Path) -> None:
    rng = random.Random(1)
    steps = [rng.randint(0, 6) for _ in range(120)]
    engine = Watched(writer=echo, max_in_flight=16)
    conversations = [talk(f"c{i}", n) for i, n in enumerate(steps)]
    found, counts = run(tmp_path, conversations, {"writer": ConversationModel("f", engine)})
    assert found == [
        [("rows", {"name": f"c{i}", "said": "<" * n + f"c{i}" + ">" * n})]
        for i, n in enumerate(steps)
    ]
    assert counts.asked == sum(steps) == len(engine.asked)
    assert engine.most == 16, "one chain is sequential, but the others fill the batch"
    again, counts = run(
        tmp_path,
        [talk(f"c{i}", n) for i, n in enumerate(steps)],
        {"writer": ConversationModel("f", None)},
    )
    assert again == found
    assert (counts.asked, counts.cached) == (0, sum(steps))


def test_parts_come_in_the_order_of_their_chains(tmp_path: Path) -> None:
    def conversation(name: int) -> Conversation:
        for i in range(3):
            yield [ask(f"{name} {i}") for _ in range(1 + name % 3)]
            yield PartialRows([("part", {"chain": name, "part": i})])
        return [("end", {"chain": name})]

    found: list[ConversationRows] = []
    with (
        closing(TextCache(tmp_path / "t.sqlite")) as texts,
        closing(VerdictCache(tmp_path / "v.sqlite")) as verdicts,
    ):
        engine = Watched(writer=echo, max_in_flight=5)
        runner = ConversationRunner(
            {"writer": ConversationModel("f", engine)},
            texts,
            verdicts,
            on_rows=found.append,
            on_part=found.append,
        )
        runner.run(conversation(i) for i in range(20))
    assert found == [
        [("part", {"chain": c, "part": i})] if i < 3 else [("end", {"chain": c})]
        for c in range(20)
        for i in range(4)
    ]


def test_equal_questions_are_asked_once_and_of_two_models_separately(tmp_path: Path) -> None:
    one, two = (Watched(writer=echo, max_in_flight=4) for _ in range(2))

    def conversation(i: int) -> Conversation:
        told = yield [ask("same"), ask("same", "other"), ask(f"own {i % 3}")]
        return [("rows", {"told": [t.text for t in told if isinstance(t, GeneratedText)]})]

    workers = {"writer": ConversationModel("f", one), "other": ConversationModel("g", two)}
    found, _ = run(tmp_path, [conversation(i) for i in range(9)], workers)
    assert [rows[0][1]["told"] for rows in found] == [
        ["<same>", "<same>", f"<own {i % 3}>"] for i in range(9)
    ]
    assert sorted(one.asked) == ["own 0", "own 1", "own 2", "same"]
    assert two.asked == ["same"]


class Elsewhere(Watched):
    """As a server: another engine may work while it does. Each answer waits for one of another."""

    elsewhere = True

    def __init__(self, meeting: threading.Barrier | None = None, **more: Any) -> None:
        super().__init__(writer=echo, **more)
        self._meeting = meeting

    def run(self, requests: Any) -> Iterator[list[Result]]:
        for results in super().run(requests):
            if self._meeting is not None:
                self._meeting.wait()
            yield results


def test_engines_elsewhere_work_at_the_same_time(tmp_path: Path) -> None:
    """Two that answer only when both have work: one after the other would wait for ever."""
    meeting = threading.Barrier(2, timeout=60)
    one, two = (Elsewhere(meeting, max_in_flight=1) for _ in range(2))

    def conversation(i: int) -> Conversation:
        role = ("writer", "other")[i % 2]
        (told,) = yield [ask(f"{i}", role)]
        assert isinstance(told, GeneratedText)
        return [("rows", {"told": told.text})]

    workers = {"writer": ConversationModel("f", one), "other": ConversationModel("g", two)}
    found, counts = run(tmp_path, [conversation(i) for i in range(20)], workers)
    assert [rows[0][1]["told"] for rows in found] == [f"<{i}>" for i in range(20)]
    assert counts.asked == 20


def test_side_by_side_gives_what_one_after_the_other_gives(tmp_path: Path) -> None:
    """Long conversations that go back and forth between an engine here and two elsewhere."""

    def conversation(name: int) -> Conversation:
        rng = random.Random(name)
        said = f"c{name}"
        for _ in range(rng.randint(1, 8)):
            (told,) = yield [ask(said, rng.choice(["writer", "other", "third"]))]
            assert isinstance(told, GeneratedText)
            said = told.text
        return [("rows", {"said": said})]

    def models(*kinds: type[Watched]) -> dict[str, ConversationModel]:
        names = ("writer", "other", "third")
        return {
            name: ConversationModel(name, kind(writer=echo, max_in_flight=3))
            if kind is Watched
            else ConversationModel(name, Elsewhere(max_in_flight=3))
            for name, kind in zip(names, kinds, strict=True)
        }

    found = []
    for number, kinds in enumerate(((Watched,) * 3, (Watched, Elsewhere, Elsewhere))):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows, counts = run(folder, [conversation(i) for i in range(200)], models(*kinds))
        found.append((rows, counts.asked))
    assert found[0] == found[1]


def test_what_an_engine_elsewhere_raises_ends_the_run(tmp_path: Path) -> None:
    class Broken(Elsewhere):
        def run(self, requests: Any) -> Iterator[list[Result]]:
            for _ in super().run(requests):
                raise EngineStopped("it broke", hint="Mend it.")
            yield []

    workers = {
        "writer": ConversationModel("f", Elsewhere(max_in_flight=2)),
        "other": ConversationModel("g", Broken(max_in_flight=2)),
    }

    def conversation(i: int) -> Conversation:
        yield [ask(f"{i}", "other"), ask(f"{i}")]
        return []

    with pytest.raises(EngineStopped, match="it broke"):
        run(tmp_path, [conversation(i) for i in range(9)], workers)


def test_failures_and_models_that_do_not_run_are_answers_with_a_reason(tmp_path: Path) -> None:
    engine = Watched(writer=echo, fail_every=1)

    def conversation() -> Conversation:
        told = yield [ask("a"), ask("b", "absent")]
        return [("rows", {"reasons": [t.reason for t in told if isinstance(t, Failure)]})]

    workers = {"writer": ConversationModel("f", engine), "absent": ConversationModel("g", None)}
    found, counts = run(tmp_path, [conversation()], workers)
    assert found == [[("rows", {"reasons": ["scripted failure", "no result from absent"]})]]
    assert counts.failed == 2
    _, counts = run(tmp_path, [conversation()], workers)
    assert counts.asked == 1, "a failure is not kept: it is asked again"


def test_labels_are_read_and_kept_too(tmp_path: Path) -> None:
    engine = Watched(lambda text: (2.0, 0.9), max_in_flight=4)
    request = ChoiceRequest("", list(b"Which?"), ((65,), (66,)))

    def conversation() -> Conversation:
        (told,) = yield [Query("judge", request)]
        assert isinstance(told, ChoiceResult)
        return [("rows", {"log-odds": round(told.logprobs[0] - told.logprobs[1], 6)})]

    for asked in (1, 0):
        found, counts = run(tmp_path, [conversation()], {"judge": ConversationModel("f", engine)})
        assert found == [[("rows", {"log-odds": 2.0})]]
        assert counts.asked == asked


def test_an_error_of_a_chain_is_not_swallowed(tmp_path: Path) -> None:
    def conversation() -> Conversation:
        yield [ask("a")]
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run(tmp_path, [conversation()], {"writer": ConversationModel("f", Watched(writer=echo))})


def test_what_a_text_is_kept_under_depends_on_model_prompt_and_sampling() -> None:
    base = GenerationRequest(
        id="x", token_ids=[1, 2], max_tokens=10, temperature=0.5, top_p=0.9, seed=3
    )
    keys = {
        text_key("m", base),
        text_key("n", base),
        text_key(
            "m",
            GenerationRequest(
                id="x", token_ids=[1, 3], max_tokens=10, temperature=0.5, top_p=0.9, seed=3
            ),
        ),
        text_key(
            "m",
            GenerationRequest(
                id="x", token_ids=[1, 2], max_tokens=11, temperature=0.5, top_p=0.9, seed=3
            ),
        ),
        text_key(
            "m",
            GenerationRequest(
                id="x", token_ids=[1, 2], max_tokens=10, temperature=0.6, top_p=0.9, seed=3
            ),
        ),
        text_key(
            "m",
            GenerationRequest(
                id="x", token_ids=[1, 2], max_tokens=10, temperature=0.5, top_p=0.8, seed=3
            ),
        ),
        text_key(
            "m",
            GenerationRequest(
                id="x", token_ids=[1, 2], max_tokens=10, temperature=0.5, top_p=0.9, seed=4
            ),
        ),
    }
    assert len(keys) == 7
    assert (
        text_key(
            "m",
            GenerationRequest(
                id="y", token_ids=[1, 2], max_tokens=10, temperature=0.5, top_p=0.9, seed=3
            ),
        )
        in keys
    )
