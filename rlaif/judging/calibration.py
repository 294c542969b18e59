"""Turns a judge's confidence into the probability that people agree with it.

A calibration is fitted on labels of people (`rlaif calibrate`) and applied to every preference.
It maps the winner's probability, so swapping the responses changes nothing but the side, and no
decision changes, only how sure it is; temperatures of single principles, where they are asked
for, change what is aggregated and so decisions too.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaif.records import DIGITS, Preference, PrincipleScore
from rlaif.util.numerics import sigmoid

Method = Literal["temperature", "platt", "isotonic", "features"]
FEATURES = ("contradicting_orders", "no_clear_tier", "dissenting_judges")
"""What else a preference says of its own doubt; see `measure_doubt`."""
SMALLEST = 1e-5


NO_DOUBT: Mapping[str, float] = {}


def measure_doubt(preference: Preference) -> dict[str, float]:
    """What a preference says of its own doubt, beside its probability.

    Returns:
        contradicting_orders: share of principles with a clear opinion whose orders contradict each
            other; no_clear_tier: 1 where no tier was clear; dissenting_judges: share of a panel's
            judges on the other side. By the names in `FEATURES`. Of a panel only the last one,
            since its judges' orders and tiers are their own.
    """
    if preference.dissent is not None:
        return {**dict.fromkeys(FEATURES, 0.0), "dissenting_judges": preference.dissent}
    consistency = preference.order_consistency
    return {
        "contradicting_orders": 0.0 if consistency is None else 1.0 - consistency,
        "no_clear_tier": float(preference.deciding_tier is None),
        "dissenting_judges": 0.0,
    }


class Calibration(BaseModel):
    """A fitted calibration: the content of a calibration file.

    Attributes:
        temperature: log-odds are divided by it (Guo et al. 2017, arXiv:1706.04599).
        slope, intercept: of the confidence's log-odds (Platt 1999).
        features: what each measure of doubt adds to those log-odds, by name.
        knots: confidence and what it becomes, rising (isotonic; Zadrozny and Elkan 2002).
        principles: temperatures of single principles, applied before they are aggregated.
        made_for: what it was fitted for, by content hash; another judge needs another one.
        points: confidence (before the map) and whether people agreed, for certifying thresholds.
        measured: before and after, on labels that were held out.
        intervals: at 95%, of the temperature and of the errors before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    method: Method = "temperature"
    temperature: float = Field(default=1.0, gt=0)
    slope: float = 1.0
    intercept: float = 0.0
    features: dict[str, float] = Field(default_factory=dict)
    knots: list[tuple[float, float]] = Field(default_factory=list)
    principles: dict[str, float] = Field(default_factory=dict)
    made_for: dict[str, str] = Field(default_factory=dict)
    labels: int = 0
    points: list[tuple[float, float]] = Field(default_factory=list)
    measured: dict[str, dict[str, float]] = Field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)

    def apply(self, confidence: float, doubt: Mapping[str, float] = NO_DOUBT) -> float:
        """The probability that people agree with a winner of this confidence; at least 0.5.

        Args:
            confidence: the winner's probability, from 0.5 to 1.
            doubt: see `measure_doubt`.
        """
        kept = min(max(confidence, 0.5), 1.0 - SMALLEST)
        log_odds = math.log(kept) - math.log1p(-kept)
        match self.method:
            case "temperature":
                found = sigmoid(log_odds / self.temperature)
            case "platt":
                found = sigmoid(self.slope * log_odds + self.intercept)
            case "features":
                more = sum(self.features.get(name, 0.0) * x for name, x in doubt.items())
                found = sigmoid(self.slope * log_odds + self.intercept + more)
            case "isotonic":
                found = _interpolated(self.knots, kept)
        return max(0.5, found)


def _interpolated(knots: Sequence[tuple[float, float]], x: float) -> float:
    if not knots:
        return x
    xs = [k[0] for k in knots]
    i = bisect_right(xs, x)
    if i == 0:
        return knots[0][1]
    if i == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[i - 1], knots[i]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def tempered(
    scores: Sequence[PrincipleScore], temperatures: Mapping[str, float]
) -> list[PrincipleScore]:
    """Opinions with their log-odds divided by their principle's temperature."""
    if not temperatures:
        return list(scores)
    found = []
    for score in scores:
        t = temperatures.get(score.principle, 1.0)
        position = score.position_logit
        found.append(
            replace(
                score,
                logit=score.logit / t,
                position_logit=None if position is None else position / t,
            )
        )
    return found


def calibrated(
    preference: Preference, calibration: Calibration | None, threshold: float | None = None
) -> Preference:
    """A preference with its probability calibrated.

    Args:
        threshold: least confidence before the map, as rows hold it; a decided pair below it is
            abstained from.
    """
    if preference.winner is None:
        return preference
    confidence = max(preference.p_a, 1.0 - preference.p_a)
    sure = confidence
    if calibration is not None:
        sure = calibration.apply(confidence, measure_doubt(preference))
    p_a = sure if preference.winner == "a" else 1.0 - sure
    if threshold is not None and round(confidence, DIGITS) < threshold:
        reason = (
            f"low confidence ({confidence:.3f} < {threshold:.5g} required by the agreement target)"
        )
        return replace(
            preference, status="abstained", winner=None, p_a=p_a, margin=2 * sure - 1, reason=reason
        )
    return replace(preference, p_a=p_a, margin=2.0 * sure - 1.0)
