"""Whether files still are as long as when the command that wrote them ended."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rlaif.errors import RlaifError


def measure_sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """The bytes of those files that are there."""
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def check_sizes(folder: Path, sizes: object, hint: str, *, all_there: bool = False) -> None:
    """Refuse files that were cut or edited.

    Args:
        sizes: bytes by name, as `measure_sizes` told them; anything else says nothing.
        all_there: whether a file that is gone is refused as well.

    Raises:
        RlaifError: a file is shorter or longer than it was.
    """
    for name, size in sizes.items() if isinstance(sizes, dict) else ():
        file = folder / str(name)
        if not file.is_file() and not all_there:
            continue
        held = file.stat().st_size if file.is_file() else 0
        if held != size:
            raise RlaifError(
                f"{file} has {held} bytes, and had {size} when it was done: it was cut or edited",
                hint=hint,
            )
