"""Workers with an engine each, in processes of this machine; `ray_engine.py` has them on a cluster.

What a worker does with its engine is its own affair: a `Replica` answers portions of requests, a
`LabelWorker` labels rows.
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
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import Any, Protocol, TypeAlias

from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError

MAX_RESTARTS = 5
"Maximum deaths per worker, on average, since any worker last finished a task."
MAX_START_TRIES = 3
"""Starts of a worker that dies without a word before it is ready."""

_log = logging.getLogger(__name__)


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
"Makes a worker that holds an engine with these settings; must be picklable."


class WorkerDied(Exception):
    """A worker died; the message says how.

    Attributes:
        error: what it ended with, if that is something that a user can fix.
        raised: whether its own code raised something: another start would end alike.
    """

    def __init__(
        self, message: str, error: RlaifError | None = None, *, raised: bool = False
    ) -> None:
        super().__init__(message)
        self.error = error
        self.raised = raised or error is not None


class RestartBudget:
    """Decides whether a worker that died is started again, and ends what goes on dying.

    A worker whose code raised before it was ready would raise again.  One that died without a
    word before it was ready (a slow or full machine, a node that went away) is started again,
    `MAX_START_TRIES` times in all.

    Args:
        kind: what a worker is called.
        workers: how many there are.
        without: what they die without, if they go on dying.
    """

    def __init__(self, kind: str, workers: int, without: str) -> None:
        self._kind, self._most, self._without = kind, MAX_RESTARTS * workers, without
        self._count = 0
        self._tries: Counter[int] = Counter()

    def reset(self) -> None:
        """Something was done: what counts are the deaths since."""
        self._count = 0

    def spend(self, number: int, died: WorkerDied, *, started: bool, at: str = "") -> None:
        """Count a death; returns if the worker may be started again.

        Args:
            started: whether the worker was ever ready.
            at: where it was, to be said.

        Raises:
            RlaifError: it can't start (with the hint that it gave itself if it gave one), or
                there were too many deaths.
        """
        if not started:
            self._tries[number] += 1
            if died.raised or self._tries[number] >= MAX_START_TRIES:
                hint = "Check free memory and devices, or lower --data-parallel-size."
                why = str(died) if died.error is None else died.error.message
                own = "" if died.error is None else died.error.hint
                raise RlaifError(f"{self._kind} {number} did not start ({why})", hint=own or hint)
            _log.warning("%s %d died while starting (%s); trying again", self._kind, number, died)
            return
        self._count += 1
        if self._count > self._most:
            raise RlaifError(
                f"{self._kind}s died {self._count} times {self._without} (the last: {died}{at})",
                hint="Rerun the same command to resume.",
            )


class Backend(Protocol):
    """Starts workers somewhere and calls them; a call is known by the worker's number.

    Attributes:
        make: makes what it starts copies of; to be set before the first starts.
    """

    make: MakeWorker

    def host_proxy(self, make: Callable[[], Any]) -> Callable[[], Any]:
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
        """What came of workers, in order for each: its traits, what it did, or `WorkerDied`.

        Args:
            seconds: how long to wait for something; None waits until there is something.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass(frozen=True)
class _LogSettings:
    """What this process does not want to hear of libraries, for those that it starts.

    Attributes:
        filters: of warnings.
        levels: of loggers.
    """

    filters: list[Any]
    levels: dict[str, int]

    @staticmethod
    def of_this_process() -> _LogSettings:
        """As it is set here."""
        known = logging.root.manager.loggerDict.items()
        loggers = [(name, one) for name, one in known if isinstance(one, logging.Logger)]
        levels = {name: int(one.level) for name, one in loggers if one.level}
        filters = [
            one for one in warnings.filters if getattr(one[2], "__module__", "") == "builtins"
        ]
        return _LogSettings(filters, levels)

    def keep(self) -> None:
        """Set the same here."""
        warnings.filters[:] = self.filters  # type: ignore[index]
        for name, level in self.levels.items():
            logging.getLogger(name).setLevel(level)


def _serve(
    make: MakeWorker,
    settings: EngineSettings,
    environment: dict[str, str],
    silence: _LogSettings,
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
        died = WorkerDied(f"{type(error).__name__}: {error}", raised=True)
        if isinstance(error, RlaifError):
            died = WorkerDied(str(error), error)
        with suppress(OSError):
            pipe.send(died)


class ProcessBackend:
    """Workers on this machine, each a process with devices of its own.

    What is sent goes through a thread for each: a pipe takes little, and a worker reads it only
    between two tasks.  Processes are no daemons, since an engine over several devices has
    processes of its own; they end with this one in any case.
    """

    make: MakeWorker

    def __init__(self, settings: EngineSettings, environments: Sequence[dict[str, str]]) -> None:
        self._settings = settings
        self._environments = environments
        self._spawn = get_context("spawn")
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Any] = {}
        self._outboxes: dict[int, queue.SimpleQueue[Any]] = {}
        self._unsent: list[Exception] = []
        atexit.register(self.close)

    def host_proxy(self, make: Callable[[], Any]) -> Callable[[], Any]:
        """See `Backend.host_proxy`: all are on this machine."""
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
                _LogSettings.of_this_process(),
                theirs,
            ),
        )
        # Until it is a group of its own, Ctrl-C is not for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            # A module of the working folder is no part of Python's library.
            os.environ.setdefault("PYTHONSAFEPATH", "1")
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
        return self._lose(number, outcome) if isinstance(outcome, WorkerDied) else outcome

    def _lose(self, number: int, died: WorkerDied | None = None) -> WorkerDied:
        """End a worker that is of no more use, so that another finds its devices free."""
        del self._pipes[number]
        self._outboxes[number].put(None)
        process = self._processes[number]
        _end(process, 5)
        return died or WorkerDied(f"its process exited with code {process.exitcode}")

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


def open_process_backend(settings: EngineSettings) -> ProcessBackend:
    """`settings.data_parallel_size` workers, each to be started on its own GPUs (or cores).

    Raises:
        RlaifError: there are too few GPUs.
    """
    gpus = _count_gpus()
    workers, each = settings.data_parallel_size, settings.tensor_parallel_size
    one = settings.model_copy(update={"data_parallel_size": 1})
    if gpus and gpus < workers * each:
        raise RlaifError(
            f"{workers} replicas with {each} GPU{'s' if each > 1 else ''} each need "
            f"{workers * each}, but there {'is' if gpus == 1 else 'are'} {gpus}",
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
