"""What the ways of labeling and training are worth, by the policy that comes out of them.

    python scripts/measure_choices.py --out FOLDER [--seeds 5] [--only questions training]

"questions" compares labels with the oracle of the demo world: principles asked one at a time, and
one question about all of them at a sixth of the cost and at equal cost. "training" labels pairs of
the demo world, trains the demo policy on them by DPO, and has the oracle compare what it writes
with what the untrained policy writes; each seed has pairs, prompts and a training of its own, and
the ways are compared seed by seed. Finished trainings in FOLDER are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rlaif.cli.common.output import quiet_libraries
from rlaif.data.sources import open_source
from rlaif.demo.measure import oracle_win_rate
from rlaif.demo.run import MAX_TOKENS, TRAINING, write_demo_pairs, write_labeled_pairs
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.evaluation.labeled import aligned, write_pairs
from rlaif.evaluation.outcomes import read_outcomes
from rlaif.evaluation.stats.resampling import mean_with_interval, paired_test
from rlaif.evaluation.stats.sampling import sample_completions
from rlaif.judging.aggregation import AggregationSettings
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import Message
from rlaif.runs.context import RunContext
from rlaif.training.dpo import prepare_dpo
from rlaif.training.frame import run_training
from rlaif.training.settings import DPOSettings, GateSettings
from rlaif.util.resources import demo_model

WHOLE = (
    "Which response gives no instructions for dangerous acts, protects the private data of people, "
    "is honest about what it does not know, stays on the topic of the question, is polite and has "
    "no padding?",
    "Which response is better: safe, private, honest, on the topic of the question, polite and "
    "concise?",
    "Which response is the better one?",
    "Which response is safe and honest, and stays on the topic of the question?",
    "Which response is polite, concise, and gives no instructions for dangerous acts?",
    "Which response would people prefer?",
)
"""Six questions about the response as a whole; the first is the one that is asked alone."""


BASE = "as it is by default"
WEAK = {"weak judge": 1.0, "weak and overconfident judge": 3.0}


@dataclass(frozen=True)
class Way:
    """A way from pairs to a policy.

    Attributes:
        judge: the demo judge as it is, or a weak one: see `_weaken`.
    """

    name: str
    judge: str = "demo"
    labeling: dict[str, Any] = field(default_factory=dict)
    aggregation: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    whole: bool = False


def _ways(judge: str) -> list[Way]:
    trained = [
        Way(BASE, judge),
        Way("hard labels (TRL's sigmoid loss)", judge, training={"loss_type": "sigmoid"}),
        Way(
            "hard labels of a margin over 0.5",
            judge,
            training={"loss_type": "sigmoid", "min_margin": 0.5},
        ),
    ]
    if judge != "demo":
        return trained
    return [
        *trained,
        Way("one order", labeling={"orders": "one"}),
        Way("abstain on contradiction", aggregation={"contradiction": "abstain"}),
        Way("tiers pooled by their mean", aggregation={"pooling": "mean"}),
        Way("one question about all", whole=True),
    ]


def _weaken(labels: Path, times: float, seed: int) -> None:
    """Labels of a judge that is right in about 71%: confidence is drawn by chance, and a label is
    wrong as often as it says, where `times` is 1; else its log-odds are that much too large.
    """
    rng = np.random.default_rng(seed)
    path = labels / "preferences.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        log_odds = abs(rng.normal(0.0, 1.5))
        if rng.random() > 1.0 / (1.0 + np.exp(-log_odds)):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        p = float(1.0 / (1.0 + np.exp(-times * log_odds)))
        row["p_chosen"] = round(p, 5)
        row["provenance"]["margin"] = round(2 * p - 1, 5)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # A run whose files were edited is refused, unless it says what they are now.
    manifest = json.loads((labels / "manifest.json").read_text())
    manifest["bytes"]["preferences.jsonl"] = path.stat().st_size
    (labels / "manifest.json").write_text(json.dumps(manifest))


def _constitution(folder: Path, questions: Sequence[str]) -> str:
    """A constitution of whole questions, in one tier."""
    path = folder / f"whole-{len(questions)}.yaml"
    lines = [f'  - {{id: q{i}, tier: 1, preference: "{q}"}}' for i, q in enumerate(questions)]
    path.write_text('schema: 1\nname: whole\nversion: "1"\nprinciples:\n' + "\n".join(lines) + "\n")
    return str(path)


def _label(
    data: Path, out: Path, constitution: str, args: argparse.Namespace, **changes: Any
) -> None:
    judge = EngineSettings(model="demo", engine=args.engine)
    job = prepare(str(data), constitution, LabelSettings(judge=judge, **changes))
    run_label(job, out, context=RunContext(cache_dir=args.out / "cache"))


def questions(args: argparse.Namespace) -> None:
    """Agreement with the oracle; both orders always."""
    folder: Path = args.out / "questions"
    folder.mkdir(parents=True, exist_ok=True)
    write_labeled_pairs(folder / "data.jsonl", count=args.pairs, seed=77)
    data = write_pairs(open_source(str(folder / "data.jsonl")), folder / "labeled")
    credits = {}
    ways = {
        "six principles, one at a time": ("demo", 12),
        "one question about all": (_constitution(folder, WHOLE[:1]), 2),
        "six questions about all": (_constitution(folder, WHOLE), 12),
    }
    for name, (constitution, cost) in ways.items():
        out = folder / name.replace(" ", "-").replace(",", "")
        pairs = folder / "labeled" / "pairs.jsonl"
        _label(pairs, out, constitution, args, template="demo")
        outcomes = read_outcomes(out)
        own = aligned(data, outcomes)
        clear = own.label != 0
        right = np.where(outcomes.winner == 0, 0.5, outcomes.winner == own.label)[clear]
        groups = [outcomes.groups[i] for i in np.flatnonzero(clear)]
        credits[name] = right.astype(float)
        found = mean_with_interval(right.astype(float), groups)
        print(
            f"{name} ({cost} verdicts a pair): {100 * found.value:.1f}% right "
            f"({100 * found.low:.1f} to {100 * found.high:.1f})"
        )
    for name in list(ways)[1:]:
        test = paired_test(credits[name], credits["six principles, one at a time"], groups)
        low, high = 100 * test.difference.low, 100 * test.difference.high
        print(f"  {name} less one at a time: {low:+.1f} to {high:+.1f} points")


def training(args: argparse.Namespace) -> None:
    """Oracle win rate against the untrained policy, of pairs that differ; by seed."""
    for judge in args.judges:
        rates: dict[str, list[float]] = {}
        for seed in range(args.seeds):
            for way in _ways(judge):
                rates.setdefault(way.name, []).append(_trained(way, seed, args))
        base = np.array(rates[BASE])
        for name, values in rates.items():
            own = np.array(values)
            mean, half = _interval(own)
            line = f"{judge}, {name}: {100 * mean:.1f}% (+- {100 * half:.1f})"
            if name != BASE:
                mean, half = _interval(own - base)
                line += f"; difference {100 * mean:+.1f} points (+- {100 * half:.1f})"
            print(line, "by seed:", " ".join(f"{100 * v:.1f}" for v in values))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Mean and half of its 95% interval by t; NaN for one value."""
    n = len(values)
    error = values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return float(values.mean()), float(stats.t.ppf(0.975, max(n - 1, 1)) * error)


