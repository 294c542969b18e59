"""Labeling by several labelers, each with an engine of its own, that take shards of the input.

One process plans, folds and stores about 20,000 verdicts a second.  Where copies of a judge answer
more than that (small judges on many GPUs, a cluster), each copy gets a labeler around it: it is
handed rows and gives back the finished lines of the run's files.  The process that asks reads the
input, writes the run in input order, and has the verdict cache, so that a labeler or its machine
can die at any time: what it had answered is known, and its shards go to others.
"""

from __future__ import annotations

import json
import pickle
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rlaif.constitution.schema import Constitution
from rlaif.engines.base import EngineSettings, EngineStats, backend_for, create_engine
from rlaif.engines.replicas import Backend, Lost, not_started
from rlaif.errors import EngineStopped, RlaifError
from rlaif.pipeline.calibrated import Folding
from rlaif.pipeline.label import Labeler, Progress, block_cache, tally_of
from rlaif.pipeline.rendering import Renderer
from rlaif.pipeline.settings import LabelSettings
from rlaif.pipeline.spending import Spending
from rlaif.prompts import JudgeTemplate
from rlaif.records import Rejected
from rlaif.stages.ordering import TokenCount
from rlaif.stages.summary import Tally, dump_tally
from rlaif.store.cache import Answers, VerdictCache
from rlaif.store.run_directory import RunDirectory
from rlaif.store.shard_files import ShardFiles
from rlaif.store.sources import Row, Source

SHARDS_WAITING = 2
"""Shards that a labeler has at a time: the next one is there when one is done."""
SHARDS_AHEAD = 4
"""Shards for each labeler that may be under way or done before the one to be written next."""
MOST_DEATHS = 5
"""Deaths for each labeler, on the average, since the last shard that any of them has done."""
REPORT_SECONDS = 0.5
CLOSE_SECONDS = 3.0


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


def pack(read: list[tuple[str, Row | Rejected]]) -> bytes:
    """Rows as they are sent.

    A row nested too deeply for pickle goes as JSON, which nests deeper; one that does not fit
    into that either is rejected.
    """
    try:
        return pickle.dumps(read)
    except (RecursionError, ValueError, TypeError, AttributeError, pickle.PicklingError):
        return pickle.dumps([(place, _sendable(place, row)) for place, row in read])


def _sendable(place: str, row: Row | Rejected) -> Row | Rejected | str:
    try:
        pickle.dumps(row)
    except (RecursionError, ValueError, TypeError, AttributeError, pickle.PicklingError):
        try:
            return json.dumps(row)
        except (RecursionError, ValueError, TypeError) as error:
            return Rejected(place, f"the row can't be handed to a labeler: {type(error).__name__}")
    return row


@dataclass(frozen=True)
class ShardDone:
    """What came of a shard: `lines` by the name of the run's file."""

    first: int
    lines: dict[str, list[str]]
    tally: Tally


@dataclass(frozen=True)
class Counts:
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

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(
            self.verdicts + other.verdicts,
            self.cached + other.cached,
            self.written + other.written,
            self.tokens.plus(other.tokens),
            self.stats.plus(other.stats),
        )


@dataclass(frozen=True)
class Report:
    """How a labeler gets on.

    Attributes:
        done: since the report before.
        error: what ends the run, and not only this labeler.
    """

    counts: Counts
    done: list[ShardDone] = field(default_factory=list)
    error: RlaifError | None = None


@dataclass(frozen=True)
class Ready:
    """A labeler has started; `fingerprint` is its judge's."""

    fingerprint: str


