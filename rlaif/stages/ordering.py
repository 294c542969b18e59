"""Orders judge requests as a walk over the tree of their prefixes, and counts its tokens.

Engines take requests first come, first served.  In this order whatever two prompts share is
computed for the first of them and still at hand for the second, however small the cache is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def walk(paths: Sequence[Sequence[str]]) -> list[int]:
    """An order of `paths` in which those that begin alike stand together.

    Branches come in the order in which they first appear, so that an input without repetition
    stays as it is.

    Args:
        paths: what each prompt is made of, from its start: prompt, first response, second.

    Returns:
        Indices into `paths`.
    """
    first_seen: dict[tuple[str, ...], int] = {}
    keys = []
    for i, path in enumerate(paths):
        steps = (tuple(path[: depth + 1]) for depth in range(len(path)))
        keys.append((*(first_seen.setdefault(step, i) for step in steps), i))
    return [key[-1] for key in sorted(keys)]


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading elements two sequences share."""
    low, high = 0, min(len(one), len(other))
    if high < 48:
        for i, (x, y) in enumerate(zip(one, other, strict=False)):
            if x != y:
                return i
        return high
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # invariant: they agree up to `low`, and not up to `high`
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


@dataclass
class TokenCount:
    """Tokens of a plan.

    Attributes:
        prompt: of all prompts, as if each were computed from scratch.
        predicted: that an engine computes which shares prefixes in whole blocks and keeps the
            request before; it computes at least the last token of every prompt.
        unique: of the prefix tree, each counted once: no engine can compute fewer.
        attended: tokens that the unique tokens look back at, summed: the size of attention.
    """

    prompt: int = 0
    predicted: int = 0
    unique: int = 0
    attended: int = 0

    def add(self, length: int, shared: int, block: int) -> None:
        """Count a prompt of `length` tokens that shares `shared` with the one before it.

        Args:
            block: prefixes are shared in multiples of it; 0 if they are not shared at all.
        """
        self.prompt += length
        self.unique += length - shared
        self.attended += (length - shared) * (length + shared + 1) // 2
        spared = min(shared, length - 1) // block * block if block else 0
        self.predicted += length - spared
