"""Questions about a context in one request: the answers of single ones, and fewer requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.packed_engine import PackedEngine
from rlaif.engines.registry import create_engine
from rlaif.engines.sglang_server import SGLangServerEngine
from rlaif.engines.tree_attention import pack, pack_branches
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import ChoiceRequest, ChoiceResult, ContextRequest, Failure
from rlaif.runs.context import RunContext
from rlaif.runs.directory import read_rows
from tests.engines.sglang_stand_in import StandIn
from tests.engines.test_exactness import requests
from tests.labeling.helpers import ROW_FILES

TOKENS = st.lists(st.integers(0, 2), max_size=5)
CONTEXTS = st.lists(
    st.tuples(TOKENS, st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1)),
    min_size=1,
    max_size=5,
)


@given(contexts=CONTEXTS, past=st.integers(0, 4), wrong=st.integers(-2, 2))
def test_a_forest_of_branches_is_that_of_whole_prompts(
    contexts: list[tuple[list[int], list[list[int]]]], past: int, wrong: int
) -> None:
    """Also where what is said of sharing is too little or too much."""
    prompts = [(context, tail) for context, tails in contexts for tail in tails]
    whole = [context + tail for context, tail in prompts]
    before = whole[0][: min(past, len(whole[0]) - 1)]

    ones = [before, *whole]
    shared = [max(0, common(ones[n], whole[n]) + wrong) for n in range(len(whole))]
    branches = pack_branches(((c, t, s) for (c, t), s in zip(prompts, shared, strict=True)), before)
    if wrong <= 0:
        plain = pack(zip(whole, shared, strict=True), before)
        for name in ("tokens", "positions", "ends", "answers", "path", "past"):
            assert getattr(branches, name) == getattr(plain, name), name
    # Whatever was said: each prompt's own tokens lead to its answer, and no other's.
    for n, prompt in enumerate(whole):
        answer = branches.answers[n]
        chain = [i for i in range(answer + 1) if i == answer or branches.ends[i] > answer]
        assert [branches.tokens[i] for i in chain] == prompt


def together(asked: list[ChoiceRequest]) -> list[ContextRequest]:
    """Neighbors that share more than half, as requests about what all of them begin with."""
    groups: list[list[ChoiceRequest]] = []
    for one in asked:
        last = groups[-1][-1].token_ids if groups else []
        if 2 * common(last, one.token_ids) >= len(one.token_ids):
            groups[-1].append(one)
        else:
            groups.append([one])
    found = []
    for held in groups:
        first = held[0].token_ids
        most = min([len(first) - 1, *(common(first, r.token_ids) for r in held[1:])])
        tails = [list(r.token_ids[most:]) for r in held]
        names, shared = [r.id for r in held], [r.shared for r in held]
        found.append(ContextRequest(names, list(first[:most]), tails, held[0].label_ids, shared))
    return found


def common(one: Sequence[int], two: Sequence[int]) -> int:
    """How many tokens two prompts begin with alike."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def answers(engine: Engine, asked: Iterable[Any]) -> dict[str, Any]:
    return {r.id: r for batch in engine.run(asked) for r in batch}


