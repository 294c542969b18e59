"""The rows of a part of a run, kept in memory until the whole part is handed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif.runs.directory import write_row
from rlaif.runs.rows import VerdictRows


class ShardFiles:
    """Row files of a shard; stands for a `RunDirectory` that nothing was written to yet.

    Attributes:
        lines: rows as lines of JSON, by the name of their file.
        journal: the last state.
        spent: what was spent.
    """

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}
        self.journal: dict[str, Any] = {"rows": 0, "tally": None}
        self.spent: dict[str, Any] = {}

    def append(self, name: str, row: Mapping[str, object] | VerdictRows) -> None:
        """See `RunDirectory.append`."""
        self.lines.setdefault(name, []).append(write_row(row))

    def checkpoint(self, **state: object) -> None:
        """See `RunDirectory.checkpoint`."""
        self.journal |= state

    def spend(self, **state: object) -> None:
        """See `RunDirectory.spend`."""
        self.spent = dict(state)
