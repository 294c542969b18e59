"""Reads rows from wherever people keep them, one at a time, with the place of each.

A row that breaks is yielded as `Rejected` and reading goes on; only a source that can't be
read at all raises.
"""

from __future__ import annotations

import atexit
import csv
import glob
import io
import json
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from rlaif.data.compression import COMPRESSED, open_bytes, read_entry
from rlaif.data.grouping import join_rows
from rlaif.data.layout import Layout
from rlaif.data.mixes import DATA_FILE
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.util.hashing import digest, file_digest, folder_digest

Row = Mapping[str, object]
FILE_KINDS = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt", ".eval")
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
        layout: says which rows belong together; None: each row stands alone.
        files: where the rows are, if not in the one file of this name.
        options: of a Hub data set: config, data_dir, revision.
    """

    name: str
    kind: str
    split: str = "train"
    layout: Layout | None = None
    files: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files, in the order in which they are read: by name."""
        return [Path(file) for file in self.files or (self.name,)]

    def fingerprint(self) -> str:
        """Content address: of the bytes on disk, or of the hub id with its commit."""
        if self.kind == "hub":
            own = dict(self.options)
            commit = _hub_commit(self.name, own.get("revision"))
            return digest({"hub": self.name, "split": self.split, "commit": commit, **own})
        if self.kind == "datasets":
            folder = Path(self.name)
            return digest([folder_digest(folder, ("**/*.arrow", "**/*.json")), self.split])
        found = [file_digest(path) for path in self.paths]
        return found[0] if len(found) == 1 else digest(found)

    def count(self, limit: int | None = None) -> int | None:
        """How many rows there are (at most `limit`), where that is cheap to know."""
        found = None
        if self.kind in ("jsonl", "ndjson", "txt"):
            found = 0
            for path in self.paths:
                with open_bytes(path) as file:
                    blocks = iter(lambda: file.read(1 << 20), b"")
                    found += sum(block.count(b"\n") for block in blocks)
        elif self.kind == "parquet":
            found = sum(_parquet_file(path).metadata.num_rows for path in self.paths)
        return found if found is None or limit is None else min(found, limit)

    def rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        """Every row with its place (`line 3`, `row 3`); joined where several make one."""
        rows = self._rows()
        return rows if self.layout is None else join_rows(rows, self.layout)

    def _rows(self) -> Iterator[tuple[str, Row | Rejected]]:
        if self.kind == "datasets":
            return _saved_datasets(Path(self.name), self.split)
        if self.kind == "hub":
            return _hub(self.name, self.split, dict(self.options))
        if len(self.paths) == 1:
            return _file_rows(self.paths[0], self.kind)
        return self._several()

    def _several(self) -> Iterator[tuple[str, Row | Rejected]]:
        for path in self.paths:
            for place, row in _file_rows(path, self.kind):
                where = f"{path.name} {place}"
                yield where, replace(row, place=where) if isinstance(row, Rejected) else row


def _file_rows(path: Path, kind: str) -> Iterator[tuple[str, Row | Rejected]]:
    match kind:
        case "jsonl" | "ndjson":
            return _json_lines(path)
        case "json":
            return _json_file(path)
        case "parquet":
            return _parquet(path)
        case "txt":
            return _text_lines(path)
        case "eval":
            return _eval_log(path)
        case _:
            return _csv(path, "\t" if kind == "tsv" else ",")


def open_source(name: str, split: str = "train") -> Source:
    """Find out what `name` is.

    Raises:
        RlaifError: no such file, an unknown ending, or a folder that neither `datasets` saved nor
            `rlaif mix` made.
    """
    if name == "-":
        return Source(name, "jsonl", split, files=(_spooled_input(),))
    if name.startswith("hub:"):
        return _hub_source(name.removeprefix("hub:"), split)
    path = Path(name)
    if path.is_file():
        return Source(name, _kind_of(path), split)
    if path.is_dir() and (path / DATA_FILE).is_file():
        return Source(str(path / DATA_FILE), "parquet", split)
    if path.is_dir():
        saved = ("dataset_info.json", "dataset_dict.json", "state.json")
        if any((path / file).is_file() for file in saved):
            return Source(name, "datasets", split)
        return _shards(name, sorted(p for p in path.iterdir() if _is_data(p)), split)
    if any(mark in name for mark in "*?[") and name.strip():
        return _shards(name, sorted(map(Path, glob.glob(name, recursive=True))), split)
    looks_local = _is_data(path) or name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local or not name.strip() or path.parent.is_dir():
        raise RlaifError(
            f"input {name!r} does not exist",
            hint="Check the path, or write hub:NAME for a dataset on the Hub.",
        )
    return Source(name, "hub", split)


