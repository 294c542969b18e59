"""`rlaif critique`: exact traces with the scripted engine; on real vLLM the oracle has its say."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli, main
from rlaif.data.layout import OWN_TEXT_PAIRS
from rlaif.demo import fixing
from rlaif.demo.oracle import TIERS, compare_by_principle, prefer
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.engines.scripted import ByteCodec
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.generation import runner as writing
from rlaif.generation.critique import CritiqueSettings, prepare_critique
from rlaif.generation.runner import GenerationSummary, run_generation
from rlaif.generation.verified import write_sft
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import GenerationRequest
from rlaif.runs.context import RunContext
from rlaif.runs.labels import read_labels
from rlaif.templates.writer import load_template, load_writer_templates
from tests.generation.helpers import SCRIPTED, read, use_writer, write_rows

CONSTITUTION = """\
schema: 1
name: marks
version: "1"
principles:
  - id: no-x
    preference: Which has no x?
    critique: Find x.
    revision: Remove x.
    examples:
      - {prompt: p, chosen: fine, rejected: x-ample, why: it has an x}
  - {id: no-y, preference: "Which has no y?", critique: Find y., revision: Remove y.}
  - {id: no-z, preference: "Which has no z?", critique: Find z., revision: Remove z.,
     applies_to: {tags: [z]}}
  - {id: silent, preference: "Which is silent?"}
