"""Writes finished pairs in input order, keeps the tally, and journals both between two rows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from rlaif.errors import RlaifError
from rlaif.judging.early_stopping import JudgedPair
from rlaif.judging.scoring import score_pair
from rlaif.labeling.planner import PlannedPair
from rlaif.labeling.task import LabelTask
from rlaif.records import Preference, Verdict
from rlaif.runs.directory import (
    JOURNAL,
    PREFERENCES,
    REJECTED,
    UNDECIDED,
    VERDICTS,
    RowSink,
    RunDirectory,
)
from rlaif.runs.rows import VerdictRows, label_row, rejected_row
from rlaif.runs.tally import Tally, dump_tally, load_tally
from rlaif.runs.writer import RunWriter

CHECKPOINT_SECONDS = 0.5


class RunOutput:
    """The pairs that are not written yet, and what those that are came to.

    Args:
        tally: of the run so far; grows.
        observe: told every judged pair with its verdicts.
    """

    def __init__(
        self,
        task: LabelTask,
        writer: RunWriter,
        tally: Tally,
        observe: Callable[[JudgedPair], None] | None,
    ) -> None:
        self._task, self._writer, self._tally, self._observe = task, writer, tally, observe
        self._queue: deque[PlannedPair] = deque()
        self._checkpointed = time.monotonic()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, item: PlannedPair) -> None:
        """The next pair, whose answers may still be missing."""
        self._queue.append(item)

    def flush(self) -> None:
        """Write the finished pairs at the head of the queue."""
        while self._queue and self._queue[0].complete:
            item = self._queue.popleft()
            if item.rejected is not None:
                self._writer.row(REJECTED, rejected_row(item.rejected))
                self._tally.add_rejected()
            else:
                self._write(item)
            if item.ends_row:
                self._tally.rows += 1
                if time.monotonic() - self._checkpointed > CHECKPOINT_SECONDS:
                    self.checkpoint()

    def _write(self, item: PlannedPair) -> None:
        assert item.pair is not None
        answered = [i for i in range(len(item.questions)) if i in item.answers]
        verdicts = [item.answers[i] for i in answered]
        preference = item.settled or self._aggregate(item, verdicts)
        if verdicts:
            keys = [item.keys[i] for i in answered]
            self._writer.row(VERDICTS, VerdictRows(item.pair, verdicts, keys))
        decided = preference.status == "decided"
        row = label_row(item.pair, preference, self._task.stamp, item.prompt_injection)
        self._writer.row(PREFERENCES if decided else UNDECIDED, row)
        self._tally.add(preference, verdicts, spared=len(item.questions) - len(answered))
        self._tally.add_origins(item.pair.origins, item.pair.row)
        self._tally.prompt_injection += bool(item.prompt_injection)

    def _aggregate(self, item: PlannedPair, verdicts: list[Verdict]) -> Preference:
        assert item.pair is not None
        if self._observe is not None:
            self._observe(JudgedPair(item.pair, item.principles, item.questions, verdicts))
        scores = score_pair(item.pair, item.principles, verdicts, asked_only=item.stopped)
        return self._task.aggregator.preference(scores)

    def checkpoint(self) -> None:
        """Journal the state; called only between two rows."""
        self._writer.checkpoint(rows=self._tally.rows, tally=dump_tally(self._tally))
        self._checkpointed = time.monotonic()


def load_run_tally(run: RowSink) -> Tally:
    """How far a run is.

    Raises:
        RlaifError: its journal is damaged.
    """
    try:
        return load_tally(run.journal["tally"] or {})
    except RlaifError:
        path = run.path / JOURNAL if isinstance(run, RunDirectory) else JOURNAL
        raise RlaifError(
            f"{path} is damaged",
            hint="Delete it and rerun the same command; the run is rebuilt from the verdict cache.",
        ) from None
