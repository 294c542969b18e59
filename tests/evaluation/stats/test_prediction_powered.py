"""Prediction-powered intervals hold, and labels count for more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.evaluation.stats.prediction_powered import powered_mean
from tests.labeling.helpers import label, rows


def draw(rng: np.random.Generator, n: int, many: int, flip: float) -> tuple[np.ndarray, ...]:
    """Wins of a model by people (58%), and by a judge who says otherwise in `flip` of the pairs and is
    biased: it likes the model in another 10%.
    """
    people = (rng.random(n + many) < 0.58).astype(float)
    judge = np.where(rng.random(n + many) < flip, 1 - people, people)
    judge = np.where(rng.random(n + many) < 0.1, 1.0, judge)
    return people[:n], judge[:n], judge[n:]


@pytest.mark.slow
def test_intervals_cover_at_their_level_and_labels_count_for_more() -> None:
    """2,000 data sets with 120 labels: coverage 93 to 97%; at a correlation of 0.6 or more, labels
    are worth 1.3 times as many.
    """
    covered, gains, correlations, naive = 0, [], [], 0
    for seed in range(2000):
        people, there, elsewhere = draw(np.random.default_rng(seed), 120, 3000, 0.13)
        found = powered_mean(people, there, elsewhere)
        covered += found.low <= 0.58 <= found.high
        gains.append(found.effective_labels / 120)
        correlations.append(np.corrcoef(people, there)[0, 1])
        naive += abs(elsewhere.mean() - 0.58) < 1.96 * elsewhere.std() / 3000**0.5
    assert 0.93 <= covered / 2000 <= 0.97
    assert np.mean(correlations) >= 0.6
    assert np.mean(gains) >= 1.3
    assert naive / 2000 < 0.5  # the judge alone is confidently wrong


def test_a_useless_judge_costs_next_to_nothing() -> None:
    covered, gains = 0, []
    for seed in range(500):
        rng = np.random.default_rng(seed)
        people = (rng.random(150) < 0.5).astype(float)
        found = powered_mean(people, rng.random(150), rng.random(2000))
        covered += found.low <= 0.5 <= found.high
        gains.append(found.effective_labels / 150)
    assert covered / 500 >= 0.92
    assert np.mean(gains) > 0.97


@pytest.mark.parametrize(("n", "rate"), [(30, 0.7), (60, 0.85), (100, 0.9)])
def test_intervals_hold_for_few_labels_and_lopsided_rates(n: int, rate: float) -> None:
    """What is refused (fewer than five labels each way) apart."""
    covered = used = 0
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        people = (rng.random(n + 2000) < rate).astype(float)
        judge = np.where(rng.random(n + 2000) < 0.1, 1 - people, people)
        if min(people[:n].sum(), n - people[:n].sum()) < 5:
            continue
        used += 1
        found = powered_mean(people[:n], judge[:n], judge[n:])
        covered += found.low <= rate <= found.high
    assert used > 900
    assert covered / used >= 0.93


def test_intervals_know_that_pairs_of_a_prompt_hang_together() -> None:
    """Prompts with 1 or 6 pairs, a tenth of the pairs labeled at random."""
    covered = naive = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        size = np.where(rng.random(300) < 0.5, 1, 6)
        rate = np.where(size == 1, rng.beta(3, 5, 300), rng.beta(6, 2, 300))
        group = np.repeat(np.arange(300), size)
        people = (rng.random(len(group)) < np.repeat(rate, size)).astype(float)
        judge = np.where(rng.random(len(group)) < 0.15, 1 - people, people)
        truth = float((size * np.where(size == 1, 3 / 8, 6 / 8)).sum() / size.sum())
        known = rng.random(len(group)) < 0.1
        names = group.astype(str)
        found = powered_mean(
            people[known],
            judge[known],
            judge[~known],
            groups=(list(names[known]), list(names[~known])),
        )
        covered += found.low <= truth <= found.high
        alone = powered_mean(people[known], judge[known], judge[~known])
        naive += alone.low <= truth <= alone.high
    assert 0.92 <= covered / 400 <= 0.985
    assert covered >= naive


def test_by_hand() -> None:
    people, there = np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    elsewhere = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    found = powered_mean(people, there, elsewhere)
    spread = np.concatenate([there, elsewhere]).var(ddof=1)
    tuning = np.cov(people, there)[0, 1] / (spread * (1 + 4 / 6))
    assert found.tuning == pytest.approx(tuning)
    assert found.value == pytest.approx(0.75 + tuning * (elsewhere.mean() - 0.5))
    alone = powered_mean(people, there, np.array([]))
    assert (alone.value, alone.tuning) == (0.75, 0.0)
    with pytest.raises(ValueError, match="two labels"):
        powered_mean(people[:1], there[:1], elsewhere)


def test_win_rates_by_people(tmp_path: Path) -> None:
    """A run of two models; people label some pairs, by id; by hand for one model."""
    (tmp_path / "c.yaml").write_text(
        'schema: 1\nname: c\nversion: "1"\nprinciples:\n  - {id: p, preference: "Which response?"}\n'
    )
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(
            json.dumps(
                {
                    "id": f"n{i}",
                    "prompt": f"q {i * i}",
                    "response_a": "x" * (i % 7) + str(i**5),
                    "response_b": "y" * (i % 11) + str(i**3),
                    "response_a_model": "old",
                    "response_b_model": "new",
                }
            )
            + "\n"
            for i in range(3, 203)
        )
    )
    label(data, tmp_path / "c.yaml", tmp_path / "run")
    rng = np.random.default_rng(1)
    wins = {}
    for row in rows(tmp_path / "run", "preferences.jsonl"):
        wins[row["provenance"]["id"]] = float(row["provenance"]["winner"] == "b")
    for row in rows(tmp_path / "run", "undecided.jsonl"):
        wins[row["provenance"]["id"]] = 0.5
    chosen = sorted(wins)[::4]
    people = {k: float(rng.random() < 0.7) for k in chosen}
    human = tmp_path / "human.jsonl"
    human.write_text(
        "".join(json.dumps({"id": k, "label": "b" if v else "a"}) + "\n" for k, v in people.items())
    )
    done = CliRunner().invoke(
        cli,
        ["win-rate", str(tmp_path / "run"), "--human-labels", str(human), "--json"],
        catch_exceptions=False,
    )
    found = {row["model"]: row["by_people"] for row in json.loads(done.stdout)}
    there = np.array([wins[k] for k in chosen])
    expected = powered_mean(
        np.array([people[k] for k in chosen]),
        there,
        np.array([v for k, v in wins.items() if k not in people]),
    )
    assert found["new"]["value"] == pytest.approx(expected.value)
    assert found["new"]["labels"] == len(chosen)
    assert found["old"]["value"] == pytest.approx(1 - expected.value)
    human.write_text(json.dumps({"id": chosen[0], "label": "a"}) + "\n")
    with pytest.raises(RlaifError, match=r"30 human labels.*\(1 labels"):
        CliRunner().invoke(
            cli,
            ["win-rate", str(tmp_path / "run"), "--human-labels", str(human)],
            catch_exceptions=False,
        )
