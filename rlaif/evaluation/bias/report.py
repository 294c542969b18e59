"""The bias meter: what a judge's verdicts follow apart from what responses say.

Pure functions on arrays with one entry per pair; positive speaks for response `a`.  Every finding
comes with a p-value, and those of one report are corrected together (Holm 1979), so that a report
on an unbiased judge flags anything at all in at most 5% of cases.  For style and family, whose
findings compare two regressions, that holds where what is compared hangs together linearly (see
`style_biases`); the probes of `variants` assume nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlaif.evaluation.bias.findings import LEAST, BiasFinding, corrected, mean_test
from rlaif.evaluation.bias.own_family import family, own_side, self_preference
from rlaif.evaluation.bias.style_bias import longer_wins, standardized_difference, style_biases
from rlaif.evaluation.outcomes import Floats, Outcomes, logit
from rlaif.records import CLEAR


@dataclass(frozen=True)
class BiasReport:
    """All findings about one judge.

    Attributes:
        warnings: what could not be measured and why it may matter.
    """

    findings: list[BiasFinding]
    warnings: list[str]


@dataclass(frozen=True)
class PositionBias:
    """How far the position decides, for one principle.

    Attributes:
        same_position: share of pairs on which the same position wins both orders (Lee et al. 2023,
            arXiv:2309.00267: "position bias"; 18, 21 and 56% for PaLM 2 L, S and XS).
        first: of those pairs, the share on which the first position wins.
        of_clear: the same share among pairs with a margin of 0.2 in one order at least: elsewhere
            the sign of an answer is noise.
        offset: mean log-odds that follow the position; positive favors what is shown first.
    """

    same_position: float
    first: float
    of_clear: float
    offset: BiasFinding


def position_bias(
    name: str, first_ab: Floats, first_ba: Floats, groups: Sequence[str] | None = None
) -> PositionBias | None:
    """Position bias of one principle; None for fewer than 20 pairs in both orders.

    Args:
        first_ab, first_ba: log-odds that what is shown first is better, with `a` first and with
            `b` first; NaN where not asked.
    """
    known = np.isfinite(first_ab) & np.isfinite(first_ba)
    n = int(known.sum())
    if n < LEAST:
        return None
    one, two = first_ab[known], first_ba[known]
    same = one * two > 0
    offset = (one + two) / 2.0
    own = None if groups is None else [groups[i] for i in np.flatnonzero(known)]
    value, low, high, p = mean_test(offset, own)
    share = float(same.mean())
    first = float((offset[same] > 0).mean()) if same.any() else 0.5
    clear = np.maximum(np.abs(one), np.abs(two)) >= 2.0 * np.arctanh(CLEAR)
    of_clear = float(same[clear].mean()) if clear.any() else 0.0
    detail = (
        f"verdict changes when swapped: {100 * share:.1f}% of pairs ({100 * first:.0f}% "
        f"of these favor the first), {100 * of_clear:.1f}% of {int(clear.sum())} "
        "confident pairs"
    )
    found = BiasFinding(
        name=f"position: {name}",
        value=value,
        low=low,
        high=high,
        unit="nats",
        n=n,
        p=p,
        detail=detail,
    )
    return PositionBias(share, first, of_clear, found)


def bias_report(
    outcomes: Outcomes,
    *,
    label: NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
    also: Sequence[BiasFinding] = (),
) -> BiasReport:
    """Every bias that a run's outcomes show.

    Args:
        outcomes: read with `measure_style`.
        label: what people prefer, where that is known.
        also: findings of other kinds, to be corrected for together.

    Long because it is a list of measurements, one after the other.
    """
    findings: list[BiasFinding] = []
    notes: list[str] = []
    judged = [o for o in outcomes.principles.values() if o.source != "check"]
    adaptive = outcomes.orders == "adaptive"
    for name, o in outcomes.principles.items():
        if o.source != "check" and not adaptive:
            found = position_bias(name, o.ab, -o.ba, groups)
            if found is not None:
                findings.append(found.offset)
    if adaptive:
        notes.append(
            "position: second orders were asked only where the first left a pair unclear, so these "
            "pairs say nothing of the rest; the pilot's pairs were asked in full"
        )
    elif not findings:
        both = any((np.isfinite(o.ab) & np.isfinite(o.ba)).any() for o in judged)
        notes.append(
            f"position: fewer than {LEAST} pairs were judged in both orders"
            if both
            else (
                "position: only one order was judged, so position bias is neither canceled "
                "nor measured"
            )
        )
    log_odds = np.where(np.array(outcomes.status) == "abstained", np.nan, logit(outcomes.p_a))
    styles = {name: standardized_difference(a, b) for name, (a, b) in outcomes.texts.items()}
    measured_styles = style_biases(log_odds, styles, label=label, groups=groups)
    if styles and not measured_styles:
        notes.append(
            "style: not measured; too few pairs, prompts, or style differences"
            + (", or no clear link between verdicts and labels" if label is not None else "")
        )
    for finding in measured_styles:
        if finding.name == "length":
            ends = finding.ends or (finding.value or 0.0,)
            shares = [longer_wins(log_odds, styles["length"], end) for end in ends]
            adjusted = sorted({f"{100 * share.adjusted:.1f}%" for share in shares})
            text = (
                f"the longer completion wins {100 * shares[0].longer_wins:.1f}%, "
                f"{' to '.join(adjusted)} when controlling for length"
            )
            finding = replace(finding, detail="; ".join(t for t in (text, finding.detail) if t))
        findings.append(finding)
    own = own_side(outcomes.judges, outcomes.origins)
    if np.count_nonzero(own):
        measured = None
        if label is not None:
            known = groups if groups is not None else outcomes.ids
            measured = self_preference(outcomes.winner, label, own, known)
        if measured is not None:
            findings.append(measured)
        else:
            mine = ", ".join(sorted({family(judge) for judge in outcomes.judges}))
            wins = float(((1.0 + outcomes.winner * own)[own != 0] / 2.0).mean())
            notes.append(
                f"self-preference: {np.count_nonzero(own)} pairs have one completion from "
                f"the judge's own model family ({mine}), which wins {100 * wins:.1f}%; "
                "add human labels to tell whether this is a bias"
            )
    certain = np.abs(np.nan_to_num(log_odds)) >= 11.0
    if certain.mean() > 0.1:
        notes.append(
            f"{100 * certain.mean():.0f}% of preferences are saturated (log odds of 11 or "
            "more), so style biases are underestimated"
        )
    return BiasReport(corrected([*findings, *also]), notes)
