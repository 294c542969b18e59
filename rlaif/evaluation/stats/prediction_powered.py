"""Means from few labels of people and many of a judge, with intervals that hold.

Prediction-powered inference (Angelopoulos et al. 2023, Science 382; power-tuned: PPI++,
arXiv:2311.01453).  Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from rlaif.evaluation.stats.resampling import Floats


@dataclass(frozen=True)
class PoweredMean:
    """A mean with its interval.

    Attributes:
        value, low, high: estimate and 95% interval; they may leave [0, 1] for shares of few labels.
        tuning: how much the judge is trusted: 0 not at all (labels alone), 1 fully.
        labels: of people.
        effective_labels: how many labels of people alone would be as precise.
    """

    value: float
    low: float
    high: float
    tuning: float
    labels: int
    effective_labels: float


def powered_mean(
    people: Floats,
    judge_there: Floats,
    judge_elsewhere: Floats,
    *,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    confidence: float = 0.95,
) -> PoweredMean:
    """The mean of what people would say of everything.

    The judge's mean over unlabeled items, corrected by how far it is off on labeled ones, and
    weighed so that the variance is least.  One pseudo-observation keeps the interval from
    vanishing where few labels happen to agree (as Agresti and Coull 1998 do for shares).

    Args:
        people: labels of n items, drawn at random from all items.
        judge_there: what the judge says of the same n.
        judge_elsewhere: what it says of N others.
        groups: of the labeled and of the other items: those of one prompt hang together, and
            the variance counts prompts (Liang and Zeger 1986).

    Raises:
        ValueError: fewer than two labels, or arrays that do not match.
    """
    n, many = len(people), len(judge_elsewhere)
    if n < 2 or len(judge_there) != n:
        raise ValueError("needs at least two labels, each with the judge's verdict")
    tuning = 0.0
    if many:
        spread = float(np.concatenate([judge_there, judge_elsewhere]).var(ddof=1))
        if spread > 0:
            together = float(np.cov(people, judge_there, ddof=1)[0, 1])
            tuning = float(np.clip(together / (spread * (1.0 + n / many)), 0.0, 1.0))
    here, there = groups or ([f"n{i}" for i in range(n)], [f"N{i}" for i in range(many)])
    plain, count = _variance([(people, here)], pseudo=1.0 / n**2)
    value, variance = float(people.mean()), plain
    if tuning > 0:
        value += tuning * float(judge_elsewhere.mean() - judge_there.mean())
        parts = [(people - tuning * judge_there, here), (tuning * judge_elsewhere, there)]
        variance, _ = _variance(parts, pseudo=1.0 / n**2)
    half = float(student.ppf(0.5 + confidence / 2, max(1, count - 1))) * variance**0.5
    effective = n * plain / variance if variance > 0 else float(n)
    return PoweredMean(
        value=value,
        low=value - half,
        high=value + half,
        tuning=tuning,
        labels=n,
        effective_labels=effective,
    )


def _variance(parts: Sequence[tuple[Floats, Sequence[str]]], *, pseudo: float) -> tuple[float, int]:
    """Variance of a sum of means, by groups that may occur in all of them; groups in the first."""
    sums: dict[str, float] = {}
    for values, names in parts:
        for value, name in zip((values - values.mean()) / len(values), names, strict=True):
            sums[name] = sums.get(name, 0.0) + float(value)
    own = len(set(parts[0][1]))
    total = sum(v * v for v in sums.values()) + pseudo
    return total * own / max(1, own - 1), own
