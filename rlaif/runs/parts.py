"""A run in parts: each part's files in a folder of its own, on any file system.

The run's folder holds two small files about them: `parts.json` says how the input is cut, and
`finished-parts.jsonl` gets a line for every part that is done.  Attempts at a part have folders of
their own, so that two may be under way; the line says whose files count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlaif.errors import Place, RlaifError
from rlaif.util.files import write_atomically
from rlaif.util.paths import is_url, list_sizes, open_path

INDEX, FINISHED, FOLDER = "parts.json", "finished-parts.jsonl", "parts"
RECORD, OWNER = "part.json", "run.json"
TABLES = {"verdicts.jsonl": "verdicts.parquet"}
"""What is a table in a part, by the name of the file that a run without parts has."""
VERDICT_COLUMNS = {
    "pair": str,
    "row": int,
    "principle": str,
    "order": str,
    "p_first": float,
    "logit": float,
    "label_mass": float,
    "invalid": str,
    "reasoning": str,
    "request": bytes,
}
_HINT = "Run the same `rlaif label` again: parts that are whole are kept."


@dataclass(frozen=True)
class PartRecord:
    """A part that is done.

    Attributes:
        part: its number, from 0.
        attempt: the name of its folder in the part's.
        rows: of the input that are in it.
        bytes: size of each of its files.
        tally: of its pairs, as plain data.
        counts: what it took: verdicts, those from the cache, tokens, seconds.
    """

    part: int
    attempt: str
    rows: int
    bytes: dict[str, int]
    tally: dict[str, Any]
    counts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> PartRecord:
        """What `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        data = json.loads(text)
        try:
            return PartRecord(**data)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class PartIndex:
    """How a run's input is cut.

    Attributes:
        rows: of the input in a part.
        where: the folder of the parts: a URL, or "" for the one in the run.
        input: content address of the input.
        cuts: of each part, what says where it is in the input.
    """

    rows: int
    where: str
    input: str
    cuts: list[list[Any]]

    @property
    def spans(self) -> list[list[int]]:
        """The first row of each part and how many it has."""
        return [cut[3:5] for cut in self.cuts]

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"count": len(self.cuts), "rows": self.rows, "where": self.where or FOLDER}

    def save(self, run: Path) -> None:
        """Write `parts.json`."""
        write_atomically(run / INDEX, json.dumps({"format": 1, **asdict(self)}) + "\n")

    def folder(self, run: Path) -> Path:
        """Where the parts are."""
        return open_path(self.where) if self.where else run / FOLDER


def has_parts(run: Path) -> bool:
    """Whether the run in a folder is one in parts."""
    return (run / INDEX).is_file()


def load_index(run: Path) -> PartIndex:
    """How the input of a run in parts is cut.

    Raises:
        RlaifError: its file is damaged.
    """
    try:
        data = json.loads((run / INDEX).read_text(encoding="utf-8"))
        data.pop("format")
        return PartIndex(**data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RlaifError(
            f"{run / INDEX} is damaged ({type(error).__name__}: {error})",
            hint="Label into a new folder with -o, and name this one with --answers-from.",
        ) from None


def part_folder(parts: Path, part: int) -> Path:
    """The folder of one part."""
    return parts / f"{part:06d}"


def load_finished(run: Path) -> dict[int, PartRecord]:
    """The parts that are done; a line that a kill cut off is not there."""
    try:
        text = (run / FINISHED).read_text(encoding="utf-8")
    except OSError:
        return {}
    found: dict[int, PartRecord] = {}
    for line in text.splitlines(keepends=True):
        try:
            record = PartRecord.from_json(line)
        except ValueError:
            continue
        if line.endswith("\n"):
            found.setdefault(record.part, record)
    return found


def read_record(attempt: Path) -> PartRecord | None:
    """The record in the folder of an attempt; None where it was not done, or not all is there."""
    try:
        record = PartRecord.from_json((attempt / RECORD).read_text(encoding="utf-8"))
        sizes = {name: (attempt / name).stat().st_size for name in record.bytes}
    except (OSError, ValueError):
        return None
    return record if sizes == record.bytes else None


class FinishedParts:
    """The parts of a run that are done, and the file that keeps them.

    Attributes:
        records: by the number of the part.
    """

    def __init__(self, run: Path) -> None:
        self.records = load_finished(run)
        text = "".join(record.to_json() + "\n" for record in self.records.values())
        write_atomically(run / FINISHED, text)  # without a line that a kill cut off
        self._file = (run / FINISHED).open("a", encoding="utf-8")

    @property
    def rows(self) -> int:
        """Rows of the input in them."""
        return sum(record.rows for record in self.records.values())

    def add(self, record: PartRecord) -> None:
        """Keep that a part is done."""
        self._file.write(record.to_json() + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records[record.part] = record

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def claim_folder(folder: Path, run: str) -> None:
    """Make the folder of a run's parts, or see that it is that run's.

    Args:
        run: content address of what the run is.

    Raises:
        RlaifError: it can't be written, or holds another run's parts.
    """
    owner = folder / OWNER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if owner.exists():
            held = json.loads(owner.read_text(encoding="utf-8"))
        else:
            held = {"run": run}
            owner.write_text(json.dumps(held) + "\n")
    except (OSError, ValueError) as error:
        raise RlaifError(
            f"can't write parts to {str(folder)!r} ({type(error).__name__}: {error})",
            hint="Use another folder with --parts-at.",
        ) from None
    if held != {"run": run}:
        raise RlaifError(
            f"{str(folder)!r} holds the parts of another run", hint="Use another folder."
        )


def check_parts(run: Path) -> None:
    """See that every part is done and its files are as long as they were then.

    Raises:
        RlaifError: a part is missing, or a file was cut or edited.
    """
    index, finished = load_index(run), load_finished(run)
    folder = index.folder(run)
    sizes = list_sizes(folder)
    for part in range(len(index.cuts)):
        record = finished.get(part)
        if record is None:
            raise RlaifError(f"run {str(run)!r} has no part {part}", hint=_HINT)
        for name, size in record.bytes.items():
            file = part_folder(folder, part) / record.attempt / name
            held = sizes.get(f"{part:06d}/{record.attempt}/{name}", 0)
            if held != size:
                raise RlaifError(
                    f"{file} has {held} bytes, and had {size} when it was done: it was cut or "
                    "edited",
                    hint="Delete its line in finished-parts.jsonl and manifest.json, and run the "
                    "same `rlaif label` again.",
                )


def part_files(run: Path, name: str) -> list[Path]:
    """The files of a run in parts that hold what its file `name` would, in input order.

    Raises:
        RlaifError: a part is not done.
    """
    index, finished = load_index(run), load_finished(run)
    folder = index.folder(run)
    files = []
    for part in range(len(index.cuts)):
        record = finished.get(part)
        if record is None:
            raise RlaifError(f"run {str(run)!r} has no part {part}", hint=_HINT)
        files.append(part_folder(folder, part) / record.attempt / TABLES.get(name, name))
    return files


def read_table_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The verdicts of a part, as `verdicts.jsonl` has them, with their numbers.

    Raises:
        RlaifError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file.open("rb") if is_url(file) else file) as opened:
            for batch in opened.iter_batches(batch_size=4096, columns=list(VERDICT_COLUMNS)):
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    row = dict(zip(VERDICT_COLUMNS, values, strict=True))
                    row["request"] = row["request"].hex()
                    yield number, row
    except (OSError, pa.ArrowException, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise RlaifError(
            f"damaged ({reason})", hint=_HINT, place=Place(file, number + 1, 1)
        ) from None


def verdict_table(columns: Mapping[str, list[Any]]) -> Any:
    """The verdicts of a part as a table; see `VERDICT_COLUMNS`."""
    import pyarrow as pa

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bytes: pa.binary(16)}
    fields = [(name, kinds[kind]) for name, kind in VERDICT_COLUMNS.items()]
    arrays = [pa.array(columns.get(name, []), kind) for name, kind in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
