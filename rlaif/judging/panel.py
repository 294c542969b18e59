"""Folds what several judges say about a pair into one preference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlaif.records import DIGITS, Preference, PrincipleScore, Status

PanelMode = Literal["mean", "majority", "weighted", "cascade"]


@dataclass(frozen=True)
class JudgeVote:
    """What one judge says about a pair.

    Attributes:
        p_a: probability that `a` is better.
        status: "abstained" has no vote.
    """

    judge: str
    p_a: float
    winner: Literal["a", "b"] | None
    status: Status
    weight: float = 1.0


def aggregate_panel(
    opinions: Sequence[JudgeVote],
    mode: PanelMode,
    *,
    tie_margin: float,
    scores: Sequence[PrincipleScore] = (),
) -> Preference:
    """One preference of a panel.

    "mean" averages probabilities (the linear opinion pool; Verga et al. 2024, arXiv:2404.18796,
    average scores so), "weighted" by weight; "majority" counts winners, a tie being half a vote
    for each; "cascade" takes the last judge that was asked.  Judges that abstain have no vote; if
    more than half do, so does the panel.

    Args:
        scores: the principles' opinions to keep with it.

    Long because it has one way out for each status.
    """
    if mode == "cascade":
        last = opinions[-1]
        decided = last.status == "decided"
        return Preference(
            status=last.status,
            winner=last.winner if decided else None,
            p_a=last.p_a,
            margin=abs(2 * last.p_a - 1),
            scores=tuple(scores),
            reason="" if decided else f"{last.judge}: {last.status}",
            dissent=measure_dissent([o.p_a for o in opinions], last.winner if decided else None),
        )
    voting = [o for o in opinions if o.status != "abstained"]
    if 2 * len(voting) < len(opinions) or not voting:
        reason = f"{len(opinions) - len(voting)} of {len(opinions)} judges abstained"
        return Preference(
            status="abstained",
            winner=None,
            p_a=0.5,
            margin=0.0,
            scores=tuple(scores),
            reason=reason,
        )
    if mode == "majority":
        votes = [{"a": 1.0, "b": 0.0}.get(o.winner or "", 0.5) for o in voting]
        p_a = math.fsum(votes) / len(votes)
    else:
        weights = [o.weight if mode == "weighted" else 1.0 for o in voting]
        total = math.fsum(weights)
        p_a = math.fsum(w * o.p_a for w, o in zip(weights, voting, strict=True)) / total
    margin = abs(2.0 * p_a - 1.0)
    if margin < tie_margin or p_a == 0.5:
        reason = f"near tie (margin {margin:.3f} < {tie_margin:g})"
        return Preference(
            status="tie", winner=None, p_a=p_a, margin=margin, scores=tuple(scores), reason=reason
        )
    winner: Literal["a", "b"] = "a" if p_a > 0.5 else "b"
    return Preference(
        status="decided",
        winner=winner,
        p_a=p_a,
        margin=margin,
        scores=tuple(scores),
        dissent=measure_dissent([o.p_a for o in opinions], winner),
    )


def measure_dissent(p_a: Sequence[float], winner: str | None) -> float | None:
    """The share of judges on the other side than the winner; one of no side counts one half.

    Args:
        p_a: of each judge that was asked, abstaining or not, the probability that `a` is better.
    """
    if winner is None or not p_a:
        return None
    sides = [round(2.0 * p - 1.0, DIGITS - 1) * (1.0 if winner == "a" else -1.0) for p in p_a]
    return math.fsum(1.0 if side < 0 else 0.5 if side == 0 else 0.0 for side in sides) / len(sides)
