"""Which model's completions the judge preferred, in a labeling run."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlaif.data.sources import Source
from rlaif.errors import RlaifError
from rlaif.evaluation.human_labels import match_labels
from rlaif.evaluation.length_control import control_length
from rlaif.evaluation.outcomes import read_outcomes, talk_key
from rlaif.evaluation.stats.prediction_powered import PoweredMean, powered_mean
from rlaif.evaluation.stats.resampling import Estimate, mean_with_interval
from rlaif.runs.directory import read_manifest
from rlaif.runs.labels import read_labels
from rlaif.templates.messages import completion_text
from rlaif.util.words import count_words

LEAST_LABELS, LEAST_EACH = 30, 5


@dataclass(frozen=True)
class WinRate:
    """One model against all others.

    Attributes:
        wins, losses: decided pairs with another model's completion.
        ties: pairs that the judge calls equal; they count one half.
        abstained: pairs of which it said nothing; they do not count.
        rate: wins and half of the ties, of all three, with an interval that knows that pairs of one
            prompt hang together.
        controlled: the rate at equal length, see `control_length`; None where that can't be told.
    """

    model: str
    wins: int
    losses: int
    ties: int
    abstained: int
    rate: Estimate
    controlled: Estimate | None = None


def win_rates(run: Path) -> list[WinRate]:
    """Win rates of the models that a run's completions come from, the best first.

    Pairs of two completions by one model say nothing about models and are left out.

    Raises:
        RlaifError: the run is not complete, or its rows do not say which models wrote them.
    """
    read_manifest(run)
    scores: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    longer: dict[str, list[float]] = defaultdict(list)
    abstained: Counter[str] = Counter()
    for label in read_labels(run):
        one, two = label.side_origins
        if label.status == "human" or not one or not two or one == two:
            continue  # what humans said is not the judge's
        if label.status == "abstained":
            abstained.update([one, two])
            continue
        prompt = talk_key(label.prompt)
        words = [count_words(completion_text(side)) for side in label.sides]
        for model, score, sign in ((one, 1.0, 1), (two, 0.0, -1)):
            longer[model].append(float(sign * (words[0] - words[1])))
            scores[model].append(score if label.winner else 0.5)
            groups[model].append(prompt)
    models = scores.keys() | abstained.keys()
    if not models:
        raise RlaifError(
            f"run {str(run)!r} has no pair with completions from two models",
            hint="Label the output of `rlaif generate -m A -m B -n 1`.",
        )
    found = [
        WinRate(
            model=model,
            wins=scores[model].count(1.0),
            losses=scores[model].count(0.0),
            ties=scores[model].count(0.5),
            abstained=abstained[model],
            rate=mean_with_interval(np.array(scores[model]), groups[model]),
            controlled=control_length(
                np.array(scores[model]), np.array(longer[model]), groups[model]
            ),
        )
        for model in models
    ]
    return sorted(found, key=lambda w: (-w.rate.value, w.model))


def human_win_rates(run: Path, labels: Source) -> dict[str, PoweredMean]:
    """How often people would prefer each model, by model: few labels of people, many of the judge.

    A tie counts one half.  The mean is over pairs; the interval knows that pairs of one prompt hang
    together.  Models with too few labels are left out.

    Args:
        labels: of pairs of the run, drawn at random; see `match_labels`.

    Raises:
        RlaifError: no model has enough labels.
    """
    if "review" in read_manifest(run)["config"]:
        raise RlaifError(
            f"run {str(run)!r} already contains human labels",
            hint="Use the run that was reviewed.",
        )
    outcomes = read_outcomes(run)
    matched = match_labels(run, outcomes, labels)
    found: dict[str, PoweredMean] = {}
    refused: list[str] = []
    for model in sorted({o for side in outcomes.origins for o in side if o}):
        sign = np.array(
            [(a == model) - (b == model) for a, b in zip(*outcomes.origins, strict=True)]
        )
        here = (sign != 0) & np.array(
            [bool(a and b) for a, b in zip(*outcomes.origins, strict=True)]
        )
        judged = (1.0 + outcomes.winner * sign) / 2.0
        people = (1.0 + matched.label * sign) / 2.0
        known, others = here & matched.known, here & ~matched.known
        sides = judged[known], people[known]
        wins = int((people[known] == 1.0).sum())
        losses = int((people[known] == 0.0).sum())
        if min(wins, losses) < LEAST_EACH or len(sides[0]) < LEAST_LABELS:
            refused.append(f"{model!r} ({len(sides[0])} labels, {wins} for it, {losses} against)")
            continue
        group = np.array(matched.group)
        found[model] = powered_mean(
            people[known],
            judged[known],
            judged[others],
            groups=(list(group[known]), list(group[others])),
        )
    if not found:
        raise RlaifError(
            f"an interval needs at least {LEAST_LABELS} human labels, {LEAST_EACH} in "
            f"each direction; found {', '.join(refused)}",
            hint="Label more pairs of this run, drawn at random.",
        )
    return found
