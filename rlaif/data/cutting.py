"""Cuts a source into parts that can each be read without the rows before them.

A part never crosses the end of a file.  Finding where they begin reads a JSONL file once, and of
a Parquet file only its footer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rlaif.data.compression import COMPRESSED, open_bytes
from rlaif.data.file_formats import (
    MAX_LINE_BYTES,
    Row,
    open_parquet,
    read_json_lines,
    read_parquet,
)
from rlaif.data.sources import Source
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.util.paths import is_url, open_path

LINES = ("jsonl", "ndjson")


@dataclass(frozen=True)
class InputPart:
    """Rows of one file that follow each other.

    Attributes:
        kind: of the file: "jsonl", "ndjson" or "parquet".
        label: what stands before the place of a row, as in a source of several files, or "".
        first: number of its first row in the whole input, from 0.
        count: of its rows.
        before: lines (or, in Parquet, rows) of the file before it.
        offset: bytes before it; 0 where the file can only be read from its start.
    """

    file: str
    kind: str
    label: str
    first: int
    count: int
    before: int
    offset: int = 0

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with the place that it has in the whole input."""
        path = open_path(self.file)
        if self.kind == "parquet":
            rows = read_parquet(path, skip=self.before)
        elif path.suffix.lower() in COMPRESSED:
            rows = read_json_lines(path, skip=self.before)
        else:
            rows = read_json_lines(path, offset=self.offset, before=self.before)
        for _ in range(self.count):
            found = next(rows, None)
            if found is None:
                raise RlaifError(
                    f"{self.file} has fewer rows than when the run began",
                    hint="Label it into a new folder with -o.",
                )
            place, row = found
            if self.label:
                place = f"{self.label} {place}"
                row = replace(row, place=place) if isinstance(row, Rejected) else row
            yield place, row

    def to_data(self) -> list[Any]:
        """As plain data, for `from_data`."""
        return [
            self.file,
            self.kind,
            self.label,
            self.first,
            self.count,
            self.before,
            self.offset,
        ]

    @staticmethod
    def from_data(data: list[Any]) -> InputPart:
        """What `to_data` gave."""
        return InputPart(*data)


def cut_source(source: Source, rows: int, limit: int | None = None) -> Iterator[InputPart]:
    """Parts of a source, in its order.

    Args:
        rows: of a part; the last of a file may have fewer.
        limit: rows of the source that count; None for all.

    Raises:
        RlaifError: its rows can't be read from the middle, or stand together.
    """
    if source.kind not in (*LINES, "parquet"):
        raise RlaifError(
            f"--part-rows can't cut {source.name!r}, which is of the kind {source.kind!r}",
            hint="Use JSONL or Parquet files, or --shard-rows, which reads the input in one place.",
        )
    if source.layout is not None:
        raise RlaifError(
            f"--part-rows can't cut {source.name!r}: several of its rows belong together",
            hint="Use --shard-rows, which reads the input in one place.",
        )
    first = 0
    for path in source.paths:
        label = path.name if len(source.paths) > 1 else ""
        path = path if is_url(path) else path.absolute()
        starts = _cut_parquet(path, rows) if source.kind == "parquet" else _cut_lines(path, rows)
        for before, offset, count in starts:
            if limit is not None and first + count > limit:
                count = limit - first
            if count:
                yield InputPart(
                    file=str(path),
                    kind=source.kind,
                    label=label,
                    first=first,
                    count=count,
                    before=before,
                    offset=offset,
                )
            first += count
            if first == limit:
                return


def _cut_parquet(path: Any, rows: int) -> Iterator[tuple[int, int, int]]:
    total = open_parquet(path).metadata.num_rows
    for before in range(0, total, rows):
        yield before, 0, min(rows, total - before)


def _cut_lines(path: Any, rows: int) -> Iterator[tuple[int, int, int]]:
    """Lines before a part, bytes before it, and its rows: lines that are not empty."""
    before, start, count = 0, 0, 0
    number, offset = 0, 0
    with open_bytes(path) as file:
        whole = True
        while line := file.readline(MAX_LINE_BYTES):
            begins, whole = whole, line.endswith(b"\n")
            if begins:  # the rest of a line that is too long is no row
                if count == rows:
                    yield before, start, count
                    before, start, count = number, offset, 0
                number += 1
                count += bool(line.strip())
            offset += len(line)
    if count:
        yield before, start, count
