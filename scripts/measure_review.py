"""Prints what a review's queue is worth: wrong labels found by a tenth of the pairs, in the demo
world, where an oracle knows.

The demo judge labels pairs by the demo constitution and by the same in one tier (where it is wrong
more often); the oracle reviews a tenth of them, taken by the queue (with its random audit) or at
random.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from rlaif.demo.oracle import prefer
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.review.items import ReviewItem, read_items
from rlaif.review.start import plan_review
from rlaif.runs.context import RunContext
from rlaif.util.resources import data_root


def main() -> None:
    """Label, plan, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=600, help="of the demo world")
    parser.add_argument("--engine", default="packed", help="that runs the demo judge")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13], help="of the world")
    args = parser.parse_args()
    for name in ("demo", "flat"):
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                one(folder=Path(folder), name=name, count=args.pairs, seed=seed, engine=args.engine)


def one(folder: Path, name: str, count: int, seed: int, engine: str) -> None:
    """One world."""
    rows = [
        {"id": f"d{i}", "prompt": p.prompt, "response_a": p.response_a, "response_b": p.response_b}
        for i, p in enumerate(World(seed, "train").pairs(count))
    ]
    data, constitution = folder / "pairs.jsonl", folder / f"{name}.yaml"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = (data_root() / "constitutions" / "demo.yaml").read_text(encoding="utf-8")
    if name == "flat":
        text = text.replace("tier: 2", "tier: 1").replace("tier: 3", "tier: 1")
    constitution.write_text(text, encoding="utf-8")
    judge = EngineSettings(engine=engine, model="demo")
    job = prepare(str(data), str(constitution), LabelSettings(judge=judge, template="demo"))
    run_label(job, folder / "run", context=RunContext(cache_dir=folder / "cache.sqlite"))
    items = list(read_items(folder / "run"))
    wrong = np.array([is_wrong(item) for item in items])
    budget = len(items) // 10
    plan = plan_review(folder / "run", budget)
    found = int(sum(wrong[q.candidate.number] for q in plan.queue))
    at_random = float(wrong.sum()) * budget / len(items)
    print(
        f"{name}, world {seed}: {int(wrong.sum())} of {len(items)} labels wrong; {budget} pairs "
        f"correct {found} ({plan.wrong:.1f} expected), at random {at_random:.1f}: "
        f"{found / at_random:.1f} times as many"
    )


def is_wrong(item: ReviewItem) -> bool:
    """Whether the oracle reverses the label."""
    told = prefer(*(m[0]["content"] for m in (item.prompt, item.a, item.b)))
    return bool(item.winner) and told != 0 and (told > 0) != (item.winner == "a")


if __name__ == "__main__":
    main()
