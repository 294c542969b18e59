"""What a labeling run has cost so far: time and tokens, over all its processes.

Kept apart from rows, since answers are paid for before a row rests on them.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Protocol

from rlaif.engines.base import EngineStats
from rlaif.runs.cost import TokenUsage
from rlaif.runs.directory import RowSink

SAVE_SECONDS = 0.5


class TokenCounter(Protocol):
    """Something that counts tokens: an engine, or several."""

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        ...


class UsageMeter:
    """Counts on from what earlier processes kept; the clock starts now."""

    def __init__(self, run: RowSink, engine: TokenCounter) -> None:
        self._run, self._engine = run, engine
        kept = run.spent
        try:
            self._seconds = float(kept.get("seconds", 0.0))
            self._tokens = TokenUsage(**{k: int(v) for k, v in kept.get("tokens", {}).items()})
        except (TypeError, ValueError, AttributeError, OverflowError):  # not as it was written
            self._seconds, self._tokens = 0.0, TokenUsage()
        self._written = 0
        self._began = self._kept = time.monotonic()

    @property
    def seconds_here(self) -> float:
        """Seconds in this process."""
        return time.monotonic() - self._began

    @property
    def seconds(self) -> float:
        """Seconds in all."""
        return self._seconds + self.seconds_here

    @property
    def tokens(self) -> TokenUsage:
        """Tokens in all."""
        stats = self._engine.stats()
        computed = stats.prompt_tokens - stats.cached_tokens
        written = self._written + stats.written_tokens
        return self._tokens.plus(TokenUsage(computed, stats.cached_tokens, written))

    def add_generated(self, tokens: int) -> None:
        """The judge wrote some tokens of reasoning."""
        self._written += tokens

    def save(self) -> None:
        """Put it on the disk."""
        self._run.spend(seconds=round(self.seconds, 3), tokens=asdict(self.tokens))
        self._kept = time.monotonic()

    def save_periodically(self) -> None:
        """The same, twice a second at most."""
        if time.monotonic() - self._kept > SAVE_SECONDS:
            self.save()
