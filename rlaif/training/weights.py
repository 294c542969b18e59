"""Weights of rows in training: a row of weight 2 is there twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from rlaif.errors import RlaifError


class _Weighted(Protocol):
    @property
    def weight(self) -> float: ...


Row = TypeVar("Row", bound=_Weighted)


def by_weight(rows: Sequence[Row], seed: int) -> list[Row]:
    """Each row as often as its weight says; of a fraction, by a draw.

    Raises:
        RlaifError: none is left.
    """
    rng = random.Random(seed)
    found = []
    for row in rows:
        whole = int(row.weight)
        found += [row] * (whole + (rng.random() < row.weight - whole))
    if rows and not found:
        raise RlaifError("all rows have weight 0", hint="Give some a weight above 0.")
    return found
