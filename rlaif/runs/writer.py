"""Writes answers and rows in a thread of its own, so that the judge never waits for a disk.

What is given is written in the order it was given, except that answers of a later batch may be
durable before rows of an earlier one: rows can be aggregated again from answers, not the reverse.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.runs.directory import RowSink
from rlaif.runs.rows import VerdictRows
from rlaif.store.verdict_cache import AnswerStore, CachedAnswer

MOST_WAITING = 16
LINGER_SECONDS, MOST_AT_ONCE = 0.2, 4096
"""Answers are committed when there are so many, or after so long: a commit of many costs little
more than one of few."""


@dataclass
class _WriteBatch:
    """What is handed over at once: answers, then rows, then perhaps the journal's state."""

    number: int
    answers: list[tuple[bytes, CachedAnswer]] = field(default_factory=list)
    rows: list[tuple[str, Mapping[str, Any] | VerdictRows]] = field(default_factory=list)
    state: dict[str, Any] | None = None


class RunWriter:
    """Appends to a verdict cache and a run directory.

    Attributes:
        committed: the number of the last batch whose answers are durable.
    """

    def __init__(self, cache: AnswerStore, run: RowSink) -> None:
        self._cache = cache
        self._run = run
        self._queue: queue.Queue[_WriteBatch | None] = queue.Queue(MOST_WAITING)
        self._batch = _WriteBatch(1)
        self._error: BaseException | None = None
        self.committed = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def answers(self, answers: Sequence[tuple[bytes, CachedAnswer]]) -> int:
        """Keep answers; the number of their batch."""
        self._batch.answers += answers
        return self._batch.number

    def row(self, name: str, row: Mapping[str, Any] | VerdictRows) -> None:
        """Add a row, or the verdicts of a pair, to a row file."""
        self._batch.rows.append((name, row))

    def checkpoint(self, **state: Any) -> None:
        """Journal `state` after everything given so far, and hand all of it over."""
        self._batch.state = state
        self.hand_over()

    def hand_over(self) -> None:
        """Let the thread write what was given; waits where it is far behind.

        Raises:
            RlaifError, OSError: an earlier batch could not be written.
        """
        if self._error:
            raise self._error
        batch = self._batch
        if batch.answers or batch.rows or batch.state:
            self._batch = _WriteBatch(batch.number + 1)
            self._queue.put(batch)

    def close(self) -> None:
        """Write what is left and end the thread.

        Raises:
            RlaifError, OSError: something could not be written.
        """
        if self._thread.is_alive():
            if not self._error:
                self.hand_over()
            self._queue.put(None)
            self._thread.join()
        if self._error:
            raise self._error

    def _work(self) -> None:
        open_ = True
        while open_:
            batches = self._gather()
            open_ = batches[-1] is not None
            if self._error is None:
                try:
                    self._write([b for b in batches if b is not None])
                except BaseException as error:  # the next `hand_over` raises it
                    self._error = error

    def _gather(self) -> list[_WriteBatch | None]:
        """What arrives until it is much, or until the first of it has waited long enough."""
        batches = [self._queue.get()]
        until, answers = time.monotonic() + LINGER_SECONDS, 0
        while batches[-1] is not None and answers < MOST_AT_ONCE:
            answers += len(batches[-1].answers)
            try:
                batches.append(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            except queue.Empty:
                break
        return batches

    def _write(self, batches: list[_WriteBatch]) -> None:
        self._cache.put([answer for batch in batches for answer in batch.answers])
        if batches:
            self.committed = batches[-1].number
        for batch in batches:
            for name, row in batch.rows:
                self._run.append(name, row)
            if batch.state is not None:
                self._run.checkpoint(**batch.state)
