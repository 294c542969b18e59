"""A labeler with an engine of its own that is handed shards: where the engine's devices are.

`sharding.py` hands them out and writes what comes of them.
"""

from __future__ import annotations

import json
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field

from rlaif.data.file_formats import Row
from rlaif.engines.base import EngineSettings, EngineStats
from rlaif.engines.registry import create_engine
from rlaif.errors import EngineStopped, RlaifError
from rlaif.judging.prefix_order import TokenCount
from rlaif.judging.rendering import Renderer
from rlaif.labeling.labeler import Labeler, LabelProgress
from rlaif.labeling.task import LabelTask
from rlaif.labeling.token_accounting import block_cache
from rlaif.records import Rejected
from rlaif.runs.shard_files import ShardFiles
from rlaif.runs.tally import Tally
from rlaif.store.verdict_cache import AnswerStore
from rlaif.util.user_functions import allow_functions

REPORT_SECONDS = 0.5
CLOSE_SECONDS = 3.0
_UNPICKLED = (RecursionError, ValueError, TypeError, AttributeError, pickle.PicklingError)


@dataclass(frozen=True)
class Shard:
    """Some rows that follow each other.

    Attributes:
        first: the number of the first in the whole input, from 0.
        packed: the rows with their places; see `pack`.
    """

    first: int
    packed: bytes

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place."""
        for place, row in pickle.loads(self.packed):
            yield place, json.loads(row) if isinstance(row, str) else row


def pack_rows(read: list[tuple[str, Row | Rejected]]) -> bytes:
    """Rows as they are sent.

    A row nested too deeply for pickle goes as JSON, which nests deeper; one that does not fit
    into that either is rejected.
    """
    try:
        return pickle.dumps(read)
    except _UNPICKLED:
        return pickle.dumps([(place, _sendable(place, row)) for place, row in read])


def _sendable(place: str, row: Row | Rejected) -> Row | Rejected | str:
    try:
        pickle.dumps(row)
    except _UNPICKLED:
        try:
            return json.dumps(row)
        except (RecursionError, ValueError, TypeError) as error:
            return Rejected(place, f"the row can't be sent to a labeler: {type(error).__name__}")
    return row


@dataclass(frozen=True)
class ShardDone:
    """What came of a shard: `lines` by the name of the run's file."""

    first: int
    lines: dict[str, list[str]]
    tally: Tally


@dataclass(frozen=True)
class WorkerCounts:
    """What a labeler did since it started.

    Attributes:
        cached: verdicts from the cache, or shared with an equal question of the shard.
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
class ShardReport:
    """How a labeler gets on.

    Attributes:
        done: since the report before.
        error: what ends the run, and not only this labeler.
    """

    counts: WorkerCounts
    done: list[ShardDone] = field(default_factory=list)
    error: RlaifError | None = None


@dataclass(frozen=True)
class WorkerReady:
    """A labeler has started; `fingerprint` is its judge's."""

    fingerprint: str


class _Ended(Exception):
    """The labeler is to stop what it does."""


class ShardLabeler:
    """A labeler and its engine, where the engine's devices are.

    It labels in a thread, where its engine was started, shard after shard.  So `work` can tell
    twice a second how it gets on: what is paid for is known if it dies, and that nobody asks any
    more is seen soon.

    Args:
        open_answers: gives the verdict cache, or what stands for it there.
        judge: the settings of its engine.

    Raises:
        RlaifError: the engine does not start, or the template does not suit its model.
    """

    def __init__(
        self, task: LabelTask, open_answers: Callable[[], AnswerStore], judge: EngineSettings
    ) -> None:
        self._task, self._judge = task, judge
        allow_functions(*task.functions)
        self._answers = open_answers()
        self._shards: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[ShardDone | BaseException] = queue.SimpleQueue()
        self._past = WorkerCounts()
        self._labeler: Labeler | None = None
        self._counting = threading.Lock()
        self._ended = False
        self._fault: BaseException | None = None
        self._ready: Future[WorkerReady] = Future()
        self._thread = threading.Thread(target=self._label, daemon=True)
        self._thread.start()
        self._ready.result()

    def traits(self) -> WorkerReady:
        """See `WorkerReady`."""
        return self._ready.result()

    def work(self, shards: list[Shard]) -> ShardReport:
        """Take more shards, if any; a report once one is done, or after a while."""
        if self._fault is not None:
            raise self._fault
        for shard in shards:
            self._shards.put(shard)
        done: list[ShardDone] = []
        with suppress(queue.Empty):
            found = self._done.get(timeout=REPORT_SECONDS)
            while True:
                if isinstance(found, RlaifError) and not isinstance(found, EngineStopped):
                    return ShardReport(self._counts(), done, found)
                if isinstance(found, BaseException):
                    self._fault = found  # raised by the next call: first, what it had done
                    break
                done.append(found)
                found = self._done.get_nowait()
        return ShardReport(self._counts(), done)

    def _label(self) -> None:
        """In the thread: shard after shard."""
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
            while (shard := self._shards.get()) is not None:
                self._done.put(self._label_one(shard))
        except _Ended:
            return
        except BaseException as error:  # `work` tells, before the engine is closed
            self._done.put(error)

    def _label_one(self, shard: Shard) -> ShardDone:
        run, task = ShardFiles(), self._task
        labeler = Labeler(
            task,
            self._engine,
            self._answers,
            run,
            known=self._known,
            on_progress=self._go_on,
        )
        self._labeler = labeler
        tally = labeler.label(shard, shard.first)
        with self._counting:
            self._past, self._labeler = self._past.plus(_counts_of(labeler)), None
        return ShardDone(shard.first, run.lines, tally)

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
        self._shards.put(None)
        self._thread.join(CLOSE_SECONDS)


def _counts_of(labeler: Labeler) -> WorkerCounts:
    """Of one shard; the engine counts for itself."""
    p = labeler.progress
    return WorkerCounts(p.verdicts, p.cached, labeler.usage.tokens.written, labeler.tokens)
