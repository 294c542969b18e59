"""Counts the tokens of requests in the order in which they are asked, as an engine's prefix cache
is going to compute them.
"""

from __future__ import annotations

from rlaif.engines.base import Engine
from rlaif.judging.prefix_order import BlockCache, TokenCount, common_length

MAX_TAILS = 4096


def block_cache(engine: Engine) -> BlockCache | None:
    """A model of the engine's prefix cache, empty; None if it has none."""
    if engine.sharing is None or not engine.sharing.capacity:
        return None
    return BlockCache(engine.sharing.block, engine.sharing.capacity)


class TokenAccounting:
    """Compares each request with the one before it.

    Args:
        known: what the engine's prefix cache holds from earlier runs; None for nothing.

    Attributes:
        tokens: of the requests so far.
    """

    def __init__(self, engine: Engine, known: BlockCache | None) -> None:
        self._sharing, self._longest = engine.sharing, engine.max_prompt_tokens
        self._known = known or block_cache(engine)
        self._last: tuple[list[int], list[int]] = ([], [])
        self._tails: dict[tuple[int, int], tuple[list[int], list[int], int]] = {}
        self.tokens = TokenCount()

    def count(self, context: list[int], tail: list[int]) -> int:
        """Count a request; the leading tokens that it shares with the one before."""
        last_context, last_tail = self._last
        if last_context is context:
            shared = len(context) + self._shared_by_tails(last_tail, tail)
        else:
            shared = common_length(last_context + last_tail, context + tail)
        self._last = context, tail
        length = len(context) + len(tail)
        if length <= self._longest:
            self.tokens.add(length, shared, self._cached(context, tail, shared))
        return shared

    def _shared_by_tails(self, before: list[int], tail: list[int]) -> int:
        """Leading tokens that two tails share; the same two follow each other in every context."""
        key = (id(before), id(tail))
        found = self._tails.get(key)
        if found is None:
            if len(self._tails) >= MAX_TAILS:
                self._tails.clear()
            # Kept together with the lists, so that no other list gets their identity.
            found = self._tails[key] = (before, tail, common_length(before, tail))
        return found[2]

    def _cached(self, context: list[int], tail: list[int], shared: int) -> int:
        """Tokens of a prompt that the engine is not going to compute."""
        if self._sharing is None:
            return 0
        if self._known is not None:
            return self._known.spares(context, tail)
        return min(shared, len(context) + len(tail) - 1)
