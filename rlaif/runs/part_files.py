"""The rows of one part of a run, until they are written to its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.runs.directory import PREFERENCES, REJECTED, UNDECIDED, VERDICTS, write_row
from rlaif.runs.parts import TABLES, VERDICT_COLUMNS, verdict_table
from rlaif.runs.rows import VerdictRows
from rlaif.store.part_answers import write_table


class PartFiles:
    """Row files of a part; stands for a `RunDirectory` that nothing was written to yet.

    Attributes:
        journal: the last state.
        spent: what was spent.
    """

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {
            name: [] for name in (PREFERENCES, UNDECIDED, REJECTED)
        }
        self._verdicts: dict[str, list[Any]] = {name: [] for name in VERDICT_COLUMNS}
        self.journal: dict[str, Any] = {"rows": 0, "tally": None}
        self.spent: dict[str, Any] = {}

    def append(self, name: str, row: Mapping[str, object] | VerdictRows) -> None:
        """See `RunDirectory.append`."""
        if isinstance(row, VerdictRows):
            row.add_to(self._verdicts)
        else:
            self._lines[name].append(write_row(row))

    def checkpoint(self, **state: object) -> None:
        """See `RunDirectory.checkpoint`."""
        self.journal |= state

    def spend(self, **state: object) -> None:
        """See `RunDirectory.spend`."""
        self.spent = dict(state)

    def write(self, folder: Path) -> None:
        """Write the files of the part."""
        for name, lines in self._lines.items():
            data = "".join(line + "\n" for line in lines).encode("utf-8", "replace")
            (folder / name).write_bytes(data)
        repeating = ["principle", "order", "invalid", "reasoning", "pair"]
        table = verdict_table(self._verdicts)
        write_table(table, folder / TABLES[VERDICTS], repeating=repeating)
