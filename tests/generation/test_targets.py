"""`rlaif generate --target`: by length, language and principle."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.demo.oracle import read_response
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.generation.candidates import GenerateSettings, SamplingSettings, Teacher
from rlaif.generation.targets import best
from rlaif.labeling.settings import LabelSettings
from tests.generation.helpers import generate, read, teacher, use_writer, write_rows


def test_targets_by_length_and_language_need_no_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [7, 3, 9, 5]
    order = iter(range(10**6))
    use_writer(monkeypatch, lambda text, request: "w " * lengths[next(order) % 4])
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": "q"}])
    for target, expected in (("length:short", 3), ("length:long", 9), ("length:5-6", 5)):
        order = iter(range(10**6))
        name = target.replace(":", "-")
        generate(
            data,
            tmp_path / name,
            [teacher(n=4)],
            GenerateSettings(keep=1, near_duplicate=1.0),
            targets=[target],
            cache=tmp_path / f"cache-{name}",
        )
        (row,) = read(tmp_path / name / "candidates.jsonl")
        assert len(row["completions"][0]["content"].split()) == expected
    texts = ["the house is very large", "das Haus ist sehr schön", "la maison est très belle"]
    other = iter(range(10**6))
    use_writer(monkeypatch, lambda text, request: texts[next(other) % 3])
    for language, expected in (("de", 1), ("fr", 2), ("en", 0)):
        other = iter(range(10**6))
        generate(
            data,
            tmp_path / language,
            [teacher(n=3)],
            GenerateSettings(keep=1),
            targets=[f"language:{language}"],
            cache=tmp_path / f"cache-{language}",
        )
        (row,) = read(tmp_path / language / "candidates.jsonl")
        assert row["completions"][0]["content"] == texts[expected]
    constitution = tmp_path / "c.yaml"
    constitution.write_text(
        "schema: 1\nname: c\nversion: '1'\nprinciples:\n"
        "  - {id: brief, check: {kind: max_length, words: 4}}\n"
    )
    third = iter(range(10**6))
    use_writer(monkeypatch, lambda text, request: ["a b c d e", "f g h", "i j k l m"][next(third)])
    summary = generate(
        data,
        tmp_path / "check",
        [teacher(n=3)],
        GenerateSettings(keep=1),
        constitution=str(constitution),
        targets=["principle:brief"],
        cache=tmp_path / "cache-c",
    )
    (row,) = read(tmp_path / "check" / "candidates.jsonl")
    assert row["completions"][0]["content"] == "f g h"
    assert summary.counts["sum of all: principle:brief"] == pytest.approx(1 / 3)
    assert summary.counts["sum of kept: principle:brief"] == 1.0
    assert best([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0]], 2) == [2, 1]
    assert best([[0.0, 0.0]], 1) == [0]


@pytest.mark.slow
def test_drawing_towards_a_principle_lowers_what_it_forbids(tmp_path: Path) -> None:
    """Active inheritance on the demo world: padding falls by at least 40%, no prompt is lost."""
    world = World(32, "test")
    texts = [world.prompt() for _ in range(80)]
    data = write_rows(tmp_path / "p.jsonl", [{"prompt": text} for text in texts])
    policy = Teacher(EngineSettings(model="demo-policy"), SamplingSettings(n=8, max_tokens=120))

    def padded(name: str) -> float:
        found = [
            read_response(r["prompt"][0]["content"], c["content"]).filler > 0
            for r in read(tmp_path / name / "candidates.jsonl")
            for c in r["completions"]
        ]
        return sum(found) / len(found)

    generate(data, tmp_path / "plain", [policy], GenerateSettings())
    generate(
        data,
        tmp_path / "drawn",
        [policy],
        GenerateSettings(keep=1),
        constitution="demo",
        judge=LabelSettings(judge=EngineSettings(engine="packed", model="demo"), template="demo"),
        targets=["principle:be-concise"],
    )
    assert len(read(tmp_path / "drawn" / "candidates.jsonl")) == len(
        read(tmp_path / "plain" / "candidates.jsonl")
    )
    assert padded("plain") > 0.2
    assert padded("drawn") <= 0.6 * padded("plain")
