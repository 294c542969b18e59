"""Means from few labels of people and many of a judge, with intervals that hold.

Prediction-powered inference (Angelopoulos et al. 2023, Science 382; power-tuned: PPI++,
arXiv:2311.01453).  Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from rlaif.evaluation.resampling import Floats


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
    people: Floats, judge_there: Floats, judge_elsewhere: Floats, *, confidence: float = 0.95
) -> PoweredMean:
    """The mean of what people would say of everything.

    The judge's mean over unlabeled items, corrected by how far it is off on labeled ones, and
    weighed so that the variance is least: never worse, for many labels, than labels alone.

    Args:
        people: labels of n items (drawn at random).
        judge_there: what the judge says of the same n.
        judge_elsewhere: what it says of N others.

    Raises:
        ValueError: fewer than two labels, or arrays that do not match.
    """
    n, many = len(people), len(judge_elsewhere)
    if n < 2 or len(judge_there) != n:
        raise ValueError("needs two labels or more, with the judge's word on each")
    plain = float(people.var(ddof=1)) / n
    tuning = 0.0
    if many:
        everywhere = np.concatenate([judge_there, judge_elsewhere])
        spread = float(everywhere.var(ddof=1))
        if spread > 0:
            together = float(np.cov(people, judge_there, ddof=1)[0, 1])
            tuning = float(np.clip(together / (spread * (1.0 + n / many)), 0.0, 1.0))
    value = float(people.mean())
    variance = plain
    if tuning > 0:
        value += tuning * float(judge_elsewhere.mean() - judge_there.mean())
        variance = float((people - tuning * judge_there).var(ddof=1)) / n
        if many > 1:
            variance += tuning**2 * float(judge_elsewhere.var(ddof=1)) / many
    half = float(student.ppf(0.5 + confidence / 2, n - 1)) * variance**0.5
    effective = n * plain / variance if variance > 0 else float(n)
    return PoweredMean(value, value - half, value + half, tuning, n, effective)
