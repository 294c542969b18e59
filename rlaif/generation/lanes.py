"""Runs engines side by side, each group of them in a thread.

Engines that compute in this process share a thread, since libraries keep state that no two of them
may have at once.  Those that compute elsewhere (servers, replicas, a core in a process of its own)
have a thread each, so that none of them waits for another.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from rlaif.engines.base import Engine
from rlaif.judging.prefix_order import common_length
from rlaif.records import ChoiceRequest, Request, Result

GRACE = 5.0
"""Seconds that an engine has to come back when a run ends early."""


class _Stopped(BaseException):
    """Leaves an engine's loop when the run ends early."""


class EngineQueue:
    """The requests that wait for an engine, and how many it has.

    Args:
        engine: that answers them.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._waiting: deque[Request] = deque()
        self._flying = 0
        self._last: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def flying(self) -> int:
        """Requests that it has and did not answer yet."""
        return self._flying

    def put(self, request: Request) -> None:
        """Add one at the end."""
        self._waiting.append(request)

    def take(self) -> Request | None:
        """The next one, with how much it shares with the one before; None if there is none."""
        if not self._waiting:
            return None
        self._flying += 1
        request = self._waiting.popleft()
        if isinstance(request, ChoiceRequest):
            request.shared = common_length(self._last, request.token_ids)
        self._last = request.token_ids
        return request

    def answered(self, count: int) -> None:
        """So many of its requests came back."""
        self._flying -= count


def make_lanes(queues: Mapping[int, EngineQueue]) -> list[list[EngineQueue]]:
    """Engines that may run side by side: those of a lane run one after the other."""
    here = [q for q in queues.values() if not getattr(q.engine, "elsewhere", False)]
    lanes = [[q] for q in queues.values() if q not in here]
    return [here, *lanes] if here else lanes


class Lanes:
    """Threads that answer what is put into their engines' queues; a context manager.

    Args:
        lanes: see `make_lanes`.
    """

    def __init__(self, lanes: Sequence[Sequence[EngineQueue]]) -> None:
        self._came: queue.SimpleQueue[list[Result] | BaseException] = queue.SimpleQueue()
        self._more = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._drive, args=(lane,), daemon=True, name=f"lane-{n}")
            for n, lane in enumerate(lanes)
        ]

    def __enter__(self) -> Lanes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.wake()
        for thread in self._threads:
            thread.join(GRACE)

    def wake(self) -> None:
        """Say that requests were put into queues."""
        with self._more:
            self._more.notify_all()

    def results(self, timeout: float | None) -> list[Result]:
        """The next answers; none if none came in `timeout` seconds.

        Raises:
            Exception: what an engine raised.
        """
        try:
            came = self._came.get(timeout=timeout)
        except queue.Empty:
            return []
        if isinstance(came, BaseException):
            raise came
        return came

    def _drive(self, lane: Sequence[EngineQueue]) -> None:
        try:
            while True:
                with self._more:
                    self._more.wait_for(lambda: self._closed or any(lane))
                if self._closed:
                    return
                fullest = max(lane, key=len)
                for results in fullest.engine.run(self._feed(fullest)):
                    fullest.answered(len(results))
                    self._came.put(results)
        except _Stopped:
            return
        except BaseException as error:  # the run ends with it, wherever it was raised
            self._came.put(error)

    def _feed(self, own: EngineQueue) -> Iterator[Request | None]:
        while True:
            if self._closed:
                raise _Stopped
            request = own.take()
            if request is not None:
                yield request
            elif own.flying:
                yield None
            else:
                return
