"""The bias meter: what a judge's verdicts follow apart from what responses say.

Pure functions on arrays with one entry per pair; positive speaks for response `a`.  Every finding
comes with a p-value, and those of one report are corrected together (Holm 1979), so that a report
on an unbiased judge flags anything at all in at most 5% of cases.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.tools.sm_exceptions import PerfectSeparationError

from rlaif.evaluation.outcomes import Floats, Outcomes, logit
from rlaif.records import CLEAR

ALPHA = 0.05
LEAST_GROUPS = 10
"""Prompts from which standard errors by prompt mean anything."""
LEAST = 20
"""Pairs from which a bias is measured at all."""
NEGLIGIBLE = {"nats": 0.05, "nats per SD": 0.05, "share": 0.02}
"""Smaller biases are reported and never flagged: 0.05 nats move an even preference to 51.2%."""


@dataclass(frozen=True)
class Finding:
    """One measured bias.

    Attributes:
        name: what it is about.
        value, low, high: its size with a 95% interval; the unit is in `unit`.
        p: two-sided, against no bias.
        flagged: whether it stands after correction for all findings of the report.
        detail: more about it, in words.
        association: whether it may be deserved, for want of labels; then it is never flagged.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    n: int
    p: float
    flagged: bool = False
    detail: str = ""
    association: bool = False

    @property
    def shown(self) -> str:
        """Size and interval for people."""
        text = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}] {self.unit}"
        return f"{text}; {self.detail}" if self.detail else text


@dataclass(frozen=True)
class BiasReport:
    """All findings about one judge.

    Attributes:
        warnings: what could not be measured and why it may matter.
    """

    findings: list[Finding]
    warnings: list[str]


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, flagged where they stand after Holm's correction and are not negligible."""
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415 - slow to import

    if not findings:
        return []
    tested = [f for f in findings if not f.association]
    if not tested:
        return list(findings)
    flags = iter(multipletests([f.p for f in tested], alpha=ALPHA, method="holm")[0])
    return [
        f if f.association else
        replace(f, flagged=bool(next(flags)) and abs(f.value) >= NEGLIGIBLE[f.unit])
        for f in findings
    ]  # fmt: skip


@dataclass(frozen=True)
class Position:
    """How far the position decides, for one principle.

    Attributes:
        same_position: share of pairs on which the same position wins both orders (Lee et al. 2023,
            arXiv:2309.00267: "position bias"; 18, 21 and 56% for PaLM 2 L, S and XS).
        first: of those pairs, the share on which the first position wins.
        of_clear: the same share among pairs with a margin of 0.2 in one order at least: elsewhere
            the sign of an answer is noise.
        offset: mean log-odds that follow the position; positive favours what is shown first.
    """

    same_position: float
    first: float
    of_clear: float
    offset: Finding


def position_bias(
    name: str, first_ab: Floats, first_ba: Floats, groups: Sequence[str] | None = None
) -> Position | None:
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
        f"same position wins {100 * share:.1f}% ({100 * first:.0f}% of these the first), "
        f"{100 * of_clear:.1f}% of {int(clear.sum())} clear ones"
    )
    found = Finding(f"position: {name}", value, low, high, "nats", n, p, detail=detail)
    return Position(share, first, of_clear, found)


def mean_test(
    values: Floats, groups: Sequence[str] | None = None
) -> tuple[float, float, float, float]:
    """Mean, its 95% interval, and the p-value of the t-test against 0; by groups where given."""
    n = len(values)
    mean = float(values.mean())
    names = np.asarray(groups, dtype=str) if groups is not None else np.arange(n)
    index = np.unique(names, return_inverse=True)[1]
    count = int(index.max()) + 1
    sums = np.bincount(index, weights=values - mean)
    error = float(np.sqrt((sums**2).sum() * count / max(1, count - 1))) / n
    if count < 2 or error <= 1e-9 * max(1.0, abs(mean)):
        return mean, mean, mean, 1.0 if abs(mean) < 1e-9 or count < 2 else 0.0
    half = float(stats.t.ppf(0.975, count - 1)) * error
    p = float(2.0 * stats.t.sf(abs(mean) / error, count - 1))
    return mean, mean - half, mean + half, p


