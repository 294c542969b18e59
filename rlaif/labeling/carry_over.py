"""Whether a certificate of agreement carries over from its labels to a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlaif.judging.aggregation import AggregationSettings, aggregate
from rlaif.judging.calibration import Calibration
from rlaif.records import PrincipleScore
from rlaif.runs.labels import LabelRow, read_labels
from rlaif.util.hashing import digest

MOST_PROMPTS = 2000
LEAST_PAIRS = 30
_SHIFT, _LEVEL = 0.1, 0.01
_FINEST = 4
"""Decimals that are compared: rows of a run are rounded."""


def compare_confidence(
    run: Path, calibration: Calibration, aggregation: AggregationSettings
) -> dict[str, Any] | None:
    """Hold the judge's confidence on a run against that on the labels of its calibration.

    The two-sample test of Kolmogorov and Smirnov, on one pair of each prompt.  A certificate holds
    for pairs like those that were labeled.  Where confidence is spread otherwise, they are not; a
    judge that is as sure and more often wrong is not seen here.

    Returns:
        How far the two are apart (0 to 1), the p-value, the mean confidence of both, and whether it
        `carries_over`; None for too few pairs to tell.
    """
    from scipy.stats import ks_2samp  # noqa: PLC0415 - only where a target was certified

    here = list(_confidences(run, aggregation))
    there = [_round(confidence) for confidence, _ in calibration.points]
    if min(len(here), len(there)) < LEAST_PAIRS:
        return None
    found = ks_2samp(here, there)
    apart, p = float(found.statistic), float(found.pvalue)
    return {
        "apart": round(apart, 4),
        "p": round(p, 6),
        "confidence_here": round(math.fsum(here) / len(here), 4),
        "confidence_of_labels": round(math.fsum(there) / len(there), 4),
        "carries_over": not (p < _LEVEL and apart >= _SHIFT),
    }


def _confidences(run: Path, aggregation: AggregationSettings) -> Iterator[float]:
    """The confidence before calibration of one pair of each prompt, of the first ones in the order
    of their hashes: drawn by no order of the file.
    """
    kept: dict[str, tuple[str, float]] = {}
    for label in read_labels(run):
        if not label.principles:
            continue  # nobody was asked
        prompt, pair = digest(label.prompt), digest(label.key)
        if prompt not in kept and len(kept) >= 2 * MOST_PROMPTS:
            for name in sorted(kept)[MOST_PROMPTS:]:
                del kept[name]
        if prompt not in kept or pair < kept[prompt][0]:
            kept[prompt] = pair, _confidence(label, aggregation)
    for name in sorted(kept)[:MOST_PROMPTS]:
        yield _round(kept[name][1])


def _confidence(label: LabelRow, aggregation: AggregationSettings) -> float:
    scores = []
    for own in label.principles:
        p = min(max(own.p_a, 1e-9), 1.0 - 1e-9)
        logit = math.log(p / (1.0 - p))
        scores.append(
            PrincipleScore(own.principle, own.tier, own.weight, logit, invalid=own.invalid)
        )
    p_a = aggregate(scores, aggregation).p_a
    return max(p_a, 1.0 - p_a)


def _round(confidence: float) -> float:
    return min(round(confidence, _FINEST), 1.0 - 10.0**-_FINEST)
