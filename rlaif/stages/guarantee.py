"""A threshold of confidence above which people agree at least as often as promised.

Fixed-sequence testing with exact binomial bounds, as in Trust or Escalate (Jung et al. 2024,
arXiv:2407.18370) and Learn then Test (Angelopoulos et al. 2021, arXiv:2110.01052).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]


def upper_bound(errors: float, n: int, delta: float) -> float:
    """The exact one-sided upper bound of an error rate (Clopper and Pearson 1934), at level
    `delta`: 1 for no data.
    """
    if n == 0 or errors >= n:
        return 1.0
    return float(beta.ppf(1.0 - delta, errors + 1.0, n - errors))


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
        bound: agreement is at least this with probability 1 - delta.
        n: pairs at or above it.
        more_labels: about how many more labels would certify more often than not, where nothing
            could be; None where these show no agreement as high as the target.
    """

    threshold: float | None
    coverage: float
    agreement: float
    bound: float
    n: int
    target: float
    delta: float
    more_labels: int | None = None


def certify(
    confidence: Floats, right: Floats, *, target: float, delta: float = 0.05
) -> Certificate:
    """The lowest threshold at which agreement of at least `target` is certified.

    Thresholds are tested from high to low, each with level `delta`, until one fails; so the chance
    that agreement at the returned one is below the target is at most `delta`.

    Pairs must be independent: one of each prompt.

    Args:
        confidence: the judge's, on pairs drawn like those to be labeled.
        right: 1 where people agree, else 0; a pair without a decision has confidence 0.5.

    Raises:
        ValueError: target or delta is not between 0 and 1.
    """
    if not (0 < target < 1 and 0 < delta < 1):
        raise ValueError("target and delta lie between 0 and 1")
    order = np.argsort(-confidence, kind="stable")
    values, errors = confidence[order], np.cumsum(1.0 - right[order])
    total = len(values)
    ends = np.flatnonzero(np.append(np.diff(values) != 0.0, True)) + 1 if total else np.array([])
    start = least_pairs(target, delta)
    best = None
    for end in ends[ends >= start]:
        if upper_bound(float(errors[end - 1]), int(end), delta) > 1.0 - target:
            break
        best = int(end)
    if best is not None:
        wrong = float(errors[best - 1])
        return Certificate(
            float(values[best - 1]), best / total, 1.0 - wrong / best,
            1.0 - upper_bound(wrong, best, delta), best, target, delta,
        )  # fmt: skip
    return Certificate(
        None, 0.0, float("nan"), 0.0, 0, target, delta, _more(errors, total, target, delta)
    )


def _more(errors: Floats, total: int, target: float, delta: float) -> int | None:
    """Labels that are missing, if those to come are like these: the fewest over how much of the
    surest is kept; None where not even the surest tenth agrees often enough.
    """
    least = least_pairs(target, delta)
    if total < least:
        return math.ceil(least / 0.3) - total
    best: int | None = None
    for tenth in range(1, 11):
        top = max(1, round(total * tenth / 10))
        rate = (float(errors[top - 1]) + 0.5) / (top + 1.0)
        if rate >= 1.0 - target:
            continue
        n = max(least, 1)
        # With one standard error to spare, so that it certifies more often than not.
        while upper_bound(rate * n + math.sqrt(rate * (1.0 - rate) * n), n, delta) > 1.0 - target:
            n = math.ceil(n * 1.05) + 1
            if n > 10_000_000:
                break
        needed = math.ceil(n * 10 / tenth) - total
        best = needed if best is None else min(best, needed)
    return None if best is None else max(best, least)
