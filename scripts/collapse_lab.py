"""Reproduces, on toys, how models that learn from models collapse, and what keeps them from it.

Four experiments, each in a file of `scripts/collapse`: linear regression, a small language model,
preference loops with the guard before each round, and a small group with and without a quota. What
is expected comes from the literature; each line says whether it holds. Results that take long are
kept in --out, and a lab that was stopped goes on.

    python scripts/collapse_lab.py --out lab                  # all: about 40 minutes on two cores
    python scripts/collapse_lab.py --only regression quota
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from collapse.language import GENERATIONS, WAYS, parts, run, texts
from collapse.plots import curves
from collapse.preferences import loop
from collapse.quota import GROUP, shares
from collapse.regression import regression

from rlaif.text.novelty import words
from rlaif.text.tails import kept, tail

ROUNDS = 15
EXPERIMENTS = ("regression", "language", "preferences", "quota")


_failed: list[bool] = []


def verdict(holds: bool) -> str:
    """As it is printed; the lab ends with 1 if one does not hold."""
    _failed.extend([] if holds else [True])
    return "holds" if holds else "DOES NOT HOLD"


def run_regression(seeds: int, out: Path) -> None:
    """Errors under theory's line and bound, which are of means: 40 runs for each seed asked for."""
    found = {way: regression(way, 40 * seeds, GENERATIONS) for way in ("replace", "accumulate")}
    for way, curve in found.items():
        shown = ", ".join(f"{curve.errors[i]:.2f}" for i in (0, 4, GENERATIONS - 1))
        print(f"regression, {way}: error of generation 1, 5, {GENERATIONS}: {shown} of the first")
    line, bound = found["replace"], math.pi**2 / 6
    print(
        f"regression: replaced, the error grows linearly (R^2 over 0.95): slope {line.slope:.3f}, "
        f"R^2 {line.r2:.4f}: {verdict(line.r2 > 0.95)}"
    )
    highest = max(found["accumulate"].errors)
    print(
        f"regression: accumulated, it stays under pi^2/6 = {bound:.3f}: {highest:.3f}: "
        f"{verdict(highest < bound)}"
    )
    curves(
        out / "regression.svg",
        "Regression on one's own labels",
        "generation",
        "error / first",
        {way: curve.errors for way, curve in found.items()},
    )


def _language(seed: int, out: str) -> None:
    torch.set_num_threads(1)
    run(seed, Path(out), lambda text: print(text, flush=True))


