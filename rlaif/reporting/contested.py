"""Finds the pairs of a run that most deserve a second look."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rlaif.records import Message
from rlaif.runs.labels import LabelRow, read_labels


@dataclass(frozen=True)
class ContestedPair:
    """A pair with small margin or contradicting verdicts.

    Attributes:
        left, right: the two completions; `left` is the chosen one where the pair is decided.
        opinions: (principle, probability that `left` is better), or the reason it has none.
    """

    id: str
    status: str
    reason: str
    prompt: list[Message]
    left: list[Message]
    right: list[Message]
    p_left: float
    order_consistency: float
    opinions: list[tuple[str, float, str]]


def most_contested(run: Path, *, most: int) -> list[ContestedPair]:
    """The pairs on which principles and orders contradict each other most, worst first.

    Memory is bounded by `most`; identical or empty completions are settled, not contested.
    """
    tie_break = count()
    heap: list[tuple[float, int, ContestedPair]] = []
    for pair in map(_contested, read_labels(run)):
        if pair.opinions:
            # The root of the heap is the least troubled pair kept, the latest among equals.
            item = (_trouble(pair), -next(tie_break), pair)
            if len(heap) < most:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    return [pair for _, _, pair in sorted(heap, key=lambda e: (-e[0], -e[1]))]


def _trouble(pair: ContestedPair) -> float:
    """From 0 (of one mind, or of none) to 3 (contradicting itself in every way).

    The sum of: how strongly two principles oppose each other, the share of clear principles
    whose orders disagree, and how much of the strongest opinion the margin does not show.
    """
    signs = [2.0 * p - 1.0 for _, p, invalid in pair.opinions if not invalid]
    opposed = min(max(signs, default=0.0), -min(signs, default=0.0))
    strongest = max(map(abs, signs), default=0.0)
    margin = abs(2.0 * pair.p_left - 1.0)
    return max(0.0, opposed) + (1.0 - pair.order_consistency) + max(0.0, strongest - margin)


def _contested(label: LabelRow) -> ContestedPair:
    left, right = label.sides
    return ContestedPair(
        id=label.id,
        status=label.status,
        reason=label.reason,
        prompt=label.prompt,
        left=left,
        right=right,
        p_left=label.of_first_side(label.p_a),
        order_consistency=label.order_consistency,
        opinions=[(o.principle, label.of_first_side(o.p_a), o.invalid) for o in label.principles],
    )