"""


def scribe(text: str, request: GenerationRequest) -> str:
    """Finds the letter that it is asked for, and takes one of them away."""
    response = re.findall(r"\[Response\]\n(.*)\n\n", text)[-1]
    letter = re.findall(r"(?:Find|Remove) (\w)\.", text)[-1]
    if "[Critique request]" in text:
        return f"There is {letter}." if letter in response else "No critique needed. Really."
    return response.replace(letter, "", 1)


def fewer(text: str) -> tuple[float, float]:
    """A judge that likes whichever has fewer of the letter."""
    first, second = re.findall(r"\nA: (.*)\nB: (.*)\n", text)[0]
    letter = re.findall(r"no (\w)\?", text)
    if not letter:
        return 0.0, 0.99
    return 4.0 * (second.count(letter[-1]) - first.count(letter[-1])), 0.99


def critique(
    folder: Path, rows: list[dict[str, Any]], out: str = "run", **settings: Any
) -> tuple[GenerationSummary, list[dict[str, Any]]]:
    (folder / "c.yaml").write_text(CONSTITUTION)
    data = write_rows(folder / "rows.jsonl", rows)
    settings = {"temperature": 0.0, **settings}
    cache = settings.pop("cache", folder / "cache")
    job = prepare_critique(
        data,
        str(folder / "c.yaml"),
        SCRIPTED,
        CritiqueSettings(**settings),
        templates="plain",
        judge=LabelSettings(judge=SCRIPTED, template="demo"),
    )
    summary = run_generation(job, folder / out, context=RunContext(cache_dir=cache))
    return summary, read(folder / out / "trace.jsonl")


def test_each_round_draws_a_principle_that_applies_and_ends_when_all_are_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, scribe)
    rows = [
        {"id": "a", "prompt": "p", "responses": ["a x marks xy b"]},
        {"id": "b", "prompt": "p", "responses": ["clean", "zebra"]},
        {"id": "c", "prompt": "p", "responses": ["zebra"], "tags": ["z"]},
        {"id": "d", "nothing": 1},
    ]
    summary, traces = critique(tmp_path, rows, rounds=20)
    found = {t["id"]: t for t in traces}
    assert [t["id"] for t in traces] == ["a/1", "b/1", "b/2", "c/1"]
    assert found["a/1"]["final"] == "a  marks  b"
    assert found["b/1"]["status"] == found["b/2"]["status"] == "unchanged"
    assert found["c/1"]["final"] == "ebra", "no-z applies to its tag alone"
    assert summary.counts["rejected"] == 1
    for trace in traces:
        text = trace["original"]
        clear: set[str] = set()
        for step in trace["steps"]:
            assert step["principle"] not in clear, "nothing was found by it, and nothing changed"
            letter = step["principle"][-1]
            if letter in text:
                assert step["critique"] == f"There is {letter}."
                assert step["revision"] == text.replace(letter, "", 1)
                assert (step["taken"], step["outcome"]) == (True, "revised")
                text, clear = step["revision"], set()
            else:
                assert (step["taken"], step["outcome"]) == (False, "nothing found")
                clear.add(step["principle"])
        assert text == trace["final"]
        applicable = {"no-x", "no-y", "no-z"} if trace["tags"] else {"no-x", "no-y"}
        assert clear == applicable, "it ends when every principle has had its say"
    pairs = read(tmp_path / "run" / "pairs.jsonl")
    assert [(p["id"], p["response_a"], p["response_b"]) for p in pairs] == [
        ("a/1", "a x marks xy b", "a  marks  b"),
        ("c/1", "zebra", "ebra"),
    ]


def test_principles_are_drawn_by_seed_and_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, scribe)
    rows = [{"id": f"r{i}", "prompt": "p", "response": f"xy {i}"} for i in range(300)]
    _, one = critique(tmp_path, rows, "one", rounds=1)
    _, two = critique(tmp_path, rows, "two", rounds=1)
    _, other = critique(tmp_path, rows, "other", rounds=1, seed=1)
    drawn = [[t["steps"][0]["principle"] for t in traces] for traces in (one, two, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert 110 < Counter(drawn[0])["no-x"] < 190


def test_all_takes_each_principle_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, scribe)
    rows = [{"prompt": "p", "response": "w xxyy"}]
    _, (trace,) = critique(tmp_path, rows, rounds=2, principles="all")
    assert [(s["round"], s["principle"]) for s in trace["steps"]] == [
        (1, "no-x"),
        (1, "no-y"),
        (2, "no-x"),
        (2, "no-y"),
    ]
    assert trace["final"] == "w"


def test_worst_takes_what_the_judge_finds_to_gain_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer removes one x or all y: by the judge the second gains more."""

    def writer(text: str, request: GenerationRequest) -> str:
        if "[Critique request]" not in text and "Remove y" in text:
            return re.findall(r"\[Response\]\n(.*)\n\n", text)[-1].replace("y", "")
        return scribe(text, request)

    use_writer(monkeypatch, writer, fewer)
    rows = [{"prompt": "p", "response": "x xx yyy"}]
    _, (trace,) = critique(tmp_path, rows, rounds=2, principles="worst")
    steps = [(s["round"], s["principle"], s["outcome"]) for s in trace["steps"]]
    assert steps[:2] == [(1, "no-x", "another gained more"), (1, "no-y", "revised")]
    assert (2, "no-x", "revised") in steps
    expected = math.tanh(4.0 * 3 / 2)
    assert trace["steps"][1]["gain"] == pytest.approx(expected, abs=1e-4)