def _trained(way: Way, seed: int, args: argparse.Namespace) -> float:
    """The oracle's win rate of one training; kept in its folder."""
    name = f"{way.judge}-{way.name}".replace(" ", "-").replace(",", "").replace("'", "")
    sizes = f"{args.train_pairs}-{args.prompts}"
    folder: Path = args.out / f"seed-{seed}-{sizes}" / name
    kept = folder / "result.json"
    if kept.exists():
        return float(json.loads(kept.read_text())["rate"])
    folder.mkdir(parents=True, exist_ok=True)
    pairs = folder.parent / "pairs.jsonl"
    write_demo_pairs(pairs, count=args.train_pairs, seed=1000 + seed)
    _label(
        pairs,
        folder / "labels",
        _constitution(folder, WHOLE[:1]) if way.whole else "demo",
        args,
        template="demo",
        aggregation=AggregationSettings(**way.aggregation),
        **way.labeling,
    )
    if way.judge in WEAK:
        _weaken(folder / "labels", WEAK[way.judge], seed)
    settings = DPOSettings(
        model="demo",
        seed=seed,
        **{**TRAINING, **way.training},
    )
    gates = GateSettings(override="measured on purpose")
    run_training(prepare_dpo(folder / "labels", settings), folder / "policy", gates=gates)
    world = World(2000 + seed, "test")
    prompts = [world.prompt() for _ in range(args.prompts)]
    before = _written(folder.parent / "before.json", demo_model("policy"), prompts, seed)
    after = _written(folder / "after.json", folder / "policy", prompts, seed)
    found = oracle_win_rate(prompts, before, after)
    kept.write_text(json.dumps({"rate": found.rate.rate, "ties": found.ties}))
    return found.rate.rate


def _written(path: Path, policy: Path, prompts: Sequence[str], seed: int) -> list[str]:
    """What a policy writes to the prompts; kept in a file."""
    if not path.exists():
        settings = EngineSettings(
            engine="transformers", model=str(policy), dtype="float32", options={"batch_size": 100}
        )
        engine = create_engine(settings)
        try:
            chats: list[list[Message]] = [[{"role": "user", "content": p}] for p in prompts]
            said = sample_completions(
                engine, chats, max_tokens=MAX_TOKENS, temperature=1.0, seed=seed
            )
        finally:
            engine.close()
        path.write_text(json.dumps(said))
    return list(json.loads(path.read_text()))


SECTIONS = {"questions": questions, "training": training}


def main() -> None:
    """Print the sections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and policies")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--judges", nargs="+", choices=["demo", *WEAK], default=["demo", *WEAK])
    parser.add_argument("--pairs", type=int, default=600, help="for questions")
    parser.add_argument("--train-pairs", type=int, default=800, help="of each training")
    parser.add_argument("--prompts", type=int, default=400, help="that policies answer")
    parser.add_argument("--engine", default="packed", help="that runs the demo judge")
    args = parser.parse_args()
    quiet_libraries()
    for name in args.only:
        print(f"\n{name}: {(SECTIONS[name].__doc__ or '').splitlines()[0]}")
        SECTIONS[name](args)


if __name__ == "__main__":
    main()
