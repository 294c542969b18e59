"""Measured biases as findings: size, interval, p-value, and which of them stand together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaif.evaluation.outcomes import Floats
from rlaif.evaluation.stats.resampling import holm

ALPHA = 0.05
LEAST_GROUPS = 10
("Minimum prompts for standard errors clustered by prompt, as counted by `effective_groups`.")
LEAST = 20
"Minimum pairs to measure a bias."
NEGLIGIBLE = {"nats": 0.05, "nats per SD": 0.05, "share": 0.02}
("Smaller biases are reported but never flagged: 0.05 nats move an even preference to 51.2%.")


@dataclass(frozen=True)
class BiasFinding:
    """One measured bias.

    Attributes:
        name: what it is about.
        value, low, high: its size with a 95% interval, in `unit`; `value` is None where the data
            leave open whether there is any bias.
        ends: the least and the greatest size that the data allow, before chance is counted; None
            where they name one.
        p: two-sided, against no bias.
        flagged: whether it stands after correction for all findings of the report.
        detail: more about it, in words.
        association: whether it may be deserved, for want of labels; then it is never flagged.
    """

    name: str
    value: float | None
    low: float
    high: float
    unit: str
    n: int
    p: float
    flagged: bool = False
    detail: str = ""
    association: bool = False
    ends: tuple[float, float] | None = None

    @property
    def size(self) -> str:
        """Size and interval for people, without the unit."""
        return f"{self.point} [{self.low:+.3f}, {self.high:+.3f}]"

    @property
    def point(self) -> str:
        """Size for people: a number, or the two that it lies between."""
        ends = (self.value or 0.0,) if self.ends is None else self.ends
        return " to ".join(f"{end:+.3f}" for end in ends)

    @property
    def shown(self) -> str:
        """Size, interval and unit for people."""
        text = f"{self.size} {self.unit}"
        return f"{text}; {self.detail}" if self.detail else text


def corrected(findings: Sequence[BiasFinding]) -> list[BiasFinding]:
    """The findings, flagged where they stand after Holm's correction and are not negligible."""
    if not findings:
        return []
    tested = [f for f in findings if not f.association]
    if not tested:
        return list(findings)
    flags = iter(p <= ALPHA for p in holm([f.p for f in tested]))
    return [
        f
        if f.association
        else replace(f, flagged=bool(next(flags)) and abs(f.value or 0.0) >= NEGLIGIBLE[f.unit])
        for f in findings
    ]


def mean_test(
    values: Floats, groups: Sequence[str] | None = None, *, symmetric: bool = False
) -> tuple[float, float, float, float]:
    """Mean, its 95% interval, and a p-value of the test against 0.

    Groups count once each, by their own means: one large group among small ones would make the
    usual standard errors too small (MacKinnon and Webb 2017).

    Of the t-test and the one that allows for skewness (Hall 1992), what says less counts. Alone,
    the t-test finds something in 8 to 15% of small skewed samples whose mean is 0. No test knows of
    rare values that a sample does not show: where one value in ten or twenty is far off, below some
    20 and 60 groups both are too sure.

    Args:
        symmetric: whether values are symmetric around 0 if their mean is, such as hits and misses
            at even odds; then the t-test alone is right.
    """
    if groups is not None:
        index = group_index(groups)
        values = np.bincount(index, weights=values) / np.bincount(index)
    count = len(values)
    mean = float(values.mean())
    error = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    if count < 2 or error <= 1e-9 * max(1.0, abs(mean)):
        p = 1.0 if abs(mean) < 1e-9 or count < 2 else 2.0 * 0.5**count
        return mean, mean, mean, p
    low, high, p = _skewed_test(values, mean, error, symmetric)
    return mean, low, high, p


def _skewed_test(
    values: Floats, mean: float, error: float, symmetric: bool
) -> tuple[float, float, float]:
    """The wider interval and the larger p-value of the t-test and of Hall's (1992) transformation.

    The transformation t + g t^2 / 3 + g^2 t^3 / 27 + g / (6 n), of t over the root of n, takes the
    skewness g out of the t-statistic; it is monotone, so it has an inverse.
    """
    count = len(values)
    root = np.sqrt(count)
    quantile = float(stats.t.ppf(0.975, count - 1))
    low, high = mean - quantile * error, mean + quantile * error
    p = float(2.0 * stats.t.sf(abs(mean) / error, count - 1))
    g = float(stats.skew(values, bias=False)) if count > 2 and not symmetric else 0.0
    if abs(g) < 1e-6:
        return low, high, p
    u = mean / error / root
    moved = root * (u + g * u**2 / 3.0 + g**2 * u**3 / 27.0 + g / (6.0 * count))
    p = max(p, float(2.0 * stats.t.sf(abs(moved), count - 1)))
    ends = [
        mean - error * root * (3.0 / g) * (np.cbrt(1.0 + g * (q / root - g / (6.0 * count))) - 1.0)
        for q in (quantile, -quantile)
    ]
    return min(low, float(ends[0])), max(high, float(ends[1])), p


def group_index(groups: Sequence[object]) -> NDArray[np.intp]:
    """The number of each item's group, from 0."""
    return np.asarray(np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1])


def effective_groups(groups: Sequence[object]) -> float:
    """How many groups of equal size would be worth as many: (sum n)^2 / sum n^2 (Kish 1965).

    Standard errors by group are too small where one group outweighs the others (Carter, Schnepel
    and Steigerwald 2017).
    """
    sizes = np.bincount(group_index(groups)).astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def robust_errors(groups: Sequence[object] | None, n: int, *, plain: str) -> dict[str, Any]:
    """How statsmodels computes standard errors: by groups where items share one (Liang and Zeger
    1986), else by the `plain` sandwich (White 1980).
    """
    if groups is None or len(set(groups)) == n:
        return {"cov_type": plain}
    return {"cov_type": "cluster", "cov_kwds": {"groups": group_index(groups)}}
