"""Labels parts of a run: reads their rows and writes their files, wherever those are."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif.data.cutting import InputPart
from rlaif.labeling.label_worker import LabelWorker, WorkerCounts
from rlaif.runs.part_files import PartFiles
from rlaif.runs.parts import RECORD, PartRecord, part_folder
from rlaif.runs.tally import dump_tally
from rlaif.store.part_answers import ANSWERS, PartAnswers
from rlaif.util.files import sync_file
from rlaif.util.paths import is_url, open_path


@dataclass(frozen=True)
class PartTask:
    """A part to be labeled.

    Attributes:
        part: its number, from 0.
        attempt: names the folder of its files, in the folder of the part.
        input: where its rows are.
        folder: of all parts.
        earlier: folders of the same part in other runs, whose answers are taken over.
    """

    part: int
    attempt: str
    input: InputPart
    folder: str
    earlier: tuple[str, ...] = ()

    @property
    def first(self) -> int:
        """Number of its first row in the whole input, from 0."""
        return self.input.first


@dataclass(frozen=True)
class PartDone:
    """A part that an attempt has finished."""

    first: int
    record: PartRecord


class PartLabeler(LabelWorker):
    """A labeler of parts."""

    def label_one(self, task: PartTask) -> PartDone:
        """See `LabelWorker.label_one`.

        The part's record is written last: where it is, everything else is.
        """
        home = part_folder(open_path(task.folder), task.part)
        folder = home / task.attempt
        folder.mkdir(parents=True, exist_ok=True)
        answers = PartAnswers(home, task.attempt, [open_path(e) for e in task.earlier])
        run = PartFiles()
        tally, took = self.label_rows(task.input, task.first, answers, run)
        run.write(folder)
        answers.finish(folder / ANSWERS)
        if not is_url(folder):
            for file in folder.iterdir():  # what the record says survives a power cut
                sync_file(file)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir(), key=str)}
        record = PartRecord(
            part=task.part,
            attempt=task.attempt,
            rows=tally.rows,
            bytes=sizes,
            tally=dump_tally(tally),
            counts=_counts(took),
        )
        (folder / RECORD).write_text(record.to_json() + "\n")
        return PartDone(task.first, record)


def _counts(took: WorkerCounts) -> dict[str, int]:
    return {"verdicts": took.verdicts, "cached": took.cached, "written": took.written}
