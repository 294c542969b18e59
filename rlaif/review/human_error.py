"""How often people err, estimated from pairs that several of them labeled.  Pure.

Dawid and Skene 1979 (Applied Statistics 28), with one rate of error for each reviewer, the same for
both sides: reviewers err independently of each other.  Where hard pairs are hard for everybody,
they err together, and the estimate is too low.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlaif.evaluation.stats.intervals import Share, share
from rlaif.review.store import Decision, ReviewTask
from rlaif.util.hashing import digest
from rlaif.util.numerics import sigmoid

LEAST_PAIRS = 20
"""Pairs with two votes, or votes on planted pairs, from which an error is estimated."""
_PRIOR = 10.0
"""Votes that a reviewer is credited with at the common rate, beside their own."""
_LEAST, _MOST = 0.005, 0.45
_ROUNDS = 5000


@dataclass(frozen=True)
class HumanError:
    """How often one vote is wrong.

    Attributes:
        rate, low, high: of all reviewers together, with a 95% interval.
        pairs: what it rests on: pairs with two votes or more, or votes on planted pairs.
        planted: whether it rests on planted pairs.
        by_reviewer: each reviewer's own, drawn to the common rate where there are few votes.
    """

    rate: float
    low: float
    high: float
    pairs: int
    planted: bool
    by_reviewer: Mapping[str, float]

    @property
    def ceiling(self) -> float:
        """How often two people agree with each other: no judge can be asked for more."""
        return 1.0 - 2.0 * self.rate * (1.0 - self.rate)


def estimate_human_error(
    tasks: Iterable[ReviewTask], decisions: Sequence[Decision], *, expert: str = ""
) -> HumanError | None:
    """The error of votes for a side; None where too few pairs have two of them.

    Args:
        decisions: what each reviewer said first of a pair; those that were not blind do not count.
        expert: whose votes made the planted pairs; they are no test of them.
    """
    by_number = {task.number: task for task in tasks}
    votes: dict[int, dict[str, str]] = {}
    for d in decisions:
        known = by_number.get(d.item)
        if known is None or not d.blind or d.verdict not in ("a", "b"):
            continue
        if not (known.gold and d.reviewer == expert):
            votes.setdefault(d.item, {})[d.reviewer] = d.verdict
    gold = {n: by_number[n].gold for n in votes if by_number[n].gold in ("a", "b")}
    planted = [said == gold[n] for n in gold for said in votes[n].values()]
    several = [_two_of(n, own) for n, own in votes.items() if len(own) > 1 and n not in gold]
    if len(planted) >= max(LEAST_PAIRS, len(several)):
        right = share(sum(planted), len(planted))
        common = Share(
            hits=right.total - right.hits,
            total=right.total,
            rate=1.0 - right.rate,
            low=1.0 - right.high,
            high=1.0 - right.low,
        )
    elif len(several) >= LEAST_PAIRS:
        same = share(sum(one == two for one, two in several), len(several))
        rate, high, low = (_of_agreement(a) for a in (same.rate, same.low, same.high))
        hits = round(rate * same.total)
        common = Share(hits=hits, total=same.total, rate=rate, low=low, high=high)
    else:
        return None
    return HumanError(
        rate=common.rate,
        low=common.low,
        high=common.high,
        pairs=common.total,
        planted=len(planted) >= max(LEAST_PAIRS, len(several)),
        by_reviewer=_by_reviewer(votes, gold, common.rate),
    )


def _two_of(number: int, votes: Mapping[str, str]) -> tuple[str, str]:
    """Two of a pair's votes, drawn by its number: each pair counts once."""
    names = sorted(votes, key=lambda name: digest(["two of", number, name]))
    return votes[names[0]], votes[names[1]]


def _of_agreement(agreement: float) -> float:
    """The error of two voters alike who agree so often: 2 e (1 - e) is the rest."""
    return (1.0 - math.sqrt(max(0.0, 2.0 * agreement - 1.0))) / 2.0


def _by_reviewer(
    votes: Mapping[int, Mapping[str, str]], gold: Mapping[int, str], common: float
) -> dict[str, float]:
    """Each reviewer's error, by expectation maximization from the common one."""
    start = min(max(common, _LEAST), _MOST)
    names = sorted({name for own in votes.values() for name in own})
    rates = dict.fromkeys(names, start)
    # Pairs on which the same people said the same are computed once: it converges slowly.
    told: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter(
        (gold.get(n, ""), tuple(sorted(own.items())))
        for n, own in votes.items()
        if len(own) > 1 or n in gold
    )
    seen = dict.fromkeys(names, _PRIOR)
    for (_, own), count in told.items():
        for name, _vote in own:
            seen[name] += count
    for _ in range(_ROUNDS):
        wrong = dict.fromkeys(names, _PRIOR * start)
        odds = {name: odds_of(rate) for name, rate in rates.items()}
        for (known, own), count in told.items():
            p_a = float(known == "a")
            if not known:
                p_a = sigmoid(math.fsum(odds[w] if v == "a" else -odds[w] for w, v in own))
            for name, vote in own:
                wrong[name] += count * (1.0 - p_a if vote == "a" else p_a)
        new = {name: min(max(wrong[name] / seen[name], _LEAST), _MOST) for name in names}
        moved = max((abs(new[name] - rates[name]) for name in names), default=0.0)
        rates = new
        if moved < 1e-7:
            break
    return rates


def odds_of(error: float) -> float:
    """What a vote with that chance of error adds to the log-odds."""
    kept = min(max(error, _LEAST), _MOST)
    return math.log((1.0 - kept) / kept)


def take_out_error(wrong: Share, ties: float, error: HumanError) -> Share:
    """The share of wrong labels without the errors of those who said so.

    Of votes for a side, a share r contradicts the judge: j (1 - e) + (1 - j) e, where the judge is
    wrong on j and a vote on e.  Solved for j; ties stay as they are.  The interval takes the ends
    of both.

    Args:
        wrong: as people said it.
        ties: share of it that people call a tie.
    """

    def solve(observed: float, e: float) -> float:
        tied = ties * observed
        against = (observed - tied) / (1.0 - tied) if tied < 1.0 else 0.0
        judge = (against - e) / (1.0 - 2.0 * e) if e < 0.5 else 0.0
        return tied + (1.0 - tied) * min(1.0, max(0.0, judge))

    rate, low, high = (
        solve(wrong.rate, error.rate),
        solve(wrong.low, error.high),
        solve(wrong.high, error.low),
    )
    return Share(hits=round(rate * wrong.total), total=wrong.total, rate=rate, low=low, high=high)
