"""The bias meter: what a judge's verdicts follow apart from what responses say.

Pure functions on arrays with one entry per pair; positive speaks for response `a`.  Every finding
comes with a p-value, and those of one report are corrected together (Holm 1979), so that a report
on an unbiased judge flags anything at all in at most 5% of cases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaif.evaluation.outcomes import Floats, Outcomes, logit
from rlaif.evaluation.resampling import group_sums
from rlaif.records import CLEAR

ALPHA = 0.05
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
    flags = multipletests([f.p for f in findings], alpha=ALPHA, method="holm")[0]
    return [
        replace(f, flagged=bool(flag) and abs(f.value) >= NEGLIGIBLE[f.unit])
        for f, flag in zip(findings, flags, strict=True)
    ]


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


def position_bias(name: str, first_ab: Floats, first_ba: Floats) -> Position | None:
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
    value, low, high, p = mean_test(offset)
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


def mean_test(values: Floats) -> tuple[float, float, float, float]:
    """Mean, its 95% interval, and the p-value of the t-test against 0."""
    n = len(values)
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    if spread <= 1e-9 * max(1.0, abs(mean)):
        return mean, mean, mean, 1.0 if abs(mean) < 1e-9 else 0.0
    error = spread / np.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    p = float(2.0 * stats.t.sf(abs(mean) / error, n - 1))
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
    """How the log-odds of a verdict move with differences of style, all measured together.

    The model is logistic: log p/(1-p) = sum of coefficient x difference, plus what the responses
    deserve; fitted by least squares on the log-odds (no intercept: `a` and `b` may be swapped),
    with standard errors that hold under any spread and within groups (White 1980; Liang and Zeger
    1986, by statsmodels).  As in length-controlled AlpacaEval (Dubois et al. 2024,
    arXiv:2404.04475) the style of a better answer may itself be better: with labels, what people
    prefer is held fixed and the coefficient is the judge's own; without, it is an association.

    Args:
        log_odds: that `a` is better, in nats.
        styles: by name, standardised differences a - b.
        label: what people prefer: 1, 0 or -1.
        groups: pairs that are not independent.

    Returns:
        For each style that varies: nats per standard deviation of its difference.
    """
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    known = np.isfinite(log_odds)
    varying = {k: v[known] for k, v in styles.items() if np.count_nonzero(v[known]) >= LEAST}
    n = int(known.sum())
    if not varying or n < LEAST + len(styles):
        return []
    columns = list(varying.values())
    if label is not None:
        columns.append(label[known].astype(np.float64))
    design = np.column_stack(columns)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return []
    model = sm.OLS(log_odds[known], design)
    if groups is not None and len(set(groups)) < len(groups):
        own = np.unique(np.asarray(groups, dtype=str)[known], return_inverse=True)[1]
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": own})
    else:
        fit = model.fit(cov_type="HC3")
    intervals = fit.conf_int()
    what = "" if label is not None else "an association: no labels say what is better"
    return [
        Finding(
            name, float(fit.params[k]), float(intervals[k][0]), float(intervals[k][1]),
            "nats per SD", n, float(fit.pvalues[k]), detail=what,
        )
        for k, name in enumerate(varying)
    ]  # fmt: skip


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
_ALIASES = {"mixtral": "mistral", "gemini": "gemma", "palm": "gemma", "o1": "gpt", "o3": "gpt",
            "o4": "gpt", "chatgpt": "gpt"}  # fmt: skip


def family(model: str) -> str:
    """The family of a model by its name: `Qwen/Qwen3-8B` is of "qwen"; else its own last name."""
    name = model.lower().rstrip("/").rsplit("/", 1)[-1]
    words = [word for word in re.split(r"[^a-z0-9]+", name) if word]
    for word in words:
        letters = re.match(r"[a-z]+", word)
        for candidate in (word, letters.group() if letters else ""):
            if candidate in FAMILIES or candidate in _ALIASES:
                return _ALIASES.get(candidate, candidate)
    return name


def self_preference(
    winner: NDArray[np.int64],
    label: NDArray[np.int64],
    own: NDArray[np.int64],
    groups: Sequence[str],
) -> Finding | None:
    """How much more often the judge prefers its own family's responses than people do.

    The paired difference over pairs of which exactly one response is of the family (Panickssery et
    al. 2024, arXiv:2404.13076, held against people's preference for the same pairs).  With a judge
    that otherwise agrees with people on four pairs in five, a preference of ten points is found at
    400 such pairs with a power of over 0.8.

    Args:
        winner: of the judge: 1 for `a`, -1 for `b`, 0 for neither.
        label: of people.
        own: 1 where `a` alone is of the judge's family, -1 where `b` alone is, else 0.
    """
    here = own != 0
    n = int(here.sum())
    if n < LEAST:
        return None
    judged = (1.0 + winner[here] * own[here]) / 2.0
    people = (1.0 + label[here] * own[here]) / 2.0
    sums, sizes = group_sums(judged - people, [groups[i] for i in np.flatnonzero(here)])
    value = float((judged - people).mean())
    _, low, high, p = mean_test(np.asarray(sums / sizes.mean()))
    detail = f"judge {100 * judged.mean():.1f}%, people {100 * people.mean():.1f}%"
    return Finding("self-preference", value, low, high, "share", n, p, detail=detail)


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
    warnings: list[str] = []
    for name, o in outcomes.principles.items():
        if o.source != "check":
            found = position_bias(name, o.ab, -o.ba)
            if found is not None:
                findings.append(found.offset)
    if not findings:
        warnings.append(
            "position: only one order was asked, so its bias is neither cancelled nor known"
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
            warnings.append(
                f"self-preference: {np.count_nonzero(own)} pairs hold one response of the judge's "
                f"own family ({family(outcomes.judge)}), which wins {100 * wins:.1f}%; only labels "
                "of people could say whether it deserves to"
            )
    return BiasReport(corrected([*findings, *also]), warnings)
