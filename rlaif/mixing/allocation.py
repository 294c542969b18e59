"""How many rows of each part and slice a mix takes, so that shares and quotas hold together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from rlaif.util.output import silenced_output

Table = NDArray[np.int64]


@dataclass(frozen=True)
class RowSupply:
    """What there is.

    Attributes:
        rows: by part and stratum; shape (parts, strata).
        slices: whether a stratum is in a slice that has a quota; shape (quotas, strata).
        weight: what a row of each part and stratum weighs in training; shape (parts, strata);
            default: all the same.
    """

    rows: Table
    slices: NDArray[np.bool_]
    weight: NDArray[np.float64] | None = None

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """The weight of a row of each part and stratum; shape (parts, strata)."""
        return np.ones(self.rows.shape) if self.weight is None else self.weight

    def excess(self, quota: int, share: float) -> NDArray[np.float64]:
        """By how much a row of each cell moves a slice over its share of the training weight."""
        found: NDArray[np.float64] = (self.weights * (self.slices[quota] - share)).ravel()
        return found


class InfeasibleShares(Exception):
    """No numbers fulfill what is asked."""


def most_rows(supply: RowSupply, shares: Sequence[float], quotas: Sequence[float]) -> int:
    """The largest mix in which parts and slices have their shares, by linear programming."""
    parts, strata = supply.rows.shape
    cells = parts * strata
    # Unknown: the rows of each cell, then the total.
    equal, right = [], []
    for i, share in enumerate(shares):
        row = np.zeros(cells + 1)
        row[i * strata : (i + 1) * strata] = 1.0
        row[-1] = -share
        equal.append(row)
        right.append(0.0)
    for q, share in enumerate(quotas):
        row = np.zeros(cells + 1)
        row[:-1] = supply.excess(q, share)
        equal.append(row)
        right.append(0.0)
    bounds = [(0.0, float(n)) for n in supply.rows.ravel()] + [(0.0, None)]
    aim = np.zeros(cells + 1)
    aim[-1] = -1.0
    found = linprog(aim, A_eq=np.array(equal), b_eq=right, bounds=bounds)
    return int(-found.fun + 1e-6) if found.success else 0


def allocate(
    supply: RowSupply, shares: Sequence[float], quotas: Sequence[float], total: int
) -> Table:
    """Whole numbers of rows by part and stratum, shape (parts, strata), that sum to `total`.

    Parts are held within one row of their shares, and slices within the weight of one row of
    theirs; what is left free is as near as can be to what each part has of each stratum.

    Raises:
        Infeasible: there are too few rows of some sort.
    """
    parts, strata = supply.rows.shape
    cells, number = parts * strata, len(quotas)
    wanted = np.array(shares)[:, None] * total
    owned = supply.rows.sum(axis=1, keepdims=True)
    natural = (wanted * supply.rows / np.maximum(owned, 1)).ravel()
    # Unknown: the rows of each cell, how far each is from its natural number, and how far each
    # slice is from its quota, which counts more than all of these.
    width = 2 * cells + number
    lines = [np.concatenate([np.ones(cells), np.zeros(cells + number)])]
    lowest, highest = [float(total)], [float(total)]
    for i, share in enumerate(shares):
        row = np.zeros(width)
        row[i * strata : (i + 1) * strata] = 1.0
        _within(lines=lines, lowest=lowest, highest=highest, row=row, value=share * total)
    for q, share in enumerate(quotas):
        for sign in (1.0, -1.0):
            row = np.zeros(width)
            row[:cells], row[2 * cells + q] = sign * supply.excess(q, share), -1.0
            lines.append(row)
            lowest.append(-np.inf)
            highest.append(0.0)
    for cell in range(cells):
        for sign in (1.0, -1.0):
            row = np.zeros(width)
            row[cell], row[cells + cell] = sign, -1.0
            lines.append(row)
            lowest.append(-np.inf)
            highest.append(sign * natural[cell])
    row_weight = float(supply.weights[supply.rows > 0].max(initial=0.0))
    most = np.concatenate([supply.rows.ravel(), np.full(cells, np.inf)])
    # The solver now and then prints a line of its own, and standard output is for the result.
    with silenced_output():
        found = milp(
            np.concatenate([np.zeros(cells), np.ones(cells), np.full(number, 2.0 * cells)]),
            constraints=LinearConstraint(np.array(lines), lowest, highest),
            integrality=np.concatenate([np.ones(cells), np.zeros(cells + number)]),
            bounds=Bounds(0, np.concatenate([most, np.full(number, row_weight * (1 - 1e-9))])),
        )
    if not found.success:
        raise InfeasibleShares
    taken: Table = np.rint(found.x[:cells]).astype(np.int64).reshape(parts, strata)
    return taken


def _within(
    lines: list[NDArray[np.float64]],
    lowest: list[float],
    highest: list[float],
    row: NDArray[np.float64],
    value: float,
) -> None:
    lines.append(row)
    lowest.append(float(np.floor(value + 1e-9)))
    highest.append(float(np.ceil(value - 1e-9)))
