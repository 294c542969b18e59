"""Rows of a run beside those that they should be: in the order of the input, and compared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.runs.directory import has_rows, read_rows

ROUNDED = 3e-5
"""How far numbers of rows that rest on rounded ones may be apart: rows keep five decimals."""


@dataclass(frozen=True)
class RunRow:
    """A row with its place."""

    file: str
    line: int
    data: dict[str, Any]


class RowsByInput:
    """The rows of files that stand in the order of the input, by the input's row.

    Args:
        inside: where a row says which it is of; "" for the row itself.
    """

    def __init__(self, run: Path, files: tuple[str, ...], inside: str) -> None:
        self._inside = inside
        self._strays: list[RunRow] = []
        self._files = [(name, read_lines(run / name)) for name in files]
        self._heads: list[RunRow | None] = [None] * len(files)
        for k in range(len(files)):
            self._advance(k)

    def _advance(self, k: int) -> None:
        name, lines = self._files[k]
        found = next(lines, None)
        self._heads[k] = None if found is None else RunRow(name, *found)

    def number(self, row: RunRow) -> int:
        """The input's row that a row is of; 0 for none."""
        held = row.data.get(self._inside) if self._inside else row.data
        number = held.get("row") if isinstance(held, Mapping) else None
        return number if isinstance(number, int) else 0

    def of_row(self, number: int) -> list[RunRow]:
        """All rows up to those of one of the input's; those before it are there, too."""
        found = []
        for k in range(len(self._files)):
            while (head := self._heads[k]) is not None and self.number(head) <= number:
                if not self._inside or isinstance(head.data.get(self._inside), dict):
                    found.append(head)
                else:
                    self._strays.append(head)
                self._advance(k)
        return found

    def rest(self) -> Iterator[tuple[str, int, int]]:
        """What no row of the input accounts for: file, line and the row that it names."""
        for stray in self._strays:
            yield stray.file, stray.line, 0
        for k in range(len(self._files)):
            while (head := self._heads[k]) is not None:
                yield head.file, head.line, self.number(head)
                self._advance(k)


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their lines; none where there is no file."""
    return read_rows(file, strict=True) if has_rows(file) else iter(())


def first_apart(expected: Any, stated: Any, path: str = "") -> str:
    """Where two values first differ, beyond what rounding may do; "" for nowhere."""
    if isinstance(expected, float | int) and isinstance(stated, float | int):
        near = isinstance(expected, bool) == isinstance(stated, bool) and math.isclose(
            expected, stated, rel_tol=0, abs_tol=ROUNDED
        )
        return "" if near else f"{path} is {stated}, not {expected}"
    if isinstance(expected, dict) and isinstance(stated, dict):
        for key in [*expected, *(k for k in stated if k not in expected)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in expected or key not in stated:
                return f"{inner} is {'missing' if key in expected else 'not expected'}"
            apart = first_apart(expected[key], stated[key], inner)
            if apart:
                return apart
        return ""
    if isinstance(expected, list) and isinstance(stated, list):
        if len(expected) != len(stated):
            return f"{path} has {len(stated)} entries, not {len(expected)}"
        pairs = enumerate(zip(expected, stated, strict=True))
        return next((a for k, (x, y) in pairs if (a := first_apart(x, y, f"{path}[{k}]"))), "")
    if expected == stated or (path.endswith("reason") and _same_words(expected, stated)):
        return ""
    return f"{path} is {str(stated)[:60]!r}, not {str(expected)[:60]!r}"


def counts_apart(expected: Any, stated: Any, *, few: int, path: str = "") -> str:
    """Where the counts of a run first differ from those of its rows; "" for nowhere.

    Args:
        few: by how much a count may be off, since a rounded number may fall on either side of a
            bound.
    """
    if isinstance(expected, dict) and isinstance(stated, dict):
        for key in [*expected, *(k for k in stated if k not in expected)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in stated or key not in expected:
                if few and isinstance(x := expected.get(key, stated.get(key)), int) and x <= few:
                    continue
                return f"{inner} is {'missing' if key in expected else 'not expected'}"
            apart = counts_apart(expected[key], stated[key], few=few, path=inner)
            if apart:
                return apart
        return ""
    if isinstance(expected, list) and isinstance(stated, list) and len(expected) == len(stated):
        pairs = enumerate(zip(expected, stated, strict=True))
        found = (counts_apart(x, y, few=few, path=f"{path}[{k}]") for k, (x, y) in pairs)
        return next(filter(None, found), "")
    same = type(expected) is type(stated) and expected == stated
    if isinstance(expected, int) and isinstance(stated, int):
        same = same or abs(expected - stated) <= few
    elif isinstance(expected, float) and isinstance(stated, float | int):
        same = abs(expected - stated) <= max(1e-6, ROUNDED * few * 1000)
    elif isinstance(expected, str) and isinstance(stated, str):
        same = same or _same_words(expected, stated)
    return "" if same else f"{path} is {str(stated)[:60]}, not {str(expected)[:60]}"


def _same_words(one: Any, two: Any) -> bool:
    """Whether two reasons differ in the last digits of numbers alone."""
    if not (isinstance(one, str) and isinstance(two, str)):
        return False
    words, numbers = zip(*((_DIGITS.split(t), _DIGITS.findall(t)) for t in (one, two)), strict=True)
    return words[0] == words[1] and all(
        abs(float(a) - float(b)) <= 1.5e-3 for a, b in zip(*numbers, strict=True)
    )


_DIGITS = re.compile(r"-?\d{1,20}(?:\.\d{1,20})?(?:e-?\d{1,2})?")
