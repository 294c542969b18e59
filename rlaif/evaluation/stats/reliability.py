"""Whether probabilities mean what they say: reliability, ECE, Brier score, log loss.

Pure functions of `confidence` (the probability of the judge's winner, from 0.5 to 1) and `right`
(1 where people agree, 0 where they do not; one half for a coin toss), one entry per pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif.evaluation.stats.resampling import Floats

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Pairs of like confidence: their mean confidence, and how often they were right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability(confidence: Floats, right: Floats, *, bins: int = BINS) -> list[Bin]:
    """Equal-width bins over [0.5, 1] that hold any pair, for a reliability diagram (DeGroot and
    Fienberg 1983).
    """
    edges = np.linspace(0.5, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    found = []
    for k in range(bins):
        here = index == k
        if here.any():
            found.append(
                Bin(
                    low=float(edges[k]),
                    high=float(edges[k + 1]),
                    count=int(here.sum()),
                    confidence=float(confidence[here].mean()),
                    right=float(right[here].mean()),
                )
            )
    return found


def ece(confidence: Floats, right: Floats, *, bins: int = BINS) -> float:
    """Expected calibration error: mean distance of confidence from accuracy over the bins, by
    their size (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599).  NaN for no data.
    """
    n = len(confidence)
    if not n:
        return float("nan")
    found = reliability(confidence, right, bins=bins)
    return float(sum(b.count / n * abs(b.confidence - b.right) for b in found))


def brier(confidence: Floats, right: Floats) -> float:
    """Mean squared distance of the winner's probability from what happened (Brier 1950); a judge
    that always says one half has 0.25.
    """
    return float(np.mean((confidence - right) ** 2)) if len(confidence) else float("nan")


def log_loss(confidence: Floats, right: Floats) -> float:
    """Mean negative log-likelihood in nats; a judge that always says one half has 0.693."""
    if not len(confidence):
        return float("nan")
    p = np.clip(confidence, 1e-12, 1.0 - 1e-12)
    return float(-np.mean(right * np.log(p) + (1.0 - right) * np.log1p(-p)))
