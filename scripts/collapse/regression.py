"""Linear regression on the labels of the last fit.

Replacing the data lets the error grow linearly; accumulating it keeps the error under pi^2/6 of the
first (Gerstgrasser et al. 2024, arXiv:2404.01413; Dohmatob et al. 2024, arXiv:2402.07712).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEATURES, ROWS, NOISE = 10, 100, 1.0


@dataclass(frozen=True)
class Curve:
    """Test errors over generations, as multiples of theory's first.

    Attributes:
        errors: means over seeds.
        slope, r2: of the line through them.
    """

    errors: list[float]
    slope: float
    r2: float


def regression(way: str, seeds: int, generations: int) -> Curve:
    """Replace or accumulate the data of `generations` fits, each on the labels of the last."""
    runs = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, 1, FEATURES)
        teacher = truth
        xs: list[np.ndarray] = []
        ys: list[np.ndarray] = []
        own = []
        for _ in range(generations):
            x = rng.normal(0, 1, (ROWS, FEATURES))
            y = x @ teacher + rng.normal(0, NOISE, ROWS)
            xs, ys = ([x], [y]) if way == "replace" else ([*xs, x], [*ys, y])
            teacher, *_ = np.linalg.lstsq(np.concatenate(xs), np.concatenate(ys), rcond=None)
            own.append(float(((teacher - truth) ** 2).sum()))
        runs.append(own)
    first = NOISE**2 * FEATURES / (ROWS - FEATURES - 1)
    errors = np.mean(runs, axis=0) / first
    k = np.arange(1, generations + 1)
    line = np.polyfit(k, errors, 1)
    left = ((errors - np.polyval(line, k)) ** 2).sum()
    r2 = 1.0 - left / ((errors - errors.mean()) ** 2).sum()
    return Curve([float(e) for e in errors], float(line[0]), float(r2))
