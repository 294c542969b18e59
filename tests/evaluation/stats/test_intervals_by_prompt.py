"""Shares over pairs of several prompts: the interval knows that pairs of a prompt hang together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlaif.evaluation.stats.intervals import share, share_of
from rlaif.evaluation.stats.resampling import mean_with_interval, paired_test, wilson


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompts", "unequal", "least"),
    [(6, False, 0.9), (12, False, 0.9), (12, True, 0.87), (40, True, 0.9), (150, False, 0.93)],
)
def test_the_difference_of_two_judges_is_held_too(
    prompts: int, unequal: bool, least: float
) -> None:
    """Two judges of 80% and 70%, whose errors hang together by prompt: the interval of the paired
    test, beside the one of independent pairs.
    """
    rng = np.random.default_rng(prompts)
    runs, held, naive = 300, 0, 0
    for _ in range(runs):
        sizes = np.full(prompts, 12)
        if unequal:
            sizes = np.maximum(1, (rng.pareto(1.5, prompts) * 4).astype(int) + 1)
        groups = np.repeat(np.arange(prompts), sizes)
        shares = rng.beta(0.8 * 7 / 3, 0.2 * 7 / 3, prompts)
        other = rng.beta(0.7 * 7 / 3, 0.3 * 7 / 3, prompts)
        one = (rng.random(len(groups)) < shares[groups]).astype(float)
        two = (rng.random(len(groups)) < other[groups]).astype(float)
        found = paired_test(one, two, list(groups)).difference
        assert found.low <= found.value <= found.high
        held += found.low <= 0.1 <= found.high
        spread = 1.96 * (one - two).std(ddof=1) / np.sqrt(len(one))
        naive += abs((one - two).mean() - 0.1) <= spread
    assert held / runs >= least
    assert naive / runs <= 0.8, "what it is compared with falls short, or nothing is shown"


def test_shares_of_flags_know_their_groups() -> None:
    flags = [True] * 30 + [False] * 10
    alone = share_of(flags, list(range(40)))
    assert alone == share(30, 40)
    together = share_of(flags, [k // 4 for k in range(40)])
    assert (together.hits, together.total, together.rate) == (30, 40, 0.75)
    assert together.low < alone.low
    assert together.high > alone.high
    assert share_of([], []) == share(0, 0)
