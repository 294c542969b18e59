"""Shares over pairs of several prompts: the interval knows that pairs of a prompt hang together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlaif.evaluation.stats.resampling import mean_with_interval, wilson


def draw(
    rng: np.random.Generator, prompts: int, sizes: np.ndarray, truth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Each prompt has a share of its own; the shares' mean is the truth."""
    shares = rng.beta(truth * 7 / 3, (1 - truth) * 7 / 3, prompts)  # correlated at 0.3
    groups = np.repeat(np.arange(prompts), sizes)
    return (rng.random(len(groups)) < shares[groups]).astype(float), groups


@pytest.mark.parametrize(
    ("prompts", "unequal", "truth", "least"),
    [
        (6, False, 0.8, 0.90),
        (12, False, 0.5, 0.90),
        (12, True, 0.8, 0.90),
        (30, False, 0.8, 0.90),
        (100, False, 0.8, 0.90),
        (100, True, 0.5, 0.88),
    ],
)
def test_it_holds_the_truth_where_independent_pairs_do_not(
    prompts: int, unequal: bool, truth: float, least: float
) -> None:
    rng = np.random.default_rng(prompts)
    runs, held, naive = 400, 0, 0
    for _ in range(runs):
        sizes = np.full(prompts, 16)
        if unequal:
            sizes = np.maximum(1, (rng.pareto(1.5, prompts) * 4).astype(int) + 1)
        values, groups = draw(rng, prompts, sizes, truth)
        found = mean_with_interval(values, list(groups))
        assert found.low <= found.value <= found.high
        held += found.low <= truth <= found.high
        low, high = wilson(float(values.mean()), len(values))
        naive += low <= truth <= high
    assert held / runs >= least
    assert naive / runs <= 0.75, "what it is compared with falls short, or nothing is shown"


def test_with_one_pair_a_prompt_it_is_the_logit_interval_of_independent_pairs() -> None:
    values = np.array([1.0] * 70 + [0.0] * 30)
    found = mean_with_interval(values, list(range(100)))
    error = np.sqrt(0.7 * 0.3 / 99) / (0.7 * 0.3)
    half = stats.t.ppf(0.975, 99) * error
    center = np.log(0.7 / 0.3)
    expected = 1 / (1 + np.exp(-np.array([center - half, center + half])))
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    swapped = mean_with_interval(1.0 - values, list(range(100)))
    assert (1 - swapped.high, 1 - swapped.low) == pytest.approx((found.low, found.high))


def test_copies_of_pairs_add_nothing() -> None:
    rng = np.random.default_rng(1)
    values = (rng.random(40) < 0.6).astype(float)
    once = mean_with_interval(values, list(range(40)))
    often = mean_with_interval(np.repeat(values, 9), list(np.repeat(np.arange(40), 9)))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_one_large_prompt_among_small_ones_knows_little() -> None:
    """Groups of 500, 1, 1, 1, 1: worth about one group, however many pairs there are."""
    values = np.array([1.0] * 400 + [0.0] * 100 + [1.0, 0.0, 1.0, 0.0])
    groups = ["big"] * 500 + ["a", "b", "c", "d"]
    found = mean_with_interval(values, groups)
    assert found.high - found.low > 0.2
    low, high = wilson(0.8, 504)
    assert high - low < 0.08
