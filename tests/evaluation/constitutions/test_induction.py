"""Planted principles are recovered from preferences alone."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.constitution.load import load_constitution
from rlaif.data.sources import open_source
from rlaif.demo.oracle import compare_by_principle
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.evaluation.constitutions.inducing import induce
from rlaif.evaluation.constitutions.induction import credit_of, merge, parts, read_question
from rlaif.evaluation.labeled import write_pairs
from rlaif.labeling.settings import LabelSettings


def test_questions_are_read_out_of_what_models_write() -> None:
    assert (
        read_question('Sure! "Which response is more polite?"') == "Which response is more polite?"
    )
    assert read_question("1. which answer is\nshorter? It is.") == "Which answer is shorter?"
    assert read_question("The first one is better.") is None
    assert read_question("Which response " + "x" * 300 + "?") is None


def test_words_that_mean_something_in_yaml_are_ids_all_the_same(tmp_path: Path) -> None:
    said = ["Which response is true?", "Which response has 42?", "Which response is null?"]
    rows = [{"prompt": f"q {i}", "chosen": f"x {i}", "rejected": f"y {i}"} for i in range(30)]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = write_pairs(open_source(str(file)), tmp_path / "out")
    settings = LabelSettings(judge=EngineSettings(model="hashed", engine="scripted"))
    found = induce(data, tmp_path / "out", lambda rows: said, settings)
    assert len(found.kept) + len(found.dropped) >= 2
    if not found.kept:
        assert not (tmp_path / "out" / "induced.yaml").exists()
    with pytest.raises(RlaifError, match="invalid constitution name"):
        induce(data, tmp_path / "out", lambda rows: said, settings, name="a: b # c")


def test_near_duplicates_count_together_and_the_commonest_wording_stands() -> None:
    said = (
        ["Which response is more polite?"] * 3
        + ["Which response is a more polite one?"]
        + ["Which response wastes fewer words?"] * 2
    )
    random.Random(0).shuffle(said)
    found = merge(said, 10)
    assert [(c.question, c.proposed) for c in found] == [
        ("Which response is more polite?", 4),
        ("Which response wastes fewer words?", 2),
    ]
    assert len({c.id for c in found}) == 2
    assert len(merge(said, 1)) == 1


def test_pooling_is_that_of_a_tier() -> None:
    from rlaif.judging.aggregation import AggregationSettings, aggregate
    from rlaif.records import PrincipleScore

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 200))
    label = np.where(rng.random(200) < 0.5, 1, -1)
    credit = credit_of(list(np.tanh(logits / 2)), label)
    for i in range(200):
        found = aggregate(
            [PrincipleScore(f"p{k}", 1, 1.0, float(x)) for k, x in enumerate(logits[:, i])],
            AggregationSettings(clear_margin=0.0),
        )
        expected = (
            0.5 if found.winner is None else float({"a": 1, "b": -1}[found.winner] == label[i])
        )
        assert credit[i] == expected


WORDS = {
    "be-polite": [
        "Which response is polite and not rude?",
        "Which response is polite and is not rude?",
    ],
    "be-concise": ["Which response is concise and has no padding?"],
    "stay-on-topic": ["Which response stays on the topic of the question?"],
    "protect-personal-data": ["Which response protects the private data of people?"],
    "refuse-danger": ["Which response gives no instructions for dangerous acts?"],
}


def scripted_proposer(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Proposes all principles alike, the planted ones in several wordings, and some noise."""
    rng = random.Random(4)
    said = []
    for _ in rows:
        name = rng.choice(list(WORDS))
        said += [f"Rule: {rng.choice(WORDS[name])}", "I like the first one."]
    return said


@pytest.mark.slow
@pytest.mark.parametrize("planted", [("be-polite",), ("be-polite", "be-concise")])
def test_planted_principles_are_recovered_with_the_demo_judge(
    tmp_path: Path, planted: tuple[str, ...]
) -> None:
    """Real verdicts (vLLM): people who care for the planted principles alone, with 8% of noise."""
    rng = random.Random(1)
    lines = []
    for p in World(12, "test", {"howto": 1}).pairs(330):
        votes = sum(
            compare_by_principle(name, p.prompt, p.response_a, p.response_b) for name in planted
        )
        if votes:
            label = (votes > 0) != (rng.random() < 0.08)
            lines.append(
                {
                    "prompt": p.prompt,
                    "response_a": p.response_a,
                    "response_b": p.response_b,
                    "label": "a" if label else "b",
                }
            )
    lines = lines[:150]
    assert len(lines) == 150
    data_file = tmp_path / "data.jsonl"
    data_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = write_pairs(open_source(str(data_file)), tmp_path / "out")
    settings = LabelSettings(judge=EngineSettings(model="demo", engine="vllm"), template="demo")
    found = induce(data, tmp_path / "out", scripted_proposer, settings, pairs=40)
    kept = {k.candidate.question for k in found.kept}
    assert kept == {WORDS[name][0] for name in planted} or (
        len(kept) == len(planted) and all(any(q in WORDS[n] for q in kept) for n in planted)
    )
    assert found.accuracy.value > 0.8
    assert all(k.accuracy.value > 0.75 for k in found.kept)
    dropped = {c.question for c, _ in found.dropped}
    assert WORDS["stay-on-topic"][0] in dropped
    # The draft is a constitution: it loads, says what was measured, and its examples are real.
    text = (tmp_path / "out" / "induced.yaml").read_text()
    assert "held-out pairs" in text
    draft = load_constitution(str(tmp_path / "out" / "induced.yaml")).constitution
    assert {p.preference for p in draft.principles} == kept
    responses = {line[k] for line in lines for k in ("response_a", "response_b")}
    for principle in draft.principles:
        assert principle.examples
        assert all(e.chosen in responses and e.rejected in responses for e in principle.examples)
    # Nothing was proposed for, and no principle was chosen on, pairs kept aside.
    part = parts(data.group)
    assert 0.3 < (part == 0).mean() < 0.7
    learned = {lines[i]["response_a"] for i in np.flatnonzero(part == 0)}
    learned |= {lines[i]["response_b"] for i in np.flatnonzero(part == 0)}
    assert all(e.chosen in learned for p in draft.principles for e in p.examples)


def test_from_the_command_line(tmp_path: Path) -> None:
    """The scripted engine writes no question: one clear error; its texts and verdicts are cached."""
    rows = [{"prompt": f"q {i}", "chosen": f"x {i}", "rejected": f"y {i}"} for i in range(12)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        RlaifError, match="proposals is a question that starts with 'Which response'"
    ):
        CliRunner().invoke(
            cli,
            [
                "constitution",
                "induce",
                str(data),
                "-m",
                "hashed",
                "-j",
                "hashed",
                "--engine",
                "scripted",
                "-o",
                str(tmp_path / "out"),
            ],
            catch_exceptions=False,
        )
