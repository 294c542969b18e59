"""Output folders and files: whose a folder is, and one clear error where writing fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import RlaifError

NEW_FOLDER = "Set a new output folder with -o."


def check_folder(folder: Path, what: str, *, held: bool) -> bool:
    """Refuse a folder that holds something else; changes nothing.

    Args:
        what: what a command writes there.
        held: whether the folder holds one already, finished or not.

    Returns:
        `held`.

    Raises:
        RlaifError: it is a file, or holds other things (hidden files apart).
    """
    if folder.exists() and not folder.is_dir():
        raise RlaifError(f"{str(folder)!r} is a file", hint=NEW_FOLDER)
    if not held and folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
        raise RlaifError(f"{str(folder)!r} holds files but no {what}", hint=NEW_FOLDER)
    return held


def check_same(folder: Path, what: str, changed: str) -> None:
    """Refuse to go on with what was made by other settings.

    Args:
        changed: the settings that differ, or "".

    Raises:
        RlaifError: some do.
    """
    if changed:
        raise RlaifError(f"{str(folder)!r} holds another {what} ({changed})", hint=NEW_FOLDER)


@contextmanager
def explain_failure(path: Path, hint: str = "Name another path.") -> Iterator[None]:
    """Write `path` inside; what the system refuses becomes an error of the user's.

    Raises:
        RlaifError: it can't be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RlaifError(f"{str(path)!r} can't be written ({reason})", hint=hint) from None


@contextmanager
def silenced_output() -> Iterator[None]:
    """Keep what libraries in C write to standard output off it."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError):  # there is none, or it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
