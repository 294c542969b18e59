"""A threshold of confidence above which people agree at least as often as promised.

Exact binomial bounds at thresholds tested in a fixed order, as in Trust or Escalate (Jung et al.
2024, arXiv:2407.18370) and Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
_FIRST = 0.8
_RESAMPLES = 40


def upper_bound(errors: float, n: int, delta: float) -> float:
    """The exact one-sided upper bound of an error rate (Clopper and Pearson 1934), at level
    `delta`: 1 for no data.
    """
    if n == 0 or errors >= n:
        return 1.0
    return float(beta.ppf(1.0 - delta, errors + 1.0, n - errors))


@functools.cache
def least_pairs(target: float, delta: float) -> int:
    """Pairs from which certifying begins: where two errors among them would still certify.

    Depends on nothing but target and delta, so that the sequence of tests is fixed beforehand.
    (In simulation fewer fail by bad luck, and many more by the pairs that the judge is less sure
    of.)
    """
    n = 3
    while upper_bound(2, n, delta) > 1.0 - target:
        n += 1
    return n


@dataclass(frozen=True)
class Certificate:
    """A threshold that keeps the promise, or why there is none.

    Attributes:
        threshold: least confidence; None where nothing could be certified.
        coverage: share of the labeled pairs at or above it: what abstaining leaves.
        agreement: of people with the judge there.
        bound: what was certified: at least the target.
        n: pairs at or above it.
    """

    threshold: float | None
    coverage: float
    agreement: float
    bound: float
    n: int
    target: float
    delta: float


def certify(
    confidence: Floats, right: Floats, *, target: float, delta: float = 0.05
) -> Certificate:
    """The lowest threshold at which agreement of at least `target` is certified.

    Thresholds are tested from high to low by the fallback procedure (Wiens and Dmitrienko 2005):
    eight tenths of `delta` are spent at the surest pairs (`least_pairs`), a tenth at the surest
    half and a tenth at all; what certifies passes its level on to the next, so that one sequence
    runs down until it fails, and a judge whose surest pairs are no better than its others still
    has its chance further down.  The chance that agreement at the returned threshold is below
    the target is at most `delta`.

    Pairs must be independent: one of each prompt.

    Args:
        confidence: the judge's, on pairs drawn like those to be labeled.
        right: 1 where people agree, else 0; a pair without a decision has confidence 0.5.

    Raises:
        ValueError: target or delta is not between 0 and 1.
    """
    if not (0 < target < 1 and 0 < delta < 1):
        raise ValueError("target and delta must be between 0 and 1")
    order = np.argsort(-confidence, kind="stable")
    values, errors = confidence[order], np.cumsum(1.0 - right[order])
    total = len(values)
    ends = _ends(values)
    own = _levels(ends, total, target, delta)
    best: tuple[int, float] | None = None
    passed_on = 0.0
    for end in ends:
        level = own.get(int(end), 0.0) + passed_on
        if level == 0.0:
            continue
        holds = upper_bound(float(errors[end - 1]), int(end), level) <= 1.0 - target
        passed_on = level if holds else 0.0
        if holds:
            best = (int(end), level)
    if best is None:
        return Certificate(
            threshold=None,
            coverage=0.0,
            agreement=float("nan"),
            bound=0.0,
            n=0,
            target=target,
            delta=delta,
        )
    n, level = best
    wrong = float(errors[n - 1])
    bound = 1.0 - upper_bound(wrong, n, level)
    return Certificate(
        threshold=float(values[n - 1]),
        coverage=n / total,
        agreement=1.0 - wrong / n,
        bound=bound,
        n=n,
        target=target,
        delta=delta,
    )


def _ends(values: Floats) -> NDArray[np.int64]:
    """How many pairs each threshold keeps: equal confidences are kept together, shape (k,)."""
    return np.flatnonzero(np.append(np.diff(values) != 0.0, True)[: len(values)]) + 1


def _levels(ends: NDArray[np.int64], total: int, target: float, delta: float) -> dict[int, float]:
    """What each number of kept pairs may spend of `delta` by itself; they sum to it at most."""
    first = least_pairs(target, _FIRST * delta)
    rest = (1.0 - _FIRST) * delta / 2
    shares = ((first, _FIRST * delta), (math.ceil(total / 2), rest), (total, rest))
    levels: dict[int, float] = {}
    for least, share in shares:
        at = int(np.searchsorted(ends, least))
        if at < len(ends):
            levels[int(ends[at])] = levels.get(int(ends[at]), 0.0) + share
    return levels


def missing_labels(
    confidence: Floats, right: Floats, *, target: float, delta: float = 0.05
) -> int | None:
    """About how many more labels would certify, where these don't.

    The first size at which most of the data sets drawn from these would; None where that takes
    more than 100 times as many.  A drawn pair is right as often as its neighbors by confidence
    are, so that no single lucky pair stands for all that come to lie around it.

    Args: as for `certify`.
    """
    order = np.argsort(-confidence, kind="stable")
    values, right = confidence[order], right[order]
    total = len(values)
    if not total:
        return 2 * least_pairs(target, _FIRST * delta)
    width = min(total, max(20, total // 4))
    starts = np.clip(np.arange(total) - width // 2, 0, total - width)
    sums = np.concatenate([[0.0], np.cumsum(right)])
    chance = (sums[starts + width] - sums[starts] + 0.5) / (width + 1.0)
    rng = np.random.default_rng(0)
    size = total
    while size < 100 * total:
        size = math.ceil(size * 1.15) + 1
        certified = 0
        for _ in range(_RESAMPLES):
            drawn = rng.integers(0, total, size)
            drawn.sort()  # `values` fall, and equal ones may be drawn in any order
            errors = np.cumsum(rng.random(size) >= chance[drawn])
            levels = _levels(_ends(values[drawn]), size, target, delta)
            certified += any(
                upper_bound(float(errors[end - 1]), end, level) <= 1.0 - target
                for end, level in levels.items()
            )
        if 2 * certified > _RESAMPLES:
            return size - total
    return None