@dataclass(frozen=True)
class ShardTask:
    """What every shard of a run has in common; it is sent to where the labelers are."""

    constitution: Constitution
    template: JudgeTemplate
    settings: LabelSettings
    stamp: dict[str, str]
    folding: Folding


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
        self, task: ShardTask, open_answers: Callable[[], Answers], judge: EngineSettings
    ) -> None:
        self._task, self._judge = task, judge
        self._answers = open_answers()
        self._shards: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[ShardDone | BaseException] = queue.SimpleQueue()
        self._past = Counts()
        self._labeler: Labeler | None = None
        self._counting = threading.Lock()
        self._ended = False
        self._fault: BaseException | None = None
        self._ready: Future[Ready] = Future()
        self._thread = threading.Thread(target=self._label, daemon=True)
        self._thread.start()
        self._ready.result()

    def traits(self) -> Ready:
        """See `Ready`."""
        return self._ready.result()

    def work(self, shards: list[Shard]) -> Report:
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
                    return Report(self._counts(), done, found)
                if isinstance(found, BaseException):
                    self._fault = found  # raised by the next call: first, what it had done
                    break
                done.append(found)
                found = self._done.get_nowait()
        return Report(self._counts(), done)

    def _label(self) -> None:
        """In the thread: shard after shard."""
        try:
            with closing(create_engine(self._judge)) as self._engine:
                Renderer(self._task.template, self._engine.codec)  # what is wrong with it shows now
                self._known = block_cache(self._engine)
                self._ready.set_result(Ready(self._engine.fingerprint))
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
            engine=self._engine, cache=self._answers, run=run, constitution=task.constitution,
            template=task.template, settings=task.settings, stamp=task.stamp, known=self._known,
            folding=task.folding, on_progress=self._go_on,
        )  # fmt: skip
        self._labeler = labeler
        tally = labeler.label(shard, shard.first)
        with self._counting:
            self._past, self._labeler = self._past.plus(_counts_of(labeler)), None
        return ShardDone(shard.first, run.lines, tally)

    def _go_on(self, progress: Progress) -> None:
        if self._ended:
            raise _Ended

    def _counts(self) -> Counts:
        with self._counting:
            here = self._past.plus(Counts(stats=self._engine.stats()))
            return here if self._labeler is None else here.plus(_counts_of(self._labeler))

    def close(self) -> None:
        """Stop after the answers that are under way, and end the engine."""
        self._ended = True
        self._shards.put(None)
        self._thread.join(CLOSE_SECONDS)


def _counts_of(labeler: Labeler) -> Counts:
    """Of one shard; the engine counts for itself."""
    p = labeler.progress
    return Counts(p.verdicts, p.cached, labeler.spending.tokens.written, labeler.tokens)


@dataclass
class _Desk:
    """What a labeler has to do.

    Attributes:
        ready: whether it has started.
        started_once: whether it was ever ready.
        called: whether it is to report.
        shards: handed to it, by their first row.
    """

    ready: bool = False
    started_once: bool = False
    called: bool = False
    shards: dict[int, Shard] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)


class Crew:
    """Labelers side by side; what one left when it died goes to the others.

    Args:
        judge: its `data_parallel_size` is the number of labelers.
        cache_path: the verdict cache.

    Raises:
        RlaifError: there are too few devices for them, or one does not start.
    """

    def __init__(self, judge: EngineSettings, task: ShardTask, cache_path: Path) -> None:
        self._backend: Backend = backend_for(judge)
        try:
            # A worker may have been started in another folder.
            answers = self._backend.at_home(partial(VerdictCache, cache_path.absolute()))
            self._backend.make = partial(ShardLabeler, task, answers)
            self.size = judge.data_parallel_size
            self._desks = {number: _Desk() for number in range(self.size)}
            self._left: deque[Shard] = deque()
            self._past = Counts()
            self._counted, self._without = time.monotonic(), 0
            self._deaths = 0
            self.fingerprint = ""
            for number in self._desks:
                self._backend.start(number)
            while not self.fingerprint:
                self._hear(None)
        except BaseException:
            self._backend.close()
            raise

    def label(self, shards: Iterator[Shard]) -> Iterator[ShardDone | None]:
        """Every shard, done, in their order; None now and then while none is.

        Raises:
            RlaifError: labelers die again and again, or find what they can't go on with.
        """
        done: dict[int, ShardDone] = {}
        waiting: deque[int] = deque()  # first rows of the shards that are not given back yet
        self._counted, self._without = time.monotonic(), self._count_without()
        fresh = next(shards, None)
        while fresh or waiting:
            able = [(n, desk) for n, desk in self._desks.items() if desk.ready and not desk.called]
            more: dict[int, list[Shard]] = {number: [] for number, _ in able}
            for each in range(1, SHARDS_WAITING + 1):  # nobody gets a second before all have one
                for number, desk in able:
                    if len(desk.shards) + len(more[number]) >= each:
                        continue
                    if self._left:
                        more[number].append(self._left.popleft())
                    elif fresh and len(waiting) < SHARDS_AHEAD * self.size:
                        waiting.append(fresh.first)
                        more[number].append(fresh)
                        fresh = next(shards, None)
            self._count_idle()
            for number, desk in able:
                desk.shards |= {shard.first: shard for shard in more[number]}
                if desk.shards:
                    desk.called = True
                    self._backend.submit(number, more[number])
            self._without = self._count_without()
            for one in self._hear(REPORT_SECONDS):
                done[one.first] = one
            self._count_idle()
            self._without = self._count_without()
            if not waiting or waiting[0] not in done:
                yield None
            while waiting and waiting[0] in done:
                yield done.pop(waiting.popleft())

    def _count_idle(self) -> None:
        """Count the time since the last call for the labelers that had no shard in it."""
        now = time.monotonic()
        idle = EngineStats(idle_seconds=self._without * (now - self._counted))
        self._past, self._counted = self._past.plus(Counts(stats=idle)), now

    def _count_without(self) -> int:
        return sum(1 for desk in self._desks.values() if desk.ready and not desk.shards)

    def _hear(self, seconds: float | None) -> list[ShardDone]:
        """What labelers have done; dead ones are started anew."""
        found: list[ShardDone] = []
        for number, outcome in self._backend.wait(seconds):
            desk = self._desks[number]
            if isinstance(outcome, Ready):
                self._check(number, outcome.fingerprint)
                desk.ready = desk.started_once = True
            elif isinstance(outcome, Lost):
                self._replace(number, outcome)
            else:
                desk.called, desk.counts = False, outcome.counts
                if outcome.error is not None:
                    raise outcome.error
                for one in outcome.done:
                    del desk.shards[one.first]
                    self._deaths = 0
                found += outcome.done
        return found

    def _check(self, number: int, fingerprint: str) -> None:
        if self.fingerprint and fingerprint != self.fingerprint:
            raise RlaifError(
                f"labeler {number} has another judge than those before it",
                hint="See that model and engine are the same on every machine.",
            )
        self.fingerprint = fingerprint

    def _replace(self, number: int, lost: Lost) -> None:
        desk = self._desks[number]
        if not desk.started_once:
            raise not_started(f"labeler {number}", lost)
        self._left += desk.shards.values()
        self._past = self._past.plus(desk.counts)
        self._deaths += 1
        if self._deaths > MOST_DEATHS * self.size:
            at = f", at rows from {min(desk.shards) + 1} on" if desk.shards else ""
            raise RlaifError(
                f"labelers died {self._deaths} times with no shard done (the last: {lost}{at})",
                hint="Look at those rows, or run the same command again: it goes on.",
            )
        self._desks[number] = _Desk(started_once=True)
        self._backend.start(number)

    @property
    def counts(self) -> Counts:
        """Sums over the labelers, as they last said."""
        total = self._past
        for desk in self._desks.values():
            total = total.plus(desk.counts)
        return total

    def stats(self) -> EngineStats:
        """Sums over the labelers' engines; one without a shard is idle."""
        return self.counts.stats

    def close(self) -> None:
        """End them all."""
        self._backend.close()


