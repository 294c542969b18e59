"""A labeler with an engine of its own, where the engine's devices are.

It labels in a thread, where its engine was started, task after task.  So `work` can tell twice a
second how it gets on: what is paid for is known if it dies, and that nobody asks any more is seen
soon.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from rlaif.data.sources import RowsInOrder
from rlaif.engines.base import EngineSettings, EngineStats
from rlaif.engines.registry import create_engine
from rlaif.errors import EngineStopped, RlaifError
from rlaif.judging.prefix_order import TokenCount
from rlaif.judging.rendering import Renderer
from rlaif.labeling.labeler import Labeler, LabelProgress
from rlaif.labeling.task import LabelTask
from rlaif.labeling.token_accounting import block_cache
from rlaif.runs.directory import RowSink
from rlaif.runs.tally import Tally
from rlaif.store.verdict_cache import AnswerStore
from rlaif.util.user_functions import allow_functions

REPORT_SECONDS = 0.5
CLOSE_SECONDS = 3.0


@dataclass(frozen=True)
class WorkerCounts:
    """What a labeler did since it started.

    Attributes:
        cached: verdicts from the cache, or shared with an equal question of the task.
        written: tokens of reasoning.
        tokens: of the questions asked, as planned.
        stats: of its engine.
    """

    verdicts: int = 0
    cached: int = 0
    written: int = 0
    tokens: TokenCount = field(default_factory=TokenCount)
    stats: EngineStats = field(default_factory=EngineStats)

    def plus(self, other: WorkerCounts) -> WorkerCounts:
        """Both together."""
        return WorkerCounts(
            verdicts=self.verdicts + other.verdicts,
            cached=self.cached + other.cached,
            written=self.written + other.written,
            tokens=self.tokens.plus(other.tokens),
            stats=self.stats.plus(other.stats),
        )


@dataclass(frozen=True)
class WorkerReport:
    """How a labeler gets on.

    Attributes:
        done: since the report before.
        rows: finished of the task that it is at.
        error: what ends the run, and not only this labeler.
    """

    counts: WorkerCounts
    done: list[Any] = field(default_factory=list)
    rows: int = 0
    error: RlaifError | None = None


@dataclass(frozen=True)
class WorkerReady:
    """A labeler has started; `fingerprint` is its judge's."""

    fingerprint: str


class _Ended(Exception):
    """The labeler is to stop what it does."""


class LabelWorker(ABC):
    """A labeler and its engine; `label_one` says what it does with a task.

    Args:
        judge: the settings of its engine.

    Raises:
        RlaifError: the engine does not start, or the template does not suit its model.
    """

    def __init__(self, task: LabelTask, judge: EngineSettings) -> None:
        self._task, self._judge = task, judge
        allow_functions(*task.functions)
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._past = WorkerCounts()
        self._labeler: Labeler | None = None
        self._counting = threading.Lock()
        self._ended = False
        self._fault: BaseException | None = None
        self._ready: Future[WorkerReady] = Future()
        self._thread = threading.Thread(target=self._label, daemon=True)
        self._thread.start()
        self._ready.result()

    @abstractmethod
    def label_one(self, task: Any) -> Any:
        """Do a task, in the thread; what came of it has the task's `first`."""
        ...

    def traits(self) -> WorkerReady:
        """See `WorkerReady`."""
        return self._ready.result()

    def work(self, tasks: Sequence[Any]) -> WorkerReport:
        """Take more tasks, if any; a report once one is done, or after a while."""
        if self._fault is not None:
            raise self._fault
        for task in tasks:
            self._tasks.put(task)
        done: list[Any] = []
        with suppress(queue.Empty):
            found = self._done.get(timeout=REPORT_SECONDS)
            while True:
                if isinstance(found, RlaifError) and not isinstance(found, EngineStopped):
                    return WorkerReport(self._counts(), done, error=found)
                if isinstance(found, BaseException):
                    self._fault = found  # raised by the next call: first, what it had done
                    break
                done.append(found)
                found = self._done.get_nowait()
        with self._counting:
            rows = 0 if self._labeler is None else self._labeler.progress.rows
        return WorkerReport(self._counts(), done, rows)

    def _label(self) -> None:
        """In the thread: task after task."""
        try:
            with closing(create_engine(self._judge)) as self._engine:
                Renderer(
                    self._task.template, self._engine.codec, self._task.settings.shots
                )  # what is wrong with it shows now
                self._known = block_cache(self._engine)
                self._ready.set_result(WorkerReady(self._engine.fingerprint))
                self._label_all()
        except BaseException as error:  # whoever waits raises it
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    def _label_all(self) -> None:
        try:
            while (task := self._tasks.get()) is not None:
                self._done.put(self.label_one(task))
        except _Ended:
            return
        except BaseException as error:  # `work` tells, before the engine is closed
            self._done.put(error)

    def label_rows(
        self, rows: RowsInOrder, first: int, answers: AnswerStore, run: RowSink
    ) -> tuple[Tally, WorkerCounts]:
        """Label some rows; their tally, and what they took.

        Only the input's first rows are looked at for whether the judge can be read: further on,
        a few rows in a line may well be odd.
        """
        labeler = Labeler(
            self._task if first == 0 else replace(self._task, check_command=""),
            self._engine,
            answers,
            run,
            known=self._known,
            on_progress=self._go_on,
        )
        self._labeler = labeler
        tally = labeler.label(rows, first)
        took = _counts_of(labeler)
        with self._counting:
            self._past, self._labeler = self._past.plus(took), None
        return tally, took

    def _go_on(self, progress: LabelProgress) -> None:
        if self._ended:
            raise _Ended

    def _counts(self) -> WorkerCounts:
        with self._counting:
            here = self._past.plus(WorkerCounts(stats=self._engine.stats()))
            return here if self._labeler is None else here.plus(_counts_of(self._labeler))

    def close(self) -> None:
        """Stop after the answers that are under way, and end the engine."""
        self._ended = True
        self._tasks.put(None)
        self._thread.join(CLOSE_SECONDS)


def _counts_of(labeler: Labeler) -> WorkerCounts:
    """Of one task; the engine counts for itself."""
    p = labeler.progress
    return WorkerCounts(p.verdicts, p.cached, labeler.usage.tokens.written, labeler.tokens)
