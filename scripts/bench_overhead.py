"""Measures what labeling costs without a judge, and that its memory does not grow with the data.

The scripted engine answers by a hash, so that only reading, planning, tokenizing (into bytes),
aggregation and storing are left.  Each size runs in a process of its own; a finished run is then
asked for again, which must take no time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rlaif.cli.common.output import quiet_libraries, table
from rlaif.runs.context import RunContext

SHARD_ROWS, PART_ROWS = 1000, 10_000


def write_data(path: Path, pairs: int) -> None:
    """Pairs of some 170 characters, none like another."""
    with path.open("w") as file:
        for i in range(pairs):
            row = {
                "prompt": f"How do I clean kettle number {i}?",
                "response_a": f"Use warm water and {i % 7} drops of vinegar, then dry the kettle.",
                "response_b": f"I do not know, {i}, go away and stop asking.",
            }
            file.write(json.dumps(row) + "\n")


def write_constitution(path: Path, principles: int) -> None:
    """Principles in three tiers."""
    lines = ["schema: 1", "name: overhead", 'version: "1"', "principles:"]
    for i in range(principles):
        text = f"Which response is better in way {i}?"
        lines.append(f'  - {{id: p{i}, tier: {1 + i % 3}, preference: "{text}"}}')
    path.write_text("\n".join(lines) + "\n")


def run(folder: Path, orders: str, labelers: int | None, parts: bool) -> dict[str, float]:
    """Label, then ask for the same again; in this process, or by labelers beside it."""
    from rlaif.engines.base import EngineSettings
    from rlaif.labeling.job import Split, prepare, run_label
    from rlaif.labeling.part_run import PartPlan
    from rlaif.labeling.settings import LabelSettings

    judge = EngineSettings(
        engine="scripted", model="hashed", max_in_flight=256, data_parallel_size=labelers or 1
    )
    settings = LabelSettings(judge=judge, template="demo", orders=orders)  # type: ignore[arg-type]
    data, constitution = str(folder / "pairs.jsonl"), str(folder / "constitution.yaml")
    began, cpu = time.perf_counter(), time.process_time()
    summary = run_label(
        prepare(data, constitution, settings),
        folder / "run",
        context=RunContext(cache_dir=folder / "cache.sqlite"),
        split=Split(parts=PartPlan(PART_ROWS))
        if parts
        else Split(SHARD_ROWS if labelers else None),
    )
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    again = run_label(
        prepare(data, constitution, settings),
        folder / "run",
        context=RunContext(cache_dir=folder / "cache.sqlite"),
    )
    assert summary.fresh
    assert not again.fresh
    return {
        "verdicts": summary.tally.verdicts,
        "per_second": summary.tally.verdicts / wall,
        "labeling_per_second": summary.tally.verdicts / summary.manifest["seconds"],
        "per_cpu_second": summary.tally.verdicts / cpu,
        "peak_mib": peak,
        "again_seconds": time.perf_counter() - began,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--principles", type=int, default=6)
    parser.add_argument("--orders", choices=["both", "one"], default="both")
    parser.add_argument(
        "--labelers", type=int, metavar="N", help=f"shards of {SHARD_ROWS} rows go to N processes"
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help=f"those processes read and write parts of {PART_ROWS} rows themselves",
    )
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    quiet_libraries()
    if args.folder:
        print(json.dumps(run(Path(args.folder), args.orders, args.labelers, args.parts)))
        return
    rows = []
    for pairs in args.pairs:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_data(folder / "pairs.jsonl", pairs)
            write_constitution(folder / "constitution.yaml", args.principles)
            done = subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--folder",
                    scratch,
                    "--orders",
                    args.orders,
                    *(["--labelers", str(args.labelers)] if args.labelers else []),
                    *(["--parts"] if args.parts else []),
                ],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
        rows.append(
            (
                f"{pairs:,}",
                f"{found['verdicts']:,.0f}",
                f"{found['per_second']:,.0f}",
                f"{found['labeling_per_second']:,.0f}",
                f"{found['per_cpu_second']:,.0f}",
                f"{found['peak_mib']:.0f}",
                f"{found['again_seconds']:.2f}",
            )
        )
    header = [
        "pairs",
        "verdicts",
        "verdicts/s",
        "once started",
        "per CPU second here",
        "peak MiB",
        "again, seconds",
    ]
    print(table(header, rows))


if __name__ == "__main__":
    main()
