"""Weights of rows in training: a row of weight 2 is there twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from rlaif.errors import RlaifError


class _HasWeight(Protocol):
    @property
    def weight(self) -> float: ...


MOST_ROWS = 20_000_000
Row = TypeVar("Row", bound=_HasWeight)


def by_weight(rows: Sequence[Row], seed: int) -> list[Row]:
    """Each row as often as its weight says; of a fraction, by a draw.

    Raises:
        RlaifError: none is left, or too many.
    """
    total = sum(row.weight for row in rows)
    if total > MOST_ROWS:
        raise RlaifError(
            f"the row weights sum to {total:g}, and repeating rows that often would not "
            "fit in memory",
            hint=f"Scale them down to a sum of at most {MOST_ROWS}.",
        )
    rng = random.Random(seed)
    found = []
    for row in rows:
        whole = int(row.weight)
        found += [row] * (whole + (rng.random() < row.weight - whole))
    if rows and not found:
        raise RlaifError("all rows have weight 0", hint="Give some rows a weight above 0.")
    return found
