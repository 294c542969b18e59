"""Folds verdicts into a preference: orders, then principles, then tiers.

Everything is computed on signed opinions in [-1, 1] (positive for `a`), so that swapping `a`
and `b` negates every number exactly, and sums are exact (`math.fsum`), so that the order of
principles does not matter.  A stronger opinion for `a` never makes `a` less likely, and no small
change of an opinion makes a large one of the probability; `tests/judging` prove it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlaif.constitution.schema import Principle
from rlaif.records import Preference, PrincipleScore, Verdict

CHECK_LOGIT = math.log(99.0)
"""A programmatic principle that tells the two apart speaks with probability 0.99."""


class AggregationSettings(BaseModel):
    """How opinions become a preference."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pooling: Literal["share", "mean"] = Field(
        default="share",
        description="How to pool a tier's principles. share: each side's strongest opinion, by "
        "its share of all that is said; principles without an opinion do not dilute the others. "
        "mean: the weighted mean.",
    )
    contradiction: Literal["keep", "tie", "abstain"] = Field(
        default="keep",
        description="What a principle says whose two orders name different winners, one of them "
        "clearly. keep: the mean of both, which cancels a constant position bias. tie: nothing. "
        "abstain: it has no valid verdict.",
    )
    clear_margin: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Margin from which a tier overrules the tiers below it.",
    )
    tie_margin: float = Field(
        default=0.05, ge=0, le=1, description="Pairs with a margin below this are ties."
    )
    min_coverage: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="Minimum share of principle weight with valid verdicts, in each tier that is "
        "consulted. Pairs below it are abstentions: no lower tier decides for a higher one.",
    )


def score_principle(principle: Principle, verdicts: Sequence[Verdict]) -> PrincipleScore:
    """Fold the orders of one judge principle.

    The mean of logits over both orders cancels a position bias that is additive in logits;
    half their difference is that bias.  One invalid order makes the score invalid: half of an
    order-averaged verdict is a biased one.
    """
    if not verdicts:
        return PrincipleScore(
            principle.id, principle.tier, principle.weight, 0.0, invalid="not judged"
        )
    mass = min([v.label_mass for v in verdicts])
    for v in verdicts:
        if v.invalid:
            reason = f"order {v.order}: {v.invalid}"
            return PrincipleScore(
                principle.id, principle.tier, principle.weight, 0.0, label_mass=mass, invalid=reason
            )
    if len(verdicts) == 1:
        logit = verdicts[0].logit_a
        return PrincipleScore(
            principle.id, principle.tier, principle.weight, logit, label_mass=mass
        )
    ab, ba = verdicts if verdicts[0].order == "ab" else verdicts[::-1]
    return PrincipleScore(
        principle.id,
        principle.tier,
        principle.weight,
        (ab.logit - ba.logit) / 2.0,
        position_logit=(ab.logit + ba.logit) / 2.0,
        flipped=ab.logit * ba.logit > 0,
        label_mass=mass,
    )


def score_check(principle: Principle, a_passes: bool, b_passes: bool) -> PrincipleScore:
    """A programmatic principle's opinion: for the one that passes alone, else none."""
    logit = CHECK_LOGIT * (int(a_passes) - int(b_passes))
    return PrincipleScore(principle.id, principle.tier, principle.weight, logit, source="check")


def failed_check(principle: Principle, reason: str) -> PrincipleScore:
    """A programmatic principle whose check broke."""
    return PrincipleScore(
        principle.id, principle.tier, principle.weight, 0.0, source="check", invalid=reason
    )


def pool_share(scores: Sequence[PrincipleScore]) -> float:
    """Signed opinion of a tier: each side's strongest opinion, by its share of all that is said.

    With P and N the sums of w|s| for `a` and for `b`, it is max(s+) P / (P + N) - max(s-) N / (P +
    N).  One opinion counts as it is, equal ones as one of them, and none not at all; there is no
    other way to be so and monotone where all opinions are on one side.  Opinions are bounded, so a
    judge that is too sure of one principle does not outvote the others.
    """
    sides = [[s for s in scores if sign * s.sign > 0.0] for sign in (1, -1)]
    said = [math.fsum(s.weight * abs(s.sign) for s in side) for side in sides]
    total = math.fsum(said)
    if total == 0.0:
        return 0.0
    top = [max((abs(s.sign) for s in side), default=0.0) for side in sides]
    return top[0] * (said[0] / total) - top[1] * (said[1] / total)


def pool_mean(scores: Sequence[PrincipleScore]) -> float:
    """Signed opinion of a tier: the mean of s by weight (a linear opinion pool)."""
    total = math.fsum(s.weight for s in scores)
    return math.fsum(s.weight * s.sign for s in scores) / total if total else 0.0


_POOLS: dict[str, Callable[[Sequence[PrincipleScore]], float]] = {
    "share": pool_share,
    "mean": pool_mean,
}


