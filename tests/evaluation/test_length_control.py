"""Win rates at equal length: what a judge adds for length is taken away, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif.evaluation.length_control import control_length
from rlaif.evaluation.stats.resampling import mean_with_interval


def draw(
    rng: np.random.Generator, prompts: int, *, better: float, taste: float, longer: float
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Scores of a model over three pairs a prompt, which hang together: in log-odds, how much
    better it is and the judge's taste for length; its responses are longer by `longer` words.
    """
    groups = np.repeat(np.arange(prompts), 3)
    words = longer + 40 * rng.normal(0, 1, len(groups))
    odds = better + taste * np.tanh(words / np.sqrt(np.mean(words**2)))
    odds = odds + rng.normal(0, 0.5, prompts)[groups]
    scores = (rng.random(len(groups)) < 1 / (1 + np.exp(-odds))).astype(float)
    scores[rng.random(len(groups)) < 0.1] = 0.5
    return scores, words, list(groups)


@pytest.mark.parametrize("better", [0.0, 0.8])
@pytest.mark.parametrize(("taste", "longer"), [(0.0, 30.0), (1.2, 30.0), (1.2, -30.0)])
def test_the_rate_is_that_without_the_taste_for_length(
    better: float, taste: float, longer: float
) -> None:
    # What would be won at equal length, ties included: by simulation of the same world.
    rng = np.random.default_rng(1)
    odds = better + rng.normal(0, 0.5, 400_000)
    truth = 0.05 + 0.9 * float(np.mean(1 / (1 + np.exp(-odds))))
    held = raw = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores, words, groups = draw(rng, 80, better=better, taste=taste, longer=longer)
        found = control_length(scores, words, groups)
        assert found is not None
        held += found.low <= truth <= found.high
        plain = mean_with_interval(scores, groups)
        raw += plain.low <= truth <= plain.high
    assert held / 200 >= 0.95 - 2 * (0.05 * 0.95 / 200) ** 0.5
    if taste:
        assert raw / 200 < 0.8  # the plain rate is off


def test_both_models_get_what_adds_up_to_one() -> None:
    scores, words, groups = draw(np.random.default_rng(3), 60, better=0.5, taste=1.0, longer=20.0)
    one, two = control_length(scores, words, groups), control_length(1 - scores, -words, groups)
    assert one is not None
    assert two is not None
    assert one.value + two.value == pytest.approx(1.0)
    assert one.low + two.high == pytest.approx(1.0)


def test_where_nothing_can_be_told_nothing_is() -> None:
    rng = np.random.default_rng(0)
    scores, words, groups = draw(rng, 60, better=0.0, taste=1.0, longer=0.0)
    assert control_length(scores[:10], words[:10], groups[:10]) is None
    assert control_length(scores, np.zeros_like(words), groups) is None
    assert control_length(scores, np.ones_like(words), groups) is None
    assert control_length(np.ones_like(scores), words, groups) is None
    assert control_length(scores, words, ["same"] * len(scores)) is None
    assert control_length((words > 0).astype(float), words, groups) is None
    assert control_length(np.array([]), np.array([]), []) is None
