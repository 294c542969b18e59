"""Fits calibrations on labels of people, and measures them on labels held out.

Pure functions; `confidence` is the winner's probability, `right` whether people agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from rlaif.evaluation.outcomes import Floats, Outcomes, logit
from rlaif.evaluation.stats.reliability import brier, ece, log_loss
from rlaif.judging.aggregation import aggregate
from rlaif.judging.calibration import (
    FEATURES,
    SMALLEST,
    Calibration,
    Method,
    measure_doubt,
    tempered,
)
from rlaif.records import Preference

LEAST_LABELS: dict[Method, int] = {
    "temperature": 50,
    "platt": 100,
    "features": 200,
    "isotonic": 300,
}
"Minimum number of labels for each method: one parameter, two, five, and a curve."
LEAST_PER_PRINCIPLE = 200
FOLDS = 5
LARGEST_TEMPERATURE = 50.0
DRAWS = 200


class TooFewLabels(Exception):
    """There is not enough to fit; the message says what is missing."""


def fit_calibration(
    confidence: Floats, right: Floats, method: Method, doubt: Floats | None = None
) -> Calibration:
    """A calibration of one method.

    Args:
        doubt: for "features": a column for each of `FEATURES`.

    Raises:
        TooFewLabels: there are too few labels, or no disagreement to learn from.
    """
    n, wrong = len(right), int((right < 0.5).sum())
    if n < LEAST_LABELS[method]:
        raise TooFewLabels(f"{n} decided pairs have labels; {method} needs {LEAST_LABELS[method]}")
    if wrong < 3 or n - wrong < 3:
        raise TooFewLabels(
            f"humans disagree with {wrong} of {n} decisions, which is too one-sided to "
            "fit confidence"
        )
    return _fit(confidence, right, method, doubt)


def _fit(
    confidence: Floats, right: Floats, method: Method, doubt: Floats | None = None
) -> Calibration:
    log_odds = logit(np.maximum(confidence, 0.5))
    if method == "temperature":
        return Calibration(method=method, temperature=fit_temperature(log_odds, right))
    if method in ("platt", "features"):
        more = np.empty((len(right), 0)) if method == "platt" or doubt is None else doubt

        def loss(parameters: Floats) -> float:
            z = parameters[0] * log_odds + parameters[1] + more @ parameters[2:]
            # A prior of one nat on what a measure of doubt adds: few pairs may have any.
            penalty = float(np.sum(parameters[2:] ** 2)) / 2.0
            return float(np.sum(np.logaddexp(0.0, z) - targets * z)) + penalty

        # Platt's targets: not quite 0 and 1, so that separable labels stay finite.
        positive = right.sum()
        high, low = (positive + 1) / (positive + 2), 1 / (len(right) - positive + 2)
        targets = np.where(right > 0.5, high, low)
        free = [(None, None)] * (1 + more.shape[1])
        start = np.array([1.0] + [0.0] * len(free))
        found = minimize(loss, start, bounds=[(0.0, None), *free])
        slope, intercept, *added = map(float, found.x)
        named = dict(zip(FEATURES, added, strict=False))
        return Calibration(method=method, slope=slope, intercept=intercept, features=named)
    model = IsotonicRegression(y_min=0.5, y_max=1.0 - SMALLEST, out_of_bounds="clip")
    model.fit(np.clip(confidence, 0.5, 1.0 - SMALLEST), right)
    pairs = zip(model.X_thresholds_, model.y_thresholds_, strict=True)
    return Calibration(method=method, knots=[(float(x), float(y)) for x, y in pairs])


def fit_temperature(log_odds: Floats, right: Floats) -> float:
    """The temperature of least log loss, from 0.05 to 50 (Guo et al. 2017)."""

    def loss(log_t: float) -> float:
        z = log_odds / np.exp(log_t)
        return float(np.sum(np.logaddexp(0.0, z) - right * z))

    bounds = (np.log(0.05), np.log(LARGEST_TEMPERATURE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def applied(calibration: Calibration, confidence: Floats, doubt: Floats | None = None) -> Floats:
    """Every confidence as the calibration has it."""
    rows = np.zeros((len(confidence), 0)) if doubt is None else doubt
    found = [
        calibration.apply(float(c), dict(zip(FEATURES, map(float, row), strict=False)))
        for c, row in zip(confidence, rows, strict=True)
    ]
    return np.array(found, dtype=np.float64)


def errors(confidence: Floats, right: Floats) -> dict[str, float]:
    """ECE, Brier score and log loss."""
    return {
        "ece": ece(confidence, right),
        "brier": brier(confidence, right),
        "log_loss": log_loss(confidence, right),
    }


def folds(groups: Sequence[str], seed: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Five splits into train and held-out parts that keep groups whole.

    Raises:
        TooFewLabels: there are fewer than five groups.
    """
    unique = len(set(groups))
    if unique < FOLDS:
        raise TooFewLabels(f"labels cover {unique} prompts; cross-validation needs {FOLDS}")
    splitter = GroupKFold(n_splits=min(FOLDS, unique), shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(groups)), groups=list(groups)))


