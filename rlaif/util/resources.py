"""Finds the files that ship with the package: constitutions, prompts and the demo models.

In a wheel they lie under `rlaif/_data`; in a checkout they are the top-level folders that
people edit.  No other module knows the difference.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from rlaif.errors import RlaifError

_PACKAGE = Path(__file__).resolve().parents[1]


def data_root() -> Path:
    """The folder that holds `constitutions/`, `prompts/` and `recipes/`."""
    shipped = _PACKAGE / "_data"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def demo_model(name: str) -> Path:
    """The folder of an embedded model: "judge", "policy" or "writer"."""
    return _PACKAGE / "demo" / "models" / name


def list_shipped(folder: str, suffix: str) -> list[str]:
    """Names of the files of one sort that ship, in order.

    Args:
        folder: where they lie, below `data_root()`.
        suffix: their ending, with the dot.
    """
    return sorted(p.stem for p in (data_root() / folder).glob(f"*{suffix}"))


def find(name: str, *, folder: str, suffix: str, what: str) -> Path:
    """A user's file by path, or a shipped one by its bare name.

    Args:
        name: a path, or the name of a shipped file without its ending.
        folder: where shipped files of this sort lie, below `data_root()`.
        suffix: their ending, with the dot.
        what: what to call it in the error.

    Raises:
        RlaifError: nothing is found; the hint lists what ships.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {p.stem: p for p in sorted((data_root() / folder).glob(f"*{suffix}"))}
    if name in shipped:
        return shipped[name]
    if path.is_dir():
        raise RlaifError(f"{what} {name!r} is a folder", hint=f"Use a {suffix} file in it.")
    close = get_close_matches(name, shipped, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    names = ", ".join(shipped)
    raise RlaifError(
        f"{what} {name!r} was not found",
        hint=f"{guess}Use a path to a {suffix} file, or one of the shipped names: {names}.",
    )
