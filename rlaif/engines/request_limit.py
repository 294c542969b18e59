"""How many requests a server takes at once, learned from what it says."""

from __future__ import annotations

import math
import threading
import time


class RequestLimit:
    """One more request at once for each round that goes well, half as many where it is busy.

    Additive increase and multiplicative decrease (Chiu and Jain 1989) find what a server takes.

    Args:
        most: requests at once, whatever the server takes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed, self._not_before, self._slowed = float(most), 0.0, -math.inf
        self._lock = threading.Lock()

    @property
    def allowed(self) -> int:
        """Requests at once."""
        return int(self._allowed)

    @property
    def pause(self) -> float:
        """Seconds that the server asked everybody to wait still; not above 0 for none."""
        return self._not_before - time.monotonic()

    def note_success(self) -> None:
        """A request was answered."""
        with self._lock:
            self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)

    def note_busy(self, sent: float, seconds: float) -> None:
        """A request was too much; those that were sent together count once.

        Args:
            sent: when, on the monotonic clock.
            seconds: to wait, as the server says.
        """
        with self._lock:
            self._not_before = max(self._not_before, time.monotonic() + seconds)
            if sent > self._slowed:
                self._allowed = max(1.0, self._allowed / 2)
                self._slowed = time.monotonic()
