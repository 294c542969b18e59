"""Labeling by several labelers, each with an engine of its own, that take shards of the input.

One process plans, aggregates and stores about 20,000 verdicts a second.  Where replicas of a judge
answer more than that (small judges on many GPUs, a cluster), each gets a labeler around it: it is
handed rows and gives back the finished lines of the run's files.  The process that asks reads the
input, writes the run in input order, and has the verdict cache, so that a labeler or its machine
can die at any time: what it had answered is known, and its shards go to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rlaif.data.sources import Source
from rlaif.engines.base import EngineSettings
from rlaif.labeling.label_worker import REPORT_SECONDS
from rlaif.labeling.labeler import LabelProgress
from rlaif.labeling.labeler_pool import LabelerPool, PooledLabeling
from rlaif.labeling.run_output import load_run_tally
from rlaif.labeling.shard_worker import Shard, ShardDone, ShardLabeler, pack_rows
from rlaif.labeling.task import LabelTask
from rlaif.labeling.usage import UsageMeter
from rlaif.runs.directory import RunDirectory
from rlaif.runs.tally import Tally, dump_tally
from rlaif.store.verdict_cache import VerdictCache

SHARDS_WAITING = 2
"""Shards that a labeler has at a time: the next one is there when one is done."""
SHARDS_AHEAD = 4
"""Shards for each labeler that may be under way or done before the one to be written next."""


class ShardPool(LabelerPool[Shard]):
    """Labelers side by side; what one left when it died goes to the others.

    Args:
        judge: its `data_parallel_size` is the number of labelers.
        cache_path: the verdict cache.

    Raises:
        RlaifError: there are too few devices for them, or one does not start.
    """

    def __init__(self, judge: EngineSettings, task: LabelTask, cache_path: Path) -> None:
        # A worker may have been started in another folder.
        open_cache = partial(VerdictCache, cache_path.absolute())
        super().__init__(
            judge,
            lambda backend: partial(ShardLabeler, task, backend.host_proxy(open_cache)),
            unit="shard",
        )

    def label(self, shards: Iterator[Shard]) -> Iterator[ShardDone | None]:
        """Every shard, done, in their order; None now and then while none is.

        Raises:
            RlaifError: labelers die again and again, or find what they can't go on with.
        """
        done: dict[int, ShardDone] = {}
        waiting: deque[int] = deque()  # first rows of the shards that are not given back yet
        self._count_idle()
        fresh = next(shards, None)

        def take() -> Shard | None:
            nonlocal fresh
            taken = fresh
            if taken is None or len(waiting) >= SHARDS_AHEAD * self.size:
                return None
            waiting.append(taken.first)
            fresh = next(shards, None)
            return taken

        while fresh or waiting:
            self._call(self._share_out(SHARDS_WAITING, take))
            for one in self._hear(REPORT_SECONDS):
                done[one.first] = one
            self._count_idle()
            if not waiting or waiting[0] not in done:
                yield None
            while waiting and waiting[0] in done:
                yield done.pop(waiting.popleft())


class ShardedLabeling(PooledLabeling):
    """Labels a source into a run directory by a pool.

    Args:
        shard_rows: rows of a shard.
        limit: rows of the source that count; None for all.
    """

    def __init__(
        self,
        pool: ShardPool,
        run: RunDirectory,
        usage: UsageMeter,
        *,
        shard_rows: int,
        limit: int | None,
        reasons: bool,
        on_progress: Callable[[LabelProgress], None],
    ) -> None:
        self._tally = load_run_tally(run)
        super().__init__(pool, usage, rows=self._tally.rows, reasons=reasons)
        self._pool, self._run = pool, run
        self._shard_rows, self._limit = shard_rows, limit
        self._on_progress = on_progress

    def label(self, source: Source) -> Tally:
        """Judge every row of `source` that the run has not finished yet; the tally at the end."""
        try:
            for done in self._pool.label(self._shards(source)):
                if done is not None:
                    self._write(done)
                self._count()
                self.usage.save_periodically()
                self._on_progress(self.progress)
        finally:
            self._count()
            self.usage.save()
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
                yield Shard(first, pack_rows(read))
                first, read = number + 1, []
        if read:
            yield Shard(first, pack_rows(read))

    def _write(self, done: ShardDone) -> None:
        """Add a shard's rows to the run, and journal them."""
        assert done.first == self._tally.rows
        for name, lines in done.lines.items():
            for line in lines:
                self._run.append(name, line)
        self._tally.absorb(done.tally)
        self.progress.rows = self._tally.rows
        self._run.checkpoint(rows=self._tally.rows, tally=dump_tally(self._tally))