class ShardedLabeling:
    """Labels a source into a run directory by a crew.

    Args:
        shard_rows: rows of a shard.
        limit: rows of the source that count; None for all.

    Attributes:
        progress: how far the run is; rows move shard by shard.
        tokens: of the questions asked in this process, as planned.
        reasons: whether the judge writes before it answers.
    """

    def __init__(
        self,
        crew: Crew,
        run: RunDirectory,
        spending: Spending,
        *,
        shard_rows: int,
        limit: int | None,
        reasons: bool,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._crew, self._run, self.spending = crew, run, spending
        self._shard_rows, self._limit = shard_rows, limit
        self.reasons = reasons
        self._on_progress = on_progress
        self._tally = tally_of(run)
        self.progress = Progress(rows=self._tally.rows)
        self.tokens = TokenCount()
        self._written = 0

    def label(self, source: Source) -> Tally:
        """Judge every row of `source` that the run has not finished yet; the tally at the end."""
        try:
            for done in self._crew.label(self._shards(source)):
                if done is not None:
                    self._write(done)
                self._count()
                self.spending.keep_by_and_by()
                self._on_progress(self.progress)
        finally:
            self._count()
            self.spending.keep()
        return self._tally

    def _count(self) -> None:
        counts = self._crew.counts
        self.spending.wrote(counts.written - self._written)
        self._written, self.tokens = counts.written, counts.tokens
        self.progress.verdicts, self.progress.cached = counts.verdicts, counts.cached
        self.progress.seconds = self.spending.here

    def _shards(self, source: Source) -> Iterator[Shard]:
        first, read = self._tally.rows, []
        for number, placed in enumerate(source.rows()):
            if self._limit is not None and number >= self._limit:
                break
            if number < first:
                continue
            read.append(placed)
            if len(read) == self._shard_rows:
                yield Shard(first, pack(read))
                first, read = number + 1, []
        if read:
            yield Shard(first, pack(read))

    def _write(self, done: ShardDone) -> None:
        """Add a shard's rows to the run, and journal them."""
        assert done.first == self._tally.rows
        for name, lines in done.lines.items():
            for line in lines:
                self._run.append(name, line)
        self._tally.absorb(done.tally)
        self.progress.rows = self._tally.rows
        self._run.checkpoint(rows=self._tally.rows, tally=dump_tally(self._tally))
