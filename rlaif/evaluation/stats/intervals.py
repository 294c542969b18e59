"""Proportions with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from rlaif.evaluation.stats.resampling import mean_with_interval


@dataclass(frozen=True)
class Share:
    """`hits` of `total`, with a two-sided interval at `confidence`.

    Attributes:
        low, high: Wilson score interval (Wilson 1927), as scipy computes it; 0 and 1 for no data.
    """

    hits: int
    total: int
    rate: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        if not self.total:
            return "no data"
        return f"{100 * self.rate:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def share(hits: int, total: int, confidence: float = 0.95) -> Share:
    """The share of `hits` in `total`.

    Raises:
        ValueError: `hits` is not between 0 and `total`.
    """
    if not 0 <= hits <= total:
        raise ValueError(f"hits ({hits}) must be between 0 and total ({total})")
    if total == 0:
        return Share(hits=0, total=0, rate=0.0, low=0.0, high=1.0, confidence=confidence)
    interval = binomtest(hits, total).proportion_ci(confidence, method="wilson")
    low, high = float(interval.low), float(interval.high)
    return Share(
        hits=hits, total=total, rate=hits / total, low=low, high=high, confidence=confidence
    )


def share_of(flags: Sequence[bool], groups: Sequence[object]) -> Share:
    """The share of flags that are true, at 95%; those of one group hang together, such as pairs of
    one prompt.  With groups of one it is `share`; else see `resampling.mean_with_interval`.
    """
    hits, total = sum(flags), len(flags)
    if len(set(groups)) == total:
        return share(hits, total)
    found = mean_with_interval(np.array(flags, dtype=np.float64), groups)
    return Share(hits=hits, total=total, rate=hits / total, low=found.low, high=found.high)
