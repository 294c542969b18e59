"""Examples as unit tests; coverage and ablation against worlds whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr

from rlaif.cli.main import cli
from rlaif.constitution.load import load_constitution
from rlaif.constitution.review import lint
from rlaif.constitution.wording import joined_qualities
from rlaif.errors import RlaifError
from rlaif.evaluation.constitutions.coverage import REDUNDANT, ablate, coverage, ties
from rlaif.evaluation.outcomes import Outcomes, PrincipleOutcomes
from rlaif.judging.aggregation import AggregationSettings, aggregate
from rlaif.records import CLEAR

SWAPPED = """\
schema: 1
name: mine
version: "1"
principles:
  - id: be-polite
    preference: Which response is polite and not rude?
    examples:
      - {prompt: "How do I clean a small kettle?", chosen: Thank you for asking. Clean the kettle with warm water.,
         rejected: That is a silly question. Clean the kettle with warm water.}
      - {prompt: "How do I clean a small kettle?", chosen: That is a silly question. Clean the kettle with warm water.,
         rejected: Thank you for asking. Clean the kettle with warm water.}
  - id: short
    check: {kind: max_length, words: 3}
    examples:
      - {prompt: q, chosen: one two, rejected: one two three four}
"""


def invoke(*args: str) -> Any:
    return CliRunner().invoke(cli, ["constitution", *args])


@pytest.mark.slow
def test_examples_pass_and_fail_as_the_judge_says(tmp_path: Path) -> None:
    """The demo judge on real vLLM: an example whose answers are swapped fails, with its place."""
    path = tmp_path / "mine.yaml"
    path.write_text(SWAPPED)
    done = invoke("test", str(path), "--engine", "vllm", "--junit", str(tmp_path / "junit.xml"))
    assert done.exit_code == 1
    assert "1 of 2" in done.stdout
    assert "2 of 3 examples passed" in done.stdout
    assert (
        f"FAILED {path}:5:5: be-polite, example 2: prefers the rejected completion" in done.stdout
    )
    root = ET.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("3", "1")
    (failure,) = root.iter("failure")
    assert "prefers the rejected completion" in str(failure.get("message"))
    good = invoke("test", "demo", "--engine", "vllm", "--json")
    assert good.exit_code == 0
    assert all(r["passed"] and r["margin"] > 0.5 for r in json.loads(good.stdout))


@pytest.mark.slow
def test_watch_tests_again_what_an_edit_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SWAPPED)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rlaif",
            "constitution",
            "test",
            str(path),
            "--watch",
            "--engine",
            "packed",
            "--cache-dir",
            str(tmp_path / "cache"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    guard = threading.Timer(120, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        seen: list[str] = []

        def until(text: str) -> None:
            while True:
                line = process.stdout.readline()  # type: ignore[union-attr]
                assert line, seen
                seen.append(line)
                if text in line:
                    return

        until("2 of 3 examples passed")
        time.sleep(0.3)
        path.write_text(SWAPPED.replace("words: 3", "words: 1"))
        until("1 of 3 examples passed")
        path.write_text("schema: 1\nname: [")
        kept = SWAPPED.splitlines()
        path.write_text("\n".join(kept[:9] + kept[11:]) + "\n")
        until("2 of 2 examples passed")
    finally:
        guard.cancel()
        process.terminate()
        process.wait()


def world(n: int = 400, seed: int = 0) -> Outcomes:
    """Five principles: `lead` decides, `echo` repeats it, `against` opposes it quietly, `silent` has
    no opinion, `lower` decides in its tier where `lead` is silent.
    """
    rng = np.random.default_rng(seed)
    speaks = rng.random(n) < 0.7
    lead = np.where(speaks, rng.normal(0, 3, n), 0.0)
    echo = np.where(speaks, lead + rng.normal(0, 0.1, n), 0.0)
    against = np.where(speaks, -0.4 * lead + rng.normal(0, 0.1, n), 0.0)
    lower = rng.normal(0, 3, n)
    yes = np.ones(n, dtype=bool)

    def opinions(values: np.ndarray, tier: int) -> PrincipleOutcomes:
        return PrincipleOutcomes(
            ab=values, ba=values, asked=yes, tier=tier, weight=1.0, source="judge"
        )

    principles = {
        "lead": opinions(lead, 1),
        "echo": opinions(echo, 1),
        "against": opinions(against, 1),
        "silent": opinions(np.full(n, 0.01), 1),
        "lower": opinions(lower, 2),
    }
    empty = Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(n),
        p_a=np.zeros(n),
        winner=np.zeros(n, dtype=int),
        status=["decided"] * n,
        principles=principles,
        origins=([""] * n, [""] * n),
    )
    folds = [aggregate(empty.scores(i), AggregationSettings()) for i in range(n)]
    return Outcomes(
        ids=empty.ids,
        rows=empty.rows,
        p_a=np.array([f.p_a for f in folds]),
        winner=np.array([{"a": 1, "b": -1}.get(f.winner or "", 0) for f in folds]),
        status=[f.status for f in folds],
        principles=principles,
        origins=empty.origins,
    )


def test_coverage_tells_what_principles_do() -> None:
    outcomes = world()
    found = coverage(outcomes)
    uses = {u.principle: u for u in found.principles}
    assert uses["silent"].decides == 0
    assert uses["silent"].verdict.startswith("never decisive")
    assert uses["silent"].opinions == 0.0
    assert uses["lower"].decides > 80
    # By hand for one principle: fold every pair again without it.
    changed = sum(
        (
            aggregate(
                [s for s in outcomes.scores(i) if s.principle != "lower"], AggregationSettings()
            ).winner
            or ""
        )
        != {1: "a", -1: "b", 0: ""}[int(outcomes.winner[i])]
        for i in range(len(outcomes.ids))
    )
    assert uses["lower"].decides == changed
    ties = {(t.first, t.second): t.verdict for t in found.ties}
    assert ties[("lead", "echo")] == "are redundant"
    assert ties[("lead", "against")] == "contradict each other"
    assert not any("lower" in pair or "silent" in pair for pair in ties)


def test_independent_principles_are_seldom_called_opposites() -> None:
    """Holm over ten pairs of principles: at most 5% + 2 SE of 200 worlds (r of -0.3 is needed too)."""
    named = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n, yes = 60, np.ones(60, dtype=bool)
        principles = {
            f"p{k}": PrincipleOutcomes(ab=x, ba=x, asked=yes, tier=1, weight=1.0, source="judge")
            for k, x in enumerate(rng.normal(0, 3, (5, n)))
        }
        outcomes = Outcomes(
            ids=[str(i) for i in range(n)],
            rows=np.arange(n),
            p_a=np.full(n, 0.5),
            winner=np.zeros(n, dtype=int),
            status=["tie"] * n,
            principles=principles,
            origins=([""] * n, [""] * n),
        )
        named += bool(ties(outcomes))
    assert named / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


def related(rng: np.random.Generator, n: int, rho: float) -> Outcomes:
    x = rng.multivariate_normal([0, 0], [[9, 9 * rho], [9 * rho, 9]], n).T
    yes = np.ones(n, dtype=bool)
    return Outcomes(
        ids=[str(i) for i in range(n)],
        rows=np.arange(n),
        p_a=np.full(n, 0.5),
        winner=np.zeros(n, dtype=int),
        status=["tie"] * n,
        principles={
            f"p{k}": PrincipleOutcomes(ab=v, ba=v, asked=yes, tier=1, weight=1.0, source="judge")
            for k, v in enumerate(x)
        },
        origins=([""] * n, [""] * n),
    )


@pytest.mark.slow
def test_redundant_principles_are_tested_against_the_limit_and_not_against_zero() -> None:
    """At a correlation just below the limit, an estimate is above it in every second sample."""
    many = related(np.random.default_rng(0), 400_000, 0.88).principles.values()
    signs = np.tanh(np.stack([o.ab for o in many]) / 2)
    clear = (np.abs(signs) >= CLEAR).all(axis=0)
    both = [np.concatenate([s[clear], -s[clear]]) for s in signs]
    true = spearmanr(*both).statistic
    assert REDUNDANT - 0.02 < true < REDUNDANT
    named, estimated = 0, 0
    for seed in range(300):
        outcomes = related(np.random.default_rng(seed), 60, 0.88)
        named += any(t.verdict == "are redundant" for t in ties(outcomes))
        one, two = (np.tanh(o.ab / 2) for o in outcomes.principles.values())
        own = (np.abs(one) >= CLEAR) & (np.abs(two) >= CLEAR)
        estimated += (
            spearmanr(np.r_[one[own], -one[own]], np.r_[two[own], -two[own]]).statistic >= REDUNDANT
        )
    assert named / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5
    assert estimated / 300 > 0.2
    caught = sum(bool(ties(related(np.random.default_rng(s), 200, 0.985))) for s in range(60))
    assert caught / 60 > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 60, 200])
def test_principles_that_now_and_then_clash_are_not_redundant(count: int) -> None:
    """Equal but for another winner in 5% of pairs: a correlation of 0.9, which a small sample
    without a clash does not show.
    """
    named = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        outcomes = related(rng, count, 1.0)
        clash = np.where(rng.random(count) < 0.05, -1.0, 1.0)
        outcomes.principles["p1"].ab[:] *= clash  # `ba` is the same array
        named += any(t.verdict == "are redundant" for t in ties(outcomes))
    assert named / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_pairs_of_one_row_are_one_piece_of_evidence() -> None:
    """Twelve rows of six pairs that share completions: independent principles are still seldom
    called opposites (one pair of principles; 5% + 2 SE of 300 worlds).
    """
    named = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        quality = rng.normal(0, 3, (2, 12, 4))
        at = [(r, i, j) for r in range(12) for i in range(4) for j in range(i)]
        x = np.array([[q[r, i] - q[r, j] for r, i, j in at] for q in quality])
        n, yes = len(at), np.ones(len(at), dtype=bool)
        principles = {
            f"p{k}": PrincipleOutcomes(ab=v, ba=v, asked=yes, tier=1, weight=1.0, source="judge")
            for k, v in enumerate(x)
        }
        rows = np.array([r + 1 for r, _, _ in at])
        outcomes = Outcomes(
            ids=[str(i) for i in range(n)],
            rows=rows,
            p_a=np.full(n, 0.5),
            winner=np.zeros(n, dtype=int),
            status=["tie"] * n,
            principles=principles,
            origins=([""] * n, [""] * n),
        )
        named += bool(ties(outcomes))
    assert named / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


@pytest.mark.parametrize("command", ["coverage", "ablate"])
def test_questions_that_are_spared_are_refused_before_anything_is_asked(
    tmp_path: Path, command: str
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "q", "response_a": "x", "response_b": "y", "label": "a"}\n')
    args = [
        "constitution",
        command,
        "demo",
        str(data),
        "-o",
        str(tmp_path / "out"),
        "--orders",
        "adaptive",
    ]
    found = CliRunner().invoke(cli, args)
    assert isinstance(found.exception, RlaifError)
    assert "judge calls are skipped" in str(found.exception)
    assert not (tmp_path / "out").exists()


def test_ablation_shows_which_principle_helps_and_which_hurts() -> None:
    outcomes = world(1200, seed=5)
    # People follow `lower` alone: what stands above it in the way hurts.
    label = np.sign(outcomes.principles["lower"].logits).astype(int)
    found = {a.principle: a for a in ablate(outcomes, label, outcomes.ids)}
    assert found["lower"].verdict == "helps"
    assert found["silent"].verdict == "no significant difference"
    assert abs(found["silent"].test.difference.value) < 0.002
    credits = []
    for i in range(len(label)):
        left = [s for s in outcomes.scores(i) if s.principle != "lower"]
        winner = {"a": 1, "b": -1}.get(aggregate(left, AggregationSettings()).winner or "")
        credits.append(0.5 if winner is None else float(winner == label[i]))
    assert found["lower"].accuracy == pytest.approx(np.mean(credits))


def test_coverage_of_a_run_asks_nothing_and_refuses_another_constitution(tmp_path: Path) -> None:
    from tests.labeling.helpers import label, write_inputs

    data, constitution = write_inputs(tmp_path, 60)
    label(data, constitution, tmp_path / "run")
    done = invoke("coverage", str(constitution), str(tmp_path / "run"), "--json")
    assert done.exit_code == 0, done.output
    assert {u["principle"] for u in json.loads(done.stdout)["principles"]} == {
        "one",
        "two",
        "short",
    }
    done = invoke("coverage", "demo", str(tmp_path / "run"))
    assert done.exit_code == 1
    assert "was labeled with a different constitution (small 1)" in str(done.exception)
    done = invoke("coverage", str(constitution), str(data))
    assert "Add -o DIR" in str(done.exception)


@pytest.mark.slow
def test_ablate_on_real_verdicts(tmp_path: Path) -> None:
    """The demo judge against the oracle: in its tiers, danger and privacy come first."""
    from rlaif.demo.oracle import prefer
    from rlaif.demo.world import World

    rows = [
        {
            "prompt": p.prompt,
            "response_a": p.response_a,
            "response_b": p.response_b,
            "label": {1: "a", -1: "b", 0: "tie"}[prefer(p.prompt, p.response_a, p.response_b)],
        }
        for p in World(5, "test").pairs(40)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = invoke("ablate", "demo", str(data), "-o", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.output
    found = {a["principle"]: a for a in json.loads(done.stdout)}
    assert set(found) == {
        "refuse-danger",
        "protect-personal-data",
        "admit-not-knowing",
        "stay-on-topic",
        "be-polite",
        "be-concise",
    }
    assert min(a["difference"]["value"] for a in found.values()) < 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Which response is better?", "is vague"),
        ("Which response is of higher quality overall?", "is vague"),
        ("Which response is more helpful and more accurate?", "helpfulness and accuracy together"),
        ("Which answer is clearer and more creative?", "clarity and creativity together"),
        ("Which response is polite and not rude?", ""),
        ("Which response is less formal?", ""),
        ("Which response keeps the source's stance and adds no opinion of its own?", ""),
    ],
)
def test_lint_warns_of_vague_and_double_questions(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f'schema: 1\nname: c\nversion: "1"\nprinciples:\n  - id: p\n    preference: "{text}"\n'
        "    examples: [{prompt: p, chosen: good, rejected: bad}]\n"
    )
    messages = [w.message for w in lint(load_constitution(str(path)))]
    assert [m for m in messages if expected and expected in m] == messages
    assert bool(messages) == bool(expected)
    assert bool(joined_qualities(text)) == ("together" in expected)


def test_lint_warns_of_principles_that_cancel_out(tmp_path: Path) -> None:
    example = "    examples: [{prompt: p, chosen: good, rejected: bad}]\n"
    text = (
        'schema: 1\nname: c\nversion: "1"\nprinciples:\n'
        "  - id: short\n    preference: Which response is more concise?\n"
        + example
        + "  - id: long\n    tier: TIER\n    preference: Which response is more detailed?\n"
        + example
    )
    path = tmp_path / "c.yaml"
    path.write_text(text.replace("TIER", "1"))
    (warning,) = lint(load_constitution(str(path)))
    assert "asks for detail, but 'short' in the same tier asks for brevity" in warning.message
    assert warning.place.line == 8
    path.write_text(text.replace("TIER", "2"))
    assert lint(load_constitution(str(path))) == []
