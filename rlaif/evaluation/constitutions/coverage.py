"""What each principle of a constitution does to the decisions: decides, repeats, contradicts.

Pure functions of a run's outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm, spearmanr

from rlaif.errors import RlaifError
from rlaif.evaluation.bias.findings import LEAST_GROUPS, mean_test
from rlaif.evaluation.outcomes import Floats, Outcomes
from rlaif.evaluation.stats.agreement import credit
from rlaif.evaluation.stats.resampling import PairedTest, holm, paired_test
from rlaif.records import CLEAR

ALPHA = 0.05
CONTRADICTS, REDUNDANT = -0.3, 0.9
LEAST_SHARED = 20
"Minimum pairs on which both principles have a confident verdict, to correlate the two."


@dataclass(frozen=True)
class PrincipleUse:
    """What one principle does in a run.

    Attributes:
        asked: pairs that it was consulted on.
        opinions: share of them on which it has a clear opinion (margin of 0.2).
        agrees: of its clear opinions on decided pairs, the share that the decision follows.
        decides: pairs whose decision would be another (or none) without it.
    """

    principle: str
    asked: int
    opinions: float
    agrees: float
    decides: int

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.asked:
            return "never applied"
        if not self.decides:
            return "never decisive: no decision changes without it"
        return ""


@dataclass(frozen=True)
class RelatedPrinciples:
    """Two principles that say the opposite, or the same.

    Attributes:
        correlation: of their signed opinions (Spearman 1904) on pairs where both have one.
        p: two-sided, corrected for all pairs of principles (Holm 1979).
    """

    first: str
    second: str
    correlation: float
    p: float
    n: int

    @property
    def verdict(self) -> str:
        """In words."""
        return "contradict each other" if self.correlation < 0 else "are redundant"


@dataclass(frozen=True)
class Coverage:
    """All principles of a run, and the pairs of principles worth a look."""

    pairs: int
    principles: list[PrincipleUse]
    ties: list[RelatedPrinciples]


def coverage(outcomes: Outcomes) -> Coverage:
    """What the principles did in a run.

    Raises:
        RlaifError: leaving one out can't be computed from what was asked.
    """
    _check_plain(outcomes)
    decided = outcomes.decided
    uses = []
    for name, o in outcomes.principles.items():
        sign = np.nan_to_num(np.tanh(o.logits / 2.0))
        clear = np.abs(sign) >= CLEAR
        both = clear & decided
        agrees = float((np.sign(sign[both]) == outcomes.winner[both]).mean()) if both.any() else 0.0
        asked = int(o.asked.sum())
        share = float(clear[o.asked].mean()) if asked else 0.0
        uses.append(
            PrincipleUse(
                principle=name,
                asked=asked,
                opinions=share,
                agrees=agrees,
                decides=_decides(outcomes, name),
            )
        )
    return Coverage(len(outcomes.ids), uses, ties(outcomes))


def _check_plain(outcomes: Outcomes) -> None:
    if not outcomes.plain:
        raise RlaifError(
            f"run {outcomes.name} uses a panel, calibration, or early stopping, so "
            "decisions without a principle cannot be computed",
            hint="Use one judge, without --calibration, --stop, and --orders adaptive.",
        )


def without(outcomes: Outcomes, name: str) -> NDArray[np.int64]:
    """The winners if a principle were left out."""
    winners = outcomes.winner.copy()
    for i in np.flatnonzero(outcomes.principles[name].asked):
        found = outcomes.aggregated(int(i), leave_out=name).winner
        winners[i] = {"a": 1, "b": -1}.get(found or "", 0)
    return winners


def _decides(outcomes: Outcomes, name: str) -> int:
    return int((without(outcomes, name) != outcomes.winner).sum())


def ties(outcomes: Outcomes) -> list[RelatedPrinciples]:
    """Principles that contradict each other or say the same, where a corrected test confirms it."""
    names = list(outcomes.principles)
    signs = {n: np.nan_to_num(np.tanh(o.logits / 2.0)) for n, o in outcomes.principles.items()}
    measured: list[tuple[str, str, float, float, int]] = []
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            both = (np.abs(signs[one]) >= CLEAR) & (np.abs(signs[two]) >= CLEAR)
            n = int(both.sum())
            prompts = [outcomes.groups[k] for k in np.flatnonzero(both)]
            if n >= LEAST_SHARED and len(set(prompts)) >= LEAST_GROUPS:
                pair = signs[one][both], signs[two][both]
                # Pairs of one prompt hang together: the tests count prompts.
                r = _correlation(*pair)
                if r >= REDUNDANT:
                    clash = pair[0] * pair[1] < 0
                    clashing = len({p for p, other in zip(prompts, clash, strict=True) if other})
                    p = _redundant(r, len(set(prompts)), clashing)
                else:
                    p = mean_test(pair[0] * pair[1], prompts, symmetric=True)[3]
                measured.append((one, two, r, p, n))
    if not measured:
        return []
    corrected = holm([m[3] for m in measured])
    found = [
        RelatedPrinciples(first=one, second=two, correlation=r, p=float(p), n=n)
        for (one, two, r, _, n), p in zip(measured, corrected, strict=True)
    ]
    return [
        t
        for t in found
        if t.p < ALPHA and (t.correlation <= CONTRADICTS or t.correlation >= REDUNDANT)
    ]


def _redundant(r: float, count: int, clashing: int) -> float:
    """The p-value against a rank correlation below `REDUNDANT`: the larger of Bonett's and Wright's
    (2000), and of an exact test of how often the principles name different winners.

    Two principles that are equal but now and then clash have a correlation of 1 less twice the
    share of clashes, which a sample without a clash does not show.

    Args:
        count: of independent observations.
        clashing: of these, those in which the principles name different winners.
    """
    often = float(binom.cdf(clashing, count, (1.0 - REDUNDANT) / 2.0))
    error = float(np.sqrt((1.0 + r**2 / 2.0) / max(count - 3, 1)))
    with np.errstate(divide="ignore"):
        near = float(norm.sf((np.arctanh(min(r, 1.0)) - np.arctanh(REDUNDANT)) / error))
    return max(often, near)


def _correlation(one: Floats, two: Floats) -> float:
    """Rank correlation; the sides of a pair mean nothing, so each counts both ways round."""
    if np.ptp(one) == 0.0 and np.ptp(two) == 0.0:
        return float(np.sign(one[0] * two[0]))
    found = spearmanr(np.concatenate([one, -one]), np.concatenate([two, -two]))
    return float(found.statistic)


@dataclass(frozen=True)
class Ablation:
    """Agreement with people if a principle were left out.

    Attributes:
        test: accuracy without it less accuracy with it, on the same pairs.
        p_adjusted: corrected for all principles (Holm 1979).
    """

    principle: str
    accuracy: float
    test: PairedTest
    p_adjusted: float

    @property
    def verdict(self) -> str:
        """In words; only what the corrected test shows."""
        if self.p_adjusted >= ALPHA:
            return "no significant difference"
        return "helps" if self.test.difference.value < 0 else "hurts"


def ablate(
    outcomes: Outcomes, label: NDArray[np.int64], groups: Sequence[str], *, seed: int = 0
) -> list[Ablation]:
    """Leave each principle out in turn; the judge is asked nothing."""
    _check_plain(outcomes)
    clear = label != 0
    own = [groups[i] for i in np.flatnonzero(clear)]
    whole = credit(label[clear], outcomes.winner[clear])
    found = []
    for name in outcomes.principles:
        scores = credit(label[clear], without(outcomes, name)[clear])
        found.append((name, float(scores.mean()), paired_test(scores, whole, own, seed=seed)))
    adjusted = holm([test.p for *_, test in found])
    return [
        Ablation(name, accuracy, test, float(p))
        for (name, accuracy, test), p in zip(found, adjusted, strict=True)
    ]
