"""Draws the rows of a mix: shares of parts, quotas of slices, and enough that people wrote."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rlaif.errors import RlaifError
from rlaif.mixing.allocation import InfeasibleShares, RowSupply, allocate, most_rows
from rlaif.mixing.rows import MixRow, slice_holds
from rlaif.mixing.settings import MixPlan

WEIGHT_CLASSES = 8
HALVINGS = 24
STEPS = 24
"""Factors that are tried, from 1 to the largest."""


class _Shortage(RlaifError):
    """The shares and quotas can't be had."""


@dataclass(frozen=True)
class _Drawn:
    """Rows with the weights that they are trained with.

    Attributes:
        factor: by how much rows that people wrote were weighted up.
    """

    rows: list[MixRow]
    slices: list[dict[str, Any]]
    factor: float

    @property
    def human(self) -> float:
        return weight_share(self.rows, [row.human_written for row in self.rows])


def draw(plan: MixPlan, rows: Sequence[MixRow]) -> tuple[list[MixRow], list[dict[str, Any]], float]:
    """Rows by share and quota, drawn by the seed.

    Rows that people wrote are weighted up as far as `min_human` needs, and quotas hold for the
    weights that come of it: both are solved together.

    Returns:
        The rows, what became of each slice, and by how much human-written rows were weighted up.

    Raises:
        RlaifError: the shares and quotas can't be had, or the highest weight does not reach
            `min_human`.
    """
    signatures = [tuple(slice_holds(row, q.slice) for q in plan.quotas) for row in rows]
    least, most = plan.settings.min_human, plan.settings.human_weight
    plain = _draw(plan, rows, signatures, factor=1.0)
    if plain.human >= least - 1e-9:
        return plain.rows, plain.slices, 1.0

    def at(factor: float) -> _Drawn:
        if plan.quotas:
            return _draw(plan, rows, signatures, factor)
        return replace(plain, rows=_weighted(plain.rows, factor, most), factor=factor)

    best: _Drawn | None = None
    reached, low = plain, 1.0
    for factor in np.geomspace(1.0, most, STEPS)[1:] if most > 1.0 else []:
        try:
            drawn = at(float(factor))
        except _Shortage:  # quotas by weight, which human rows may break when they weigh more
            continue
        reached = max(reached, drawn, key=lambda d: d.human)
        if drawn.human >= least - 1e-9:
            best = drawn
            break
        low = float(factor)
    if best is None:
        raise _too_little_human(plan, plain, reached)
    high = best.factor
    for _ in range(HALVINGS if plan.quotas else 2 * HALVINGS):
        middle = (low + high) / 2
        try:
            drawn = at(middle)
        except _Shortage:
            low = middle
            continue
        if drawn.human >= least:
            high, best = middle, drawn
        else:
            low = middle
    return best.rows, best.slices, best.factor


def weight_share(rows: Sequence[MixRow], which: Sequence[bool]) -> float:
    """The share of some rows in what is trained, where a weight is a repetition."""
    total = sum(row.weight for row in rows)
    own = sum(row.weight for row, counts in zip(rows, which, strict=True) if counts)
    return own / total if total else 0.0


def _weighted(rows: Sequence[MixRow], factor: float, most: float) -> list[MixRow]:
    """Human-written rows weighted up. What was weighted up in an earlier mix is not weighted up
    again beyond the same bound.
    """
    return [
        replace(row, weight=max(row.weight, min(row.weight * factor, most)))
        if row.human_written
        else row
        for row in rows
    ]


