"""Measures what critique and revision do to the demo world's responses, by its oracle.

Responses of the held-out split go through `rlaif critique` on the demo writer and judge.  Shown
are: how many principles a response goes against, round by round; how often the final revision is
better or worse than the original; and how many pairs are wrong when the revision is assumed to
win, against those that the judge verified.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rlaif.cli.common.output import quiet_libraries, table
from rlaif.demo.fixing import flaws
from rlaif.demo.oracle import TIERS, answers, prefer
from rlaif.demo.world import World
from rlaif.evaluation.stats.intervals import share


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def violated(prompt: str, text: str) -> int:
    """How many principles a response goes against."""
    return sum(bool(flaws(principle, prompt, text)) for principle in TIERS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--writer", default="demo")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--principles", default="sample", choices=["sample", "all", "worst"])
    parser.add_argument("--until-no-gain", action="store_true")
    args = parser.parse_args()
    quiet_libraries()
    world = World(args.seed, "test")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (folder / "rows.jsonl").open("w") as file:
            for i in range(args.responses):
                prompt = world.prompt()
                row = {"id": f"t{i}", "prompt": prompt, "response": world.response(prompt)}
                file.write(json.dumps(row) + "\n")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "rlaif",
                "critique",
                str(folder / "rows.jsonl"),
                "-c",
                "demo",
                "-m",
                args.writer,
                "--writer-templates",
                "demo",
                "--judge",
                "demo",
                "--judge-engine",
                "packed",
                "--temperature",
                str(args.temperature),
                "--rounds",
                str(args.rounds),
                "--principles",
                args.principles,
                "--cache-dir",
                str(folder / "cache"),
                *(["--until-no-gain"] if args.until_no_gain else []),
                "-o",
                str(folder / "run"),
            ],
            stdout=sys.stderr,
            check=True,
        )
        report(folder / "run", args.rounds)


def report(run: Path, rounds: int) -> None:
    """Print the three tables."""
    columns: list[list[int]] = [[] for _ in range(rounds + 1)]
    overall: Counter[int] = Counter()
    kept = [0, 0]
    traces = read(run / "trace.jsonl")
    for trace in traces:
        prompt, text = trace["prompt"][0]["content"], trace["original"]
        # With several steps a round, the last one that was taken counts.
        by_round = {s["round"]: s["revision"] for s in trace["steps"] if s["taken"]}
        kept[0] += answers(prompt, text)
        for number in range(rounds + 1):
            text = by_round.get(number, text)
            columns[number].append(violated(prompt, text))
        kept[1] += answers(prompt, text)
        overall[prefer(prompt, trace["final"], trace["original"])] += 1
    rows = [
        (number, f"{sum(c) / len(c):.3f}", f"{sum(n == 0 for n in c) / len(c):.1%}")
        for number, c in enumerate(columns)
    ]
    print(table(["after round", "principles violated, mean", "none violated"], rows))
    decided = overall[1] + overall[-1]
    print(
        f"\nfinal revision better than the original: {share(overall[1], decided)} "
        f"({overall[1]} better, {overall[-1]} worse, {overall[0]} equal)"
    )
    total = len(traces)
    print(f"responses that speak of what was asked: {kept[0] / total:.1%} -> {kept[1] / total:.1%}")
    pairs = {p["id"]: p for p in read(run / "pairs.jsonl")}

    def truth(pair: dict[str, Any], winner: str) -> int:
        loser = pair["response_a"] if winner == pair["response_b"] else pair["response_b"]
        return prefer(pair["prompt"][0]["content"], winner, loser)

    found = {
        "assumed: the revision wins": Counter(truth(p, p["response_b"]) for p in pairs.values()),
        "verified by the judge": Counter(
            truth(pairs[row["provenance"]["id"]], row["chosen"][0]["content"])
            for row in read(run / "labels" / "preferences.jsonl")
        ),
    }
    counted = [
        (name, c.total(), c[1], c[0], c[-1], str(share(c[1], c.total())))
        for name, c in found.items()
    ]
    print("\n" + table(["pairs", "all", "right", "equal", "wrong", "right, of all"], counted))


if __name__ == "__main__":
    main()
