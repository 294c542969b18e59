"""A group that is a twentieth of the data, over generations of a judge that likes it a little less.

Each generation learns from its own curated samples. `rlaif mix --quota` holds the group at its
share of what the next one learns from (algorithmic reparation by stratified sampling: Wyllie,
Shumailov and Papernot 2024, arXiv:2403.07857); without it the group drifts away.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from rlaif.data.licensing import load_licenses
from rlaif.data.sources import open_source
from rlaif.mixing.mix import mix
from rlaif.mixing.settings import MixPart, MixPlan, MixSettings, Quota

KINDS, GROUP, DISLIKE, ROWS = 200, 0.05, 0.3, 1500


def shares(way: str, seed: int, generations: int) -> list[float]:
    """The group's share of what the policy writes, after each generation.

    The policy is a distribution over `KINDS` texts, a twentieth of them the group's; it learns the
    frequencies of its data, smoothed by one draw from its prior. So what is shown is the drift of
    learning from curated samples, and that `rlaif mix` undoes it; a policy that learns the group
    badly would keep less of it than it was shown.
    """
    rng = np.random.default_rng(seed)
    own = np.arange(KINDS) < KINDS * GROUP
    policy = np.full(KINDS, 1.0 / KINDS)
    found = []
    for generation in range(generations):
        pool = rng.choice(KINDS, (ROWS, 2), p=policy)
        odds = np.exp(-DISLIKE * own[pool])
        first = odds[:, 0] / odds.sum(1) > rng.random(ROWS)
        won = np.where(first, pool[:, 0], pool[:, 1])
        if way == "quota":
            won = _mixed(won, own, seed, generation)
        policy = np.bincount(won, minlength=KINDS) + 1.0 / KINDS
        policy = policy / policy.sum()
        found.append(float(policy[own].sum()))
    return found


def _mixed(kinds: np.ndarray, own: np.ndarray, seed: int, generation: int) -> np.ndarray:
    """The rows that `rlaif mix --quota group:minority=0.05` draws."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "curated.jsonl"
        lines = [
            json.dumps(
                {
                    "prompt": f"row {i}",
                    "completion": f"kind {kind}",
                    "group": "minority" if own[kind] else "majority",
                }
            )
            for i, kind in enumerate(kinds)
        ]
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        plan = MixPlan(
            parts=[MixPart(data=str(data), share=1)],
            quotas=[Quota(slice="group:minority", share=GROUP)],
            settings=MixSettings(min_human=0, near_duplicate=1, seed=seed + generation),
        )
        out = Path(folder) / "mixed"
        mix(plan, out, load_licenses())
        rows = [row for _, row in open_source(str(out)).rows()]
    return np.array([int(row["completion"][0]["content"].split()[1]) for row in rows])  # type: ignore[index]
