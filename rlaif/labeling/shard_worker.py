"""Labels shards: rows that are handed over, whose lines are given back.

`shard_pool.py` hands them out and writes what comes of them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlaif.data.file_formats import Row
from rlaif.engines.base import EngineSettings
from rlaif.labeling.label_worker import LabelWorker
from rlaif.labeling.task import LabelTask
from rlaif.records import Rejected
from rlaif.runs.shard_files import ShardFiles
from rlaif.runs.tally import Tally
from rlaif.store.verdict_cache import AnswerStore

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


class ShardLabeler(LabelWorker):
    """A labeler of shards.

    Args:
        open_answers: gives the verdict cache, or what stands for it there.
        judge: the settings of its engine.

    Raises:
        RlaifError: the engine does not start, or the template does not suit its model.
    """

    def __init__(
        self, task: LabelTask, open_answers: Callable[[], AnswerStore], judge: EngineSettings
    ) -> None:
        self._answers = open_answers()
        super().__init__(task, judge)

    def label_one(self, task: Shard) -> ShardDone:
        """See `LabelWorker.label_one`."""
        run = ShardFiles()
        tally, _ = self.label_rows(task, task.first, self._answers, run)
        return ShardDone(task.first, run.lines, tally)
