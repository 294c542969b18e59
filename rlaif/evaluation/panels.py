"""What a panel of judges is worth: how many independent ones it amounts to, and against its best.

Pure functions of what the members said about the same labeled pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlaif.evaluation.outcomes import Outcomes
from rlaif.evaluation.stats.agreement import credit
from rlaif.evaluation.stats.resampling import Floats, PairedTest, paired_test
from rlaif.judging.panel import JudgeVote, PanelMode, aggregate_panel


def panel_outcomes(
    members: Sequence[Outcomes],
    mode: PanelMode,
    *,
    weights: Sequence[float] | None = None,
    escalate_below: float = 0.5,
) -> tuple[Outcomes, float]:
    """What the panel says of each pair, and the share of pairs that reached its last member.

    Args:
        members: of the same pairs; in a cascade in the order in which they are asked.
    """
    first = members[0]
    weights = list(weights or [1.0] * len(members))
    p_a, winner = first.p_a.copy(), first.winner.copy()
    status = list(first.status)
    last = 0
    for i in range(len(first.ids)):
        opinions = [
            JudgeVote(
                judge=m.judge,
                p_a=float(m.p_a[i]),
                winner={1: "a", -1: "b"}.get(int(m.winner[i])),  # type: ignore[arg-type]
                status=m.status[i],  # type: ignore[arg-type]
                weight=w,
            )
            for m, w in zip(members, weights, strict=True)
        ]
        if mode == "cascade":
            asked = 1
            while asked < len(opinions):
                o = opinions[asked - 1]
                if o.status == "decided" and abs(2 * o.p_a - 1) >= escalate_below:
                    break
                asked += 1
            opinions = opinions[:asked]
            last += asked == len(members)
        found = aggregate_panel(opinions, mode, tie_margin=first.aggregation.tie_margin)
        p_a[i], status[i] = found.p_a, found.status
        winner[i] = {"a": 1, "b": -1}.get(found.winner or "", 0)
    share = last / max(1, len(first.ids)) if mode == "cascade" else 1.0
    name = f"{mode} of {len(members)} judges"
    judges = tuple(m.judge for m in members)
    panel = replace(first, p_a=p_a, winner=winner, status=status, name=name, members=judges)
    return panel, share


@dataclass(frozen=True)
class PanelReport:
    """A panel against labels.

    Attributes:
        accuracies: of each member, by name.
        correlation: mean correlation of two members' errors.
        effective_judges: how many independent judges with such errors would average as well.
        accuracy: of the panel.
        best: the member with the highest accuracy.
        test: of the panel less the best member, on the same pairs.
        asked_last: share of pairs that reached the last member (less than 1 in a cascade).
    """

    mode: str
    accuracies: dict[str, float]
    correlation: float
    effective_judges: float
    accuracy: float
    best: str
    test: PairedTest
    asked_last: float

    @property
    def verdict(self) -> str:
        """What may be said; better only where the test says so at 0.05."""
        better = {1: "better than", -1: "worse than", 0: "not significantly better than"}
        side = self.test.better
        # The best of several is so by luck too: that the panel is worse must hold against each.
        if side < 0 and self.test.p >= 0.05 / len(self.accuracies):
            side = 0
        return f"{better[side]} its best member ({self.best})"


def error_correlation(right: Sequence[Floats]) -> float:
    """Mean correlation (phi) of two members' errors; 0 for members that never vary."""
    found = [
        float(np.corrcoef(one, two)[0, 1])
        for i, one in enumerate(right)
        for two in right[i + 1 :]
        if one.std() > 0 and two.std() > 0
    ]
    return float(np.mean(found)) if found else 0.0


def shared_errors(right: Sequence[Floats]) -> float:
    """Mean of two members' error correlation as a share of the most that it could be (Cole 1949).

    Where one errs wherever the other does, and elsewhere too, the plain correlation is far below
    one, though the second adds nothing: the most that it can be is that of both sorted.
    """
    found = []
    for i, one in enumerate(right):
        for two in right[i + 1 :]:
            if one.std() > 0 and two.std() > 0:
                plain = float(np.corrcoef(one, two)[0, 1])
                most = float(np.corrcoef(np.sort(one), np.sort(two))[0, 1])
                found.append(plain / most if plain > 0 else plain)
    return float(np.mean(found)) if found else 0.0


def effective_judges(n: int, correlation: float) -> float:
    """N / (1 + (n - 1) r): independent judges that n with error correlation r are worth (the
    design effect: Kish 1965; judges of the same kind are worth few, arXiv:2404.18796 and after).

    At most n: errors that exclude each other are worth more, but no number says how much.
    """
    return float(n / (1.0 + (n - 1) * max(correlation, 0.0))) if n else 0.0


def panel_report(
    members: Sequence[Outcomes],
    panel: Outcomes,
    label: NDArray[np.int64],
    groups: Sequence[str],
    *,
    mode: str,
    asked_last: float = 1.0,
    seed: int = 0,
) -> PanelReport:
    """Measure a panel on labeled pairs that all members judged."""
    clear = label != 0
    own = [groups[i] for i in np.flatnonzero(clear)]
    right = [credit(label[clear], m.winner[clear]) for m in members]
    whole = credit(label[clear], panel.winner[clear])
    accuracies = {m.name: float(r.mean()) for m, r in zip(members, right, strict=True)}
    best = int(np.argmax([r.mean() for r in right]))
    r = error_correlation(right)
    return PanelReport(
        mode=mode,
        accuracies=accuracies,
        correlation=r,
        effective_judges=effective_judges(len(members), shared_errors(right)),
        accuracy=float(whole.mean()),
        best=members[best].name,
        test=paired_test(whole, right[best], own, seed=seed),
        asked_last=asked_last,
    )