def test_without_gain_no_revision_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that likes x: removing it is no gain, removing y is."""

    def rule(text: str) -> tuple[float, float]:
        logit, mass = fewer(text)
        return (-logit if "no x" in text else logit), mass

    use_writer(monkeypatch, scribe, rule)
    rows = [{"prompt": "p", "response": "w xy"}]
    _, (trace,) = critique(tmp_path, rows, rounds=9, until_no_gain=True)
    assert trace["final"] == "w x"
    outcomes = {s["principle"]: s["outcome"] for s in trace["steps"]}
    assert outcomes == {"no-x": "no gain", "no-y": "nothing found"}
    gains = [s["gain"] for s in trace["steps"] if s["outcome"] == "no gain"]
    assert all(gain < 0 for gain in gains)


def test_a_writer_that_fails_ends_its_chain_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writer(text: str, request: GenerationRequest) -> str:
        return "y" * 5000 if "\nlong x" in text else scribe(text, request)

    use_writer(monkeypatch, writer)
    rows = [{"prompt": "p", "response": r} for r in ("long x", "w x")]
    summary, (one, two) = critique(tmp_path, rows, rounds=9)
    assert (one["status"], one["ended"]) == ("failed", "failed: cut at the token limit")
    assert two["final"] == "w"
    assert summary.counts["failed"] == 1


def test_a_response_that_no_writer_could_read_is_rejected_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, scribe)
    whole = ByteCodec.encode_chat

    def encode_chat(self: ByteCodec, messages: Any) -> list[int]:
        if len(messages[0]["content"]) > 10_000:
            raise ConversationRefused("the prompt has too many characters")
        return whole(self, messages)

    monkeypatch.setattr(ByteCodec, "encode_chat", encode_chat)
    rows = [
        {"id": "a", "prompt": "p", "responses": ["fox", "x" * 20_000, "box"]},
        {"id": "b", "prompt": "p", "responses": ["ox"]},
    ]
    summary, traces = critique(tmp_path, rows, rounds=1)
    assert [t["id"] for t in traces] == ["a/1", "a/3", "b/1"]
    assert summary.counts["rejected"] == 1
    (rejected,) = read(tmp_path / "run" / "rejected.jsonl")
    assert "too many characters" in rejected["reason"]


def test_examples_of_a_principle_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = use_writer(monkeypatch, scribe)
    critique(tmp_path, [{"prompt": "p", "response": "xy"}], rounds=4, principles="all")
    asked = engines[0].asked
    about_x = [t for t in asked if "Find x." in t]
    assert all("Response: x-ample\nCritique: it has an x\n\n" in t for t in about_x)
    assert any("Critique: it has an x\nRevision: fine\n\n" in t for t in asked if "Remove x." in t)
    assert not any("x-ample" in t for t in asked if "Find y." in t)
    engines = use_writer(monkeypatch, scribe)
    critique(tmp_path, [{"prompt": "p", "response": "xy"}], "bare", rounds=2, examples=0)
    assert not any("x-ample" in t for t in engines[0].asked)


def test_a_run_that_was_stopped_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "CHECKPOINT_SECONDS", 0.0)
    rows = [{"id": f"r{i}", "prompt": "p", "response": f"x{'y' * (i % 4)} {i}"} for i in range(80)]
    whole_engines = use_writer(monkeypatch, scribe)
    critique(tmp_path, rows, "whole", rounds=8)
    engines = use_writer(monkeypatch, scribe)
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    job = prepare_critique(
        str(tmp_path / "rows.jsonl"),
        str(tmp_path / "c.yaml"),
        SCRIPTED,
        CritiqueSettings(temperature=0.0, rounds=8),
        templates="plain",
        judge=LabelSettings(judge=SCRIPTED, template="demo"),
    )
    for after in (2, 7, 20):
        seen = 0

        def stop(progress: Any, after: int = after) -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_generation(
                job,
                tmp_path / "cut",
                context=RunContext(cache_dir=tmp_path / "k", on_progress=stop),
            )
    run_generation(job, tmp_path / "cut", context=RunContext(cache_dir=tmp_path / "k"))
    for name in ("trace.jsonl", "pairs.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    asked = Counter(text for engine in engines for text in engine.asked)
    once = Counter(text for engine in whole_engines for text in engine.asked)
    lost = sum((asked - once).values())
    assert lost <= 3 * SCRIPTED.most_in_flight, "only what was in flight is asked again"


def test_depth_goes_on_through_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_writer(monkeypatch, scribe)
    row = {"prompt": "p", "completions": [{"content": "a xy b", "origin": {"depth": 5}}]}
    _, (trace,) = critique(tmp_path, [row], rounds=4)
    assert trace["origin"]["depth"] == 6
    job = prepare(
        str(tmp_path / "run" / "pairs.jsonl"),
        str(tmp_path / "c.yaml"),
        LabelSettings(judge=SCRIPTED, template="demo"),
    )
    run_label(job, tmp_path / "labels")
    found = [
        row["provenance"]["depth"]
        for name in ("preferences.jsonl", "undecided.jsonl")
        for row in read(tmp_path / "labels" / name)
    ]
    assert found == [6]


def test_a_judge_that_says_nothing_is_not_taken_for_no_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_writer(monkeypatch, scribe, lambda text: "broken")
    rows = [{"prompt": "p", "response": "w xy"}]
    _, (trace,) = critique(tmp_path, rows, rounds=9, until_no_gain=True)
    assert trace["status"] == "failed"
    assert "the judge abstained" in trace["ended"]


def test_templates_that_lack_something_are_named_with_their_place(tmp_path: Path) -> None:
    bad = tmp_path / "critique.txt"
    bad.write_text("---\nnothing: None.\n---\n{{conversation}} {{respnse}} {{request}}\n")
    (tmp_path / "revision.txt").write_text("{{conversation}}{{response}}{{critique}}{{request}}")
    with pytest.raises(RlaifError, match=r"critique\.txt:4:18: .*placeholder \{\{respnse\}\}"):
        load_writer_templates(str(tmp_path))
    bad.write_text("{{conversation}} {{response}} {{request}}\n")
    with pytest.raises(RlaifError, match="is missing the setting 'nothing'"):
        load_writer_templates(str(tmp_path))
    bad.write_text("---\nnothing: None.\n---\n{{conversation}} {{response}}\n")
    with pytest.raises(RlaifError, match=r"is missing the placeholder \{\{request\}\}"):
        load_writer_templates(str(tmp_path))
    with pytest.raises(RlaifError, match="Did you mean 'plain'"):
        load_template("plian", "critique", required=())
    braces = load_writer_templates("plain").critique.render(
        conversation="{{response}}", response="r {{request}}", request="q", examples=""
    )
    assert "{{response}}" in braces
    assert "r {{request}}" in braces


def test_a_constitution_without_critiques_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "schema: 1\nname: c\nversion: '1'\nprinciples:\n  - {id: a, preference: Which}\n"
    )
    data = write_rows(tmp_path / "r.jsonl", [{"prompt": "p", "response": "r"}])
    with pytest.raises(RlaifError, match="no principle of 'c' has both a critique"):
        prepare_critique(
            data,
            str(tmp_path / "c.yaml"),
            SCRIPTED,
            CritiqueSettings(),
            templates="plain",
            judge=LabelSettings(judge=SCRIPTED, template="demo"),
        )


def test_what_the_demo_writer_is_to_learn_leaves_no_flaw() -> None:
    world = World(9, "train")
    for _ in range(300):
        prompt = world.prompt()
        response = world.response(prompt)
        for principle in TIERS:
            better = fixing.revision(principle, prompt, response, world)
            assert fixing.critique(principle, prompt, better) == fixing.NOTHING
            if better != response:
                assert compare_by_principle(principle, prompt, better, response) == 1
            for other in TIERS:
                assert compare_by_principle(other, prompt, response, better) <= 0, (
                    "no other principle suffers"
                )


def revise(folder: Path, temperature: str) -> Path:
    """Responses of the demo world's test split, revised by the demo writer on real vLLM."""
    world = World(41, "test")
    rows = []
    for i in range(120):
        prompt = world.prompt()
        rows.append({"id": f"t{i}", "prompt": prompt, "response": world.response(prompt)})
    data = write_rows(folder / "rows.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            [
                "rlaif",
                "critique",
                data,
                "-c",
                "demo",
                "-o",
                str(folder / "run"),
                "--rounds",
                "6",
                "--judge-engine",
                "packed",
                "--temperature",
                temperature,
                "--cache-dir",
                str(folder / "cache"),
            ],
        )
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def revised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By a careful writer."""
    return revise(tmp_path_factory.mktemp("revised"), "0")


@pytest.fixture(scope="module")
def botched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By a careless one: at this temperature it often makes things worse."""
    return revise(tmp_path_factory.mktemp("botched"), "1.7")


