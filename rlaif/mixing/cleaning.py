"""Takes duplicates and evaluation data out of the rows of a mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.mixing.rows import MixRow
from rlaif.text.contamination import Contamination
from rlaif.text.near_duplicates import near_duplicates


@dataclass(frozen=True)
class CleanedRows:
    """Rows that are left, in their order.

    Attributes:
        duplicates: by part: rows dropped because another one says the same.
        opposed: of these, pairs whose kept twin has the other completion chosen.
        contaminated: by part: rows that share a run of words with evaluation data.
    """

    rows: list[MixRow]
    duplicates: dict[int, int]
    opposed: int
    contaminated: dict[int, int]


def clean(
    rows: Sequence[MixRow], threshold: float, contamination: Contamination | None
) -> CleanedRows:
    """Drop contaminated rows, then all but one of those that say the same.

    Of duplicates what people labeled is kept first, then what they wrote, then what comes first.
    """
    contaminated: dict[int, int] = {}
    fit = []
    for row in rows:
        if contamination is not None and any(map(contamination.finds, row.texts)):
            contaminated[row.part] = contaminated.get(row.part, 0) + 1
        else:
            fit.append(row)
    order = sorted(range(len(fit)), key=lambda i: (*_trust(fit[i]), i))
    found = near_duplicates([fit[i].fields for i in order], threshold, edited=True)
    duplicates: dict[int, int] = {}
    opposed = 0
    dropped = set()
    for place, kept in found.items():
        row, twin = fit[order[place]], fit[order[kept]]
        dropped.add(order[place])
        duplicates[row.part] = duplicates.get(row.part, 0) + 1
        opposed += _opposed(row, twin)
    left = [row for i, row in enumerate(fit) if i not in dropped]
    return CleanedRows(left, duplicates, opposed, contaminated)


def _trust(row: MixRow) -> tuple[bool, bool]:
    """What people labeled comes first, since duplicates may differ in nothing but their label."""
    return not row.human_labeled, not row.human_written


def _opposed(row: MixRow, twin: MixRow) -> bool:
    return len(row.completions) == 2 and row.completions == twin.completions[::-1]
