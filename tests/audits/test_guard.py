"""`rlaif guard` and the measures of diversity."""

from __future__ import annotations

import math
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from rlaif.audits.audit import AuditReport, audit
from rlaif.audits.rows import read_audited
from rlaif.audits.thresholds import Thresholds
from rlaif.cli.main import main
from rlaif.demo.world import World
from rlaif.errors import RlaifError
from rlaif.generation.candidates import (
    GenerateSettings,
    SamplingSettings,
    Teacher,
    prepare_generate,
)
from rlaif.generation.runner import run_generation
from rlaif.records import GenerationRequest
from rlaif.runs.context import RunContext
from rlaif.text.diversity import (
    bleu,
    compression_ratio,
    diversity,
    matched,
    self_bleu,
    self_repetition,
)
from tests.generation.helpers import SCRIPTED, read, use_writer, write_rows


def guard(path: str, reference: str | None, limits: Thresholds) -> AuditReport:
    return audit(read_audited(path), read_audited(reference) if reference else None, limits)


WORDS = [f"w{i}" for i in range(500)]


def samples(seed: int, count: int, *, kinds: int | None = None) -> list[str]:
    """Responses of the demo world; with `kinds` drawn from so many only: a collapsed model."""
    world = World(seed, "train")
    prompts = [world.prompt() for _ in range(count)]
    if kinds is None:
        return [world.response(p) for p in prompts]
    few = [world.response(p) for p in prompts[:kinds]]
    rng = random.Random(seed)
    return [rng.choice(few) for _ in range(count)]


def data(path: Path, texts: list[str], **more: Any) -> str:
    rows = [
        {"prompt": f"q {i}", "completions": [{"content": text, "model": "m", **more}]}
        for i, text in enumerate(texts)
    ]
    return write_rows(path, rows)


def test_measures_equal_their_definitions() -> None:
    texts = ["the cat sat on the mat today", "the cat sat on the mat again", "a dog ran far off"]
    joined = "\n".join(texts).encode()
    assert compression_ratio(texts) == len(joined) / len(zlib.compress(joined, 9))
    split = [t.split() for t in texts]
    # Runs of six: 2 in each of the first two texts, none in the third; one is in both.
    assert self_repetition(split) == 2 / 4
    # BLEU by hand: 6 of 7 words, 5 of 6 pairs, 4 of 5 triples, 3 of 4 quadruples occur.
    expected = math.exp((math.log(6 / 7) + math.log(6 / 7) + math.log(5 / 6) + math.log(4 / 5)) / 4)
    assert bleu(split[0], [split[1]]) == pytest.approx(expected)
    # A candidate of 3 words beside a reference of 5 pays exp(1 - 5/3).
    short = bleu(["a", "b", "c"], [["a", "b", "c", "d", "e"]])
    assert short == pytest.approx(math.exp(1 - 5 / 3))
    assert self_bleu([["a", "b"], ["a", "b"]]) == pytest.approx(1.0)
    assert bleu(["x"], [["y"]]) == 0.0


def test_sets_are_compared_at_equal_length() -> None:
    long, short = ["w " * 50] * 9, ["v " * 10] * 20
    one, two = matched(long, short)
    assert [len(t.split()) for t in one] == [len(t.split()) for t in two] == [10] * 9
    # What is kept lies anywhere: a shared opening must not hide what follows it.
    opening = "thank you for your question and here is what I think of it "
    varied = [opening + " ".join(str(hash((i, j))) for j in range(40)) for i in range(50)]
    refusals = [opening.strip()] * 50
    now, then = (diversity(side) for side in matched(refusals, varied))
    assert (1 - now.self_repetition) < 0.8 * (1 - then.self_repetition)
    # The measure itself grows with the amount of text: without matching it would mislead.
    texts = samples(3, 400)
    assert compression_ratio(texts) > 1.1 * compression_ratio(texts[:40])


