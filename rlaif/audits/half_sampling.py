"""Compares two sets of texts at equal length, with intervals from half-samples.

Measures of diversity depend on how much text there is and count what comes twice, so a bootstrap
that draws rows twice would bias them. Half of the rows are drawn without replacement instead, again
and again: the spread of a measure over halves is that of the whole (subsampling, Politis and Romano
1994; delete-half jackknife, Shao and Wu 1989).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif.audits.rows import AuditRow

MOST_ROWS = 500
MOST_TEXTS = 1000
DRAWS = 40
DiversityMeasure = Callable[[list[int], list[int], list[int], int], dict[str, tuple[float, float]]]
"""(rows of the data, rows of the reference, its other rows, seed) to each amount by name: of the
data and of the reference.  All are above 0 and fall with what is lost."""


@dataclass(frozen=True)
class ReferenceRatio:
    """An amount of the data over that of the reference.

    Attributes:
        data, reference: means over the halves.
        ratio, error: their ratio, and its standard error.
    """

    data: float
    reference: float
    ratio: float
    error: float


def sampled(rows: Sequence[AuditRow], seed: int, most: int | None = None) -> list[AuditRow]:
    """At most `most` rows, drawn by the seed; default: `MOST_ROWS`, of about `MOST_TEXTS` texts.

    Rows that weigh more are likelier to be drawn where their weights differ and some must go.
    """
    if most is None:
        per_row = max(1.0, sum(len(row.texts) for row in rows) / max(len(rows), 1))
        most = max(2, min(MOST_ROWS, int(MOST_TEXTS / per_row)))
    if len(rows) <= most:
        return list(rows)
    rng = random.Random(seed)
    if len({row.weight for row in rows}) == 1:
        return rng.sample(list(rows), most)
    # Weighted, without replacement (Efraimidis and Spirakis 2006).
    keys = [
        (rng.random() ** (1.0 / row.weight) if row.weight else -1.0, i)
        for i, row in enumerate(rows)
    ]
    return [rows[i] for _, i in sorted(keys, reverse=True)[:most]]


def compare_halves(
    data: int, reference: int, measure: DiversityMeasure, seed: int, draws: int = DRAWS
) -> dict[str, ReferenceRatio]:
    """DiversityMeasure halves of both sides, `draws` times.

    Args:
        data, reference: how many rows there are of each.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    count = min(data, reference) // 2
    for draw in range(draws):
        rng = random.Random(f"{seed}/{draw}")
        ours = rng.sample(range(data), count)
        order = rng.sample(range(reference), reference)
        theirs, others = order[:count], order[count:]
        for name, values in measure(ours, theirs, others, rng.getrandbits(31)).items():
            found.setdefault(name, []).append(values)
    # What could not be measured in every half is not told.
    return {name: _compared(values) for name, values in found.items() if len(values) == draws}


def _compared(values: list[tuple[float, float]]) -> ReferenceRatio:
    array = np.array(values)
    ours, theirs = (float(v) for v in array.mean(axis=0))
    if not theirs:  # the reference has none of it: nothing can be lost
        return ReferenceRatio(ours, theirs, 1.0, 0.0)
    ratio = ours / theirs
    # Of a ratio of means, by linearisation (Cochran 1977).
    return ReferenceRatio(ours, theirs, ratio, float((array @ [1.0, -ratio]).std(ddof=1)) / theirs)
