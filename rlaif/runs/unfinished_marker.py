"""A folder that one command fills at once, and may begin again after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MARK = ".unfinished"


@contextmanager
def mark_unfinished(folder: Path) -> Iterator[None]:
    """Mark the folder, made if missing, until all of it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / _MARK
    mark.touch()
    yield
    mark.unlink()


def is_unfinished(folder: Path) -> bool:
    """Whether `mark_unfinished` was cut off there: what it holds may be written over."""
    return (folder / _MARK).exists()
