"""Reads the rows of one file of any format; a row that breaks is rejected, and reading goes on."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.data.compression import open_bytes, read_entry
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.util.doubled_keys import DoubledKey, find_doubled, refuse_doubles
from rlaif.util.paths import is_url

Row = Mapping[str, object]
MAX_LINE_BYTES = 64 << 20
_NOT_UTF8 = "not valid UTF-8: a text contains half of a surrogate pair"


def read_file(path: Path, kind: str) -> Iterator[tuple[str, Row | Rejected]]:
    """The rows of one file, with the place of each.

    Raises:
        RlaifError: it can't be read at all.
    """
    match kind:
        case "jsonl" | "ndjson":
            return read_json_lines(path)
        case "json":
            return _json_file(path)
        case "parquet":
            return read_parquet(path)
        case "txt":
            return _text_lines(path)
        case "eval":
            return _eval_log(path)
        case _:
            return _csv(path, "\t" if kind == "tsv" else ",")


def _text_lines(path: Path) -> Iterator[tuple[str, Row | Rejected]]:
    """Prompts, one a line; empty lines are none."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            place = f"line {number}"
            if number == 1:
                _check_encoding(line, path)
            if b"\0" in line:
                yield place, Rejected(place, "not text: it holds a NUL byte")
                continue
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
                yield place, _parse(read_entry(archive, path, archive.getinfo(name)), place)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise RlaifError(
            f"{path}: not a log of inspect ({error})", hint="Convert it with `inspect log convert`."
        ) from None


def read_json_lines(
    path: Path, *, offset: int = 0, before: int = 0, skip: int = 0
) -> Iterator[tuple[str, Row | Rejected]]:
    """The rows of a file with an object on each line.

    Args:
        offset: bytes at its start that are not read, and `before` the lines in them.
        skip: lines that are read and left out.

    Raises:
        RlaifError: it can't be read at all.
    """
    with open_bytes(path) as file:
        number = before
        if offset:
            file.seek(offset)
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            place = f"line {number}"
            if number == 1:
                _check_encoding(line, path)
                if line.strip() in (b"{", b"["):
                    raise RlaifError(
                        f"{path}: is JSON over several lines, not an object on each line",
                        hint="Give it the extension .json, or write it with `jq -c .`.",
                    )
            if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                if number > skip:
                    yield place, Rejected(place, f"line is longer than {MAX_LINE_BYTES >> 20} MiB")
            elif number > skip and line.strip():
                yield place, _parse(line.removeprefix(b"\xef\xbb\xbf"), place)


def _parse(line: bytes, place: str) -> Row | Rejected:
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=refuse_doubles)
        if _may_have_halves(line) and _has_halves(row):
            return Rejected(place, _NOT_UTF8)
    except UnicodeDecodeError as error:
        return Rejected(
            place, f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1}"
        )
    except json.JSONDecodeError as error:
        return Rejected(place, f"not JSON: {error.msg} at column {error.colno}")
    except DoubledKey as error:
        return Rejected(place, str(error))
    except (RecursionError, ValueError) as error:
        return Rejected(place, f"not JSON: {type(error).__name__}")
    return as_row(row, place)


def _check_names(names: Sequence[str], where: str) -> None:
    """Refuse columns that only differ in case or in white space: nothing says which is meant.

    Raises:
        RlaifError: there are some.
    """
    if name := find_doubled([name.strip().casefold() for name in names]):
        alike = [own for own in names if own.strip().casefold() == name]
        raise RlaifError(
            f"{where}: column {alike[-1]!r} comes twice in the header",
            hint="Rename one of the two, or take it out.",
        )


def _check_encoding(content: bytes, path: Path) -> None:
    """Refuse UTF-16 and UTF-32 by name.

    Raises:
        RlaifError: it is one.
    """
    marks = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if content.startswith(marks) or b"\0" in content[:4]:
        raise RlaifError(f"{path}: is UTF-16 or UTF-32 text", hint="Save it as UTF-8.")


def as_row(row: object, place: str) -> Row | Rejected:
    """A value as a row, if it is an object."""
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
        _check_encoding(content, path)
        text = content.decode("utf-8-sig")
        data, escaped = (
            json.loads(text, object_pairs_hook=refuse_doubles),
            _may_have_halves(content),
        )
    except DoubledKey as error:
        raise RlaifError(f"{path}: {error}", hint="Keep one of the two.") from None
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
        yield place, Rejected(place, _NOT_UTF8) if broken else as_row(row, place)


def open_parquet(path: Path) -> Any:
    """A Parquet file, opened.

    Raises:
        RlaifError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path.open("rb") if is_url(path) else path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RlaifError(f"{path}: not Parquet ({reason})", hint="Check the file.") from None


def read_parquet(path: Path, *, skip: int = 0) -> Iterator[tuple[str, Row | Rejected]]:
    """The rows of a Parquet file.

    Args:
        skip: rows that are left out; row groups of them are not read.

    Raises:
        RlaifError: it can't be read.
    """
    import pyarrow as pa

    number = 0
    try:
        opened = open_parquet(path)
        _check_names(opened.schema_arrow.names, str(path))
        groups = list(range(opened.num_row_groups))
        while groups and number + opened.metadata.row_group(groups[0]).num_rows <= skip:
            number += opened.metadata.row_group(groups.pop(0)).num_rows
        for batch in opened.iter_batches(batch_size=256, row_groups=groups) if groups else ():
            for i in range(batch.num_rows):
                number += 1
                if number <= skip:
                    continue
                place = f"row {number}"
                try:
                    (row,) = batch.slice(i, 1).to_pylist()
                except UnicodeDecodeError:
                    yield place, Rejected(place, "not UTF-8")
                except (ValueError, OverflowError, TypeError, pa.ArrowException) as error:
                    yield place, Rejected(place, f"a value can't be read: {error}")
                else:
                    yield place, as_row(row, place)
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
            _check_names(names or (), f"{path}:1")
            if len(names or ()) == 1 and ";" in (names or ("",))[0]:
                raise RlaifError(
                    f"{path}:1: the header has no comma, and seems to be separated by ';'",
                    hint="Write it with commas, or with tabs and the extension .tsv.",
                )
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
