"""Several copies of an engine behind the contract of one: replicas in processes or on a cluster.

Questions that share a context go to the same replica.  Each replica holds one portion of
requests in its engine while the next waits beside it, so it never runs dry between portions.
Nothing waits for a slow one: replicas start side by side and work as soon as they are ready.
When one dies, what it had not answered is asked again elsewhere while a new one starts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.engines.base import Engine, EngineSettings, EngineStats, Intake, PrefixSharing
from rlaif.engines.workers import Backend, RestartBudget, WorkerDied
from rlaif.records import ChoiceRequest, Codec, Request, Result

CALLS_WAITING = 2


@dataclass(frozen=True)
class ReplicaTraits:
    """What a replica says about its engine.

    Attributes:
        requests: that it wants at once; 0 where it does not say.
    """

    fingerprint: str
    max_prompt_tokens: int
    sharing: PrefixSharing | None
    requests: int = 0


class Replica:
    """An engine that is handed portions of requests; lives in its own process.

    Args:
        start: starts the engine of the settings.
    """

    def __init__(self, start: Callable[[EngineSettings], Engine], settings: EngineSettings) -> None:
        self._engine = start(settings)
        self._inbox: deque[Request] = deque()
        self._open = 0
        self._results = self._engine.run(self._feed())

    def _feed(self) -> Iterator[Request | None]:
        while True:
            yield self._inbox.popleft() if self._inbox else None

    def traits(self) -> ReplicaTraits:
        """See `ReplicaTraits`."""
        e = self._engine
        wanted = int(getattr(e, "wanted_requests", 0))
        return ReplicaTraits(e.fingerprint, e.max_prompt_tokens, e.sharing, wanted)

    def work(self, requests: Sequence[Request]) -> tuple[list[Result], EngineStats]:
        """Take a portion, and give the answers that came while the one before was finished.

        Returns when no more requests are open than this portion has; with an empty portion,
        when none is.
        """
        self._inbox += requests
        self._open += len(requests)
        done: list[Result] = []
        while self._open > len(requests):
            batch = next(self._results)
            self._open -= len(batch)
            done += batch
        return done, self._engine.stats()

    def close(self) -> None:
        """End the engine."""
        self._engine.close()


@dataclass
class _ReplicaState:
    """What a replica has on its desk.

    Attributes:
        ready: whether it has started.
        started_once: whether it was ever ready.
    """

    ready: bool = False
    started_once: bool = False
    open: dict[str, Request] = field(default_factory=dict)
    calls: int = 0
    stats: EngineStats = field(default_factory=EngineStats)


class ReplicatedEngine:
    """An engine made of replicas.

    Args:
        portion: requests handed over at a time, rounded up to whole contexts.

    Raises:
        RlaifError: a replica does not start the first time, or replicas die again and again.
    """

    elsewhere = True

    def __init__(self, backend: Backend, codec: Codec, replicas: int, portion: int) -> None:
        self.codec = codec
        self._backend = backend
        self._portion = portion
        self._restarts = RestartBudget("replica", replicas, "without returning a result")
        self._again: deque[Request] = deque()
        self._held: Request | None = None
        self._past = EngineStats()
        self._idle = 0.0
        self._states = {number: _ReplicaState() for number in range(replicas)}
        for number in self._states:
            backend.start(number)
        traits = None
        while traits is None:
            for number, outcome in backend.wait(None):
                self._take_note(number, outcome)
                if isinstance(outcome, ReplicaTraits):
                    traits = outcome
        self.fingerprint = traits.fingerprint
        self.max_prompt_tokens = traits.max_prompt_tokens
        self.sharing = traits.sharing
        self._portion = max(self._portion, traits.requests // 2)

    @classmethod
    def start(cls, backend: Backend, codec: Codec, settings: EngineSettings) -> ReplicatedEngine:
        """`settings.data_parallel_size` replicas on a backend, which is closed if one fails.

        Raises:
            RlaifError: a replica does not start.
        """
        portion = max(1, settings.most_in_flight // 2)
        try:
            return cls(backend, codec, settings.data_parallel_size, portion)
        except BaseException:
            backend.close()
            raise

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Hand out portions as replicas have room, and give what they answer."""
        intake = Intake(requests)
        while True:
            ready = [(number, state) for number, state in self._states.items() if state.ready]
            for number, state in ready:
                while state.calls < CALLS_WAITING:
                    portion = self._next_portion(intake)
                    if not portion and (state.calls or not state.open):
                        break  # nothing to give, and nothing to wait for that is not under way
                    self._submit(number, state, portion)
            calls = any(state.calls for _, state in ready)
            if not calls and intake.exhausted and not self._held and not self._again:
                return
            began = time.monotonic()
            # Without a call under way the caller plans meanwhile, or all replicas are starting.
            patience = None if calls or not ready else 0.001
            outcomes = self._backend.wait(patience)
            if not calls:
                self._idle += time.monotonic() - began
            for number, outcome in outcomes:
                results = self._take_note(number, outcome)
                if results:
                    yield results

    def wait_for_all(self) -> None:
        """Wait until every replica is ready; not needed to begin."""
        while not all(state.ready for state in self._states.values()):
            for number, outcome in self._backend.wait(None):
                self._take_note(number, outcome)

    def _take_note(self, number: int, outcome: Any) -> list[Result]:
        """The answers in what came of a replica, if any; a dead one is started anew."""
        state = self._states[number]
        if isinstance(outcome, ReplicaTraits):
            state.ready = state.started_once = True
            return []
        if isinstance(outcome, WorkerDied):
            self._replace(number, outcome)
            return []
        results: list[Result]
        results, state.stats = outcome
        state.calls -= 1
        if results:
            self._restarts.reset()
        for result in results:
            del state.open[result.id]
        return results

    def _next_portion(self, intake: Intake) -> list[Request]:
        """Requests up to the end of a context, once there are enough."""
        portion: list[Request] = []
        while self._again and len(portion) < self._portion:
            portion.append(self._again.popleft())
        if portion:
            return portion
        if self._held:
            portion, self._held = [self._held], None
        while len(portion) < 4 * self._portion:
            taken = intake.take(1)
            if not taken:
                break
            if len(portion) >= self._portion and _begins_context(taken[0]):
                self._held = taken[0]
                break
            portion += taken
        return portion

    def _submit(self, number: int, state: _ReplicaState, portion: list[Request]) -> None:
        state.open |= {request.id: request for request in portion}
        state.calls += 1
        self._backend.submit(number, portion)

    def _replace(self, number: int, died: WorkerDied) -> None:
        """Ask again what a dead replica had not answered, and start another in its place."""
        state = self._states[number]
        self._restarts.spend(number, died, started=state.started_once)
        self._again += state.open.values()
        self._past = self._past.plus(state.stats)
        self._states[number] = _ReplicaState(started_once=state.started_once)
        self._backend.start(number)

    def stats(self) -> EngineStats:
        """Sums over the replicas, those that died included."""
        total = self._past
        for state in self._states.values():
            total = total.plus(state.stats)
        return EngineStats(
            total.requests,
            total.prompt_tokens,
            total.cached_tokens,
            total.idle_seconds + self._idle,
        )

    def close(self) -> None:
        """End all replicas."""
        self._backend.close()


def _begins_context(request: Request) -> bool:
    return not isinstance(request, ChoiceRequest) or 2 * request.shared < len(request.token_ids)
