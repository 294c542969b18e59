"""Several copies of an engine behind the contract of one: replicas in processes or on a cluster.

Questions that share a context go to the same replica.  Each replica holds one portion of
requests in its engine while the next waits beside it, so it never runs dry between portions.
Nothing waits for a slow one: replicas start side by side and work as soon as they are ready.
When one dies, what it had not answered is asked again elsewhere while a new one starts.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import queue
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from typing import Any, Protocol, TypeAlias

from rlaif.engines.base import (
    Codec,
    EngineSettings,
    EngineStats,
    Intake,
    PrefixSharing,
    create_engine,
)
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, Request, Result

CALLS_WAITING = 2
MOST_RESTARTS = 5
"""Deaths for each replica, on the average, since the last answer of any of them."""


@dataclass(frozen=True)
class ReplicaTraits:
    """What a replica says about its engine."""

    fingerprint: str
    max_prompt_tokens: int
    sharing: PrefixSharing | None


class Replica:
    """An engine that is handed portions of requests; lives in its own process."""

    def __init__(self, settings: EngineSettings) -> None:
        self._engine = create_engine(settings)
        self._inbox: deque[Request] = deque()
        self._open = 0
        self._results = self._engine.run(self._feed())

    def _feed(self) -> Iterator[Request | None]:
        while True:
            yield self._inbox.popleft() if self._inbox else None

    def traits(self) -> ReplicaTraits:
        """See `ReplicaTraits`."""
        e = self._engine
        return ReplicaTraits(e.fingerprint, e.max_prompt_tokens, e.sharing)

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


class Worker(Protocol):
    """What a backend starts copies of: a `Replica`, or something else with an engine in it."""

    def traits(self) -> Any:
        """What it says once it is ready."""
        ...

    def work(self, task: Any) -> Any:
        """Do a task and give what came of it."""
        ...

    def close(self) -> None:
        """End it."""
        ...


MakeWorker: TypeAlias = Callable[[EngineSettings], Worker]
"""Makes a worker with the engine of the settings in it; can be pickled."""


class Lost(Exception):
    """A worker died; the message says how.

    Attributes:
        error: what it ended with, if that is something that a user can mend.
    """

    def __init__(self, message: str, error: RlaifError | None = None) -> None:
        super().__init__(message)
        self.error = error


def not_started(what: str, lost: Lost) -> RlaifError:
    """That a worker could not start, with the hint that it gave itself if it gave one."""
    hint = "Check free memory and devices, or use a smaller --data-parallel-size."
    if lost.error is None:
        return RlaifError(f"{what} did not start ({lost})", hint=hint)
    return RlaifError(f"{what} did not start ({lost.error.message})", hint=lost.error.hint or hint)


class Backend(Protocol):
    """Starts workers somewhere and calls them; a call is known by the worker's number.

    Attributes:
        make: makes what it starts copies of; to be set before the first starts.
    """

    make: MakeWorker

    def at_home(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """Give workers something of this machine, such as a file that is open here.

        Args:
            make: opens it; can be pickled, as the result can.

        Returns:
            What to call in a worker for something with the same methods.
        """
        ...

    def start(self, number: int) -> None:
        """Begin to start or restart a worker; `wait` tells when it is ready."""
        ...

    def submit(self, number: int, task: Any) -> None:
        """Call `Worker.work` without waiting; calls of one worker run in order."""
        ...

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        """What came of workers, in order for each: its traits, what it did, or `Lost`.

        Args:
            seconds: how long to wait for something; None waits until there is something.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass
