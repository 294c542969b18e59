"""Labeling by several labelers, each with an engine of its own, that take shards of the input.

One process plans, folds and stores about 20,000 verdicts a second.  Where copies of a judge answer
more than that (small judges on many GPUs, a cluster), each copy gets a labeler around it: it is
handed rows and gives back the finished lines of the run's files.  The process that asks reads the
input, writes the run in input order, and has the verdict cache, so that a labeler or its machine
can die at any time: what it had answered is known, and its shards go to others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rlaif.constitution.schema import Constitution
from rlaif.engines.base import EngineSettings, EngineStats, backend_for, create_engine
from rlaif.engines.replicas import Backend, Lost
from rlaif.errors import RlaifError
from rlaif.pipeline.calibrated import Folding
from rlaif.pipeline.label import Labeler, Progress, block_cache, tally_of
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
PATIENCE = 0.5


@dataclass(frozen=True)
class Shard:
    """Some rows that follow each other.

    Attributes:
        first: the number of the first in the whole input, from 0.
        read: the rows with their places.
    """

    first: int
    read: list[tuple[str, Row | Rejected]]

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place."""
        return iter(self.read)


@dataclass(frozen=True)
class ShardDone:
    """What came of a shard.

    Attributes:
        lines: by the name of the run's file.
        cached: verdicts from the cache, or shared with an equal question of the shard.
        written: tokens of reasoning.
        stats: of the labeler's engine, since its start.
    """

    first: int
    lines: dict[str, list[str]]
    tally: Tally
    verdicts: int
    cached: int
    tokens: TokenCount
    written: int
    stats: EngineStats


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


class ShardLabeler:
    """A labeler and its engine, where the engine's devices are.

    Args:
        open_answers: gives the verdict cache, or what stands for it there.
        judge: the settings of its engine.
    """

    def __init__(
        self, task: ShardTask, open_answers: Callable[[], Answers], judge: EngineSettings
    ) -> None:
        self._task = task
        self._answers = open_answers()
        self._engine = create_engine(judge)
        self._known = block_cache(self._engine)

    def traits(self) -> Ready:
        """See `Ready`."""
        return Ready(self._engine.fingerprint)

    def work(self, shard: Shard) -> ShardDone:
        """Label a shard."""
        run, task = ShardFiles(), self._task
        spending = Spending(run, self._engine)
        labeler = Labeler(
            engine=self._engine, cache=self._answers, run=run, constitution=task.constitution,
            template=task.template, settings=task.settings, stamp=task.stamp, known=self._known,
            folding=task.folding, spending=spending,
        )  # fmt: skip
        tally = labeler.label(shard, shard.first)
        progress = labeler.progress
        return ShardDone(
            shard.first, run.lines, tally, progress.verdicts, progress.cached, labeler.tokens,
            spending.tokens.written, self._engine.stats(),
        )  # fmt: skip

    def close(self) -> None:
        """End the engine."""
        self._engine.close()


@dataclass
class _Desk:
    """What a labeler has to do.

    Attributes:
        ready: whether it has started.
        started_once: whether it was ever ready.
        shards: handed to it, in order.
    """

    ready: bool = False
    started_once: bool = False
    shards: deque[Shard] = field(default_factory=deque)
    stats: EngineStats = field(default_factory=EngineStats)


