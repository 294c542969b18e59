"""Compares judge engines side by side: the same pairs, in turn, in one run, as ratios.

Also measures what planning, aggregation and storing cost without any model (the scripted engine),
on the same pairs.  Each repetition runs every engine once, in rotating order; the first
repetition is a warm-up and is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rlaif.cli.common.output import quiet_libraries, table
from rlaif.demo.world import World
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.labeling.job import LabelJob, prepare
from rlaif.labeling.labeler import Labeler
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.directory import RunDirectory
from rlaif.store.verdict_cache import VerdictCache


def verdicts_per_second(job: LabelJob, engine: Engine, folder: Path) -> float:
    """One labeling run on a running engine, with a cache and a run directory of its own."""
    folder.mkdir()
    with (
        closing(VerdictCache(folder / "cache.sqlite")) as cache,
        closing(RunDirectory(folder / "run", job.config)) as run,
    ):
        labeler = Labeler(job.task, engine, cache, run)
        began = time.perf_counter()
        tally = labeler.label(job.source)
        return tally.verdicts / (time.perf_counter() - began)


def _judge(engine: str, model: str) -> EngineSettings:
    return EngineSettings(engine=engine, model=model)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--judge", default="demo")
    args = parser.parse_args()
    quiet_libraries()
    names = ["vllm", "packed", "transformers", "scripted"]
    with tempfile.TemporaryDirectory() as scratch:
        engines = {name: create_engine(_judge(name, args.judge)) for name in names}
        speeds: dict[str, list[float]] = {name: [] for name in names}
        for repetition in range(args.repetitions + 1):
            # New pairs each time: an engine's prefix cache must not know them already.
            data = Path(scratch) / f"pairs-{repetition}.jsonl"
            rows = [vars(pair) for pair in World(77 + repetition, "test").pairs(args.pairs)]
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
            for name in names[repetition % 4 :] + names[: repetition % 4]:
                settings = LabelSettings(judge=_judge(name, args.judge), template="demo")
                job = prepare(str(data), "demo", settings)
                folder = Path(scratch) / f"{repetition}-{name}"
                speed = verdicts_per_second(job, engines[name], folder)
                if repetition:
                    speeds[name].append(speed)
        for engine in engines.values():
            engine.close()
    shown = []
    for name in names:
        ratios = [a / b for a, b in zip(speeds[name], speeds["transformers"], strict=True)]
        shown.append(
            (
                name,
                f"{statistics.median(speeds[name]):.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            )
        )
    print(table(["engine", "verdicts/s (median)", "ratio to transformers", "spread"], shown))


if __name__ == "__main__":
    main()
