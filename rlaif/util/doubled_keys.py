"""Objects of JSON with a key that comes twice: which of the two values is meant is not known."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class DoubledKey(ValueError):
    """An object of JSON has a key twice."""


def find_doubled(names: Iterable[str]) -> str:
    """The first name that was there before; "" where none was."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some pairs: the hook of `json.loads`.

    Raises:
        DoubledKey: a key comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DoubledKey(f"key {find_doubled([name for name, _ in pairs])!r} comes twice")
    return found
