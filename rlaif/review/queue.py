"""In which order people see pairs, and with what chance each got into the queue.  Pure.

Two samples in one queue: the pairs that are most in doubt, which correct the most labels, and a
random audit, which says how good all labels are.  The audit takes pairs by permanent random
numbers (Ohlsson 1995): a longer queue holds every pair of a shorter one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlaif.review.doubt import DoubtSignals
from rlaif.util.hashing import digest

AUDIT_SHARE = 0.2


@dataclass(frozen=True)
class QueueCandidate:
    """A pair of the run: its place in the run's files, its name, and what speaks for it."""

    number: int
    name: str
    doubt: DoubtSignals


@dataclass(frozen=True)
class QueuedPair:
    """A pair in the queue.

    Attributes:
        audit: drawn at random, whatever the judge said of it.
        certain: among the most doubtful: it would be here in any case.
        inclusion: chance to be in the queue: 1 where certain.
    """

    candidate: QueueCandidate
    audit: bool
    certain: bool
    inclusion: float


@dataclass(frozen=True)
class QueuePlan:
    """The queue and what to expect of it.

    Attributes:
        total: pairs in the run.
        wrong: labels in the queue that are wrong, if the judge's probabilities mean what they say.
        wrong_at_random: the same for as many pairs drawn at random.
    """

    queue: list[QueuedPair]
    total: int
    wrong: float
    wrong_at_random: float


def plan_queue(
    candidates: Iterable[QueueCandidate],
    budget: int,
    *,
    audit_share: float = AUDIT_SHARE,
    seed: int = 0,
) -> QueuePlan:
    """The `budget` pairs worth most, in the order in which to see them.

    Memory is bounded by the budget.

    Args:
        audit_share: of the budget, for the random audit.
        seed: of the audit.
    """
    audits = min(budget, math.ceil(budget * audit_share - 1e-9))
    by_doubt: list[Entry] = []
    by_chance: list[Entry] = []
    total, wrong = 0, 0.0
    for c in candidates:
        total += 1
        wrong += c.doubt.wrong
        _keep(by_doubt, (c.doubt.score, -c.number, c), budget)
        if audits:
            _keep(by_chance, (-_chance(c.name, seed), -c.number, c), audits)
    audit = [c for _, _, c in sorted(by_chance, reverse=True, key=lambda entry: entry[:2])]
    drawn = {c.number for c in audit}
    ranked = [c for _, _, c in sorted(by_doubt, reverse=True, key=lambda entry: entry[:2])]
    # The certain ones: as many as fit beside the audit, which may hold some of them itself.
    certain: set[int] = set()
    free = min(budget, total) - len(audit)
    for c in ranked:
        # Ends with a pair that is not drawn, so that nothing is known of those behind it.
        if free == 0:
            break
        free -= c.number not in drawn
        certain.add(c.number)
    others = sum(c.number not in certain for c in audit)
    rest = total - len(certain)
    chance = others / rest if rest else 1.0
    most = [c for c in ranked if c.number in certain and c.number not in drawn]
    queue = [
        QueuedPair(
            c, c.number in drawn, c.number in certain, 1.0 if c.number in certain else chance
        )
        for c in _merged(most, audit)
    ]
    expected = sum(q.candidate.doubt.wrong for q in queue)
    return QueuePlan(queue, total, expected, wrong / total * len(queue) if total else 0.0)


Entry = tuple[float, int, QueueCandidate]


def _keep(heap: list[Entry], entry: Entry, most: int) -> None:
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def _chance(name: str, seed: int) -> float:
    """The pair's permanent random number, from 0 to 1."""
    return int(digest(["audit", seed, name])[:13], 16) / 16.0**13


def _merged(
    most: Sequence[QueueCandidate], audit: Sequence[QueueCandidate]
) -> list[QueueCandidate]:
    """Both in their own order, the audit spread evenly: any beginning holds its share of it."""
    total = len(most) + len(audit)
    merged: list[QueueCandidate] = []
    i = j = 0
    while len(merged) < total:
        due = (len(merged) + 1) * len(audit) / total
        if j < len(audit) and (j + 1 <= due or i == len(most)):
            merged.append(audit[j])
            j += 1
        else:
            merged.append(most[i])
            i += 1
    return merged
