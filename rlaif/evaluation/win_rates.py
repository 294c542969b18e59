"""Which model's completions the judge preferred, in a labeling run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rlaif.errors import RlaifError
from rlaif.evaluation.intervals import Share, share
from rlaif.store.run_directory import read_manifest, read_rows


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
