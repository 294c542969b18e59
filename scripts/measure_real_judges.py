"""Imports recorded verdicts of real judges and checks accuracy and consistency by hand arithmetic.

    python scripts/measure_real_judges.py FOLDER [--set llmbar-] [--way Vanilla]

FOLDER has `pairs.jsonl` (`id`, `set`, `prompt`, `response_a`, `response_b`, `winner`) and
`verdicts.csv.gz` (`id`, `judge`, `way`, `shown_ab`, `shown_ba`).  Nothing of it is kept.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

from rlaif.cli.common.output import echo, percent, quiet_libraries, table
from rlaif.engines.base import EngineSettings, Option
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.recorded import TEMPLATE
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.runs.directory import read_rows


def by_hand(rows: list[dict[str, str]], gold: dict[str, str]) -> tuple[float, float]:
    """Share of both orders' verdicts that are right, and of pairs on which they agree."""
    right = sum((r["shown_ab"] == gold[r["id"]]) + (r["shown_ba"] == gold[r["id"]]) for r in rows)
    same = sum(bool(r["shown_ab"]) and r["shown_ab"] == r["shown_ba"] for r in rows)
    return right / (2 * len(rows)), same / len(rows)


def of_run(run: Path, gold: dict[str, str]) -> tuple[set[str], float, float, float]:
    """The pairs that were asked about, the same from the run's verdicts, and the share of decided
    pairs that are right.  Equal or empty responses need no verdict.
    """
    verdicts: dict[str, dict[str, str]] = {}
    asked: set[str] = set()
    for _, row in read_rows(run / "verdicts.jsonl"):
        asked.add(str(row["pair"]))
        if not row["invalid"]:
            first = row["p_first"] > 0.5
            side = row["order"][0] if first else row["order"][1]
            verdicts.setdefault(str(row["pair"]), {})[row["order"]] = side
    right = sum(side == gold[pair] for pair, told in verdicts.items() for side in told.values())
    same = sum(len(told) == 2 and len(set(told.values())) == 1 for told in verdicts.values())
    decided = [row["provenance"] for _, row in read_rows(run / "preferences.jsonl")]
    hits = sum(d["winner"] == gold[str(d["id"])] for d in decided)
    return asked, right / (2 * len(asked)), same / len(asked), hits / max(1, len(decided))


def main() -> None:
    """Parse, import, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", default="llmbar-")
    parser.add_argument("--way", default="Vanilla", help="a way of asking, or all")
    args = parser.parse_args()
    quiet_libraries()
    pairs = [json.loads(line) for line in (args.folder / "pairs.jsonl").open()]
    pairs = [p for p in pairs if p["set"].startswith(args.set)]
    # Pairs with the same texts can't be told apart.
    texts = Counter((p["prompt"], *sorted((p["response_a"], p["response_b"]))) for p in pairs)
    pairs = [
        p for p in pairs if texts[p["prompt"], *sorted((p["response_a"], p["response_b"]))] == 1
    ]
    gold = {p["id"]: p["winner"] for p in pairs}
    with gzip.open(args.folder / "verdicts.csv.gz", "rt") as file:
        told = [r for r in csv.DictReader(file) if r["id"] in gold]
    told = [r for r in told if args.way in ("all", r["way"])]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for judge, way in dict.fromkeys((r["judge"], r["way"]) for r in told):
            own = [r for r in told if (r["judge"], r["way"]) == (judge, way)]
            known = {r["id"] for r in own}
            data = Path(folder) / f"{judge}-{way}.jsonl"
            data.write_text("".join(json.dumps(p) + "\n" for p in pairs if p["id"] in known))
            options: dict[str, Option] = {
                "verdicts": str(args.folder / "verdicts.csv.gz"),
                "pairs": str(data),
                "where": f"judge={judge}&way={way}",
            }
            engine = EngineSettings(engine="recorded", model=judge, options=options)
            job = prepare(str(data), "overall", LabelSettings(judge=engine, template=TEMPLATE))
            run = Path(folder) / f"{judge}-{way}"
            run_label(job, run, RunContext(cache_dir=Path(folder) / "cache"))
            asked, accuracy, same, decided = of_run(run, gold)
            own = [r for r in own if r["id"] in asked]
            hand = by_hand(own, gold)
            assert (round(accuracy, 9), round(same, 9)) == tuple(round(x, 9) for x in hand)
            rows.append((judge, way, len(own), *map(percent, (accuracy, same, decided))))
    echo(table(["judge", "way", "pairs", "right", "consistent", "right of decided"], rows))


if __name__ == "__main__":
    main()
