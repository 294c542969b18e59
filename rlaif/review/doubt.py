"""How much a person's look at a pair is worth, and why.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif.evaluation.bias.own_family import own_side
from rlaif.records import CLEAR
from rlaif.review.items import ReviewItem

OF_UNDECIDED = 0.25
"""What a tie or an abstention is worth: no wrong label, but one that could be had."""
_ORDERS, _PRINCIPLES, _JUDGES, _HOSTILE, _THIN, _OWN = 0.25, 0.25, 0.25, 0.3, 0.1, 0.1


@dataclass(frozen=True)
class DoubtSignals:
    """What speaks for a look at a pair.

    Attributes:
        score: the higher, the sooner; its first part is the chance that the label is wrong.
        wrong: that chance, as the judge's own confidence has it: 0 where there is no label.
        reasons: in words, the strongest first.
    """

    score: float
    wrong: float
    reasons: tuple[str, ...]


def doubt(
    item: ReviewItem, thin: frozenset[str] = frozenset(), judges: tuple[str, ...] = ()
) -> DoubtSignals:
    """The chance that the judge is wrong, plus a quarter at most for each kind of contradiction.

    Uncertainty and disagreement sampling (Lewis and Gale 1994; Seung et al. 1992): small margins,
    orders that disagree, principles or judges that oppose each other, and text that speaks to the
    judge.

    Args:
        thin: tags of which the run has few pairs: their labels are checked more.
        judges: the models that judged: what they prefer of their own family is checked more.
    """
    decided = item.status == "decided"
    wrong = min(item.p_a, 1.0 - item.p_a) if decided else 0.0
    parts = [(wrong if decided else OF_UNDECIDED, _first_reason(item, wrong))]
    if item.order_consistency < 1.0:
        parts.append((_ORDERS * (1.0 - item.order_consistency), "the two orders disagree"))
    signs = [2.0 * o.p_a - 1.0 for o in item.opinions if not o.invalid]
    opposed = min(max(signs, default=0.0), -min(signs, default=0.0))
    if opposed >= CLEAR:
        parts.append((_PRINCIPLES * opposed, "principles disagree"))
    members = [2.0 * p - 1.0 for _, p in item.judges]
    apart = (max(members) - min(members)) / 2.0 if members else 0.0
    if apart >= CLEAR:
        parts.append((_JUDGES * apart, "judges disagree"))
    if item.prompt_injection:
        parts.append((_HOSTILE, f"possible prompt injection ({item.prompt_injection})"))
    rare = thin.intersection(item.tags)
    if rare:
        parts.append((_THIN, f"few pairs have the tag {min(rare)!r}"))
    own = int(own_side(judges, ([item.origins[0]], [item.origins[1]]))[0])
    if own and item.winner == ("a" if own > 0 else "b"):
        parts.append((_OWN, "the judge prefers a model of its own family (self-preference)"))
    named = sorted((p for p in parts if p[1]), key=lambda part: -part[0])
    return DoubtSignals(sum(value for value, _ in parts), wrong, tuple(text for _, text in named))


def _first_reason(item: ReviewItem, wrong: float) -> str:
    if item.status == "tie":
        return "the judge's verdict is a tie"
    if item.status != "decided":
        return f"no label: {item.reason}" if item.reason else "no label"
    return "low judge confidence" if wrong >= (1.0 - CLEAR) / 2.0 else ""
