"""Opens files that may be compressed, by their ending."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from rlaif.errors import RlaifError
from rlaif.util.paths import is_url, open_binary

COMPRESSED = (".gz", ".zst", ".bz2")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

    Raises:
        RlaifError: a compressed file is damaged.
    """
    kind = path.suffix.lower()
    if kind not in COMPRESSED:
        with open_binary(path) as plain:
            yield plain
        return
    try:
        with _decompressed(path, kind) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise RlaifError(
            f"{path}: damaged, or not {kind[1:]} ({str(error).splitlines()[0]})",
            hint="Write the file again.",
        ) from None


def _decompressed(path: Path, kind: str) -> IO[bytes]:
    raw: Any = open_binary(path) if is_url(path) else path
    if kind == ".gz":
        return cast("IO[bytes]", gzip.open(raw, "rb"))
    if kind == ".bz2":
        return cast("IO[bytes]", bz2.open(raw, "rb"))
    import pyarrow as pa  # noqa: PLC0415 - only where a file needs it

    return cast("IO[bytes]", io.BufferedReader(pa.input_stream(raw, compression="zstd")))


_ZSTD, _LOCAL_HEADER = 93, struct.Struct("<26xHH")
"""Zip's number of the method, and the lengths of name and extra field in a local header."""


def read_entry(archive: zipfile.ZipFile, path: Path, entry: zipfile.ZipInfo) -> bytes:
    """A file of a zip archive, which may be compressed with Zstandard as `zipfile` can't read it.

    Raises:
        OSError, zipfile.BadZipFile, NotImplementedError: it can't be read.
    """
    if entry.compress_type != _ZSTD:
        return archive.read(entry)
    import pyarrow as pa  # noqa: PLC0415 - only where a file needs it

    with path.open("rb") as file:
        file.seek(entry.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        file.seek(name + extra, io.SEEK_CUR)
        packed = file.read(entry.compress_size)
    found = pa.decompress(packed, decompressed_size=entry.file_size, codec="zstd", asbytes=True)
    return bytes(found)