def cross_validated(
    confidence: Floats,
    right: Floats,
    groups: Sequence[str],
    method: Method,
    doubt: Floats | None = None,
) -> Floats:
    """The confidence of every pair by a calibration that was fitted without it."""
    found = np.empty_like(confidence)
    for train, held_out in folds(groups):
        known, left = (None, None) if doubt is None else (doubt[train], doubt[held_out])
        fitted = _fit(confidence[train], right[train], method, known)
        found[held_out] = applied(fitted, confidence[held_out], left)
    return found


def doubt_of(preferences: Sequence[Preference]) -> Floats:
    """A row for each preference: `FEATURES`."""
    rows = [measure_doubt(preference) for preference in preferences]
    return np.array([[row[name] for name in FEATURES] for row in rows]).reshape(-1, len(FEATURES))


def principle_temperatures(
    outcomes: Outcomes, label: NDArray[np.int64], chosen: NDArray[Any]
) -> dict[str, float]:
    """A temperature for each principle with enough labels on which it has any opinion.

    It is fitted to the labels of whole pairs: a principle that says little about what people
    prefer becomes quiet.

    Args:
        chosen: which pairs to learn from.
    """
    found = {}
    for name, o in outcomes.principles.items():
        logits = o.logits[chosen]
        side = label[chosen]
        known = np.isfinite(logits) & (np.abs(logits) > 1e-6) & (side != 0)
        if o.source == "judge" and int(known.sum()) >= LEAST_PER_PRINCIPLE * (FOLDS - 1) / FOLDS:
            right = (np.sign(logits[known]) == side[known]).astype(np.float64)
            found[name] = fit_temperature(np.abs(logits[known]), right)
    return found


def refolded(
    outcomes: Outcomes, temperatures: Mapping[str, float]
) -> tuple[Floats, NDArray[Any], Floats]:
    """Confidence, winner and doubt of every pair with tempered principles."""
    confidence = np.full(len(outcomes.ids), 0.5)
    winner = np.zeros(len(outcomes.ids), dtype=np.int64)
    doubt = np.zeros((len(outcomes.ids), len(FEATURES)))
    for i, status in enumerate(outcomes.status):
        if status != "abstained":
            found = aggregate(tempered(outcomes.scores(i), temperatures), outcomes.aggregation)
            confidence[i] = max(found.p_a, 1.0 - found.p_a)
            winner[i] = {"a": 1, "b": -1}.get(found.winner or "", 0)
            doubt[i] = doubt_of([found])[0]
    return confidence, winner, doubt


def calibrate(
    outcomes: Outcomes,
    label: NDArray[np.int64],
    groups: Sequence[str],
    *,
    method: Method = "temperature",
    per_principle: bool = False,
) -> Calibration:
    """The calibration of a run's judge by labels of people.

    A calibration that makes the log loss on held-out pairs larger than without one is not taken:
    its temperature is 1.  Principles get temperatures of their own where there are enough labels
    and cross-validation says that the log loss on held-out pairs is lower with them.  `points` are
    then those of cross-validation, so that a threshold is certified on confidences that did not
    see the labels; of each prompt one pair, drawn by chance, since a certificate needs independent
    ones.

    Args:
        label: 1, 0 or -1, for pairs whose label is known.
        groups: pairs that are not independent.

    Raises:
        TooFewLabels: see `fit_calibration`.

    Long because it fits twice, without and with temperatures of principles, and keeps the better.
    """
    use = (label != 0) & (outcomes.winner != 0)
    confidence = outcomes.confidence[use]
    right = (outcomes.winner[use] == label[use]).astype(np.float64)
    own = [groups[i] for i in np.flatnonzero(use)]
    doubt = None
    if method == "features":
        doubt = doubt_of([outcomes.aggregated(int(i)) for i in np.flatnonzero(use)])
    fitted = fit_calibration(confidence, right, method, doubt)
    held_out = cross_validated(confidence, right, own, method=method, doubt=doubt)
    every = int((label != 0).sum())
    measured = {
        "before": _measured(confidence, right, every),
        "after (held out)": _measured(held_out, right, every),
    }
    intervals = _intervals(confidence, right, own)
    best = measured["after (held out)"]["log_loss_of_all"]
    asked = label != 0
    sure, agreed = outcomes.confidence[asked], (outcomes.winner == label)[asked]
    temperatures: dict[str, float] = {}
    if per_principle and len(principle_temperatures(outcomes, label, np.arange(len(label)))) > 1:
        cv_confidence, cv_winner, cv_doubt = _crossed(outcomes, label, groups)
        decided = asked & (cv_winner != 0)
        cv_right = (cv_winner[decided] == label[decided]).astype(np.float64)
        cv_groups = [groups[i] for i in np.flatnonzero(decided)]
        crossed = cross_validated(
            cv_confidence[decided],
            cv_right,
            cv_groups,
            method=method,
            doubt=cv_doubt[decided],
        )
        measured["with principles (held out)"] = _measured(crossed, cv_right, int(asked.sum()))
        tempered_loss = measured["with principles (held out)"]["log_loss_of_all"]
        with suppress(TooFewLabels):  # so many pairs become ties that too few are left
            if tempered_loss < best:
                own_temperatures = principle_temperatures(outcomes, label, np.arange(len(label)))
                again, winner, all_doubt = refolded(outcomes, own_temperatures)
                use = asked & (winner != 0)
                right_again = (winner[use] == label[use]).astype(np.float64)
                fitted = fit_calibration(again[use], right_again, method, all_doubt[use])
                temperatures, best = own_temperatures, tempered_loss
                sure, agreed = cv_confidence[asked], (cv_winner == label)[asked]
    if best > measured["before"]["log_loss_of_all"]:
        fitted = Calibration()  # a judge that means what it says is left alone
        if temperatures:
            temperatures = {}
            sure, agreed = outcomes.confidence[asked], (outcomes.winner == label)[asked]
    chosen = independent_pairs([groups[i] for i in np.flatnonzero(asked)])
    points = [(round(float(sure[k]), 6), float(agreed[k])) for k in chosen]
    return fitted.model_copy(
        update={
            "principles": temperatures,
            "labels": len(right),
            "measured": measured,
            "intervals": intervals,
            "points": points,
        }
    )


