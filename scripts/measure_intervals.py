"""How often intervals of a share hold the truth where pairs of one prompt hang together.

    python scripts/measure_intervals.py [--runs 1500]

Prompts have a share of their own (a beta distribution whose values within a prompt correlate at
0.3) and several pairs each.  Compared are the interval that rlaif reports, one from a bootstrap
over prompts, and the Wilson interval that takes pairs for independent.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rlaif.evaluation.stats.resampling import mean_with_interval, wilson

CORRELATION = 0.3
BOOTSTRAPS = 300


def draw_sizes(rng: np.random.Generator, prompts: int, kind: str) -> NDArray[np.int64]:
    """Pairs of each prompt: 16 (as of four completions against four), one, or very unequal."""
    if kind == "unequal":
        return np.maximum(1, (rng.pareto(1.5, prompts) * 4).astype(np.int64) + 1)
    return np.full(prompts, 16 if kind == "16" else 1)


def measure(prompts: int, kind: str, truth: float, runs: int) -> list[float]:
    """The share of intervals that hold the truth: by groups, by bootstrap, by pairs."""
    rng = np.random.default_rng(prompts)
    held = [0, 0, 0]
    own = (1 - CORRELATION) / CORRELATION
    for run in range(runs):
        sizes = draw_sizes(rng, prompts, kind)
        shares = rng.beta(truth * own, (1 - truth) * own, prompts)
        groups = np.repeat(np.arange(prompts), sizes)
        values = (rng.random(len(groups)) < shares[groups]).astype(np.float64)
        found = mean_with_interval(values, list(groups))
        held[0] += found.low <= truth <= found.high
        low, high = wilson(float(values.mean()), len(values))
        held[2] += low <= truth <= high
        if run < BOOTSTRAPS:
            sums = np.bincount(groups, weights=values)
            drawn = rng.integers(prompts, size=(1000, prompts))
            rates = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
            low, high = np.quantile(rates, [0.025, 0.975])
            held[1] += low <= truth <= high
    return [held[0] / runs, held[1] / min(runs, BOOTSTRAPS), held[2] / runs]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1500)
    runs = parser.parse_args().runs
    margin = stats.norm.ppf(0.975) * (0.95 * 0.05 / runs) ** 0.5
    print(f"share of 95% intervals that hold the truth, +/- {100 * margin:.1f} points")
    print("prompts | pairs each | truth | rlaif | bootstrap | pairs as independent")
    for prompts in (6, 12, 30, 100):
        for kind in ("16", "unequal", "1"):
            for truth in (0.5, 0.8, 0.95):
                shown = " | ".join(f"{100 * c:.1f}%" for c in measure(prompts, kind, truth, runs))
                print(f"{prompts} | {kind} | {truth} | {shown}")


if __name__ == "__main__":
    main()
