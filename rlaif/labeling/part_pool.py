"""Labeling without a central path: labelers read parts of the input and write them themselves.

The process that asks hands out numbers of parts and keeps one line for each that is done; rows,
verdicts and answers never pass through it.  A labeler or its machine can die at any time: the next
attempt at the part finds beside it what was answered.  Where no part is left to hand out, one that
takes long is given to a second labeler as well, and the first to finish counts.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rlaif.data.cutting import InputPart
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.labeling.label_worker import REPORT_SECONDS
from rlaif.labeling.labeler import LabelProgress
from rlaif.labeling.labeler_pool import LabelerPool, PooledLabeling
from rlaif.labeling.part_worker import PartDone, PartLabeler, PartTask
from rlaif.labeling.task import LabelTask
from rlaif.labeling.usage import UsageMeter
from rlaif.runs.parts import (
    RECORD,
    FinishedParts,
    PartIndex,
    PartRecord,
    part_folder,
    read_record,
)
from rlaif.runs.tally import Tally, load_tally
from rlaif.store.part_answers import SEGMENTS
from rlaif.util.paths import forget_listings

PARTS_WAITING = 2
"""Parts that a labeler has at a time: the next one is there when one is done."""
SLOW, SLOW_SECONDS = 1.5, 10.0
"""A part that takes so many times as long as the median, and so long at least, is given to a second
labeler."""
SEEN_SECONDS = 10.0
LAST_SECONDS = 2.0
"""How long is waited at the end for what attempts took that do not count."""


class PartPool(LabelerPool[PartTask]):
    """Labelers side by side, each of which reads and writes parts.

    Args:
        judge: its `data_parallel_size` is the number of labelers.

    Raises:
        RlaifError: there are too few devices for them, or one does not start.
    """

    def __init__(self, judge: EngineSettings, task: LabelTask) -> None:
        self._asked: Counter[int] = Counter()
        self._names: Counter[int] = Counter()
        self._began: dict[int, float] = {}
        self._took: list[float] = []
        self._open: dict[int, PartTask] = {}
        super().__init__(judge, lambda _: partial(PartLabeler, task), unit="part")

    def label(self, parts: Iterator[PartTask]) -> Iterator[PartRecord | None]:
        """Every part, done, in any order; None now and then while none is.

        Raises:
            RlaifError: labelers die again and again, or find what they can't go on with.
        """
        self._count_idle()
        fresh = next(parts, None)

        def take() -> PartTask | None:
            nonlocal fresh
            taken = fresh
            if taken is not None:
                self._open[taken.part] = taken
                fresh = next(parts, None)
            return taken

        while fresh or self._open:
            more = self._share_out(PARTS_WAITING, take)
            for tasks in more.values():
                for task in tasks:
                    self._asked[task.part] += 1
                    self._began.setdefault(task.part, time.monotonic())
            for number, tasks in more.items():
                if not tasks and not self._workers[number].tasks:
                    tasks += self._second_attempt()
            self._call(more)
            found = 0
            for one in self._hear(REPORT_SECONDS):
                if self._accept(one):
                    found += 1
                    yield one.record
            self._count_idle()
            if not found:
                yield None
        until = time.monotonic() + LAST_SECONDS
        while any(w.called for w in self._workers.values()) and time.monotonic() < until:
            self._hear(REPORT_SECONDS)

    def _accept(self, done: PartDone) -> bool:
        """Whether an attempt is the first to finish its part."""
        part = done.record.part
        if part not in self._open:
            return False
        del self._open[part]
        self._took.append(time.monotonic() - self._began[part])
        return True

    def _second_attempt(self) -> list[PartTask]:
        """Of the parts with one attempt, that which has been under way for longest, if it is long.

        For a labeler that has nothing to do: no other part is left.
        """
        alone = [part for part in self._open if self._asked[part] == 1]
        oldest = min(alone, key=lambda part: self._began[part], default=None)
        if oldest is None or not self._took:
            return []
        least = max(SLOW * median(self._took), SLOW_SECONDS)
        if time.monotonic() - self._began[oldest] < least:
            return []
        self._asked[oldest] += 1
        return [self._renamed(self._open[oldest])]

    def _renamed(self, task: PartTask) -> PartTask:
        """The same for another attempt: no file of an earlier one is written again."""
        self._names[task.part] += 1
        return replace(task, attempt=f"{task.attempt.split('.')[0]}.{self._names[task.part] + 1}")

    def _take_back(self, tasks: Iterable[PartTask]) -> None:
        """What a second attempt is at is not asked a third time."""
        for task in tasks:
            if task.part in self._open:
                self._asked[task.part] -= 1
                if not self._asked[task.part]:
                    self._left.append(self._renamed(task))

    @property
    def rows_under_way(self) -> int:
        """Rows that are finished in parts that are not."""
        return sum(worker.rows for worker in self._workers.values() if worker.tasks)


class PartedLabeling(PooledLabeling):
    """Labels a source into a run in parts by a pool.

    Args:
        out: the run.
        earlier: of each part, folders of it in other runs.
    """

    def __init__(
        self,
        pool: PartPool,
        out: Path,
        index: PartIndex,
        usage: UsageMeter,
        *,
        reasons: bool,
        earlier: Mapping[int, tuple[str, ...]],
        on_progress: Callable[[LabelProgress], None],
    ) -> None:
        self._finished = FinishedParts(out)
        super().__init__(pool, usage, rows=self._finished.rows, reasons=reasons)
        self._pool, self._index, self._earlier = pool, index, earlier
        self._folder = index.folder(out)
        self._on_progress = on_progress

    def label(self) -> Tally:
        """Judge every part that the run has not finished yet; the tally at the end."""
        try:
            for record in self._pool.label(self._tasks()):
                if record is not None:
                    self._check_seen(record)
                    self._finished.add(record)
                self._count()
                self.usage.save_periodically()
                self._on_progress(self.progress)
        finally:
            self._count()
            self.usage.save()
            self._finished.close()
        self._sweep()
        tally = Tally()
        for part in range(len(self._index.cuts)):
            tally.absorb(load_tally(self._finished.records[part].tally))
        return tally

    def _tasks(self) -> Iterator[PartTask]:
        """The parts that are not finished, each with a new name for its attempt."""
        for part, cut in enumerate(self._index.cuts):
            if part in self._finished.records:
                continue
            attempts = _attempts(part_folder(self._folder, part))
            whole = (read_record(path) for path in attempts)
            record = next((r for r in whole if r is not None and r.part == part), None)
            if record is not None:  # it was done, and nobody was left to note it
                self._finished.add(record)
                continue
            yield PartTask(
                part=part,
                attempt=_next_name(attempts),
                input=InputPart.from_data(cut),
                folder=str(self._folder if self._index.where else self._folder.absolute()),
                earlier=(*map(str, attempts), *self._earlier.get(part, ())),
            )

    def _check_seen(self, record: PartRecord) -> None:
        """See that what a labeler wrote is where this process looks for it.

        Raises:
            RlaifError: it is not.
        """
        file = part_folder(self._folder, record.part) / record.attempt / RECORD
        until = time.monotonic() + SEEN_SECONDS  # a shared folder may take a moment
        while not file.is_file():
            if time.monotonic() > until:
                raise RlaifError(
                    f"a labeler wrote {file}, and it is not there on this machine",
                    hint="Name a folder that all machines share, or a URL, with --parts-at.",
                )
            time.sleep(0.2)

    def _count(self) -> None:
        super()._count()
        self.progress.rows = self._finished.rows + self._pool.rows_under_way

    def _sweep(self) -> None:
        """Remove what attempts left that do not count."""
        forget_listings(self._folder)
        for part, record in self._finished.records.items():
            home = part_folder(self._folder, part)
            for path in [home / SEGMENTS, *_attempts(home)]:
                if path.name != record.attempt and path.exists():
                    remove_folder(path)


def _attempts(home: Path) -> list[Path]:
    """Folders of the attempts at a part, by name."""
    if not home.exists():
        return []
    return sorted((p for p in home.iterdir() if p.name != SEGMENTS), key=lambda p: p.name)


def _next_name(attempts: Iterable[Path]) -> str:
    """A name that comes after those of all attempts."""
    numbers = [path.name.split(".")[0] for path in attempts]
    return str(1 + max((int(n) for n in numbers if n.isdecimal()), default=0))


def remove_folder(folder: Path) -> None:
    """Remove a folder and what is in it, wherever it is."""
    fs: Any = getattr(folder, "fs", None)
    if fs is None:
        shutil.rmtree(folder)
    else:
        fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]
