"""A chat server as a judge: likeliest tokens, votes, and what is no answer.

The server draws from known probabilities, so that what comes out can be held against them.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines.base import EngineSettings
from rlaif.engines.chat_labels import NoLabel, NoProbabilities, read_probabilities, read_text_label
from rlaif.engines.openai_engine import MessageCodec, create
from rlaif.engines.request_limit import RequestLimit
from rlaif.engines.voting import VotePlan
from rlaif.errors import RlaifError
from rlaif.judging.rendering import Renderer
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, Result
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices
from rlaif.templates.judge import load_judge_template
from tests.engines.test_hostile_servers import Server, message, say
from tests.engines.test_hostile_servers import serve as serve
from tests.generation.helpers import read, write_rows

LABELS = ["A", "B"]
OPENING = "The better response is Response"


def tops(**given: float) -> list[dict[str, Any]]:
    return [{"token": t, "logprob": math.log(p)} for t, p in given.items()]


def choice(*places: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """A choice whose tokens have these likeliest alternatives."""
    return {
        "logprobs": {
            "content": [
                {"token": t, "logprob": math.log(given[t]), "top_logprobs": tops(**given)}
                for t, given in places
            ]
        }
    }


def test_likely_tokens_are_the_probabilities_of_labels() -> None:
    found = read_probabilities(choice((" A", {" A": 0.5, "A": 0.1, "B": 0.2, "The": 0.1})), LABELS)
    assert [math.exp(x) for x in found] == pytest.approx([0.6, 0.2])
    # Blanks before it are passed over, and cost what they are likely.
    blank = choice(("\n", {"\n": 0.8, "A": 0.1}), ("B", {"A": 0.25, "B": 0.75}))
    found = read_probabilities(blank, LABELS)
    assert [math.exp(x) for x in found] == pytest.approx([0.2, 0.6])


def test_a_label_that_is_not_seen_is_bounded() -> None:
    seen = {"A": 0.9, "The": 0.04, "I": 0.02}
    one, two = (math.exp(x) for x in read_probabilities(choice(("A", seen)), LABELS))
    assert one + two == pytest.approx(0.9), "no more than was seen"
    assert two / one == pytest.approx(0.02 / 0.9), "as likely as the last that was seen, at most"
    seen = {"A": 0.9, "The": 0.095}
    one, two = (math.exp(x) for x in read_probabilities(choice(("A", seen)), LABELS))
    assert two / one == pytest.approx(0.005 / 0.9), "no more than the others leave"
    for seen, why in (
        ({"A": 0.1, "The": 0.5, "I": 0.3}, "'B' is not among the 3 likeliest tokens, and may be"),
        ({"The": 0.6, "I": 0.3}, "neither label is among the 2 likeliest"),
        ({"A": 0.9, "B": 0.9}, "more than 1 together"),
    ):
        with pytest.raises(NoLabel, match=why):
            read_probabilities(choice((next(iter(seen)), seen)), LABELS)
    for odd in (
        {},
        {"logprobs": None},
        {"logprobs": {"content": [{}]}},
        {"logprobs": {"content": [{"token": "A", "logprob": -1, "top_logprobs": ["A"]}]}},
        {"logprobs": {"content": [{"token": "A", "top_logprobs": [{"token": "A"}]}]}},
    ):
        with pytest.raises(NoProbabilities):
            read_probabilities(odd, LABELS)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("A", 0),
        (" B.\n", 1),
        ("**B**", 1),
        ("[[A]]", 0),
        ("A\n\nIt is politer than B.", 0),
        ("B, because A is rude.", 1),
        ("A's response is weaker than B's.", None),
        ("(A) is worse than (B)", None),
        ('"A" loses to "B"', None),
        ("A - worse than B", None),
        ("A: too long. B: better. Final answer: B", None),
        ("A: 3/10, B: 9/10", None),
        ("A) is worse; B wins", None),
        ("Response A's errors make Response B better", None),
        ("A\n\nOn reflection, my final answer is B.", None),
        ("Response B", 1),
        ("The better response is Response A.", 0),
        ("Answer: A", 0),
        ("**Final answer:** Response B", 1),
        ("", None),
        ("A better answer would be B", None),
        ("A or B", None),
        ("A, B", None),
        ("[[A]] [[B]]", None),
        ("AB", None),
        ("Both are good.", None),
        ("I'm sorry, I can't help with that.", None),
        ("Neither A nor B", None),
    ],
)
def test_texts_are_read_strictly(text: str, label: int | None) -> None:
    if label is None:
        with pytest.raises(NoLabel):
            read_text_label(text, LABELS, OPENING)
    else:
        assert read_text_label(text, LABELS, OPENING) == label


@pytest.mark.parametrize(("most", "error"), [(15, 0.05), (9, 0.05), (31, 0.02)])
def test_votes_stop_early_at_a_known_error(most: int, error: float) -> None:
    """Exactly, by all outcomes: at an equal error, 40% fewer calls than a fixed number of votes,
    for judges as sure and unsure as Jeffreys' prior has them.
    """
    plan = VotePlan(most, error)
    grid = [(k + 0.5) / 400 for k in range(400)]
    weights = [1 / math.sqrt(p * (1 - p)) for p in grid]
    total = sum(weights)

    def mean(values: list[float]) -> float:
        return sum(w * v for w, v in zip(weights, values, strict=True)) / total

    for p in (0.0, 0.3, 1.0):
        ways = sum(w * p**a * (1 - p) ** b for (a, b), w in plan.outcomes.items())
        assert ways == pytest.approx(1.0)
    wrong = mean([plan.error_rate(p) for p in grid])
    drawn = mean([plan.expected_votes(p) for p in grid])
    fixed = next(m for m in range(1, 99, 2) if mean([_fixed(m, p) for p in grid]) <= wrong)
    assert drawn <= 0.6 * fixed, (drawn, fixed)


def _fixed(votes: int, p: float) -> float:
    """How often the majority of a fixed odd number of votes is wrong."""
    likely = max(p, 1 - p)
    return sum(
        math.comb(votes, k) * likely**k * (1 - likely) ** (votes - k) for k in range(votes // 2 + 1)
    )


@pytest.mark.parametrize(("most", "error"), [(15, 0.05), (5, 0.2)])
def test_intervals_hold_the_truth_whatever_it_is(most: int, error: float) -> None:
    plan = VotePlan(most, error)
    bounds = {state: plan.interval(*state) for state in plan.outcomes}
    for k in range(1, 200):
        p = k / 200
        held = sum(
            ways * p**a * (1 - p) ** b
            for (a, b), ways in plan.outcomes.items()
            if bounds[a, b][0] <= p <= bounds[a, b][1]
        )
        assert held >= 0.95 - 1e-9, p


def truth(text: str) -> float:
    """The probability of A that the server has for a question."""
    return random.Random(zlib.crc32(text.encode())).betavariate(0.5, 0.5)


class Drawing:
    """A model behind a server: answers by `truth`.

    Args:
        gives: "all" gives likeliest tokens; "none" leaves them out; "refuses" answers 400.
    """

    def __init__(self, gives: str) -> None:
        self.gives = gives

    def __call__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "logprobs" in body and self.gives == "refuses":
            say(handler, {"error": "logprobs is not supported with this model"}, 400)
            return
        text = next(m["content"] for m in body["messages"] if m["role"] == "user")
        p = truth(re.sub(r"\n\nComplete this sentence.*", "", text))
        # The same draws, in whatever order questions come.
        said = "A" if random.Random(f"{text}/{body.get('seed')}").random() < p else "B"
        made: Any = message(content=f" {said}")
        if "logprobs" in body and self.gives == "all":
            made["choices"][0] |= choice((" A", {" A": 0.99 * p, " B": 0.99 * (1 - p)}))
        made["usage"] = {"prompt_tokens": 100, "completion_tokens": 2}
        say(handler, made)


def settings(server: Server, **options: Any) -> EngineSettings:
    return EngineSettings(
        engine="openai",
        model="m",
        max_in_flight=8,
        options={"base_url": server.url, "retries": 0, "timeout": 5, **options},
    )


def questions(engine: Any, count: int) -> dict[str, tuple[ChoiceRequest, float]]:
    asked = {}
    labels = tuple(engine.codec.spellings(label) for label in LABELS)
    for k in range(count):
        text = f'Question {k} of a \\ "quoted" one: is A better?'
        context, (tail,) = engine.codec.encode_branches(text[:9], [text[9:]], prefill=OPENING)
        asked[str(k)] = ChoiceRequest(str(k), context + tail, labels), truth(text)
    return asked


def answers(server: Server, count: int, **options: Any) -> dict[str, tuple[Result, float]]:
    with closing(create(settings(server, **options))) as engine:
        asked = questions(engine, count)
        came = [r for batch in engine.run(q for q, _ in asked.values()) for r in batch]
        return {r.id: (r, asked[r.id][1]) for r in came}


@pytest.mark.parametrize("owner", ["vllm", "openai"])
def test_probabilities_are_those_of_the_server(serve: Callable[..., Server], owner: str) -> None:
    server = serve(Drawing("all"), owner)
    for result, p in answers(server, 20).values():
        assert isinstance(result, ChoiceResult)
        one, two = (math.exp(x) for x in result.logprobs)
        assert (one, two) == pytest.approx((0.99 * p, 0.99 * (1 - p)))
        assert not result.evidence
    assert len(server.asked) == 20
    last = server.asked[-1]
    if owner == "vllm":  # it goes on with the answer that is begun
        assert last["messages"][-1] == {"role": "assistant", "content": OPENING}
        assert last["continue_final_message"] is True
    else:
        (turn,) = last["messages"]
        assert turn["content"].endswith(
            f"Complete this sentence with A or B, and write nothing else: {OPENING}"
        )
        assert "continue_final_message" not in last


@pytest.mark.slow
@pytest.mark.parametrize("gives", ["none", "refuses"])
def test_votes_come_to_the_probabilities(serve: Callable[..., Server], gives: str) -> None:
    server = serve(Drawing(gives))
    count = 300
    found = answers(server, count)
    held, votes, squares = 0, 0, []
    for result, p in found.values():
        assert isinstance(result, ChoiceResult)
        told = re.fullmatch(
            r"(\d+) of (\d+) answers chose the response shown first \(probability ([\d.]+), 95% "
            r"interval ([\d.]+) to ([\d.]+)\)",
            result.evidence,
        )
        assert told
        first, cast = int(told[1]), int(told[2])
        mean = (first + 0.5) / (cast + 1)
        assert [math.exp(x) for x in result.logprobs] == pytest.approx([mean, 1 - mean])
        held += float(told[4]) - 5e-4 <= p <= float(told[5]) + 5e-4
        votes += cast
        squares.append((mean - p) ** 2)
    assert held >= count * 0.95 - 3 * math.sqrt(count * 0.95 * 0.05)
    # As near as the posterior says on average, by all outcomes.
    plan = VotePlan(15, 0.05)
    assert votes / count == pytest.approx(
        sum(plan.expected_votes(p) for _, p in found.values()) / count, rel=0.12
    )
    expected = [
        sum(
            ways * p**a * (1 - p) ** b * ((a + 0.5) / (a + b + 1) - p) ** 2
            for (a, b), ways in plan.outcomes.items()
        )
        for _, p in found.values()
    ]
    assert sum(squares) == pytest.approx(sum(expected), rel=0.25)
    assert len(server.asked) <= votes + 8, "the server is asked for probabilities at first alone"
    assert len({json.dumps(b.get("seed")) for b in server.asked}) > count


def test_answers_that_name_nothing_are_counted_and_then_told(serve: Callable[..., Server]) -> None:
    said = iter(["Neither.", "A", "A", "I can't say.", "A"] * 20)
    server = serve(lambda h, _: say(h, message(content=next(said))))
    (found,) = answers(server, 1, labels="votes").values()
    result, _ = found
    assert isinstance(result, ChoiceResult)
    assert "3 of 3 answers chose the response shown first, and 2 more chose neither" in (
        result.evidence
    )
    assert sum(map(math.exp, result.logprobs)) == pytest.approx(3 / 5)
    server = serve(lambda h, _: say(h, message(content="I'm sorry.")))
    (found,) = answers(server, 1, labels="votes").values()
    assert isinstance(found[0], Failure)
    assert 'none of 3 answers can be read: the answer names no label: "I\'m sorry."' in (
        found[0].reason
    )


def test_refusals_and_filters_are_reasons_of_their_own(serve: Callable[..., Server]) -> None:
    refused = message(content=None, refusal="I won't compare these.")
    (found,) = answers(serve(lambda h, _: say(h, refused)), 1, labels="votes").values()
    assert isinstance(found[0], Failure)
    assert "I won't compare these" in found[0].reason
    stopped = message(content="", finish_reason="content_filter")
    for result, _ in answers(serve(lambda h, _: say(h, stopped)), 40).values():
        assert isinstance(result, Failure)
        assert "content filter" in result.reason


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("votes", 0),
        ("votes", 2.5),
        ("votes", 1000),
        ("vote_error", 0.7),
        ("vote_temperature", 0),
        ("labels", "maybe"),
        ("answer_tokens", True),
        ("continues", "yes"),
    ],
)
def test_odd_options_are_named(serve: Callable[..., Server], option: str, value: Any) -> None:
    with pytest.raises(RlaifError, match=f"for option {option}"):
        create(settings(serve(Drawing("all")), **{option: value}))


def test_a_prompt_is_what_the_template_says_and_nothing_is_lost() -> None:
    codec = MessageCodec()
    shared, tails = 'One "two" \\ \n{"x": 1} ü <|im_', ["end|> three", "four\u2028"]
    context, ends = codec.encode_branches(shared, tails, prefill="So")
    for tail, end in zip(tails, ends, strict=True):
        messages, opening = codec.split_prompt([*context, *end])
        assert opening == "So"
        (turn,) = messages
        assert turn["role"] == "user"
        assert turn["content"].replace("< |", "<|") == shared + tail
    assert "<|im_end|>" not in codec.decode([*context, *ends[0]])
    renderer = Renderer(load_judge_template("pairwise"), codec)
    assert renderer.label_ids == ((65,), (66,))


@pytest.mark.parametrize("gives", ["all", "none"])
def test_label_with_a_server_that_is_asked_once(
    tmp_path: Path, serve: Callable[..., Server], gives: str
) -> None:
    server = serve(Drawing(gives))
    rows = [{"prompt": f"q {k}", "response_a": f"a {k}", "response_b": f"b {k}"} for k in range(12)]
    data = write_rows(tmp_path / "p.jsonl", rows)
    job = prepare(data, "demo", LabelSettings(judge=settings(server), template="pairwise"))
    context = RunContext(cache_dir=tmp_path / "cache")
    summary = run_label(job, tmp_path / "run", context)
    asked = len(server.asked)
    verdicts = read(tmp_path / "run" / "verdicts.jsonl")
    assert summary.tally.pairs == 12
    assert not any(v["invalid"] for v in verdicts)
    if gives == "none":
        assert all("answers chose the response shown first" in v["reasoning"] for v in verdicts)
        assert asked > 3 * len(verdicts)
    else:
        assert asked == len(verdicts)
    assert summary.manifest["tokens"]["written"] == 2 * asked
    assert summary.manifest["last_process"]["tokens"]["planned"] is None, "bytes are no tokens"
    again = run_label(job, tmp_path / "again", context)
    assert len(server.asked) == asked, "a second run finds every answer in the cache"
    assert again.tally == summary.tally


def test_a_judge_that_reasons_is_asked_to_end_its_sentence(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked = body["messages"][-1]["content"]
        said = "B" if asked.startswith("Complete this sentence") else "The second one is politer."
        say(handler, message(content=said))

    server = serve(reply)
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q", "response_a": "a", "response_b": "b"}])
    job = prepare(data, "demo", LabelSettings(judge=settings(server), template="reasoned"))
    run_label(job, tmp_path / "run", RunContext(cache_dir=tmp_path / "cache"))
    verdicts = read(tmp_path / "run" / "verdicts.jsonl")
    assert all(v["reasoning"].startswith("The second one is politer.\n\n0 of ") for v in verdicts)
    roles = [[m["role"] for m in b["messages"]] for b in server.asked]
    assert ["user"] in roles
    assert ["user", "assistant", "user"] in roles


def test_a_run_stops_at_its_cost_and_pays_for_nothing_twice(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    """Every answer costs 102 tokens, at a currency unit each."""
    server = serve(Drawing("all"))
    rows = [{"prompt": f"q {k}", "response_a": f"a {k}", "response_b": f"b {k}"} for k in range(40)]
    data = write_rows(tmp_path / "p.jsonl", rows)
    job = prepare(data, "demo", LabelSettings(judge=settings(server), template="pairwise"))
    context = RunContext(cache_dir=tmp_path / "cache")
    stops = 0
    for most in (2_000.0, 6_000.0, 1e9):
        prices = Prices(computed=1e6, written=1e6, most=most)
        before = len(server.asked)
        if before * 102 < most and most < 1e9:
            with pytest.raises(RlaifError, match=f"has cost {most:g}, as much as --max-cost"):
                run_label(job, tmp_path / "run", context, prices=prices)
            stops += 1
            assert most <= 102 * len(server.asked) <= most + 102 * 9, "those under way are answered"
        else:
            summary = run_label(job, tmp_path / "run", context, prices=prices)
    assert stops == 2
    verdicts = read(tmp_path / "run" / "verdicts.jsonl")
    assert summary.tally.pairs == 40
    assert len(server.asked) == len(verdicts), "nothing is asked twice"
    assert summary.manifest["cost"]["total"] == pytest.approx(102 * len(verdicts))


def test_the_flag_needs_a_price(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q", "response_a": "a", "response_b": "b"}])
    words = ["label", data, "-c", "demo", "-o", str(tmp_path / "r"), "--max-cost", "5"]
    with pytest.raises(RlaifError, match="--max-cost needs a price"):
        CliRunner().invoke(cli, words, catch_exceptions=False)


@pytest.mark.slow
def test_requests_at_once_follow_what_a_server_takes(serve: Callable[..., Server]) -> None:
    lock, now, most, refused = threading.Lock(), [0], [0], [0]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with lock:
            now[0] += 1
            busy = now[0] > 4
            most[0] = max(most[0], now[0])
            refused[0] += busy
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        if busy:
            say(handler, {"error": "slow down"}, 429, Retry_After="0.05")
        else:
            drawn(handler, body)

    drawn = Drawing("all")
    server = serve(reply)
    chosen = settings(server, retries=30).model_copy(update={"max_in_flight": 64})
    with closing(create(chosen)) as engine:
        asked = questions(engine, 300)
        came = [r for batch in engine.run(q for q, _ in asked.values()) for r in batch]
    assert sorted(int(r.id) for r in came) == list(range(300))
    assert all(isinstance(r, ChoiceResult) for r in came)
    assert most[0] > 4, "it tries"
    assert refused[0] < 300, "and learns: each of 64 at once would be refused again and again"


def test_a_limit_halves_once_for_what_was_sent_together() -> None:
    limit = RequestLimit(64)
    sent = time.monotonic()
    for _ in range(60):
        limit.note_busy(sent, 0.0)
    assert limit.allowed == 32
    for _ in range(10):
        limit.note_busy(time.monotonic(), 0.0)
    assert limit.allowed == 1
    for _ in range(10_000):
        limit.note_success()
    assert limit.allowed == 64
    limit.note_busy(time.monotonic(), 30.0)
    assert 29 < limit.pause <= 30


def test_an_empty_answer_is_no_reason_to_draw_votes(serve: Callable[..., Server]) -> None:
    drawn, count = Drawing("all"), [0]

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == 5:
            empty: Any = message(content="")
            empty["choices"][0]["logprobs"] = {"content": []}
            say(handler, empty)
        elif count[0] == 8:
            say(handler, message(content="A"))  # and once without
        else:
            drawn(handler, body)

    server = serve(reply)
    found = answers(server, 30)
    failures = {r.reason for r, _ in found.values() if isinstance(r, Failure)}
    assert failures == {"the answer is blank", "the server gives no log-probabilities of tokens"}
    assert len(server.asked) == 30


def test_another_way_of_asking_is_another_judge(serve: Callable[..., Server]) -> None:
    server = serve(Drawing("all"))
    engines = [create(settings(server, continues=c)) for c in (True, False)]
    assert len({engine.fingerprint for engine in engines}) == 2
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("gives", ["all", "none"])
@pytest.mark.parametrize("chat", [None, {"enable_thinking": False}])
def test_an_honest_run_is_verified_and_made_again_from_its_settings(
    tmp_path: Path, serve: Callable[..., Server], gives: str, chat: dict[str, Any] | None
) -> None:
    """A service that refuses variables of a chat template gets none that nobody set."""

    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if "chat_template_kwargs" in body and chat is None:
            say(handler, {"error": "Unrecognized request argument"}, 400)
        else:
            drawn(handler, body)

    drawn = Drawing(gives)
    server = serve(reply)
    rows = [{"prompt": f"q {k}", "response_a": f"a {k}", "response_b": f"b {k}"} for k in range(6)]
    data = write_rows(tmp_path / "p.jsonl", rows)
    cache = ["--cache-dir", str(tmp_path / "cache")]
    own = ["--engine", "openai", "--judge", "m", "--option", f"base_url={server.url}"]
    own += [] if chat is None else ["--chat-option", "enable_thinking=false"]
    first, second = str(tmp_path / "one"), str(tmp_path / "two")

    def run(*words: str) -> Any:
        return CliRunner().invoke(cli, list(words), catch_exceptions=False)

    assert run("label", data, "-c", "demo", "-o", first, *own, *cache).exit_code == 0
    asked = len(server.asked)
    assert all(("chat_template_kwargs" in b) == (chat is not None) for b in server.asked)
    config = str(tmp_path / "one" / "run.yaml")
    assert run("label", data, "-c", "demo", "-o", second, "--config", config, *cache).exit_code == 0
    assert len(server.asked) == asked, "the same judge: every answer is in the cache"
    told = run("verify", first, *cache)
    assert told.exit_code == 0, told.output


def test_reasoning_costs_what_the_server_says(tmp_path: Path, serve: Callable[..., Server]) -> None:
    def reply(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        asked = body["messages"][-1]["content"]
        ends = asked.startswith("Complete this sentence")
        made: Any = message(content="B" if ends else "word " * 200)
        if ends:
            made["choices"][0] |= choice(("B", {"A": 0.2, "B": 0.7}))
        made["usage"] = {"prompt_tokens": 50, "completion_tokens": 1 if ends else 200}
        say(handler, made)

    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q", "response_a": "a", "response_b": "b"}])
    job = prepare(data, "demo", LabelSettings(judge=settings(serve(reply)), template="reasoned"))
    summary = run_label(job, tmp_path / "run", RunContext(cache_dir=tmp_path / "cache"))
    count = len(read(tmp_path / "run" / "verdicts.jsonl"))
    assert summary.manifest["tokens"]["written"] == 201 * count
