"""Garbage collection in a loop that makes millions of short-lived objects.

Python looks for cycles whenever a few hundred objects more are alive, which took a fifth of the
time that labeling costs.  Labeling makes no cycles of its own; those of libraries are looked for
by the clock instead, and not among what was there before the loop began (vLLM freezes its heap
likewise).
"""

from __future__ import annotations

import gc
import time
from types import TracebackType

LEAST_SECONDS = 2.0
SHARE = 0.01


class ThrottledGC:
    """While it is entered, garbage is collected by `maybe_collect` alone.

    Where the collector was switched off before, it is left alone, and so is what was frozen.
    """

    def __enter__(self) -> ThrottledGC:
        self._ours = gc.isenabled()
        self._frozen = self._ours and not gc.get_freeze_count()
        if self._ours:
            gc.disable()
        if self._frozen:
            gc.freeze()
        self._next = time.monotonic() + LEAST_SECONDS
        return self

    def maybe_collect(self) -> None:
        """Collect if it is time: after `LEAST_SECONDS`, and for at most `SHARE` of the time."""
        now = time.monotonic()
        if self._ours and now >= self._next:
            gc.collect()
            done = time.monotonic()
            self._next = done + max(LEAST_SECONDS, (done - now) / SHARE)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._frozen:
            gc.unfreeze()
        if self._ours:
            gc.enable()