def heard(
    scores: Sequence[PrincipleScore], settings: AggregationSettings
) -> Sequence[PrincipleScore]:
    """Opinions as they count: see `AggregationSettings.contradiction`."""
    if settings.contradiction == "keep" or not any(s.flipped and s.clear for s in scores):
        return scores
    change: dict[str, Any] = {"logit": 0.0}
    if settings.contradiction == "abstain":
        change["invalid"] = "its two orders contradict each other"
    return [replace(s, **change) if s.flipped and s.clear else s for s in scores]


def pool(settings: AggregationSettings, scores: Sequence[PrincipleScore]) -> float:
    """Signed opinion of a tier: 1 for `a` to -1 for `b`."""
    return _POOLS[settings.pooling](scores)


def aggregate(scores: Sequence[PrincipleScore], settings: AggregationSettings) -> Preference:
    """One preference from the opinions of all principles.

    Tiers are consulted from 1 upwards, see `_overrule`.  A tier without enough valid verdicts
    decides nothing, and no lower tier decides in its place, unless a higher one is clear: judges
    refuse most where a higher one matters.
    """
    if not scores:
        return _undecided("abstained", scores, "no principle applies")
    consistency = _consistency(scores)
    opinion, deciding, uncovered = _consult_tiers(heard(scores, settings), settings)
    if uncovered:
        reason = _lacking(heard(scores, settings), uncovered)
        return replace(_undecided("abstained", scores, reason), order_consistency=consistency)
    margin, p_a = abs(opinion), (1.0 + opinion) / 2.0
    decided = Preference(
        status="decided",
        winner="a" if opinion > 0 else "b",
        p_a=p_a,
        margin=margin,
        scores=tuple(scores),
        deciding_tier=deciding,
        order_consistency=consistency,
    )
    # Floating point is finer under one half than over it: what is a tie goes by the coarser side.
    if margin < settings.tie_margin or (1.0 + margin) / 2.0 == 0.5:
        reason = f"near tie (margin {margin:.3f} < {settings.tie_margin:g})"
        return replace(decided, status="tie", winner=None, reason=reason)
    return decided


def _consult_tiers(
    scores: Sequence[PrincipleScore], settings: AggregationSettings
) -> tuple[float, int | None, list[PrincipleScore]]:
    """The signed opinion, the first tier that is clear (None for none), and the tier that has too
    few valid verdicts for any decision (empty for none).
    """
    opinions: list[float] = []
    deciding = None
    for tier in sorted({s.tier for s in scores}):
        members = [s for s in scores if s.tier == tier]
        if not is_covered(members, 0.0, settings.min_coverage):
            if deciding is None:
                return 0.0, None, members
            break
        opinion = pool(settings, [s for s in members if not s.invalid])
        opinions.append(opinion)
        if deciding is None and abs(opinion) >= settings.clear_margin and opinion != 0.0:
            deciding = tier
    found = 0.0
    for opinion in reversed(opinions):
        found = _overrule(opinion, found, settings.clear_margin)
    return found, deciding, []


def _overrule(opinion: float, below: float, clear: float) -> float:
    """The signed opinion of a tier and of those below it.

    What contradicts it counts the less the clearer the tier is, and not at all from the margin
    `clear` on; of two that agree, the stronger counts.
    """
    if opinion * below >= 0.0:
        return max(opinion, below, key=abs)
    heard = 1.0 - abs(opinion) / clear if abs(opinion) < clear else 0.0
    return opinion + heard * below


def is_covered(members: Sequence[PrincipleScore], left: float, least: float) -> bool:
    """Whether enough of a tier's weight has valid verdicts.

    Args:
        left: the weight of its principles that have no verdict yet, which may all be invalid.
        least: the share that is enough.
    """
    valid = math.fsum(s.weight for s in members if not s.invalid)
    return valid > 0.0 and valid >= least * (math.fsum(s.weight for s in members) + left)


def _lacking(scores: Sequence[PrincipleScore], members: Sequence[PrincipleScore]) -> str:
    broken = next(s for s in members if s.invalid)
    valid = math.fsum(s.weight for s in members if not s.invalid)
    coverage = valid / math.fsum(s.weight for s in members)
    where = f" in tier {broken.tier}" if len({s.tier for s in scores}) > 1 else ""
    return (
        f"too few valid verdicts{where} (coverage {coverage:.2f}): {broken.principle}: "
        f"{broken.invalid}"
    )


def _undecided(
    status: Literal["tie", "abstained"], scores: Sequence[PrincipleScore], reason: str
) -> Preference:
    return Preference(
        status=status, winner=None, p_a=0.5, margin=0.0, scores=tuple(scores), reason=reason
    )


def _consistency(scores: Sequence[PrincipleScore]) -> float | None:
    both = [s for s in scores if s.position_logit is not None and s.clear]
    if not both:
        return None
    return sum(not s.flipped for s in both) / len(both)
