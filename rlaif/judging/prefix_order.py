"""Orders judge requests as a walk over the tree of their prefixes, and counts its tokens.

Engines take requests first come, first served.  In this order whatever two prompts share is
computed for the first of them and still at hand for the second, however small the cache is.
"""

from __future__ import annotations

from collections import OrderedDict
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


class BlockCache:
    """What an engine's prefix cache holds: whole blocks, the least recently used dropped first.

    As vLLM keeps them: a block is known by its tokens and all that stand before it, and the last
    token of a prompt is always computed.

    Args:
        block: tokens of a block.
        capacity: tokens that fit.
    """

    def __init__(self, block: int, capacity: int) -> None:
        self._block = block
        self._most = max(1, capacity // block)
        self._known: OrderedDict[int, None] = OrderedDict()
        self._context: Sequence[int] = ()
        self._chain: list[int] = []

    def spares(self, context: Sequence[int], tail: Sequence[int]) -> int:
        """Tokens of the prompt `context + tail` that are at hand; all its blocks are then kept."""
        block = self._block
        if context is not self._context:
            self._context, self._chain = context, self._extend(0, context)
        done = len(self._chain) * block
        last = self._chain[-1] if self._chain else 0
        chain = self._chain + self._extend(last, [*context[done:], *tail])
        hits = 0
        for link in chain[: (len(context) + len(tail) - 1) // block]:
            if link not in self._known:
                break
            hits += 1
        for link in chain:
            self._known[link] = None
            self._known.move_to_end(link)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return hits * block

    def _extend(self, link: int, tokens: Sequence[int]) -> list[int]:
        links = []
        for start in range(0, len(tokens) - self._block + 1, self._block):
            link = hash((link, tuple(tokens[start : start + self._block])))
            links.append(link)
        return links


@dataclass
class TokenCount:
    """Tokens of a plan.

    Attributes:
        prompt: of all prompts, as if each were computed from scratch.
        predicted: that the engine computes, given how it shares prefixes.
        unique: without those that the prompt before, or the engine's cache, has already: what
            is left if sharing were by tokens and not by blocks.
        attended: tokens that the unique tokens look back at, summed: the size of attention.
    """

    prompt: int = 0
    predicted: int = 0
    unique: int = 0
    attended: int = 0

    def plus(self, other: TokenCount) -> TokenCount:
        """Both together."""
        return TokenCount(
            self.prompt + other.prompt,
            self.predicted + other.predicted,
            self.unique + other.unique,
            self.attended + other.attended,
        )

    def add(self, length: int, shared: int, spared: int) -> None:
        """Count a prompt.

        Args:
            length: its tokens.
            shared: how many leading ones the prompt before it has.
            spared: how many leading ones the engine does not compute.
        """
        known = max(shared, spared)
        self.prompt += length
        self.predicted += length - spared
        self.unique += length - known
        self.attended += (length - known) * (length + known + 1) // 2
