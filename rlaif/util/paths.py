"""Paths on this machine and on any file system that fsspec knows, with the methods of `Path`."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import IO, Any, cast

from rlaif.errors import RlaifError, first_line


def is_url(name: str | Path) -> bool:
    """Whether a name is the URL of something elsewhere, such as `s3://bucket/run`."""
    return "://" in str(name)


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, to be read and sought in as those of a file here.

    Raises:
        OSError: it can't be opened.
    """
    if not is_url(path):
        return path.open("rb")
    return io.BufferedReader(cast("io.RawIOBase", path.open("rb")), 1 << 20)


def forget_listings(folder: Path) -> None:
    """Let a file system elsewhere look at its folders anew: others write there as well."""
    fs: Any = getattr(folder, "fs", None)
    if fs is not None:
        fs.invalidate_cache()


def list_sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files in a folder and in those in it, by their path from it.

    Elsewhere, one listing says it: asking file by file would take a request for each.
    """
    fs: Any = getattr(folder, "fs", None)
    if fs is None:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    fs.invalidate_cache()
    base = str(fs._strip_protocol(str(folder))).rstrip("/") + "/"
    found = fs.find(base, detail=True)
    return {
        str(fs._strip_protocol(name)).removeprefix(base): info["size"]
        for name, info in found.items()
    }


def open_path(name: str) -> Path:
    """A path; for a URL, one that reads and writes through fsspec.

    Raises:
        RlaifError: nothing installed reads such URLs.
    """
    if not is_url(name):
        return Path(name)
    upath = importlib.import_module("upath")
    try:
        found = upath.UPath(name)
        found.fs  # noqa: B018 - its package is loaded here
    except (ImportError, ValueError, OSError) as error:
        raise RlaifError(
            f"{name!r} can't be opened ({first_line(error)})",
            hint="Install the fsspec package of that storage (s3fs, gcsfs, adlfs), or use a path.",
        ) from None
    return cast("Path", found)