class _State:
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

    def __init__(self, backend: Backend, codec: Codec, replicas: int, portion: int) -> None:
        self.codec = codec
        self._backend = backend
        self._portion = portion
        self._restarts = 0
        self._again: deque[Request] = deque()
        self._held: Request | None = None
        self._past = EngineStats()
        self._idle = 0.0
        self._states = {number: _State() for number in range(replicas)}
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
        if isinstance(outcome, Lost):
            self._replace(number, outcome)
            return []
        results: list[Result]
        results, state.stats = outcome
        state.calls -= 1
        if results:
            self._restarts = 0
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

    def _submit(self, number: int, state: _State, portion: list[Request]) -> None:
        state.open |= {request.id: request for request in portion}
        state.calls += 1
        self._backend.submit(number, portion)

    def _replace(self, number: int, lost: Lost) -> None:
        """Ask again what a dead replica had not answered, and start another in its place."""
        state = self._states[number]
        if not state.started_once:
            raise not_started(f"replica {number}", lost)
        self._again += state.open.values()
        self._past = self._past.plus(state.stats)
        self._restarts += 1
        if self._restarts > MOST_RESTARTS * len(self._states):
            raise RlaifError(
                f"replicas died {self._restarts} times without an answer (the last: {lost})",
                hint="Run the same command again: it goes on where it stopped.",
            )
        self._states[number] = _State(started_once=True)
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


@dataclass(frozen=True)
class _Silence:
    """What this process does not want to hear of libraries, for those that it starts.

    Attributes:
        filters: of warnings.
        levels: of loggers.
    """

    filters: list[Any]
    levels: dict[str, int]

    @staticmethod
    def of_this_process() -> _Silence:
        """As it is set here."""
        known = logging.root.manager.loggerDict.items()
        loggers = [(name, one) for name, one in known if isinstance(one, logging.Logger)]
        levels = {name: int(one.level) for name, one in loggers if one.level}
        filters = [
            one for one in warnings.filters if getattr(one[2], "__module__", "") == "builtins"
        ]
        return _Silence(filters, levels)

    def keep(self) -> None:
        """Set the same here."""
        warnings.filters[:] = self.filters  # type: ignore[index]
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)


def _serve(
    make: MakeWorker,
    settings: EngineSettings,
    environment: dict[str, str],
    silence: _Silence,
    pipe: Any,
) -> None:
    """The process of one worker."""
    os.environ.update(environment)
    silence.keep()
    os.setpgrp()  # what the engine starts can be ended with it; Ctrl-C goes to the first process
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        with closing(make(settings)) as worker:
            pipe.send(worker.traits())
            while (task := pipe.recv()) is not None:
                pipe.send(worker.work(task))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return  # whoever asked is gone
    except Exception as error:
        lost = Lost(f"{type(error).__name__}: {error}")
        if isinstance(error, RlaifError):
            lost = Lost(str(error), error)
        with suppress(OSError):
            pipe.send(lost)


class ProcessBackend:
    """Workers on this machine, each a process with devices of its own.

    What is sent goes through a thread for each: a pipe takes little, and a worker reads it only
    between two tasks.  Processes are no daemons, since an engine over several devices has
    processes of its own; they end with this one in any case.
    """

    def __init__(self, settings: EngineSettings, environments: Sequence[dict[str, str]]) -> None:
        self.make: MakeWorker = Replica
        self._settings = settings
        self._environments = environments
        self._spawn = get_context("spawn")
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Any] = {}
        self._outboxes: dict[int, queue.SimpleQueue[Any]] = {}
        self._unsent: list[Exception] = []
        atexit.register(self.close)

    def at_home(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """See `Backend.at_home`: all are on this machine."""
        return make

    def start(self, number: int) -> None:
        """See `Backend.start`."""
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_serve,
            args=(
                self.make,
                self._settings,
                self._environments[number],
                _Silence.of_this_process(),
                theirs,
            ),
        )
        # Until it is a group of its own, Ctrl-C is not for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_send, args=(outbox, ours, self._unsent), daemon=True).start()
        self._processes[number], self._pipes[number] = process, ours
        self._outboxes[number] = outbox

    def submit(self, number: int, task: Any) -> None:
        """See `Backend.submit`; that a worker is dead shows at `wait`."""
        self._outboxes[number].put(task)

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        """See `Backend.wait`."""
        until = float("inf") if seconds is None else time.monotonic() + seconds
        while True:
            if self._unsent:
                raise self._unsent[0]  # nobody is going to answer that
            numbers = {pipe: number for number, pipe in self._pipes.items()}
            patience = min(1.0, max(0.0, until - time.monotonic()))
            ready = connection.wait(list(numbers), patience)
            if ready:
                return [(numbers[pipe], self._receive(numbers[pipe])) for pipe in ready]
            # What a worker has started may hold its end of the pipe open: then no end is seen.
            dead = [n for n in numbers.values() if not self._processes[n].is_alive()]
            dead = [n for n in dead if not self._pipes[n].poll()]
            if dead:
                return [(number, self._lose(number)) for number in dead]
            if time.monotonic() >= until:
                return []

    def _receive(self, number: int) -> Any:
        try:
            outcome = self._pipes[number].recv()
        except (EOFError, OSError):
            return self._lose(number)
        return self._lose(number, outcome) if isinstance(outcome, Lost) else outcome

    def _lose(self, number: int, lost: Lost | None = None) -> Lost:
        """End a worker that is of no more use, so that another finds its devices free."""
        del self._pipes[number]
        self._outboxes[number].put(None)
        process = self._processes[number]
        _end(process, 5)
        return lost or Lost(f"its process ended with code {process.exitcode}")

    def close(self) -> None:
        """See `Backend.close`; interrupted, it ends them at once."""
        for outbox in self._outboxes.values():
            outbox.put(None)
        until = time.monotonic() + 5
        try:
            for process in self._processes.values():
                _end(process, max(0.0, until - time.monotonic()))
        except BaseException:
            for process in self._processes.values():
                _signal(process, signal.SIGKILL)
            raise
        finally:
            atexit.unregister(self.close)