def standardised_difference(a: Floats, b: Floats) -> Floats:
    """A - b in units of its standard deviation; zeros where it does not vary."""
    difference = a - b
    spread = float(np.sqrt(np.mean(difference**2)))
    return np.asarray(difference / spread if spread > 0 else np.zeros_like(difference))


def style_biases(
    log_odds: Floats,
    styles: Mapping[str, Floats],
    *,
    label: NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
) -> list[Finding]:
    """How far the log-odds of a verdict follow style, all styles measured together.

    With labels: does style tell what people prefer beyond the verdict?  In the logistic model
    log-odds(people prefer a) = k (verdict - sum of coefficient x difference) a coefficient is what
    the judge adds for style beyond what people do (Dubois et al. 2024, arXiv:2404.04475, control
    for length in such a model).  A noisy judge of data in which style and quality hang together
    seems to dislike style there, and to like it in the opposite model (verdict on label and
    style); so the p-value is the larger of both, and 1 where they disagree.  Without labels: least
    squares of the log-odds on the differences, an association that good style may deserve; never
    flagged.
    Standard errors hold under any spread and within groups (White 1980; Liang and Zeger 1986, by
    statsmodels); no intercept: `a` and `b` may be swapped.

    Args:
        log_odds: that `a` is better, in nats.
        styles: by name, standardised differences a - b.
        label: what people prefer: 1, 0 or -1; ties are left out.
        groups: pairs that are not independent.

    Returns:
        For each style that varies: nats per standard deviation of its difference.
    """
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    known = np.isfinite(log_odds)
    if label is not None:
        known &= label != 0
    varying = {k: v[known] for k, v in styles.items() if np.count_nonzero(v[known]) >= LEAST}
    n = int(known.sum())
    if not varying or n < LEAST + len(styles):
        return []
    design = np.column_stack(list(varying.values()))
    if label is not None:
        design = np.column_stack([design, log_odds[known]])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return []
    how: dict[str, object] = {"cov_type": "HC0"}
    if groups is not None:
        own = np.unique(np.asarray(groups, dtype=str)[known], return_inverse=True)[1]
        if own.max() + 1 < LEAST_GROUPS:
            return []
        if own.max() + 1 < n:
            how = {"cov_type": "cluster", "cov_kwds": {"groups": own}}
    if label is None:
        if how["cov_type"] == "HC0":
            how = {"cov_type": "HC3"}
        fit = sm.OLS(log_odds[known], design).fit(**how)
        intervals = fit.conf_int()
        return [
            Finding(
                name, float(fit.params[k]), float(intervals[k][0]), float(intervals[k][1]),
                "nats per SD", n, float(fit.pvalues[k]), association=True,
                detail="an association: no labels say what is better",
            )
            for k, name in enumerate(varying)
        ]  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = sm.Logit((label[known] > 0).astype(np.float64), design).fit(disp=0, **how)
    except (np.linalg.LinAlgError, ValueError, PerfectSeparationError):
        return []
    predicted = np.asarray(fit.predict(design))
    separated = ((predicted < 1e-6) | (predicted > 1.0 - 1e-6)).mean() > 0.5
    # A judge that is never wrong leaves nothing to measure a bias by.
    if not fit.mle_retvals["converged"] or separated:
        return []
    # The other way round: does the verdict follow style beyond the label?  Where judges are noisy
    # the truth lies between the two (Frisch 1934), so a bias must show in both.
    other_design = np.column_stack([*varying.values(), label[known].astype(np.float64)])
    reverse = sm.OLS(log_odds[known], other_design).fit(
        **({"cov_type": "HC3"} if how["cov_type"] == "HC0" else how)
    )
    scale, covariance = float(fit.params[-1]), np.asarray(fit.cov_params())
    # A judge without a clear link to people's preference has no bias to be measured against.
    if scale <= 0 or fit.pvalues[-1] > ALPHA or not np.isfinite(covariance).all():
        return []
    found = []
    for k, name in enumerate(varying):
        value = -float(fit.params[k]) / scale
        gradient = np.zeros(len(fit.params))
        gradient[k], gradient[-1] = -1.0 / scale, float(fit.params[k]) / scale**2
        error = float(np.sqrt(gradient @ covariance @ gradient))
        bound = float(reverse.params[k])
        agree = bound * value > 0
        p = max(float(fit.pvalues[k]), float(reverse.pvalues[k])) if agree else 1.0
        detail = f"beyond what people prefer; {bound:+.3f} by the verdict given the label"
        found.append(
            Finding(
                name, value, value - 1.96 * error, value + 1.96 * error, "nats per SD", n, p,
                detail=detail,
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class LengthShare:
    """How often the longer response wins, as judged and with the length's part taken out."""

    longer_wins: float
    adjusted: float
    n: int


def longer_wins(log_odds: Floats, difference: Floats, coefficient: float) -> LengthShare:
    """Share of decisions for the longer response, raw and length-adjusted.

    The adjusted preference is the probability without the length term, which is what would be
    judged if both were equally long (Dubois et al. 2024).

    Args:
        difference: standardised lengths a - b.
        coefficient: nats per unit of `difference`.
    """
    known = np.isfinite(log_odds) & (difference != 0)
    raw, length = log_odds[known], difference[known]
    adjusted = raw - coefficient * length

    def share(values: Floats) -> float:
        if not len(values):
            return 0.5
        return float(np.where(values == 0, 0.5, (values > 0) == (length > 0)).mean())

    return LengthShare(share(raw), share(adjusted), int(known.sum()))


FAMILIES = (
    "qwen", "llama", "mistral", "mixtral", "gemma", "gemini", "palm", "gpt", "claude", "deepseek",
    "phi", "command", "olmo", "tulu", "falcon", "yi", "glm", "granite", "nemotron", "vicuna",
    "wizardlm", "zephyr", "smollm", "internlm", "kimi", "minimax", "grok", "demo",
)  # fmt: skip
_ALIASES = {
    "mixtral": "mistral", "ministral": "mistral", "gemini": "gemma", "palm": "gemma", "o1": "gpt",
    "o3": "gpt", "o4": "gpt", "chatgpt": "gpt", "davinci": "gpt", "qwq": "qwen",
}  # fmt: skip


def family(model: str) -> str:
    """The family of a model by its name: `Qwen/Qwen3-8B` is of "qwen"; else its own last name.

    A folder `.../Qwen3-8B/snapshots/HASH` is named by what stands before; a name may hold the
    family within a word (CodeLlama, TinyLlama).
    """
    parts = [p for p in model.lower().rstrip("/").split("/") if p not in ("", ".", "snapshots")]
    parts = [p for p in parts if not re.fullmatch(r"[0-9a-f]{12,64}", p)] or parts
    for name in reversed(parts[-2:]):
        if name.startswith(("gpt-j", "gpt-neo")):
            return "eleuther"
        words = [word for word in re.split(r"[^a-z0-9]+", name) if word]
        for word in words:
            letters = re.match(r"[a-z]+", word)
            for candidate in (word, letters.group() if letters else ""):
                if candidate in FAMILIES or candidate in _ALIASES:
                    return _ALIASES.get(candidate, candidate)
        for known in (
            "llama",
            "mistral",
            "ministral",
            "qwq",
            "qwen",
            "gemma",
            "deepseek",
            "davinci",
        ):
            if known in name:
                return _ALIASES.get(known, known)
    return parts[-1] if parts else ""


def self_preference(
    winner: NDArray[np.int64],
    label: NDArray[np.int64],
    own: NDArray[np.int64],
    groups: Sequence[str],
) -> Finding | None:
    """How much the judge favours its own family's responses beyond what people prefer.

    Two readings that a noisy judge of a family that is really better or worse moves apart, and
    self-preference moves together: how much more often the judge agrees where people prefer the
    own side than where they prefer the other (equal opportunity: Wataoka et al. 2024,
    arXiv:2410.21819), and how much more often people agree where the judge prefers the other side
    than where it prefers its own.  The value is half the first; the p-value is the larger of
    both, and 1 where they disagree.  A preference that turns ten points of all verdicts is found
    at 800 pairs with a power of over 0.8.

    Args:
        winner: of the judge: 1 for `a`, -1 for `b`, 0 for neither (left out).
        label: of people; ties are left out.
        own: 1 where `a` alone is of the judge's family, -1 where `b` alone is, else 0.
    """
    here = (own != 0) & (label != 0) & (winner != 0)
    people = (label[here] * own[here]).astype(np.float64)
    judge = (winner[here] * own[here]).astype(np.float64)
    n = len(people)
    known = [groups[i] for i in np.flatnonzero(here)]
    each = [int((x > 0).sum()) for x in (people, -people, judge, -judge)] if n else [0]
    if min(each) < LEAST // 2 or len(set(known)) < LEAST_GROUPS:
        return None
    agrees = (people == judge).astype(np.float64)
    if np.ptp(agrees) == 0.0:
        return None
    value, low, high, p = _slope(agrees, people, known)
    reverse, _, _, other_p = _slope(agrees, -judge, known)
    p = max(p, other_p) if value * reverse > 0 else 1.0
    detail = (
        f"agrees with people on {100 * agrees[people > 0].mean():.1f}% where they prefer its own, "
        f"on {100 * agrees[people < 0].mean():.1f}% elsewhere; right on "
        f"{100 * agrees[judge > 0].mean():.1f}% where it prefers its own, on "
        f"{100 * agrees[judge < 0].mean():.1f}% elsewhere"
    )
    return Finding("self-preference", value, low, high, "share", n, p, detail=detail)


def _slope(
    values: Floats, side: Floats, groups: Sequence[str]
) -> tuple[float, float, float, float]:
    """Half the difference of means between the sides 1 and -1, its 95% interval and p-value."""
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    model = sm.OLS(values, np.column_stack([np.ones(len(values)), side]))
    if len(set(groups)) < len(values):
        index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": index})
    else:
        fit = model.fit(cov_type="HC3")
    low, high = fit.conf_int()[1]
    return float(fit.params[1]), float(low), float(high), float(fit.pvalues[1])


def own_side(judge: str, origins: tuple[Sequence[str], Sequence[str]]) -> NDArray[np.int64]:
    """1 where `a` alone comes from the judge's family, -1 where `b` alone does, else 0."""
    mine = family(judge)
    sides = [np.array([int(bool(o) and family(o) == mine) for o in side]) for side in origins]
    return np.asarray(sides[0] - sides[1], dtype=np.int64)


def bias_report(
    outcomes: Outcomes,
    *,
    label: NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
    also: Sequence[Finding] = (),
) -> BiasReport:
    """Every bias that a run's outcomes show.

    Args:
        outcomes: read with `measure_style`.
        label: what people prefer, where that is known.
        also: findings of other kinds, to be corrected for together.
    """
    findings: list[Finding] = []
    notes: list[str] = []
    judged = [o for o in outcomes.principles.values() if o.source != "check"]
    for name, o in outcomes.principles.items():
        if o.source != "check":
            found = position_bias(name, o.ab, -o.ba, groups)
            if found is not None:
                findings.append(found.offset)
    if not findings:
        both = any((np.isfinite(o.ab) & np.isfinite(o.ba)).any() for o in judged)
        notes.append(
            f"position: fewer than {LEAST} pairs were asked in both orders"
            if both
            else "position: only one order was asked, so its bias is neither cancelled nor known"
        )
    log_odds = np.where(np.array(outcomes.status) == "abstained", np.nan, logit(outcomes.p_a))
    styles = {name: standardised_difference(a, b) for name, (a, b) in outcomes.texts.items()}
    for finding in style_biases(log_odds, styles, label=label, groups=groups):
        if finding.name == "length":
            shares = longer_wins(log_odds, styles["length"], finding.value)
            text = (
                f"the longer wins {100 * shares.longer_wins:.1f}%, "
                f"{100 * shares.adjusted:.1f}% with its length taken out"
            )
            finding = replace(finding, detail="; ".join(t for t in (text, finding.detail) if t))
        findings.append(finding)
    own = own_side(outcomes.judge, outcomes.origins)
    if np.count_nonzero(own):
        measured = None
        if label is not None:
            known = groups if groups is not None else outcomes.ids
            measured = self_preference(outcomes.winner, label, own, known)
        if measured is not None:
            findings.append(measured)
        else:
            wins = float(((1.0 + outcomes.winner * own)[own != 0] / 2.0).mean())
            notes.append(
                f"self-preference: {np.count_nonzero(own)} pairs hold one response of the judge's "
                f"own family ({family(outcomes.judge)}), which wins {100 * wins:.1f}%; only labels "
                "of people could say whether it deserves to"
            )
    certain = np.abs(np.nan_to_num(log_odds)) >= 11.0
    if certain.mean() > 0.1:
        notes.append(
            f"{100 * certain.mean():.0f}% of preferences are at certainty (log-odds of 11 and "
            "more): sizes of style biases are too small"
        )
    return BiasReport(corrected([*findings, *also]), notes)