def run_language(seeds: int, out: Path) -> None:
    """Perplexity on held-out human text, and how much of its tail is kept."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_language, range(seeds), [str(out)] * seeds))
    lost: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    tails: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    ordered = 0
    last = GENERATIONS - 1
    for seed in range(seeds):
        rows = {}
        for line in (out / f"language-{seed}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["way"], row["generation"]] = row
        first = rows["human", 0]
        coder, human, _, more = parts(seed)
        rare = tail([words(text) for text in texts(coder, human)], 1)
        base = kept([words(text) for text in texts(coder, more)], rare, 1)
        for way in WAYS:
            chain = [first, *(rows[way, k] for k in range(1, GENERATIONS))]
            lost[way].append([row["perplexity"] for row in chain])
            tails[way].append(
                [kept([words(t) for t in row["texts"]], rare, 1) / base for row in chain]
            )
        end = {way: lost[way][-1][last] for way in WAYS}
        good = end["accumulate"] < end["subsample"] < end["replace"]
        ordered += good and end["human10"] < end["replace"]
        shown = ", ".join(f"{way} {end[way]:.0f}" for way in WAYS)
        print(f"language, seed {seed}: human text {first['perplexity']:.0f}; last: {shown}")
    print(
        "language: accumulate < subsample < replace, and a tenth of human text < replace, in "
        f"{ordered} of {seeds} seeds: {verdict(ordered >= math.ceil(0.8 * seeds))}"
    )
    for way in WAYS:
        print(
            f"language, {way}: perplexity {_path(lost[way])}; rare words kept {_path(tails[way])}"
        )
    ends = {way: float(np.mean([run_[-1] for run_ in tails[way]])) for way in WAYS}
    kept_ = ends["accumulate"] >= float(np.mean([run_[0] for run_ in tails["replace"]]))
    print(
        "language: accumulating keeps the rare words and replacing loses some: "
        f"{verdict(kept_ and ends['replace'] < ends['accumulate'])}"
    )
    for name, values, title in (
        ("perplexity", lost, "Perplexity on human text"),
        ("tail", tails, "Rare words of human text that are still written"),
    ):
        means = {way: list(np.mean(values[way], axis=0)) for way in WAYS}
        axis = "perplexity" if name == "perplexity" else "share of human text's"
        curves(out / f"{name}.svg", title, "generation", axis, means, first=0)


def _path(runs: Sequence[Sequence[float]]) -> str:
    mean = np.mean(runs, axis=0)
    return ", ".join(f"{mean[k]:.3g}" for k in (0, 1, 4, len(mean) - 1))


def _loop(job: tuple[float, int]) -> tuple[list[float], int, list[str]]:
    torch.set_num_threads(1)
    found = loop(*job, ROUNDS)
    return found.support, found.tripped, found.reasons


def run_preferences(seeds: int, out: Path, human: Sequence[float]) -> None:
    """Effective support, and the round in which the guard trips."""
    lines = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for share in human:
            found = list(pool.map(_loop, [(share, seed) for seed in range(seeds)]))
            support = [f[0][-1] for f in found]
            trips = [f[1] for f in found]
            lines[f"{share:.0%} human"] = list(np.mean([f[0] for f in found], axis=0))
            print(
                f"preferences, {share:.0%} human: support after {ROUNDS} rounds "
                f"{np.mean(support):.1%} ({min(support):.1%} to {max(support):.1%}); the guard "
                f"trips in round {', '.join(str(t) if t else 'none' for t in trips)} "
                f"({', '.join(sorted({r for f in found for r in f[2]})) or '-'})"
            )
            if share == 0:
                holds = max(support) <= 0.1 and all(0 < t <= 5 for t in trips)
                print(f"preferences: cut tenfold, tripped by round 5: {verdict(holds)}")
            if share == 0.5:
                holds = min(support) >= 0.6 and not any(trips)
                print(f"preferences: 60% kept, never tripped: {verdict(holds)}")
    curves(
        out / "preferences.svg",
        "Effective support of a self-curating policy",
        "round",
        "share of people's",
        lines,
    )


def run_quota(seeds: int, out: Path) -> None:
    """The share of a small group."""
    found = {
        way: [shares(way, seed, GENERATIONS) for seed in range(seeds)] for way in ("none", "quota")
    }
    for way, runs in found.items():
        print(f"quota, {way}: the group's share, mean: {_path(runs)}")
    far = max(abs(share - GROUP) for run_ in found["quota"] for share in run_)
    print(
        f"quota: within a point of {GROUP:.0%} in every generation and seed: off by at most "
        f"{100 * far:.2f} points: {verdict(far <= 0.01)}"
    )
    left = np.mean([run_[-1] for run_ in found["none"]])
    print(
        f"quota: without it the group drifts: {left:.1%}: {verdict(bool(abs(left - GROUP) > 0.01))}"
    )
    lines = {
        "with a quota": list(np.mean(found["quota"], axis=0)),
        "without": list(np.mean(found["none"], axis=0)),
    }
    curves(out / "quota.svg", "A group of one in twenty", "generation", "share", lines)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("lab"), help="plots and long results")
    parser.add_argument(
        "--human",
        type=float,
        nargs="+",
        default=[0.0, 0.1, 0.5],
        help="shares of human data, for preferences",
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if "regression" in args.only:
        run_regression(args.seeds, args.out)
    if "quota" in args.only:
        run_quota(args.seeds, args.out)
    if "preferences" in args.only:
        run_preferences(args.seeds, args.out, args.human)
    if "language" in args.only:
        run_language(args.seeds, args.out)
    raise SystemExit(bool(_failed))


if __name__ == "__main__":
    main()
