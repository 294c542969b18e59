"""Everything that `rlaif eval` says about one judge with one constitution, and about two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif.evaluation.labeled import LabeledData
from rlaif.evaluation.outcomes import Outcomes
from rlaif.evaluation.stats.agreement import (
    Agreement,
    CurvePoint,
    abstention_curve,
    agreement,
    credit,
    kappa,
)
from rlaif.evaluation.stats.reliability import Bin, brier, ece, log_loss, reliability
from rlaif.evaluation.stats.resampling import (
    Estimate,
    Floats,
    PairedTest,
    holm,
    mean_with_interval,
    paired_test,
)
from rlaif.records import CLEAR


@dataclass(frozen=True)
class PrincipleAgreement:
    """One principle against the labels of whole pairs.

    Attributes:
        opinions: share of labeled pairs on which it has a clear opinion (margin of 0.2).
        accuracy: how often people agree with it there.
        kappa: its clear opinions, and none elsewhere, against the labels of all pairs (ties too).
    """

    principle: str
    opinions: float
    accuracy: Estimate
    kappa: float


@dataclass(frozen=True)
class ProbabilityReport:
    """Whether the judge's probabilities mean what they say, over pairs that people decided."""

    ece: float
    brier: float
    log_loss: float
    bins: list[Bin]


@dataclass(frozen=True)
class JudgeReport:
    """One judge with one constitution, against labels.

    Attributes:
        curve: accuracy as the judge keeps to what it is surest of.
        subsets: agreement in each part of the data, where it has parts.
    """

    name: str
    pairs: int
    agreement: Agreement
    probabilities: ProbabilityReport
    curve: list[CurvePoint]
    subsets: dict[str, Agreement]
    principles: list[PrincipleAgreement]


def judge_report(outcomes: Outcomes, data: LabeledData, *, by_order: bool = True) -> JudgeReport:
    """Measure one judge; `data` is aligned with `outcomes`.

    Args:
        by_order: whether the outcomes hold each order's verdicts (a panel's do not).
    """
    label, groups = data.label, data.group
    orders = order_winners(outcomes) if by_order else None
    clear = label != 0
    right = credit(label[clear], outcomes.winner[clear])
    confidence = outcomes.confidence[clear]
    # Probabilities are scored as they are, whether or not a pair was decided by them.
    p_a = outcomes.p_a[clear]
    side = np.where(p_a == 0.5, 0.5, np.sign(p_a - 0.5) == label[clear])
    p_label = np.where(label[clear] > 0, p_a, 1.0 - p_a)
    subsets = {}
    names = sorted({s for s in data.subset if s})
    if names:
        for name in names:
            at = np.flatnonzero(np.asarray(data.subset) == name)
            own = None if orders is None else (orders[0][at], orders[1][at])
            subsets[name] = agreement(
                label[at],
                outcomes.winner[at],
                [groups[i] for i in at],
                by_order=own,
                rows=[data.row[i] for i in at],
            )
    return JudgeReport(
        name=outcomes.name,
        pairs=len(label),
        agreement=agreement(label, outcomes.winner, groups, by_order=orders, rows=data.row),
        probabilities=ProbabilityReport(
            ece(confidence, side),
            brier(p_label, np.ones_like(p_label)),
            log_loss(p_label, np.ones_like(p_label)),
            reliability(confidence, side),
        ),
        curve=abstention_curve(right, confidence),
        subsets=subsets,
        principles=_principles(outcomes, data) if by_order else [],
    )


def order_winners(
    outcomes: Outcomes,
) -> tuple[np.ndarray, np.ndarray] | None:
    """The winner of each pair by each order alone; None where not all were asked in both."""
    if outcomes.orders != "both" or not outcomes.plain:
        return None
    judged = [o for o in outcomes.principles.values() if o.source != "check"]
    if not any((np.isfinite(o.ab) & np.isfinite(o.ba)).any() for o in judged):
        return None
    n = len(outcomes.ids)
    found = (np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64))
    for i in range(n):
        if outcomes.status[i] != "abstained":
            for order, winners in zip(("ab", "ba"), found, strict=True):
                winner = outcomes.aggregated(i, order=order).winner
                winners[i] = {"a": 1, "b": -1}.get(winner or "", 0)
    return found


def _principles(outcomes: Outcomes, data: LabeledData) -> list[PrincipleAgreement]:
    found = []
    labeled = data.label != 0
    for name, o in outcomes.principles.items():
        sign = np.tanh(o.logits / 2.0)
        clear = labeled & (np.abs(np.nan_to_num(sign)) >= CLEAR)
        right = (np.sign(sign[clear]) == data.label[clear]).astype(np.float64)
        groups = [data.group[i] for i in np.flatnonzero(clear)]
        share = float(clear.sum() / max(1, labeled.sum()))
        own = np.nan_to_num(sign)
        said = np.where(np.abs(own) >= CLEAR, np.sign(own), 0).astype(np.int64)
        found.append(
            PrincipleAgreement(
                name, share, mean_with_interval(right, groups), kappa(data.label, said)
            )
        )
    return found


@dataclass(frozen=True)
class JudgeComparison:
    """Two judges (or constitutions) on the same pairs.

    Attributes:
        test: of their accuracy on pairs that people decided.
        p_adjusted: its p-value after Holm's correction (1979) for all comparisons made.
    """

    first: str
    second: str
    test: PairedTest
    p_adjusted: float

    @property
    def verdict(self) -> str:
        """What may be said: `better` only where the corrected test says so."""
        if self.p_adjusted >= 0.05:
            return "no significant difference"
        better = self.first if self.test.difference.value > 0 else self.second
        return f"{better} is better"


def compare_judges(
    judged: list[tuple[Outcomes, LabeledData]], *, seed: int = 0
) -> list[JudgeComparison]:
    """Every two of several, on the pairs that all of them judged."""
    first, data = judged[0]
    scores: list[Floats] = []
    clear = data.label != 0
    for outcomes, own in judged:
        if outcomes.ids != first.ids or not np.array_equal(own.label, data.label):
            raise ValueError("the judges labeled different pairs")
        scores.append(credit(data.label[clear], outcomes.winner[clear]))
    groups = [data.group[i] for i in np.flatnonzero(clear)]
    tests = [
        (i, j, paired_test(scores[i], scores[j], groups, seed=seed))
        for i in range(len(scores))
        for j in range(i + 1, len(scores))
    ]
    adjusted = holm([test.p for _, _, test in tests])
    names = [outcomes.name for outcomes, _ in judged]
    return [
        JudgeComparison(names[i], names[j], test, float(p))
        for (i, j, test), p in zip(tests, adjusted, strict=True)
    ]
