"""Win rates at equal length, as in AlpacaEval 2 (Dubois et al. 2024, arXiv:2404.04475)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats

from rlaif.evaluation.bias.findings import LEAST, LEAST_GROUPS, effective_groups, robust_errors
from rlaif.evaluation.stats.resampling import Estimate, Floats

_SEPARATED = 8.0
"""Log-odds beyond which a coefficient says that the data know no limit for it."""


def control_length(
    scores: Floats, differences: Floats, groups: Sequence[object]
) -> Estimate | None:
    """The share that would be won if both responses were equally long.

    A logistic model of the score on an intercept and on tanh(difference / its standard deviation);
    the rate is that at a difference of 0.  Theirs has a term for each prompt's difficulty, too: it
    needs the same prompts in many comparisons.  The interval is a t interval on the logit scale,
    with errors by group (Liang and Zeger 1986) and as many degrees of freedom as there are
    effective groups, less one.

    It takes all that goes with length for the judge's taste.  Where longer responses are better,
    it takes that away too.

    Args:
        scores: 1 for a win, 0 for a loss, one half for a tie.
        differences: in length, the model's response less the other.
        groups: pairs that are not independent.

    Returns:
        None where too few pairs, prompts or lengths tell, or one side wins nearly all.
    """
    n, spread = len(scores), float(np.sqrt(np.mean(differences**2))) if len(scores) else 0.0
    effective = effective_groups(groups) if n else 0.0
    if n < LEAST or effective < LEAST_GROUPS or spread == 0.0:
        return None
    design = np.column_stack([np.ones(n), np.tanh(differences / spread)])
    if np.linalg.matrix_rank(design) < 2:
        return None
    import statsmodels.api as sm  # noqa: PLC0415 - slow to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sm.GLM(scores, design, family=sm.families.Binomial())
            fit = model.fit(**robust_errors(groups, n, plain="HC0"))
    except (np.linalg.LinAlgError, ValueError):
        return None
    error = float(fit.bse[0])
    if not fit.converged or np.abs(fit.params).max() > _SEPARATED or not np.isfinite(error):
        return None
    half = float(stats.t.ppf(0.975, max(1.0, effective - 1.0))) * error
    center = float(fit.params[0])
    rate, low, high = 1.0 / (1.0 + np.exp(-np.array([center, center - half, center + half])))
    return Estimate(float(rate), float(low), float(high), n)
