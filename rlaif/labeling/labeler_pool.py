"""Labelers in processes of their own: they are started, heard, and started again when they die.

`shard_pool.py` hands them rows and takes their lines; `part_pool.py` hands them parts of the input,
which they read and write themselves.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from rlaif.engines.base import EngineSettings, EngineStats
from rlaif.engines.registry import open_backend
from rlaif.engines.workers import Backend, MakeWorker, RestartBudget, WorkerDied
from rlaif.errors import RlaifError
from rlaif.judging.prefix_order import TokenCount
from rlaif.labeling.label_worker import WorkerCounts, WorkerReady
from rlaif.labeling.labeler import LabelProgress
from rlaif.labeling.usage import UsageMeter


class Task(Protocol):
    """What a labeler does at a time: rows of the input that follow each other."""

    @property
    def first(self) -> int:
        """Number of the first row in the whole input, from 0."""
        ...


T = TypeVar("T", bound=Task)


@dataclass
class WorkerState(Generic[T]):
    """What a labeler has to do.

    Attributes:
        ready: whether it has started.
        started_once: whether it was ever ready.
        called: whether it is to report.
        tasks: handed to it, by their first row.
        rows: finished of the task that it is at.
    """

    ready: bool = False
    started_once: bool = False
    called: bool = False
    tasks: dict[int, T] = field(default_factory=dict)
    counts: WorkerCounts = field(default_factory=WorkerCounts)
    rows: int = 0


class LabelerPool(Generic[T]):
    """Labelers side by side; what one left when it died goes to the others.

    Args:
        judge: its `data_parallel_size` is the number of labelers.
        make: from where labelers are started to what starts one.
        unit: what a labeler does at a time, in words.

    Raises:
        RlaifError: there are too few devices for them, or one does not start.
    """

    def __init__(
        self, judge: EngineSettings, make: Callable[[Backend], MakeWorker], unit: str
    ) -> None:
        self._backend: Backend = open_backend(judge)
        try:
            self._backend.make = make(self._backend)
            self.size = judge.data_parallel_size
            self._workers: dict[int, WorkerState[T]] = {
                number: WorkerState() for number in range(self.size)
            }
            self._left: deque[T] = deque()
            self._past = WorkerCounts()
            self._counted, self._without = time.monotonic(), 0
            self._restarts = RestartBudget("labeler", self.size, f"without finishing a {unit}")
            self.fingerprint = ""
            for number in self._workers:
                self._backend.start(number)
            while not self.fingerprint:
                self._hear(None)
        except BaseException:
            self._backend.close()
            raise

    def _able(self) -> list[tuple[int, WorkerState[T]]]:
        """Labelers that can be called."""
        return [(n, w) for n, w in self._workers.items() if w.ready and not w.called]

    def _share_out(self, most: int, take: Callable[[], T | None]) -> dict[int, list[T]]:
        """More tasks for the labelers that can be called; nobody gets a second before all have one.

        Args:
            most: tasks that a labeler has at a time.
            take: gives the next task; None where there is none now.
        """
        able = self._able()
        more: dict[int, list[T]] = {number: [] for number, _ in able}
        for each in range(1, most + 1):
            for number, worker in able:
                if len(worker.tasks) + len(more[number]) >= each:
                    continue
                task = self._left.popleft() if self._left else take()
                if task is not None:
                    more[number].append(task)
        return more

    def _call(self, more: dict[int, list[T]]) -> None:
        """Hand more tasks to labelers, and ask those who have any how they get on."""
        self._count_idle()
        for number, tasks in more.items():
            worker = self._workers[number]
            worker.tasks |= {task.first: task for task in tasks}
            if worker.tasks:
                worker.called = True
                self._backend.submit(number, tasks)
        self._count_idle()

    def _count_idle(self) -> None:
        """Count the time since the last call for those who had no task then; and see who has."""
        now = time.monotonic()
        idle = EngineStats(idle_seconds=self._without * (now - self._counted))
        self._past, self._counted = self._past.plus(WorkerCounts(stats=idle)), now
        self._without = sum(1 for w in self._workers.values() if w.ready and not w.tasks)

    def _hear(self, seconds: float | None) -> list[Any]:
        """What labelers have done; dead ones are started anew."""
        found: list[Any] = []
        for number, outcome in self._backend.wait(seconds):
            worker = self._workers[number]
            if isinstance(outcome, WorkerReady):
                self._check(number, outcome.fingerprint)
                worker.ready = worker.started_once = True
            elif isinstance(outcome, WorkerDied):
                self._replace(number, outcome)
            else:
                worker.called, worker.counts = False, outcome.counts
                worker.rows = outcome.rows
                if outcome.error is not None:
                    raise outcome.error
                for one in outcome.done:
                    del worker.tasks[one.first]
                    self._restarts.reset()
                found += outcome.done
        return found

    def _check(self, number: int, fingerprint: str) -> None:
        if self.fingerprint and fingerprint != self.fingerprint:
            raise RlaifError(
                f"labeler {number} has a different judge than the others",
                hint="Make sure that the model and engine are the same on every machine.",
            )
        self.fingerprint = fingerprint

    def _replace(self, number: int, died: WorkerDied) -> None:
        worker = self._workers[number]
        at = f", at rows from {min(worker.tasks) + 1} on" if worker.tasks else ""
        self._restarts.spend(number, died, started=worker.started_once, at=at)
        self._take_back(worker.tasks.values())
        self._past = self._past.plus(worker.counts)
        self._workers[number] = WorkerState(started_once=worker.started_once)
        self._backend.start(number)

    def _take_back(self, tasks: Iterable[T]) -> None:
        """A labeler died with these: they come before new ones."""
        self._left += tasks

    @property
    def counts(self) -> WorkerCounts:
        """Sums over the labelers, as they last said."""
        total = self._past
        for worker in self._workers.values():
            total = total.plus(worker.counts)
        return total

    def stats(self) -> EngineStats:
        """Sums over the labelers' engines; one without a task is idle."""
        return self.counts.stats

    def close(self) -> None:
        """End them all."""
        self._backend.close()


class PooledLabeling:
    """What a run by a pool counts, as `Labeler` does for a run by one labeler.

    Attributes:
        progress: how far the run is.
        tokens: of the questions asked in this process, as planned.
        reasons: whether the judge writes before it answers.
    """

    def __init__(
        self, pool: LabelerPool[Any], usage: UsageMeter, *, rows: int, reasons: bool
    ) -> None:
        self._counted, self.usage, self.reasons = pool, usage, reasons
        self.progress = LabelProgress(rows=rows)
        self.tokens = TokenCount()
        self._written = 0

    def _count(self) -> None:
        """Take over what the labelers last said."""
        counts = self._counted.counts
        self.usage.add_generated(counts.written - self._written)
        self._written, self.tokens = counts.written, counts.tokens
        self.progress.verdicts, self.progress.cached = counts.verdicts, counts.cached
        self.progress.seconds = self.usage.seconds_here
