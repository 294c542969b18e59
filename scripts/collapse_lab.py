"""Reproduces, on toys, how models that learn from models collapse, and what keeps them from it.

regression: linear regression on the labels of the last fit. Replacing the data lets the error grow
linearly; accumulating it keeps the error under pi^2/6 of the first (Gerstgrasser et al. 2024,
arXiv:2404.01413; Dohmatob et al. 2024, arXiv:2402.07712).

preferences: a policy over a thousand texts learns from those of its own samples that win against
others (Ferbach et al. 2024, arXiv:2407.09499), alone or with half human data; `rlaif guard` looks
at every round's samples.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import numpy as np

from rlaif.pipeline.guard import GuardSettings, guard

GENERATIONS = 10


def regression(seeds: int) -> None:
    """Test errors over generations, as multiples of the first."""
    features, rows, noise = 10, 100, 1.0
    errors: dict[str, list[list[float]]] = {"replace": [], "accumulate": []}
    for seed in range(seeds):
        for way, runs in errors.items():
            rng = np.random.default_rng(seed)
            truth = rng.normal(0, 1, features)
            teacher = truth
            seen_x: list[np.ndarray] = []
            seen_y: list[np.ndarray] = []
            own: list[float] = []
            for _ in range(GENERATIONS):
                x = rng.normal(0, 1, (rows, features))
                y = x @ teacher + rng.normal(0, noise, rows)
                seen_x, seen_y = ([x], [y]) if way == "replace" else ([*seen_x, x], [*seen_y, y])
                fitted, *_ = np.linalg.lstsq(
                    np.concatenate(seen_x), np.concatenate(seen_y), rcond=None
                )
                own.append(float(((fitted - truth) ** 2).sum()))
                teacher = fitted
            runs.append(own)
    first = noise**2 * features / (rows - features - 1)
    k = np.arange(1, GENERATIONS + 1)
    for way, runs in errors.items():
        mean = np.mean(runs, axis=0) / first
        line = np.polyfit(k, mean, 1)
        r2 = 1.0 - float(
            ((mean - np.polyval(line, k)) ** 2).sum() / ((mean - mean.mean()) ** 2).sum()
        )
        print(
            f"{way}: error of generation 1, 5, {GENERATIONS}: {mean[0]:.2f}, {mean[4]:.2f}, "
            f"{mean[-1]:.2f} times theory's first; line through all: slope {line[0]:.3f}, "
            f"R^2 {r2:.3f}"
            + (f"; bound pi^2/6 = {math.pi**2 / 6:.2f}" if way == "accumulate" else "")
        )


def preferences(seeds: int, shares: list[float], rounds: int = 15) -> None:
    """Effective support (exp of the entropy) over rounds, and when the guard trips."""
    modes, drawn, contest = 1000, 20_000, 4
    for human in shares:
        kept, trips = [], []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            reward = rng.normal(0, 1, modes)
            texts = _texts(rng, modes)
            people = np.full(modes, 1.0 / modes)
            policy, tripped = people, 0
            with tempfile.TemporaryDirectory() as folder:
                reference = _write(Path(folder) / "first.jsonl", rng, texts, people)
                for turn in range(1, rounds + 1):
                    # Best of four by a Bradley-Terry judge: drawn in proportion to exp(reward).
                    pool = rng.choice(modes, (drawn, contest), p=policy)
                    odds = np.exp(reward[pool])
                    pick = (
                        odds.cumsum(1) / odds.sum(1, keepdims=True) > rng.random((drawn, 1))
                    ).argmax(1)
                    won = np.bincount(pool[np.arange(drawn), pick], minlength=modes) / drawn
                    fresh = np.bincount(rng.choice(modes, drawn, p=people), minlength=modes) / drawn
                    policy = (1.0 - human) * won + human * fresh
                    if not tripped:
                        data = _write(Path(folder) / "now.jsonl", rng, texts, policy)
                        tripped = turn if guard(data, reference, GuardSettings()).tripped else 0
            kept.append(_support(policy) / _support(people))
            trips.append(tripped)
        print(
            f"{100 * human:.0f}% human: effective support after {rounds} rounds "
            f"{100 * float(np.mean(kept)):.1f}% of the first ({100 * min(kept):.1f} to "
            f"{100 * max(kept):.1f}); guard trips in round "
            + ", ".join(str(t) if t else "none" for t in trips)
        )


def _support(policy: np.ndarray) -> float:
    kept = policy[policy > 0]
    return float(np.exp(-(kept * np.log(kept)).sum()))


def _texts(rng: np.random.Generator, modes: int) -> list[list[str]]:
    """One text a mode: forty words of a vocabulary with a long tail."""
    weights = 1.0 / np.arange(1, 5001)
    words = rng.choice(5000, (modes, 40), p=weights / weights.sum())
    return [[f"w{w}" for w in row] for row in words]


def _write(path: Path, rng: np.random.Generator, texts: list[list[str]], policy: np.ndarray) -> str:
    """Two hundred samples, each with a tenth of its words exchanged."""
    lines = []
    for n, mode in enumerate(rng.choice(len(texts), 200, p=policy)):
        own = [w if rng.random() > 0.1 else f"w{int(rng.integers(5000))}" for w in texts[mode]]
        lines.append(json.dumps({"prompt": f"p{n}", "responses": [" ".join(own)]}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["regression", "preferences"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--human",
        type=float,
        nargs="+",
        default=[0.0, 0.1, 0.5],
        help="shares of human data, for preferences",
    )
    args = parser.parse_args()
    if args.only != "preferences":
        regression(40 * args.seeds)
    if args.only != "regression":
        preferences(args.seeds, args.human)


if __name__ == "__main__":
    main()
