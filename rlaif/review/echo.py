"""Whether reviewers err with the judge more than hard pairs explain.

Pairs that a judge gets wrong are often hard for people too, so attentive reviewers err more on
them. How much more is learned from the other reviewers of the same pairs. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp

_ODDS = np.geomspace(1.0, 50.0, 24)
"""By how much pairs that the judge has wrong may be harder for people: an odds ratio."""
_ECHOING = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
_APART = 4.0
"""Reviewers who echo err with the judge at no less than this many times the odds of others."""


@dataclass(frozen=True)
class GoldCounts:
    """What a reviewer did on planted pairs.

    Attributes:
        echoed: answers equal to the judge's on the `trapped` pairs, which the judge has wrong.
        errors: wrong answers on the `plain` pairs, which the judge has right.
    """

    echoed: int
    trapped: int
    errors: int
    plain: int

    def law(self, odds: float) -> stats.rv_frozen:
        """Of the echoed answers, given how many errors there are in all: Fisher's noncentral
        hypergeometric law (Fog 2008). At odds of 1 it is that of Fisher's exact test.
        """
        return stats.nchypergeom_fisher(
            self.trapped + self.plain, self.trapped, self.echoed + self.errors, odds
        )

    def p(self, odds: float) -> float:
        """One-sided mid-p value if hard pairs explain an odds ratio of `odds`."""
        law = self.law(odds)
        return float(law.sf(self.echoed) + 0.5 * law.pmf(self.echoed))


def echo_p_values(counts: Sequence[GoldCounts]) -> list[float]:
    """How often an attentive reviewer errs with the judge as much, for each reviewer.

    How hard the trapped pairs are is averaged over what the others' answers make likely. They are
    a mixture of attentive reviewers, who share one odds ratio, and up to half who echo the judge at
    a higher one; half of the prior has none of these. Without others, the prior is all there is.
    """
    if not counts:
        return []
    known: dict[GoldCounts, tuple[list[float], list[float]]] = {}
    for own in counts:
        if own not in known:
            known[own] = (
                [float(own.law(odds).logpmf(own.echoed)) for odds in _ODDS],
                [own.p(odds) for odds in _ODDS],
            )
    likely = np.array([known[own][0] for own in counts])
    values = np.array([known[own][1] for own in counts])
    model, attentive = _models(likely)
    # Each reviewer is held against the others alone.
    others = model.sum(axis=0)[None, :] - model
    posterior = others + _prior(attentive)
    posterior -= logsumexp(posterior, axis=1, keepdims=True)
    weights = np.exp(posterior)
    return [float(w @ p[attentive]) for w, p in zip(weights, values, strict=True)]


def _models(likely: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Log-likelihood of each reviewer under each mixture, shape (reviewers, mixtures), and the
    place of the attentive ones' odds in `_ODDS`.
    """
    columns, attentive = [], []
    for i in range(len(_ODDS)):
        columns.append(likely[:, i])
        attentive.append(i)
    for (i, low), (j, high) in product(enumerate(_ODDS), enumerate(_ODDS)):
        if high < _APART * low:
            continue
        for share in _ECHOING:
            columns.append(
                np.logaddexp(likely[:, i] + np.log1p(-share), likely[:, j] + np.log(share))
            )
            attentive.append(i)
    return np.stack(columns, axis=1), np.array(attentive)


def _prior(attentive: NDArray[np.intp]) -> NDArray[np.float64]:
    """Half for no echo, half for all mixtures; each of the odds as likely within either."""
    plain = len(_ODDS)
    of = np.bincount(attentive[plain:], minlength=plain).astype(float)
    mixed = of > 0
    found = np.full(len(attentive), -np.log(2.0 * plain))
    found[plain:] = -np.log(2.0 * mixed.sum()) - np.log(of[attentive[plain:]])
    return found
