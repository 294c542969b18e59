"""Which model's completions the judge preferred, in a labeling run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlaif.errors import RlaifError
from rlaif.evaluation.human_labels import match_labels
from rlaif.evaluation.intervals import Share, share
from rlaif.evaluation.outcomes import read_outcomes
from rlaif.evaluation.prediction_powered import PoweredMean, powered_mean
from rlaif.store.run_directory import read_manifest, read_rows
from rlaif.store.sources import Source

LEAST_LABELS = 30


@dataclass(frozen=True)
class WinRate:
    """One model against all others.

    Attributes:
        wins, losses: decided pairs with another model's completion.
        undecided: ties and abstentions.
        rate: wins of the decided ones, with its interval.
    """

    model: str
    wins: int
    losses: int
    undecided: int
    rate: Share


def win_rates(run: Path) -> list[WinRate]:
    """Win rates of the models that a run's completions come from, the best first.

    Pairs of two completions by one model say nothing about models and are left out.

    Raises:
        RlaifError: the run is not complete, or its rows do not say which models wrote them.
    """
    read_manifest(run)
    wins: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    undecided: Counter[str] = Counter()
    for _, row in read_rows(run / "preferences.jsonl"):
        won, lost = row["provenance"]["origin_chosen"], row["provenance"]["origin_rejected"]
        if won and lost and won != lost:
            wins[won] += 1
            losses[lost] += 1
    for _, row in read_rows(run / "undecided.jsonl"):
        a, b = row["provenance"]["origin_a"], row["provenance"]["origin_b"]
        if a and b and a != b:
            undecided.update([a, b])
    models = wins.keys() | losses.keys() | undecided.keys()
    if not models:
        raise RlaifError(
            f"run {str(run)!r} has no pair of two models",
            hint="Label what `rlaif generate -m A -m B -n 1` wrote.",
        )
    found = [
        WinRate(
            model, wins[model], losses[model], undecided[model],
            share(wins[model], wins[model] + losses[model]),
        )
        for model in models
    ]  # fmt: skip
    return sorted(found, key=lambda w: (-w.rate.rate, w.model))


def human_win_rates(run: Path, labels: Source) -> dict[str, PoweredMean]:
    """How often people would prefer each model, by model: few labels of people, many of the judge.

    A tie counts one half.  Pairs of one prompt are averaged, so that prompts are what is drawn.

    Args:
        labels: of pairs of the run, drawn at random; see `match_labels`.

    Raises:
        RlaifError: no label belongs to a pair of two models, or too few do.
    """
    outcomes = read_outcomes(run)
    matched = match_labels(run, outcomes, labels)
    found = {}
    for model in sorted({o for side in outcomes.origins for o in side if o}):
        sign = np.array([
            (a == model) - (b == model) for a, b in zip(*outcomes.origins, strict=True)
        ])  # fmt: skip
        here = (sign != 0) & np.array(
            [bool(a and b) for a, b in zip(*outcomes.origins, strict=True)]
        )
        judged = (1.0 + outcomes.winner * sign) / 2.0
        people = (1.0 + matched.label * sign) / 2.0
        by_prompt: dict[str, list[int]] = {}
        for i in np.flatnonzero(here):
            by_prompt.setdefault(matched.group[i], []).append(int(i))
        rows = []
        for pairs in by_prompt.values():
            known = [i for i in pairs if matched.known[i]]
            if known:
                rows.append((True, people[known].mean(), judged[known].mean()))
            else:
                rows.append((False, 0.0, judged[pairs].mean()))
        labeled = np.array([(y, f) for known, y, f in rows if known])
        others = np.array([f for known, _, f in rows if not known])
        if len(labeled) < LEAST_LABELS:
            if not rows:
                continue
            raise RlaifError(
                f"people labeled pairs of {len(labeled)} prompts with {model!r}, and an interval "
                f"needs {LEAST_LABELS}",
                hint="Label more pairs of this run, drawn at random.",
            )
        found[model] = powered_mean(labeled[:, 0], labeled[:, 1], others)
    return found
