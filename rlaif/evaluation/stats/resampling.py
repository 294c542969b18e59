"""Intervals and tests by group: pairs of one prompt hang together.

All functions are pure; arrays have one entry per pair, and `groups` says which belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval at 95%; `n` is how many pairs it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "no data"
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def group_sums(values: Floats, groups: Sequence[object]) -> tuple[Floats, Floats]:
    """The sum of `values` in each group, and the size of each group."""
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.bincount(index, weights=values)
    return np.asarray(sums, dtype=np.float64), np.bincount(index).astype(np.float64)


def mean_with_interval(values: Floats, groups: Sequence[object]) -> Estimate:
    """The mean with an interval that knows that pairs of a group hang together.

    Of shares, whose values are from 0 to 1: see `logit_interval`.  Of differences: the same on
    their own scale.  Where all groups have the same mean nothing is known of how groups differ:
    the interval is the Wilson one of as many trials as there are groups, for values of 0 and 1,
    and all that is possible otherwise (0 to 1, or -1 to 1 for differences).
    """
    n = len(values)
    if not n:
        return Estimate(0.0, 0.0, 1.0, 0)
    mean = float(values.mean())
    sums, sizes = group_sums(values, groups)
    if len(sums) < 2 or np.ptp(sums / sizes) == 0.0:
        if set(np.unique(values)) <= {0.0, 1.0}:
            low, high = wilson(mean, len(sums))
            return Estimate(mean, low, high, n)
        return Estimate(mean, -1.0 if values.min() < 0.0 else 0.0, 1.0, n)
    if values.min() >= 0.0 and values.max() <= 1.0:
        return Estimate(mean, *logit_interval(sums, sizes), n)
    half = _half_width(sums, sizes)
    return Estimate(mean, mean - half, mean + half, n)


def logit_interval(sums: Floats, sizes: Floats) -> tuple[float, float]:
    """The 95% interval of a share over groups: a t interval on the logit scale.

    The variance is found by leaving out one group at a time (the jackknife; MacKinnon and Webb
    2017 on unequal groups).  On the logit scale the interval stays within 0 and 1 and is wider on
    the side that has room.  The t has as many degrees of freedom as there are effective groups,
    less one: one large group among small ones knows little (Kish 1965; Carter, Schnepel and
    Steigerwald 2017).

    Args:
        sums: of the values in each group; at least two groups, which differ.
        sizes: of the groups.
    """
    rate = float(sums.sum()) / float(sizes.sum())
    half = _half_width(sums, sizes) / (rate * (1.0 - rate))
    center = np.log(rate / (1.0 - rate))
    low, high = 1.0 / (1.0 + np.exp(-np.array([center - half, center + half])))
    return float(low), float(high)


def _half_width(sums: Floats, sizes: Floats) -> float:
    """Half of the 95% interval of a mean over groups; see `logit_interval`."""
    total, count = float(sizes.sum()), len(sums)
    mean = float(sums.sum()) / total
    moves = (sums - mean * sizes) / (total - sizes)  # what leaving a group out changes
    error = float(np.sqrt((count - 1) / count * (moves**2).sum()))
    effective = total**2 / float((sizes**2).sum())
    return float(stats.t.ppf(0.975, max(1.0, effective - 1.0))) * error


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for each other (Holm 1979), each at most 1, in the order given.

    As `statsmodels.stats.multitest.multipletests`, which collects garbage at every call.
    """
    corrected = [0.0] * len(p)
    worst = 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - rank) * float(p[i])))
        corrected[i] = worst
    return corrected


def wilson(rate: float, n: int) -> tuple[float, float]:
    """The 95% score interval (Wilson 1927) of a share of `n` trials, whole or not: 0 to 1 for one
    trial, which says nothing of how groups differ.
    """
    if n < 2:
        return 0.0, 1.0
    z = float(stats.norm.ppf(0.975))
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (rate * (1 - rate) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True)
class PairedTest:
    """Two sets of scores on the same pairs.

    Attributes:
        difference: mean of the first less mean of the second, with its interval.
        p: two-sided, of the test that neither is better.
        only_first, only_second: pairs that one has right (score 1) and the other wrong (0).
    """

    difference: Estimate
    p: float
    only_first: int
    only_second: int

    @property
    def better(self) -> int:
        """1 or -1 where the test says so at 0.05, else 0."""
        if self.p >= 0.05:
            return 0
        return 1 if self.difference.value > 0 else -1


def paired_test(
    first: Floats, second: Floats, groups: Sequence[object], *, seed: int = 0
) -> PairedTest:
    """Whether one of two sets of scores on the same pairs is better.

    A sign-flip permutation test over groups (Fisher 1935); with scores of 0 and 1 and groups of
    one it is McNemar's test (1947), exact up to 13 groups that differ and by 9,999 draws beyond.
    """
    difference = first - second
    sums, _ = group_sums(difference, groups)
    moved = sums[sums != 0.0]
    if not len(moved) or len(moved) == 1:
        p = 1.0
    else:
        rng = np.random.default_rng(seed)
        found = stats.permutation_test(
            (moved,),
            lambda x, axis=-1: x.sum(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
            batch=max(1, 20_000_000 // len(moved)),
            rng=rng,
        )
        p = float(found.pvalue)
    # Computed on the side of the better, so that swapping the two swaps the interval.
    sign = -1.0 if difference.sum() < 0 else 1.0
    found_interval = mean_with_interval(sign * difference, groups)
    ends = sorted((sign * found_interval.low, sign * found_interval.high))
    interval = Estimate(sign * found_interval.value, ends[0], ends[1], found_interval.n)
    if not len(moved):  # no pair tells them apart: either may be better by what none of n shows
        interval = Estimate(0.0, -interval.high, interval.high, interval.n)
    return PairedTest(
        interval,
        p,
        int(((first == 1.0) & (second == 0.0)).sum()),
        int(((first == 0.0) & (second == 1.0)).sum()),
    )