def _violated(prompt: str, text: str) -> int:
    """How many principles a response goes against, by the oracle."""
    return sum(bool(fixing.flaws(p, prompt, text)) for p in TIERS)


@pytest.mark.slow
def test_harm_does_not_grow_over_rounds_and_revisions_help(revised: Path) -> None:
    traces = read(revised / "trace.jsonl")
    rounds: list[list[int]] = [[] for _ in range(7)]
    better = Counter()
    for trace in traces:
        prompt, text = trace["prompt"][0]["content"], trace["original"]
        by_round = {s["round"]: s["revision"] for s in trace["steps"] if s["taken"]}
        for number in range(7):
            text = by_round.get(number, text)
            rounds[number].append(_violated(prompt, text))
        better[prefer(prompt, trace["final"], trace["original"])] += 1
    harm = [sum(column) / len(column) for column in rounds]
    assert all(after <= before for before, after in pairwise(harm)), harm
    assert harm[-1] < 0.5 * harm[0], harm
    assert better[1] > 5 * better[-1], better


@pytest.mark.slow
def test_verified_pairs_are_right_more_often_than_assumed_ones(botched: Path) -> None:
    """Assumed: the revision wins.  Verified: what the judge says, where it is sure."""
    pairs = {p["id"]: p for p in read(botched / "pairs.jsonl")}

    def truth(pair: dict[str, Any], winner: str) -> int:
        loser = pair["response_a"] if winner == pair["response_b"] else pair["response_b"]
        return prefer(pair["prompt"][0]["content"], winner, loser)

    assumed = Counter(truth(p, p["response_b"]) for p in pairs.values())
    verified = Counter(
        truth(pairs[row["provenance"]["id"]], row["chosen"][0]["content"])
        for row in read(botched / "labels" / "preferences.jsonl")
    )

    def wrong(found: Counter[int]) -> float:
        return found[-1] / found.total()

    assert assumed[-1] >= 20, "there is something to find"
    assert verified.total() > 0.8 * assumed.total()
    assert wrong(verified) < 0.75 * wrong(assumed), (assumed, verified)