def test_split_gives_the_whole_prompts() -> None:
    one = ContextRequest(["a", "b"], [1, 2], [[3], [4, 5]], ((6,), (7,)), [0, 2])
    assert list(one.split()) == [
        ChoiceRequest("a", [1, 2, 3], ((6,), (7,)), 0),
        ChoiceRequest("b", [1, 2, 4, 5], ((6,), (7,)), 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("batch_tokens", [16, 200, 8192])
def test_packed_answers_a_context_as_it_answers_its_questions(batch_tokens: int) -> None:
    settings = EngineSettings(engine="packed", model="demo", options={"batch_tokens": batch_tokens})
    with closing(create_engine(settings)) as engine:
        asked = requests(engine, 3)
        expected = answers(engine, asked)
        alone = engine.stats()
        grouped = together(asked)
        assert len(grouped) < len(asked)
        long = ContextRequest(
            ["fits", "long", "after"],
            list(asked[0].token_ids),
            [[5], [5] * 2000, [6]],
            asked[0].label_ids,
            [0, 0, 0],
        )
        found = answers(engine, [grouped[0], None, *grouped[1:], long, asked[0]])
        both = engine.stats()
    for name, result in expected.items():
        assert found[name].logprobs == pytest.approx(result.logprobs, abs=1e-5)
    assert isinstance(found["long"], Failure)
    assert "the limit is" in found["long"].reason
    assert isinstance(found["fits"], ChoiceResult)
    assert isinstance(found["after"], ChoiceResult)
    assert both.requests == 2 * alone.requests + 3  # a refused question is no request of the model


@pytest.mark.slow
@pytest.mark.parametrize("way", ["generate", "score", "multi-item"])
def test_sglang_is_asked_once_a_context(way: str) -> None:
    server = StandIn()
    url = server.start()
    try:
        server.multi_item = way == "multi-item"
        options = {"base_url": url + "/v1", "retries": 0, "score": way != "generate"}
        settings = EngineSettings(engine="sglang-server", model="demo", options=options)
        with closing(create_engine(settings)) as engine:
            asked = requests(engine, 2)
            expected = answers(engine, asked)
            server.asked.clear()
            grouped = together(asked)
            assert len(grouped) == 4  # two pairs, two orders
            found = answers(engine, [*grouped, None])
            assert len(server.asked) == 4
            nothing = ContextRequest(["e"], [], [list(asked[0].token_ids)], asked[0].label_ids, [0])
            assert isinstance(answers(engine, [nothing])["e"], ChoiceResult)
    finally:
        server.stop()
    for name, result in expected.items():
        assert found[name].logprobs == pytest.approx(result.logprobs, abs=1e-3)


def test_engines_that_take_contexts_say_so() -> None:
    assert PackedEngine.takes_contexts
    assert SGLangServerEngine.takes_contexts


@pytest.mark.slow
def test_the_loop_asks_about_a_pair_in_one_order_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for what the cache does not know, and no more, once a principle is edited."""
    lines = [
        f'{{"prompt": "How do I clean kettle {i}?", "chosen": "With water, {i}.", '
        f'"rejected": "Go away."}}\n'
        for i in range(6)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(lines) + lines[0])
    text = "schema: 1\nname: x\nversion: '1'\nprinciples:\n"
    principles = [
        f'  - {{id: p{n}, preference: "Which is better in way {n}?"}}\n' for n in range(3)
    ]
    (tmp_path / "c.yaml").write_text(text + "".join(principles))
    seen: list[Any] = []
    run = PackedEngine.run

    def watched(self: PackedEngine, asked: Iterable[Any]) -> Iterator[Any]:
        def each() -> Iterator[Any]:
            for one in asked:
                seen.append(one)
                yield one

        return run(self, each())

    monkeypatch.setattr(PackedEngine, "run", watched)

    def label(out: str, cache: str) -> list[Any]:
        settings = LabelSettings(
            judge=EngineSettings(engine="packed", model="demo"), template="demo"
        )
        job = prepare(str(tmp_path / "pairs.jsonl"), str(tmp_path / "c.yaml"), settings)
        seen.clear()
        run_label(job, tmp_path / out, RunContext(tmp_path / cache))
        return [one for one in seen if one is not None]

    asked = label("whole", "one")
    assert all(isinstance(one, ContextRequest) for one in asked)
    assert [len(one.ids) for one in asked] == [3] * 12, "the repeated row is asked once"
    monkeypatch.setattr(PackedEngine, "takes_contexts", False)
    single = label("single", "two")
    assert len(single) == 36
    assert [r.token_ids for one in asked for r in one.split()] == [r.token_ids for r in single]
    assert [r.shared for one in asked for r in one.split()] == [r.shared for r in single]
    for name in ROW_FILES:
        runs = (tmp_path / "whole" / name, tmp_path / "single" / name)
        one, two = ([row for _, row in read_rows(file)] for file in runs)
        assert one == two
    monkeypatch.setattr(PackedEngine, "takes_contexts", True)
    principles[1] = '  - {id: p1, preference: "Which is kinder?"}\n'
    (tmp_path / "c.yaml").write_text(text + "".join(principles))
    asked = label("edited", "one")
    assert [len(one.ids) for one in asked] == [1] * 12
