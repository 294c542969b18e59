"""Writes files whole or not at all, so that they survive a power cut and follow no link."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`, or leave it as it was."""
    with replacing(path) as file:
        file.write(text)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that becomes `path` when the block ends without an error.

    It is written beside `path`, to a name that no link can stand at, and is on the disk before it
    takes the place of `path`.

    Args:
        mode: "w" for text in UTF-8, "wb" for bytes.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # left by a kill; of a link, the link itself
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_file(file: Path) -> None:
    """Have a file's bytes on the disk."""
    with file.open("rb") as held:
        os.fsync(held.fileno())


def sync_folder(folder: Path) -> None:
    """Have a folder's names on the disk, where its file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_lock(path: Path) -> IO[str]:
    """A file to lock, made if missing; never one that a link leads to.

    Raises:
        OSError: it can't be opened, or is a link.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    return os.fdopen(descriptor, "r+", encoding="utf-8")
