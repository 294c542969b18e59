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
from scipy.special import gammaln, logsumexp

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

    def law(self, odds: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """How many answers may be echoed, given how many errors there are in all, and the logarithm
        of how likely each number is: Fisher's noncentral hypergeometric law (Fog 2008).  At odds of
        1 it is that of Fisher's exact test.
        """
        errors = self.echoed + self.errors
        x = np.arange(max(0, errors - self.plain), min(self.trapped, errors) + 1)
        logs = _log_choose(self.trapped, x) + _log_choose(self.plain, errors - x)
        logs = logs + x * np.log(odds)
        return x, logs - logsumexp(logs)

    def log_likelihood(self, odds: float) -> float:
        """The logarithm of how likely these answers are."""
        x, logs = self.law(odds)
        return float(logs[self.echoed - x[0]])

    def p(self, odds: float) -> float:
        """One-sided mid-p value if hard pairs explain an odds ratio of `odds`."""
        x, logs = self.law(odds)
        likely = np.exp(logs)
        at = self.echoed - x[0]
        return float(likely[at + 1 :].sum() + 0.5 * likely[at])


def _log_choose(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def echo_p_values(counts: Sequence[GoldCounts]) -> list[float]:
    """How often an attentive reviewer errs with the judge as much, for each reviewer.

    How hard the trapped pairs are is averaged over what the others' answers make likely. They are
    a mixture of attentive reviewers, who share one odds ratio, and up to half who echo the judge at
    a higher one; half of the prior has none of these. One reviewer alone is held against the
    hardest pairs that the prior knows.
    """
    if len(counts) < 2:
        return [own.p(float(_ODDS[-1])) for own in counts]
    known: dict[GoldCounts, tuple[list[float], list[float]]] = {}
    for own in counts:
        if own not in known:
            known[own] = (
                [own.log_likelihood(odds) for odds in _ODDS],
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
