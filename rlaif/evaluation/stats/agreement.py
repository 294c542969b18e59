"""How far a judge agrees with labels: accuracy, kappa, consistency, and what abstaining buys.

Pure functions on arrays with one entry per pair.  `label` and `winner` are 1 for response `a`, -1
for `b`, 0 for a tie (or, of the judge, an abstention).

Ties, throughout: a pair that people call a tie is left out of accuracy, since neither answer is
right.  A pair that the judge does not decide counts one half, as a coin would get it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from rlaif.evaluation.stats.resampling import Estimate, Floats, mean_with_interval

Ints = NDArray[np.int64]


def credit(label: Ints, winner: Ints) -> Floats:
    """1 where the judge sides with the label, 0 where against it, one half where with nobody.

    Raises:
        ValueError: a label is a tie.
    """
    if (label == 0).any():
        raise ValueError("human ties have no correct answer")
    return np.where(winner == 0, 0.5, np.where(winner == label, 1.0, 0.0))


def kappa(label: Ints, winner: Ints) -> float:
    """Cohen's kappa (1960) over `a`, `b` and neither: agreement beyond chance; 1 is perfect.

    Ties count here on both sides.  NaN where either side always says the same.
    """
    if len(label) == 0 or (len(set(label)) < 2 and set(label) == set(winner)):
        return float("nan")
    return float(cohen_kappa_score(label, winner))


def consistent(label: Ints, first: Ints, second: Ints) -> Floats:
    """1 where the judge sides with the label in both orders, else 0.

    JudgeBench's rule (Tan et al. 2024, arXiv:2410.12784): what depends on the order is wrong.

    Args:
        first, second: the winner with `a` shown first, and with `b` shown first.
    """
    return np.asarray((first == label) & (second == label), dtype=np.float64)


@dataclass(frozen=True)
class CurvePoint:
    """What is right among the pairs that the judge is surest of.

    Attributes:
        coverage: their share of all pairs.
        accuracy: of those.
        confidence: the least confidence among them.
    """

    coverage: float
    accuracy: float
    confidence: float


def abstention_curve(right: Floats, confidence: Floats, *, points: int = 20) -> list[CurvePoint]:
    """Accuracy against coverage as the judge keeps to what it is surest of (El-Yaniv, Wiener 2010).

    Pairs of equal confidence are kept or left together.
    """
    n = len(right)
    if not n:
        return []
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, hits = confidence[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0.0, True)) + 1
    found: list[CurvePoint] = []
    for k in range(1, points + 1):
        end = int(ends[np.searchsorted(ends, max(1, round(n * k / points)))])
        if not found or found[-1].coverage != end / n:
            accuracy = float(hits[end - 1] / end)
            found.append(CurvePoint(end / n, accuracy, float(sorted_confidence[end - 1])))
    return found


@dataclass(frozen=True)
class Agreement:
    """One judge against labels.

    Attributes:
        accuracy: over pairs that people decided; the judge's ties and abstentions count half.
        of_decided: over those that the judge decided too.
        coverage: share of pairs that the judge decided.
        order_consistent: both orders right; None where one order was asked.
        kappa: over all pairs.
        human_ties: pairs that people call a tie.
        groups_right: rows of several pairs with every one right; None where no row has several.
    """

    accuracy: Estimate
    of_decided: Estimate
    coverage: float
    order_consistent: Estimate | None
    kappa: float
    human_ties: int
    groups_right: Estimate | None = None


def agreement(
    label: Ints,
    winner: Ints,
    groups: Sequence[str],
    *,
    by_order: tuple[Ints, Ints] | None = None,
    rows: Sequence[str] | None = None,
) -> Agreement:
    """All of it at once.

    Args:
        groups: pairs that are not independent (of one prompt).
        rows: pairs of one row of the data; default: `groups`.
        by_order: the winners of each order alone.
    """
    clear = label != 0
    known = np.asarray(groups, dtype=str)[clear]
    right = credit(label[clear], winner[clear])
    decided = winner[clear] != 0
    both = None
    if by_order is not None:
        values = consistent(label[clear], by_order[0][clear], by_order[1][clear])
        both = mean_with_interval(values, list(known))
    whole = None
    of_row = np.asarray(groups if rows is None else rows, dtype=str)[clear]
    if len(of_row) and len(set(of_row)) < len(of_row):
        _, index = np.unique(of_row, return_inverse=True)
        worst = np.full(index.max() + 1, 1.0)
        np.minimum.at(worst, index, np.where(right == 1.0, 1.0, 0.0))
        whole = mean_with_interval(worst, list(range(len(worst))))
    return Agreement(
        accuracy=mean_with_interval(right, list(known)),
        of_decided=mean_with_interval(right[decided], list(known[decided])),
        coverage=float(decided.mean()) if len(decided) else 0.0,
        order_consistent=both,
        kappa=kappa(label, winner),
        human_ties=int((~clear).sum()),
        groups_right=whole,
    )