def _kind_of(path: Path) -> str:
    """The kind of a data file, by its ending; compression aside.

    Raises:
        RlaifError: it is no data file.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind not in FILE_KINDS:
        raise RlaifError(
            f"input {str(path)!r} has the unsupported extension {''.join(path.suffixes[-2:])!r}",
            hint=f"Use one of {', '.join(FILE_KINDS)}, or these with {' or '.join(COMPRESSED)}.",
        )
    return kind[1:]


def _is_data(path: Path) -> bool:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in FILE_KINDS and not path.name.startswith(".")


def _shards(name: str, files: Sequence[Path], split: str) -> Source:
    """Several files as one data set, read by name.

    Raises:
        RlaifError: there are none, or they are of several kinds.
    """
    if not files:
        raise RlaifError(
            f"{name!r} holds no data files", hint=f"Use files with {', '.join(FILE_KINDS)}."
        )
    kinds = sorted({_kind_of(file) for file in files})
    if len(kinds) > 1:
        raise RlaifError(
            f"{name!r} holds files of several kinds ({', '.join(kinds)})",
            hint=f"Choose those of one kind, such as '{name.rstrip('/')}/*.{kinds[0]}'.",
        )
    return Source(name, kinds[0], split, files=tuple(map(str, files)))


def _hub_source(text: str, split: str) -> Source:
    """`NAME[,config=...][,data_dir=...][,revision=...][,split=...]`.

    Raises:
        RlaifError: an option is unknown.
    """
    name, *rest = text.split(",")
    options: dict[str, str] = {}
    for item in rest:
        key, equals, value = item.partition("=")
        if not equals or key not in ("config", "data_dir", "revision", "split"):
            raise RlaifError(
                f"hub:{name} has the unknown option {item!r}",
                hint="Use config=, data_dir=, revision= or split=.",
            )
        options[key] = value
    split = options.pop("split", split)
    return Source(name, "hub", split, options=tuple(sorted(options.items())))


@cache
def _spooled_input() -> str:
    """Standard input in a file of its own: data is read more than once."""
    file = tempfile.NamedTemporaryFile(prefix="rlaif-stdin-", suffix=".jsonl", delete=False)  # noqa: SIM115
    with file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


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


def _text_lines(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    """Prompts, one a line; empty lines are none."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            place = f"line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                yield place, Rejected(place, f"not UTF-8: byte at position {error.start + 1}")
                continue
            if text:
                yield place, {"prompt": text}


def _eval_log(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    """The samples of a log of inspect, which is a zip archive of JSON files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(n for n in archive.namelist() if re.fullmatch(r"samples/.+\.json", n))
            for number, name in enumerate(names, 1):
                place = f"sample {number}"
                yield place, _parse(read_entry(path, archive.getinfo(name)), place)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise RlaifError(
            f"{path}: not a log of inspect ({error})", hint="Convert it with `inspect log convert`."
        ) from None


def _json_lines(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    with open_bytes(path) as file:
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


def _is_table(data: dict[str, Any]) -> bool:
    """Whether an object holds a table column by column, as `DataFrame.to_dict("list")` has it."""
    sizes = {len(v) if isinstance(v, list) else -1 for v in data.values()}
    return len(data) > 1 and len(sizes) == 1 and min(sizes) > 0


def _json_file(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    try:
        with open_bytes(path) as file:
            content = file.read()
        data, escaped = json.loads(content.decode("utf-8-sig")), _may_have_halves(content)
    except UnicodeDecodeError as error:
        raise RlaifError(
            f"{path}: not UTF-8 at byte {error.start}", hint="Save it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        hint = "For one object per line, use the extension .jsonl."
        raise RlaifError(f"{path}: not JSON ({error})", hint=hint) from None
    if isinstance(data, dict) and _is_table(data):
        names = list(data)
        data = [dict(zip(names, cells, strict=True)) for cells in zip(*data.values(), strict=True)]
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
    with (
        open_bytes(path) as binary,
        io.TextIOWrapper(
            binary, encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as file,
    ):
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


def _hub(name: str, split: str, options: Mapping[str, str]) -> Iterator[tuple[str, Row | Rejected]]:
    import datasets

    own = {("name" if key == "config" else key): value for key, value in options.items()}
    try:
        found = datasets.load_dataset(name, split=split, streaming=True, **own)
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


def _hub_commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except Exception as error:  # the hub client raises many unrelated types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise RlaifError(
            f"dataset {name!r} is not a local file and was not found on the Hub ({reason})",
            hint="Check the path or Hub ID, and the network.",
        ) from None