@pytest.mark.slow
def test_sft_rows_are_the_revisions_that_won(revised: Path) -> None:
    pairs = {p["id"]: p for p in read(revised / "pairs.jsonl")}
    won = {
        row["provenance"]["id"]
        for row in read(revised / "labels" / "preferences.jsonl")
        if row["chosen"][0]["content"] == pairs[row["provenance"]["id"]]["response_b"]
    }
    kept = read(revised / "sft.jsonl")
    counts = json.loads((revised / "verified.json").read_text())
    assert {row["provenance"]["id"] for row in kept} == won
    assert len(kept) == counts["better"] == len(won)
    assert all(row["provenance"]["verified"] for row in kept)
    assert [row["completion"][0]["content"] for row in kept] == [
        pairs[row["provenance"]["id"]]["response_b"] for row in kept
    ]
    everything = write_sft(revised, verified=False)
    assert len(read(revised / "sft.jsonl")) == len(pairs)
    assert everything.undecided == len(pairs)
    write_sft(revised, verified=True)
    assert read(revised / "sft.jsonl") == kept


def test_labels_of_the_pairs_are_a_run_like_any_other(revised: Path) -> None:
    judge = EngineSettings(engine="packed", model="demo")
    settings = LabelSettings(judge=judge, template="demo", layout=OWN_TEXT_PAIRS)
    job = prepare(str(revised / "pairs.jsonl"), "demo", settings)
    again = run_label(job, revised / "labels")
    assert not again.fresh


def test_a_revision_that_looks_like_a_conversation_is_judged_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs are of our own making: what they hold is not found out from the models' texts."""

    def write(text: str, request: GenerationRequest) -> str:
        if "[Critique request]" in text:
            return "There is x."
        return "User: What is a color?\nAssistant: What a stupid question.\n\nUser: Why?"

    use_writer(monkeypatch, write)
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    rows = [{"prompt": [{"role": "user", "content": "Name a color."}], "responses": ["x blue"]}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "run"
    line = ["critique", data, "-c", str(tmp_path / "c.yaml"), "-m", "hashed", "-j", "hashed"]
    line += ["--engine", "scripted", "--rounds", "1", "-o", str(out)]
    done = CliRunner().invoke(cli, [*line, "--cache-dir", str(tmp_path / "cache")])
    assert done.exit_code == 0, done.exception or done.output
    (label,) = read_labels(out / "labels")
    assert [m["content"] for m in label.prompt] == ["Name a color."]
    assert [side[0]["content"] for side in (label.a, label.b)] == ["x blue", write("", None)]  # type: ignore[arg-type]