class Crew:
    """Labelers side by side; what one left when it died goes to the others.

    Args:
        judge: its `data_parallel_size` is the number of labelers.
        cache_path: the verdict cache.

    Raises:
        RlaifError: there are too few devices for them.
    """

    def __init__(self, judge: EngineSettings, task: ShardTask, cache_path: Path) -> None:
        self._backend: Backend = backend_for(judge)
        try:
            answers = self._backend.at_home(partial(VerdictCache, cache_path))
            self._backend.make = partial(ShardLabeler, task, answers)
            self.size = judge.data_parallel_size
            self._desks = {number: _Desk() for number in range(self.size)}
            self._left: deque[Shard] = deque()
            self._past = EngineStats()
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
            RlaifError: labelers die again and again.
        """
        done: dict[int, ShardDone] = {}
        waiting: deque[int] = deque()  # first rows of the shards that are not given back yet
        fresh = next(shards, None)
        while fresh or waiting:
            for number, desk in self._desks.items():
                while desk.ready and len(desk.shards) < SHARDS_WAITING:
                    if self._left:
                        shard = self._left.popleft()
                    elif fresh and len(waiting) < SHARDS_AHEAD * self.size:
                        shard, fresh = fresh, next(shards, None)
                        waiting.append(shard.first)
                    else:
                        break
                    desk.shards.append(shard)
                    self._backend.submit(number, shard)
            for one in self._hear(PATIENCE):
                done[one.first] = one
            if not waiting or waiting[0] not in done:
                yield None
            while waiting and waiting[0] in done:
                yield done.pop(waiting.popleft())

    def _hear(self, seconds: float | None) -> list[ShardDone]:
        """What labelers have done; dead ones are started anew."""
        found = []
        for number, outcome in self._backend.wait(seconds):
            desk = self._desks[number]
            if isinstance(outcome, Ready):
                desk.ready = desk.started_once = True
                self.fingerprint = outcome.fingerprint
            elif isinstance(outcome, Lost):
                self._replace(number, outcome)
            else:
                desk.shards.popleft()
                desk.stats = outcome.stats
                found.append(outcome)
        return found

    def _replace(self, number: int, lost: Lost) -> None:
        desk = self._desks[number]
        if not desk.started_once:
            raise RlaifError(
                f"labeler {number} did not start ({lost})",
                hint="Check free memory and devices, or use a smaller --data-parallel-size.",
            )
        self._left += desk.shards
        self._past = self._past.plus(desk.stats)
        self._deaths += 1
        if self._deaths > MOST_DEATHS:
            raise RlaifError(
                f"labelers died {self._deaths} times (the last: {lost})",
                hint="Run the same command again: it goes on where it stopped.",
            )
        self._desks[number] = _Desk(started_once=True)
        self._backend.start(number)

    def stats(self) -> EngineStats:
        """Sums over the labelers' engines, as of the shards that are done."""
        total = self._past
        for desk in self._desks.values():
            total = total.plus(desk.stats)
        return total

    def close(self) -> None:
        """End them all."""
        self._backend.close()


class ShardedLabeling:
    """Labels a source into a run directory by a crew.

    Args:
        shard_rows: rows of a shard.
        limit: rows of the source that count; None for all.

    Attributes:
        progress: how far the run is; it moves shard by shard.
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

    def label(self, source: Source) -> Tally:
        """Judge every row of `source` that the run has not finished yet; the tally at the end."""
        reported = time.monotonic()
        try:
            for done in self._crew.label(self._shards(source)):
                if done is not None:
                    self._write(done)
                if done is not None or time.monotonic() - reported > PATIENCE:
                    reported = time.monotonic()
                    self.spending.keep_by_and_by()
                    self.progress.seconds = self.spending.here
                    self._on_progress(self.progress)
        finally:
            self.spending.keep()
        return self._tally

    def _shards(self, source: Source) -> Iterator[Shard]:
        first, read = self._tally.rows, []
        for number, placed in enumerate(source.rows()):
            if self._limit is not None and number >= self._limit:
                break
            if number < first:
                continue
            read.append(placed)
            if len(read) == self._shard_rows:
                yield Shard(first, read)
                first, read = number + 1, []
        if read:
            yield Shard(first, read)

    def _write(self, done: ShardDone) -> None:
        """Add a shard's rows to the run, and journal them."""
        assert done.first == self._tally.rows
        for name, lines in done.lines.items():
            for line in lines:
                self._run.append(name, line)
        self._tally.absorb(done.tally)
        self.spending.wrote(done.written)
        self.tokens = self.tokens.plus(done.tokens)
        self.progress.rows = self._tally.rows
        self.progress.verdicts += done.verdicts
        self.progress.cached += done.cached
        self._run.checkpoint(rows=self._tally.rows, tally=dump_tally(self._tally))
