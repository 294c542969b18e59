"""What an audit finds: each check with its interval, its limit, and what would fix it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

ALPHA = 0.05
FIXES = {
    "diversity": (
        "mix in human data (`rlaif mix`), sample from an earlier model or at a higher "
        "temperature, or use more varied prompts"
    ),
    "tail": (
        "mix in human data, which has the rare words, and set slice quotas (`rlaif mix --quota`)"
    ),
    "perplexity": "mix in human data, or sample from an earlier model",
    "duplicates": "remove duplicates: `rlaif mix` keeps one of each",
    "slices": "set a quota for the slice: `rlaif mix --quota SLICE=SHARE`",
    "drift": "check what the judge rewards (`rlaif eval --bias`), and mix in human data",
    "size": "add rows, or compare without --against",
    "origin": (
        "mix in human-written data (`rlaif mix --human-written DATA`), or go back to an earlier "
        "model"
    ),
    "bias": (
        "calibrate the judge (`rlaif calibrate`), review labels (`rlaif review`), or change "
        "the judge"
    ),
}


@dataclass(frozen=True)
class AuditCheck:
    """One comparison with its limit.

    Attributes:
        group: what it is about; see `MEND`.
        data, reference: the amounts; None where there is nothing to compare with.
        value: what is held against the limit: a share of the reference, a difference, or the
            amount; with a 95% interval.
        limit: as in the thresholds, the value has to be at `least` or at most it; None for a
            number that only is shown.
        certain: a bound of the value that chance explains in no more than `ALPHA` of audits, all
            checks taken together.
    """

    name: str
    group: str
    value: float
    low: float
    high: float
    data: float | None = None
    reference: float | None = None
    limit: float | None = None
    least: bool = True
    unit: str = "share of the reference's"
    certain: float = math.nan
    tripped: bool = False

    @property
    def sentence(self) -> str:
        """What is wrong, in words."""
        assert self.limit is not None
        shown = _percent if "share" in self.unit else _plain
        side = "under" if self.least else "over"
        interval = "" if self.low == self.high else f" ({shown(self.low)} to {shown(self.high)})"
        return (
            f"{self.name} is {shown(self.value)}{interval} {self.unit.removeprefix('share ')}, "
            f"{side} the limit of {shown(self.limit)}"
        )


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _plain(value: float) -> str:
    return f"{value:.2f}"


@dataclass(frozen=True)
class ScaledEstimate:
    """A value on a scale on which it is about normal, and how to get it back.

    Attributes:
        log: whether that scale is the logarithm.
        p: of an exact test that the value is on the right side of its limit, where there is one.
    """

    value: float
    error: float
    log: bool
    p: float | None = None

    def at(self, z: float) -> float:
        """The value `z` standard errors up."""
        found = self.value + z * self.error
        return math.exp(found) if self.log else found


def held(check: AuditCheck, estimate: ScaledEstimate) -> tuple[AuditCheck, ScaledEstimate]:
    """A check with its interval; `decide` says whether it trips."""
    value, low, high = (estimate.at(z) for z in (0.0, -1.96, 1.96))
    if check.unit.startswith("share of the rows") and "more than" not in check.unit:
        low, high = max(low, 0.0), min(high, 1.0)
    elif check.unit == "share of the reference's":
        low = max(low, 0.0)
    return replace(check, value=value, low=low, high=high), estimate


def decide(found: Sequence[tuple[AuditCheck, ScaledEstimate]]) -> list[AuditCheck]:
    """Checks that trip: their limit is crossed by more than chance explains.

    Each is tested on its own side of its limit at `ALPHA` over the number of tests (Bonferroni), so
    that an audit of data that crosses no limit trips in at most `ALPHA` of cases.
    """
    # Drift and perplexity are held against a limit on either side.
    tests = sum(
        1 + (check.group in ("drift", "perplexity"))
        for check, _ in found
        if check.limit is not None
    )
    z = float(stats.norm.ppf(1.0 - ALPHA / max(tests, 1)))
    decided = []
    for check, estimate in found:
        if check.limit is None:
            decided.append(check)
            continue
        bound = estimate.at(z if check.least else -z)
        if estimate.p is not None:
            decided.append(
                replace(check, certain=bound, tripped=estimate.p < ALPHA / max(tests, 1))
            )
            continue
        crossed = bound < check.limit if check.least else bound > check.limit
        decided.append(replace(check, certain=bound, tripped=bool(crossed)))
    return decided


def exact(check: AuditCheck, slack: float = 1e-9) -> AuditCheck:
    """A check of a number that is counted and not estimated, with what rounding may take."""
    assert check.limit is not None
    over = check.limit - check.value if check.least else check.value - check.limit
    crossed = over > slack
    return replace(check, low=check.value, high=check.value, certain=check.value, tripped=crossed)


def share_ratio(hits: int, total: int, others: int, of: int, limit: float) -> ScaledEstimate:
    """The ratio of two shares on the log scale (Katz et al. 1978, with half a count added), and an
    exact test of whether it is `limit` or more.

    Given how many hits there are on both sides, those of one are binomial (Przyborowski and
    Wilenski 1940).
    """
    rate = total * limit / (total * limit + of)
    p = float(stats.binom.cdf(hits, hits + others, rate))
    one, two = (hits + 0.5) / (total + 0.5), (others + 0.5) / (of + 0.5)
    variance = 1 / (hits + 0.5) - 1 / (total + 0.5) + 1 / (others + 0.5) - 1 / (of + 0.5)
    return ScaledEstimate(math.log(one / two), math.sqrt(max(variance, 0.0)), True, p)


def share_difference(hits: int, total: int, others: int, of: int) -> ScaledEstimate:
    """The difference of two shares (Agresti and Caffo 2000: a success and a failure added)."""
    one, two = (hits + 1) / (total + 2), (others + 1) / (of + 2)
    variance = one * (1 - one) / (total + 2) + two * (1 - two) / (of + 2)
    return ScaledEstimate(one - two, math.sqrt(variance), False)


def one_share(hits: int, total: int) -> ScaledEstimate:
    """A share (Agresti and Coull 1998: two successes and two failures added for the error)."""
    near = (hits + 2) / (total + 4)
    value = hits / total if total else 0.0
    return ScaledEstimate(value, math.sqrt(near * (1 - near) / (total + 4)), False)


def standardized(
    data: Sequence[float], reference: Sequence[float], whole: Sequence[float] | None = None
) -> ScaledEstimate | None:
    """Difference of means in standard deviations of the reference; None where they are too few or
    the reference does not vary and neither does the data.

    Args:
        data, reference: one number a row, so that texts of a row do not count as independent.
        whole: whose standard deviation counts; default: the reference's.
    """
    ours, theirs = (np.asarray(side, dtype=float) for side in (data, reference))
    ours, theirs = ours[np.isfinite(ours)], theirs[np.isfinite(theirs)]
    if min(len(ours), len(theirs)) < 10:
        return None
    # A feature that nothing has in the reference moves by what it has in both.
    all_ = theirs if whole is None else np.asarray(whole, dtype=float)
    spread = float(np.nanstd(all_, ddof=1)) or float(np.concatenate([ours, theirs]).std(ddof=1))
    if not spread:
        return None
    difference = float(ours.mean() - theirs.mean()) / spread
    error = math.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs)) / spread
    # The spread is estimated too (Hedges and Olkin 1985).
    error = math.sqrt(error**2 + difference**2 / (2 * (len(theirs) - 1)))
    return ScaledEstimate(difference, error, False)
