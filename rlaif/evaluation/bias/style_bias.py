"""How far verdicts follow the style of responses: their length, markdown, assertive phrasing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.tools.sm_exceptions import PerfectSeparationError

from rlaif.evaluation.bias.findings import (
    ALPHA,
    LEAST,
    LEAST_GROUPS,
    BiasFinding,
    effective_groups,
    robust_errors,
)
from rlaif.evaluation.outcomes import Floats

_OPEN = (
    "no bias, or one either way: a noisy judge looks like this where style and quality go "
    "together; probes tell (`rlaif eval --bias`)"
)


def standardized_difference(a: Floats, b: Floats) -> Floats:
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
) -> list[BiasFinding]:
    """How far the log-odds of a verdict follow style, all styles measured together.

    With labels there are two answers, and the truth lies between them.  In the logistic model
    log-odds(people prefer a) = k (verdict - sum of coefficient x difference) a coefficient is what
    the judge adds for style beyond what people do (Dubois et al. 2024, arXiv:2404.04475, control
    for length in such a model).  A noisy judge of data in which style and quality hang together
    seems to dislike style there, and to like it in the opposite model (verdict on label and
    style).  The two bound what a regression with noise on both sides can be (Frisch 1934; Klepper
    and Leamer 1984): both are shown, the value is the one nearer to zero, and where zero lies
    between them there is no value, and p is 1.  Where quality and style hang together otherwise
    than linearly (the longer responses are mostly a little worse and now and then much better), a
    fair judge's noise alone may show in both: the probes, which change nothing but the style,
    decide then.
    Without labels: least squares of the log-odds on the differences, an association that good
    style may deserve; never flagged.
    Standard errors hold under any spread and within groups (White 1980; Liang and Zeger 1986, by
    statsmodels); no intercept: `a` and `b` may be swapped.

    Args:
        log_odds: that `a` is better, in nats.
        styles: by name, standardized differences a - b.
        label: what people prefer: 1, 0 or -1; ties are left out.
        groups: pairs that are not independent.

    Returns:
        For each style that varies: nats per standard deviation of its difference.
    """
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
    own = None if groups is None else [groups[i] for i in np.flatnonzero(known)]
    if own is not None and effective_groups(own) < LEAST_GROUPS:
        return []
    names = list(varying)
    if label is None:
        return _associations(names, design, log_odds[known], own)
    signs = label[known].astype(np.float64)
    return _beyond_labels(names, design, log_odds[known], signs, own=own)


def _associations(
    names: Sequence[str], design: Floats, log_odds: Floats, groups: Sequence[str] | None
) -> list[BiasFinding]:
    """How verdicts go along with style; good style may deserve it."""
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    n = len(log_odds)
    fit = sm.OLS(log_odds, design).fit(**robust_errors(groups, n, plain="HC3"))
    intervals = fit.conf_int()
    return [
        BiasFinding(
            name=name,
            value=float(fit.params[k]),
            low=float(intervals[k][0]),
            high=float(intervals[k][1]),
            unit="nats per SD",
            n=n,
            p=float(fit.pvalues[k]),
            association=True,
            detail="association only: there are no human labels to compare with",
        )
        for k, name in enumerate(names)
    ]


def _beyond_labels(
    names: Sequence[str],
    design: Floats,
    log_odds: Floats,
    signs: Floats,
    *,
    own: Sequence[str] | None,
) -> list[BiasFinding]:
    """What the judge adds for style beyond what people do; empty where that can't be told.

    Args:
        design: styles, then the verdict.
        signs: 1 where people prefer `a`, -1 for `b`.
    """
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    fit = _fit_logit(design, signs, own)
    if fit is None:
        return []
    n = len(log_odds)
    # The other way round: does the verdict follow style beyond the label?
    other_design = np.column_stack([design[:, :-1], signs])
    reverse = sm.OLS(log_odds, other_design).fit(**robust_errors(own, n, plain="HC3"))
    scale, covariance = float(fit.params[-1]), np.asarray(fit.cov_params())
    # A judge without a clear link to people's preference has no bias to be measured against.
    if scale <= 0 or fit.pvalues[-1] > ALPHA or not np.isfinite(covariance).all():
        return []
    found = []
    for k, name in enumerate(names):
        value = -float(fit.params[k]) / scale
        gradient = np.zeros(len(fit.params))
        gradient[k], gradient[-1] = -1.0 / scale, float(fit.params[k]) / scale**2
        error = float(np.sqrt(gradient @ covariance @ gradient))
        bound = float(reverse.params[k])
        lowest, highest = (float(end) for end in reverse.conf_int()[k])
        agree = bound * value > 0
        p = max(float(fit.pvalues[k]), float(reverse.pvalues[k])) if agree else 1.0
        found.append(
            BiasFinding(
                name=name,
                value=min(value, bound, key=abs) if agree else None,
                low=min(value - 1.96 * error, lowest),
                high=max(value + 1.96 * error, highest),
                unit="nats per SD",
                n=n,
                p=p,
                detail="beyond human preference" if agree else _OPEN,
                ends=(min(value, bound), max(value, bound)),
            )
        )
    return found


def _fit_logit(design: Floats, signs: Floats, own: Sequence[str] | None) -> Any:
    """People's preference from styles and verdict; None where no fit means anything."""
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sm.Logit((signs > 0).astype(np.float64), design)
            fit = model.fit(disp=0, **robust_errors(own, len(signs), plain="HC0"))
    except (np.linalg.LinAlgError, ValueError, PerfectSeparationError):
        return None
    predicted = np.asarray(fit.predict(design))
    separated = ((predicted < 1e-6) | (predicted > 1.0 - 1e-6)).mean() > 0.5
    # A judge that is never wrong leaves nothing to measure a bias by.
    return fit if fit.mle_retvals["converged"] and not separated else None


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
        difference: standardized lengths a - b.
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