def _draw(
    plan: MixPlan,
    rows: Sequence[MixRow],
    signatures: Sequence[tuple[bool, ...]],
    factor: float,
) -> _Drawn:
    """Rows by share and quota at one factor.

    Args:
        signatures: which slices each row is in.

    Long because rows are sorted into cells, counted, checked, drawn and reported.
    """
    quotas = plan.quotas
    weighted = _weighted(rows, factor, plan.settings.human_weight)
    # Without quotas nothing depends on a row's weight, so parts are not divided by it.
    classify = _weight_classes([row.weight for row in weighted]) if quotas else lambda _: 0
    strata: dict[tuple[Any, ...], int] = {}
    cells: dict[tuple[int, int], list[MixRow]] = {}
    for row, signature in zip(weighted, signatures, strict=True):
        key = (signature, bool(quotas) and row.human_written, classify(row.weight))
        stratum = strata.setdefault(key, len(strata))
        cells.setdefault((row.part, stratum), []).append(row)
    shape = (len(plan.parts), max(len(strata), 1))
    supply, weights = np.zeros(shape, dtype=np.int64), np.ones(shape)
    for cell, found in cells.items():
        supply[cell] = len(found)
        weights[cell] = np.mean([row.weight for row in found]) if quotas else 1.0
    member = np.array([[key[0][q] for key in strata] for q in range(len(quotas))], bool)
    member = member.reshape(len(quotas), shape[1])
    for q, quota in enumerate(quotas):
        if not supply[:, member[q]].sum():
            raise RlaifError(
                f"no row is in the slice {quota.slice!r}",
                hint="Check its name, or add data that has it.",
            )
        if not (supply * weights)[:, member[q]].sum():
            raise RlaifError(
                f"all rows of the slice {quota.slice!r} have a weight of 0",
                hint="Give them a weight, or leave the quota out.",
            )
    stock, wanted = RowSupply(supply, member, weights), [quota.share for quota in quotas]
    most = most_rows(stock, plan.shares, wanted)
    total = most if plan.settings.total is None else plan.settings.total
    try:
        if not total:
            raise InfeasibleShares
        taken = allocate(stock, plan.shares, wanted, total)
    except InfeasibleShares:
        raise _shortage(plan, stock, total, most) from None
    rng = random.Random(plan.settings.seed)
    chosen = [row for cell in sorted(cells) for row in _sample(rng, cells[cell], int(taken[cell]))]
    slices = [
        {
            "slice": quota.slice,
            "quota": quota.share,
            "before": weight_share(rows, [s[q] for s in signatures]),
            "rows": int(taken[:, member[q]].sum()),
            "share": float(taken[:, member[q]].sum() / total),
            "by weight": weight_share(chosen, [slice_holds(row, quota.slice) for row in chosen]),
        }
        for q, quota in enumerate(quotas)
    ]
    return _Drawn(chosen, slices, factor)


def _sample(rng: random.Random, rows: Sequence[MixRow], count: int) -> list[MixRow]:
    """Rows drawn by chance, each as likely; where weights differ, evenly along them, so that those
    drawn weigh on average what all do (systematic sampling, Cochran 1977, chapter 8).
    """
    if not count or len({row.weight for row in rows}) == 1:
        return rng.sample(list(rows), count)
    shuffled = rng.sample(list(rows), len(rows))
    ordered = sorted(shuffled, key=lambda row: row.weight)
    step = len(ordered) / count
    start = rng.random() * step
    return [ordered[min(int(start + k * step), len(ordered) - 1)] for k in range(count)]


def _weight_classes(weights: Sequence[float]) -> Callable[[float], int]:
    """Weights in a few classes: each of its own where there are few, else by quantiles."""
    values = np.unique(weights)
    if len(values) > WEIGHT_CLASSES:
        inner = np.linspace(0, 1, WEIGHT_CLASSES + 1)[1:-1]
        values = np.unique(np.quantile(weights, inner))
    return lambda weight: int(np.searchsorted(values, weight))


def _shortage(plan: MixPlan, stock: RowSupply, total: int, most: int) -> _Shortage:
    """Says which part or slice is short, and what could be had."""
    shares = [
        (p.data, s, int(n))
        for p, s, n in zip(plan.parts, plan.shares, stock.rows.sum(axis=1), strict=True)
    ]
    shares += [
        (f"slice {q.slice}", q.share, int(stock.rows[:, m].sum()))
        for q, m in zip(plan.quotas, stock.slices, strict=True)
    ]
    name, share, have = min(shares, key=lambda s: s[2] / s[1])
    hint = f"Use --total {most} or less, or add data." if most else "Change the shares or quotas."
    if not total:
        return _Shortage(
            "these shares and quotas cannot be met: a part or slice has no rows, or all rows "
            "are in a slice with a lower quota",
            hint=hint,
        )
    if have >= round(share * total):
        return _Shortage(
            f"the data does not have {total} rows that meet all shares and quotas",
            hint=hint,
        )
    return _Shortage(
        f"{name!r} has {have} rows after deduplication and decontamination; {total} rows "
        f"with a share of {share:.1%} need {round(share * total)}",
        hint=hint,
    )


def _too_little_human(plan: MixPlan, plain: _Drawn, best: _Drawn) -> RlaifError:
    count = sum(row.human_written for row in plain.rows)
    labeled = sum(row.human_labeled for row in plain.rows)
    unknown = sum(not row.known for row in plain.rows)
    return RlaifError(
        (
            f"humans wrote what is learned in {count} of {len(plain.rows)} rows "
            f"({plain.human:.1%} by weight; {best.human:.1%} with each weighted "
            f"{plan.settings.human_weight:g}x), below the minimum of "
            f"{plan.settings.min_human:.1%}"
        )
        + (f"; {labeled} rows have a human label, which does not count here" if labeled else "")
        + (f"; {unknown} rows have unknown origin" if unknown else ""),
        hint="Add human-written rows, mark them with --human-written DATA, or lower --min-human.",
    )
