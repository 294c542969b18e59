"""Reads rows from wherever people keep them, one at a time, with the place of each.

A row that breaks is yielded as `Rejected` and reading goes on; only a source that can't be
read at all raises.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlaif.data.mixes import DATA_FILE
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.util.hashing import digest, file_digest, folder_digest

Row = Mapping[str, object]
FILE_KINDS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
MAX_LINE_BYTES = 64 << 20
_NOT_UTF8 = "not valid UTF-8: a text contains half of a surrogate pair"


class RowsInOrder(Protocol):
    """A `Source`, or some of its rows."""

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place."""
        ...


@dataclass(frozen=True)
class Source:
    """A data set by its path or hub id.

    Attributes:
        kind: a file ending without its dot, "datasets" (a saved folder) or "hub".
        split: for `datasets` folders and hub ids with several splits.
    """

    name: str
    kind: str
    split: str = "train"

    def fingerprint(self) -> str:
        """Content address: of the bytes on disk, or of the hub id with its commit."""
        if self.kind == "hub":
            return digest({"hub": self.name, "split": self.split, "commit": _hub_commit(self.name)})
        path = Path(self.name)
        if self.kind == "datasets":
            return digest([folder_digest(path, ("**/*.arrow", "**/*.json")), self.split])
        return file_digest(path)

    def count(self, limit: int | None = None) -> int | None:
        """How many rows there are (at most `limit`), where that is cheap to know."""
        path, found = Path(self.name), None
        if self.kind in ("jsonl", "ndjson"):
            with path.open("rb") as file:
                found = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        elif self.kind == "parquet":
            found = _parquet_file(path).metadata.num_rows
        return found if found is None or limit is None else min(found, limit)

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place (`line 3`, `row 3`)."""
        path = Path(self.name)
        match self.kind:
            case "jsonl" | "ndjson":
                return _json_lines(path)
            case "json":
                return _json_file(path)
            case "parquet":
                return _parquet(path)
            case "csv" | "tsv":
                return _csv(path, "\t" if self.kind == "tsv" else ",")
            case "datasets":
                return _saved_datasets(path, self.split)
            case _:
                return _hub(self.name, self.split)


def open_source(name: str, split: str = "train") -> Source:
    """Find out what `name` is.

    Raises:
        RlaifError: no such file, an unknown ending, or a folder that neither `datasets` saved nor
            `rlaif mix` made.
    """
    path = Path(name)
    if path.is_file():
        if path.suffix.lower() not in FILE_KINDS:
            raise RlaifError(
                f"input {name!r} has the unsupported extension {path.suffix!r}",
                hint=f"Use one of {', '.join(FILE_KINDS)}.",
            )
        return Source(name, path.suffix.lower()[1:], split)
    if path.is_dir() and (path / DATA_FILE).is_file():
        return Source(str(path / DATA_FILE), "parquet", split)
    if path.is_dir():
        saved = any((path / f).is_file() for f in ("dataset_info.json", "dataset_dict.json"))
        if not saved and not (path / "state.json").is_file():
            raise RlaifError(
                f"folder {name!r} was not saved by datasets.save_to_disk",
                hint="Use a data file in it.",
            )
        return Source(name, "datasets", split)
    looks_local = path.suffix.lower() in FILE_KINDS or name.startswith((".", "/", "~"))
    if looks_local or name.count("/") > 1 or not name.strip():
        raise RlaifError(f"input {name!r} does not exist", hint="Check the path.")
    return Source(name, "hub", split)


def open_evaluation(name: str) -> Source:
    """Data that must not be trained on: of several splits, `test`, else `validation`, or the one
    that `NAME:SPLIT` names.

    Raises:
        RlaifError: as `open_source`; or it can't be found out which splits there are.
    """
    data, colon, split = name.rpartition(":")
    if colon and split and not Path(name).exists() and "/" not in split:
        return open_source(data, split)
    found = open_source(name)
    splits = _splits(found)
    return open_source(name, next((s for s in ("test", "validation") if s in splits), "train"))


def _splits(source: Source) -> list[str]:
    import datasets

    if source.kind == "datasets":
        try:
            saved = datasets.load_from_disk(source.name)
        except Exception:  # said when it is read
            return []
        return list(saved) if isinstance(saved, datasets.DatasetDict) else []
    if source.kind != "hub":
        return []
    try:
        return [str(split) for split in datasets.get_dataset_split_names(source.name)]
    except Exception as error:  # the library raises many unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise RlaifError(
            f"could not list the splits of {source.name!r} ({reason})",
            hint="Choose one with DATA:SPLIT.",
        ) from None


def _json_lines(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            place = f"line {number}"
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield place, Rejected(place, f"line is longer than {MAX_LINE_BYTES >> 20} MiB")
            elif line.strip():
                yield place, _parse(line.removeprefix(b"\xef\xbb\xbf"), place)


def _parse(line: bytes, place: str) -> Row | Rejected:
    try:
        row = json.loads(line.decode("utf-8"))
        if _may_have_halves(line) and _has_halves(row):
            return Rejected(place, _NOT_UTF8)
    except UnicodeDecodeError as error:
        return Rejected(
            place, f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}"
        )
    except json.JSONDecodeError as error:
        return Rejected(place, f"not JSON: {error.msg} at column {error.colno}")
    except (RecursionError, ValueError) as error:
        return Rejected(place, f"not JSON: {type(error).__name__}")
    return _as_row(row, place)


def _as_row(row: object, place: str) -> Row | Rejected:
    if not isinstance(row, dict):
        return Rejected(place, f"row is not an object: got {type(row).__name__}")
    return row


def _json_file(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    try:
        content = path.read_bytes()
        data, escaped = json.loads(content.decode("utf-8-sig")), _may_have_halves(content)
    except UnicodeDecodeError as error:
        raise RlaifError(
            f"{path}: not UTF-8 at byte {error.start}", hint="Save it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        hint = "For one object per line, use the extension .jsonl."
        raise RlaifError(f"{path}: not JSON ({error})", hint=hint) from None
    if isinstance(data, dict):
        tables = [v for v in data.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
        holds_rows = len(tables) == 1 and not any(key in data for key in ("prompt", "instruction"))
        data = tables[0] if holds_rows else [data]
    if not isinstance(data, list):
        raise RlaifError(f"{path}: contains no list of rows", hint="Use a list of objects.")
    for i, row in enumerate(data, 1):
        place = f"row {i}"
        broken = escaped and _has_halves(row)
        yield place, Rejected(place, _NOT_UTF8) if broken else _as_row(row, place)


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RlaifError(f"{path}: not Parquet ({reason})", hint="Check the file.") from None


def _parquet(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    import pyarrow as pa

    number = 0
    try:
        for batch in _parquet_file(path).iter_batches(batch_size=256):
            for i in range(batch.num_rows):
                number += 1
                place = f"row {number}"
                try:
                    (row,) = batch.slice(i, 1).to_pylist()
                except UnicodeDecodeError:
                    yield place, Rejected(place, "not UTF-8")
                except (ValueError, OverflowError, TypeError, pa.ArrowException) as error:
                    yield place, Rejected(place, f"a value can't be read: {error}")
                else:
                    yield place, _as_row(row, place)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise RlaifError(
            f"{path}: damaged after row {number} ({reason})", hint="Write the file again."
        ) from None


def _csv(path: Path, delimiter: str) -> Iterator[tuple[str, Row | Rejected]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restkey="__extra__", strict=True)
        try:
            names = reader.fieldnames
        except csv.Error as error:
            raise RlaifError(f"{path}: not CSV ({error})", hint="Check the file.") from None
        while names:
            place = f"line {reader.reader.line_num + 1}"
            try:
                row = next(reader, None)
            except csv.Error as error:
                reason = f"not CSV: {error}"
                if "unexpected end of data" in str(error):
                    reason = "a quote opened here is not closed before the end of the file"
                if reader.reader.line_num >= int(place.split()[1]) + 1:
                    place = f"lines {place.split()[1]} to {reader.reader.line_num}"
                yield place, Rejected(place, reason)
                continue
            if row is None:
                return
            if "__extra__" in row or None in row.values():
                yield place, Rejected(place, "row has more or fewer fields than the header")
            elif any(_has_surrogates(str(value)) for value in row.values()):
                yield place, Rejected(place, "not UTF-8")
            else:
                yield place, row


def _may_have_halves(content: bytes) -> bool:
    return b"\\ud" in content or b"\\uD" in content


def _has_halves(value: object) -> bool:
    """Whether a text anywhere in what JSON held is half of a surrogate pair."""
    return _has_surrogates(json.dumps(value, ensure_ascii=False))


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _saved_datasets(path: Path, split: str) -> Iterator[tuple[str, Row | Rejected]]:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises many unrelated types
        reason = f"could not be opened ({error})"
        raise RlaifError(f"folder {str(path)!r} {reason}", hint="Save it again.") from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            names = ", ".join(found)
            raise RlaifError(
                f"folder {str(path)!r} has no split {split!r}",
                hint=f"Choose one with --split: {names}.",
            )
        found = found[split]
    yield from _rows_of(found, f"folder {str(path)!r}")


def _hub(name: str, split: str) -> Iterator[tuple[str, Row | Rejected]]:
    import datasets

    try:
        found = datasets.load_dataset(name, split=split, streaming=True)
    except Exception as error:  # the library raises many unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise RlaifError(
            f"dataset {name!r} is not a local file and could not be loaded from the Hub ({reason})",
            hint="Check the path or Hub ID, the split and the network.",
        ) from None
    yield from _rows_of(found, f"dataset {name!r}")


def _rows_of(found: Any, what: str) -> Iterator[tuple[str, Row | Rejected]]:
    """Rows of a data set of the `datasets` library; one with an unreadable value is rejected."""
    number = 0
    while True:
        # A data set that can be entered anywhere goes on behind a row that can't be read.
        can_skip = hasattr(found, "select")
        rows = found.select(range(number, len(found))) if can_skip else found
        try:
            for row in rows:
                number += 1
                yield f"row {number}", _as_row(row, f"row {number}")
            return
        except (ValueError, OverflowError, TypeError) as error:
            number += 1
            if not can_skip:
                raise RlaifError(
                    f"{what}: row {number} can't be read ({error})", hint="Remove that row."
                ) from None
            place = f"row {number}"
            yield place, Rejected(place, f"a value can't be read: {error}")


def _hub_commit(name: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name).sha)
    except Exception as error:  # the hub client raises many unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise RlaifError(
            f"dataset {name!r} is not a local file and was not found on the Hub ({reason})",
            hint="Check the path or Hub ID, and the network.",
        ) from None
