"""Reads a verdict from label log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.records import ChoiceResult, Failure, Order, Verdict
from rlaif.util.numerics import logsumexp

LARGEST_LOGIT = 60.0


_ROUNDING = 0.02
"""How far above 1 the labels' probabilities may be by rounding, in half precision."""


def read_verdict(
    result: ChoiceResult | Failure,
    *,
    principle: str,
    order: Order,
    floor: float,
    cached: bool = False,
    reasoning: str = "",
) -> Verdict:
    """Fold a result into a verdict.

    Args:
        result: log-probabilities of the two labels (the first label means that the response
            shown first is better), or why there are none.
        floor: least label mass (probability on the two labels together) of a valid verdict.
            Below it the judge was about to say something else, and renormalizing would guess.
        reasoning: what the judge wrote before the labels were read.
    """
    if isinstance(result, Failure):
        return Verdict(principle, order, 0.0, 0.0, invalid=result.reason, cached=cached)
    first, second = result.logprobs
    if math.isnan(first) or math.isnan(second):
        return Verdict(
            principle, order, 0.0, 0.0, invalid="label log-probability is NaN", cached=cached
        )
    if max(first, second) > _ROUNDING or math.exp(first) + math.exp(second) > 1 + _ROUNDING:
        return Verdict(
            principle=principle,
            order=order,
            logit=0.0,
            label_mass=0.0,
            invalid=f"log-probabilities of more than 1 together ({first:g} and {second:g})",
            cached=cached,
        )
    mass = min(1.0, math.exp(first) + math.exp(second))
    if mass < floor or first == second == -math.inf:
        reason = f"low label mass ({mass:.3g} < {floor:g})"
        return Verdict(principle, order, 0.0, mass, invalid=reason, cached=cached)
    # A label with probability zero in floating point still has a finite log-odds.
    logit = first - second
    if abs(logit) > LARGEST_LOGIT:
        logit = math.copysign(LARGEST_LOGIT, logit)
    return Verdict(principle, order, logit, mass, cached=cached, reasoning=reasoning)


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade on a scale, as a judge gives it.

    Attributes:
        mean: the expected grade.
        spread: its standard deviation.
        mass: probability on the grades at all.
        invalid: why there is none, or "".
    """

    mean: float
    spread: float
    mass: float
    invalid: str = ""


def read_grade(logprobs: Sequence[float], grades: Sequence[int], *, floor: float) -> Grade:
    """Fold the probabilities of grades into their mean and spread (G-Eval, Liu et al. 2023,
    arXiv:2303.16634, section 2, weighs grades so).

    Args:
        logprobs: of each grade.
        grades: lowest first.
        floor: least mass of a valid one.
    """
    weights = [math.exp(log) for log in logprobs]
    mass = math.fsum(weights)
    if not math.isfinite(mass) or mass > 1 + _ROUNDING:
        return Grade(0.0, 0.0, 0.0, f"grades have the probability {mass:g} together")
    if mass < floor or not mass:
        return Grade(0.0, 0.0, mass, f"low label mass ({mass:.3g} < {floor:g})")
    mean = math.fsum(g * w for g, w in zip(grades, weights, strict=True)) / mass
    variance = math.fsum((g - mean) ** 2 * w for g, w in zip(grades, weights, strict=True)) / mass
    return Grade(mean, math.sqrt(variance), min(1.0, mass))


def compare_scores(
    name: str, first: ChoiceResult, second: ChoiceResult, scores: Sequence[int]
) -> ChoiceResult:
    """One result called `name` for two labels, of the scores that a judge gives two responses.

    The probability that the first response is better is that of a higher score, and half of that
    of an equal one, the two drawn independently from what the judge says of each.

    Args:
        first, second: log-probabilities of each score.
    """
    shares, masses, told = [], [], []
    for result in (first, second):
        weights = [math.exp(log) for log in result.logprobs]
        mass = math.fsum(weights)
        masses.append(mass)
        share = [weight / mass if mass else 1.0 / len(weights) for weight in weights]
        mean = math.fsum(s * p for s, p in zip(scores, share, strict=True))
        spread = math.fsum((s - mean) ** 2 * p for s, p in zip(scores, share, strict=True)) ** 0.5
        shares.append(share)
        told.append(f"{mean:.2f} (spread {spread:.2f})")
    over = math.fsum(
        p * q * (1.0 if n > m else 0.5 if n == m else 0.0)
        for n, p in enumerate(shares[0])
        for m, q in enumerate(shares[1])
    )
    mass = masses[0] * masses[1]
    logs = tuple(math.log(mass * p) if mass * p > 0 else -math.inf for p in (over, 1.0 - over))
    return ChoiceResult(name, logs, evidence=f"scores {told[0]} and {told[1]}")


def mean_of_samples(name: str, samples: Sequence[ChoiceResult | Failure]) -> ChoiceResult | Failure:
    """One result called `name`: the mean probability of each label over the samples that came.

    Fewer than half of them are no result: those that came would be the hasty ones.
    """
    came = [s for s in samples if isinstance(s, ChoiceResult)]
    if 2 * len(came) < len(samples) or not came:
        reason = next(s.reason for s in samples if isinstance(s, Failure))
        return Failure(
            name, f"{len(samples) - len(came)} of {len(samples)} reasoning samples failed: {reason}"
        )
    columns = zip(*(s.logprobs for s in came), strict=True)
    return ChoiceResult(name, tuple(logsumexp(c) - math.log(len(came)) for c in columns))