@pytest.mark.slow
def test_the_guard_trips_on_collapse_and_not_on_another_sample(tmp_path: Path) -> None:
    reference = data(tmp_path / "ref.jsonl", samples(1, 200))
    tripped = 0
    for seed in range(2, 12):
        again = data(tmp_path / "again.jsonl", samples(seed, 200))
        tripped += bool(guard(again, reference, Thresholds()).tripped)
    assert tripped == 0
    collapsed = data(tmp_path / "few.jsonl", samples(2, 200, kinds=10))
    report = guard(collapsed, reference, Thresholds())
    groups = [item["group"] for item in report.tripped]
    assert groups.count("diversity") == 4
    assert "duplicates" in groups
    lost = [item["what"] for item in report.tripped if item["group"] == "diversity"]
    assert all("of the reference's, under the limit of 85.0%" in line for line in lost)
    assert diversity(samples(2, 200, kinds=10)).self_repetition > 0.9


def test_human_share_goes_by_weight_and_depth_is_limited(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a human prompt", "weight": 3, "origin": {"kind": "human", "depth": 0}},
        {"prompt": "a new prompt", "weight": 9, "origin": {"kind": "model", "depth": 2}},
    ]
    found = guard(write_rows(tmp_path / "r.jsonl", rows), None, Thresholds(min_human=0.2))
    assert (found.human_written, found.depth, found.sentences) == (0.25, 2, [])
    found = guard(str(tmp_path / "r.jsonl"), None, Thresholds(min_human=0.3, max_depth=1))
    assert found.sentences == [
        "the human-written share is 25.0%, below the minimum of 30.0%",
        "a row is 2 synthetic generations deep, above the maximum of 1",
    ]
    plain = write_rows(tmp_path / "p.jsonl", [{"prompt": "x y"}])
    assert guard(plain, None, Thresholds()).human_written is None
    assert "unknown" in guard(plain, None, Thresholds(min_human=0.2)).sentences[0]
    with pytest.raises(RlaifError, match="no row with a prompt"):
        guard(write_rows(tmp_path / "n.jsonl", [{"x": 1}]), None, Thresholds())


@pytest.mark.slow
def test_one_text_for_each_prompt_is_lost_diversity_though_duplicates_were_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight samples a prompt: one model says eight things, the other eight times the same."""
    prompts = write_rows(tmp_path / "p.jsonl", [{"prompt": f"question {i}"} for i in range(30)])

    def healthy(text: str, request: GenerationRequest) -> str:
        rng = random.Random(f"{text}/{request.seed}")
        return " ".join(rng.choice(WORDS) for _ in range(20))

    def collapsed(text: str, request: GenerationRequest) -> str:
        rng = random.Random(text)
        return " ".join(rng.choice(WORDS) for _ in range(20))

    paths = {}
    for name, writer in (("healthy", healthy), ("again", healthy), ("collapsed", collapsed)):
        use_writer(monkeypatch, writer)
        settings = GenerateSettings(seed=len(paths))
        job = prepare_generate(prompts, [Teacher(SCRIPTED, SamplingSettings(n=8))], settings)
        run_generation(
            job, tmp_path / name, context=RunContext(cache_dir=tmp_path / f"{name}-cache")
        )
        paths[name] = str(tmp_path / name / "candidates.jsonl")
    assert len(read(tmp_path / "collapsed" / "candidates.jsonl")[0]["completions"]) == 1
    assert not guard(paths["again"], paths["healthy"], Thresholds()).tripped
    report = guard(paths["collapsed"], paths["healthy"], Thresholds())
    assert {item["group"] for item in report.tripped} >= {"diversity", "tail"}


def test_too_few_texts_are_no_comparison(tmp_path: Path) -> None:
    reference = data(tmp_path / "ref.jsonl", samples(1, 60))
    few = data(tmp_path / "few.jsonl", samples(2, 9))
    (reason,) = guard(few, reference, Thresholds()).sentences
    assert "9 rows against 60, minimum 20" in reason


def test_the_command_ends_with_3_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = data(tmp_path / "ref.jsonl", samples(1, 60))
    few = data(tmp_path / "few.jsonl", samples(2, 60, kinds=3))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["rlaif", "guard", few, "--against", reference])
    with pytest.raises(SystemExit) as done:
        main()
    shown = capsys.readouterr()
    assert done.value.code == 3
    assert "error: the guard tripped: " in shown.err
    assert "diversity by compression ratio" in shown.out