def _measured(confidence: Floats, right: Floats, every: int) -> dict[str, float]:
    """Errors of the decided pairs, how many they are, and the log loss of all labeled pairs, where
    a tie says one half: with temperatures of principles, other pairs are decided.
    """
    decided = len(confidence)
    undecided = (every - decided) * math.log(2.0)
    own = errors(confidence, right)
    whole = (own["log_loss"] * decided + undecided) / every
    return {**own, "decided": float(decided), "log_loss_of_all": whole}


def independent_pairs(groups: Sequence[str]) -> list[int]:
    """Places of one pair of a prompt at most, since those of one prompt hang together; every pair
    with the same chance: prompts with fewer pairs are taken more seldom.  A certificate is about
    pairs, and needs independent ones.
    """
    rng = np.random.default_rng(0)
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    most = max(map(len, members.values()), default=1)
    found = []
    for places in members.values():
        drawn = int(rng.integers(most))
        if drawn < len(places):
            found.append(places[drawn])
    return sorted(found)


def _crossed(
    outcomes: Outcomes, label: NDArray[np.int64], groups: Sequence[str]
) -> tuple[Floats, NDArray[Any], Floats]:
    """Confidence, winner and doubt of each pair, with temperatures fitted without its fold."""
    confidence = np.full(len(label), 0.5)
    winner = np.zeros(len(label), dtype=np.int64)
    doubt = np.zeros((len(label), len(FEATURES)))
    for train, held_out in folds(groups):
        found = refolded(outcomes, principle_temperatures(outcomes, label, train))
        for whole, own in zip((confidence, winner, doubt), found, strict=True):
            whole[held_out] = own[held_out]
    return confidence, winner, doubt


def _intervals(
    confidence: Floats, right: Floats, groups: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """95% intervals by drawing whole prompts (Efron 1979), of the temperature and of the expected
    calibration error; and that error of a perfect judge of this size and confidence, which is no
    zero: bins of few pairs are off by chance (Kumar, Liang and Ma 2019, arXiv:1909.10155).
    """
    rng = np.random.default_rng(0)
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = [np.flatnonzero(index == k) for k in range(len(names))]
    temperatures, found, floor = [], [], []
    for _ in range(DRAWS):
        drawn = np.concatenate([members[k] for k in rng.integers(0, len(names), len(names))])
        temperatures.append(
            fit_temperature(logit(np.maximum(confidence[drawn], 0.5)), right[drawn])
        )
        found.append(ece(confidence[drawn], right[drawn]))
        floor.append(ece(confidence, (rng.random(len(confidence)) < confidence).astype(np.float64)))
    # Drawing again adds the chance error of the bins once more: the middle is moved back.
    off = float(np.mean(found)) - ece(confidence, right)
    low, high = np.quantile(found, (0.025, 0.975)) - off
    cool, hot = np.quantile(temperatures, (0.025, 0.975))
    least, most = np.quantile(floor, (0.025, 0.975))
    return {
        "temperature": (round(float(cool), 4), round(float(hot), 4)),
        "ece": (round(max(0.0, float(low)), 5), round(float(high), 5)),
        "ece of a perfect judge": (round(float(least), 5), round(float(most), 5)),
    }