def _end(process: Any, patience: float) -> None:
    """End a process within so many seconds, and whatever it has started and left."""
    process.join(patience)
    for ending in (signal.SIGTERM, signal.SIGKILL):
        if process.is_alive():
            _signal(process, ending)
            process.join(5)
    _signal(process, signal.SIGKILL)


def _signal(process: Any, ending: signal.Signals) -> None:
    """To its group; to itself alone while it has not made one yet."""
    try:
        os.killpg(process.pid, ending)
    except (ProcessLookupError, PermissionError):
        if process.is_alive():
            os.kill(process.pid, ending)


def _send(outbox: queue.SimpleQueue[Any], pipe: Any, unsent: list[Exception]) -> None:
    """Send what is put into `outbox`, the last of which is None; or until the other end is gone."""
    task: Any = ()
    try:
        while task is not None:
            task = outbox.get()
            pipe.send(task)
    except OSError:
        return
    except Exception as error:  # it can't be pickled
        unsent.append(error)


def _count_gpus() -> int:
    """GPUs here, asked for without taking one."""
    torch = importlib.import_module("torch")
    return int(torch.cuda.device_count())


def processes(settings: EngineSettings) -> ProcessBackend:
    """`settings.data_parallel_size` workers, each to be started on its own GPUs (or cores).

    Raises:
        RlaifError: there are too few GPUs.
    """
    gpus = _count_gpus()
    workers, each = settings.data_parallel_size, settings.tensor_parallel_size
    one = settings.model_copy(update={"data_parallel_size": 1})
    if gpus and gpus < workers * each:
        raise RlaifError(
            f"{workers} replicas of {each} GPU{'s' if each > 1 else ''} need {workers * each}, "
            f"and there {'is' if gpus == 1 else 'are'} {gpus}",
            hint="Lower --data-parallel-size or --tensor-parallel-size.",
        )
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    devices = shown if len(shown) >= gpus and shown[0] else [str(i) for i in range(gpus)]
    cores = max(1, len(os.sched_getaffinity(0)) // workers)
    environments = [
        {"CUDA_VISIBLE_DEVICES": ",".join(devices[i * each : (i + 1) * each])}
        if gpus
        else {"OMP_NUM_THREADS": str(cores)}
        for i in range(workers)
    ]
    return ProcessBackend(one, environments)


def on_this_machine(settings: EngineSettings, codec: Codec) -> ReplicatedEngine:
    """An engine of `settings.data_parallel_size` replicas in processes.

    Raises:
        RlaifError: there are too few GPUs, or a replica does not start.
    """
    backend = processes(settings)
    replicas = settings.data_parallel_size
    try:
        return ReplicatedEngine(backend, codec, replicas, max(1, settings.max_in_flight // 2))
    except BaseException:
        backend.close()
        raise
