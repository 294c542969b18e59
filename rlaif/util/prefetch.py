"""Runs an iterator ahead of its consumer, in a thread and with a bound."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """Items of an iterator, made ready in a thread.

    Args:
        source: consumed in the thread only.
        most: items kept ready; the thread waits while there are as many.
    """

    def __init__(self, source: Iterator[Item], most: int) -> None:
        self._queue: queue.Queue[tuple[str, Item | BaseException | None]] = queue.Queue(most)
        self._stop = threading.Event()
        self.exhausted = False
        self._thread = threading.Thread(target=self._work, args=(source,), daemon=True)
        self._thread.start()

    def _work(self, source: Iterator[Item]) -> None:
        try:
            for item in source:
                if not self._give(("item", item)):
                    return
            self._give(("end", None))
        except BaseException as error:  # handed to the consumer, which raises it
            self._give(("error", error))

    def _give(self, message: tuple[str, Item | BaseException | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(message, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def poll(self, *, wait: bool) -> Item | None:
        """The next item; None if there is none yet (with `wait`, only at the end)."""
        if self.exhausted:
            return None
        try:
            kind, value = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if kind == "end":
            self.exhausted = True
            return None
        if kind == "error":
            self.exhausted = True
            assert isinstance(value, BaseException)
            raise value
        return value  # type: ignore[return-value]

    def close(self) -> None:
        """Stop the thread after the item that it is making; waits a moment, not for a huge one."""
        self._stop.set()
        self._thread.join(0.5)
