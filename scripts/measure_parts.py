"""Measures runs in parts: what storage costs, what the asking process costs, and what follows.

1. Storage: a worker's microseconds and bytes a verdict for what a part leaves (verdicts and
   answers), and for finding the answers again, over `--keys` keys in files of one part each; the
   memory at the end against that after the first part.
2. The asking process: the real pool and the real records, with `--labelers` labelers in simulated
   time that answer `--rate` verdicts/s each.  Some die, some are slow.  Its CPU time is real.
3. On paper: verdicts/s that storage and the asking process allow.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif.cli.common.output import table
from rlaif.data.cutting import InputPart
from rlaif.engines.base import EngineSettings
from rlaif.engines.workers import WorkerDied
from rlaif.labeling import labeler_pool, part_pool
from rlaif.labeling.label_worker import WorkerCounts, WorkerReady, WorkerReport
from rlaif.labeling.part_pool import PartedLabeling, PartPool
from rlaif.labeling.part_worker import PartDone
from rlaif.labeling.usage import UsageMeter
from rlaif.records import Pair, Verdict
from rlaif.runs.part_files import PartFiles
from rlaif.runs.parts import PartIndex, PartRecord
from rlaif.runs.rows import VerdictRows
from rlaif.runs.tally import Tally, dump_tally
from rlaif.store.part_answers import ANSWERS, KnownAnswers, PartAnswers
from rlaif.store.verdict_cache import CachedAnswer

BATCH = 2048
"""Answers that a labeler keeps at a time."""


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure_storage(folder: Path, keys: int, rows: int, principles: int) -> dict[str, float]:
    """Write and read the parts of so many keys, part by part."""
    rng = random.Random(1)
    per_pair = 2 * principles
    parts = max(1, round(keys / (rows * per_pair)))
    names = [f"principle-{n}" for n in range(principles)]
    spent = dict.fromkeys(("verdicts", "answers", "look up"), 0.0)
    held, first, done = 0, 0.0, 0
    for number in range(parts):
        home = folder / f"{number:06d}"
        attempt = home / "1"
        attempt.mkdir(parents=True)
        files, answers = PartFiles(), PartAnswers(home, "1")
        asked: list[bytes] = []
        batch: list[tuple[bytes, CachedAnswer]] = []
        for i in range(rows):
            begins = rng.randbytes(5)
            own = [begins + rng.randbytes(11) for _ in range(per_pair)]
            logits = [rng.gauss(0.0, 2.0) for _ in own]
            verdicts = [
                Verdict(names[k // 2], ("ab", "ba")[k % 2], logit, 0.98)
                for k, logit in enumerate(logits)
            ]
            pair = Pair(id=f"row-{i + 1}", row=number * rows + i + 1, prompt=[], a=[], b=[])
            began = time.process_time()
            files.append("verdicts.jsonl", VerdictRows(pair, verdicts, own))
            spent["verdicts"] += time.process_time() - began
            batch += [
                (k, CachedAnswer((x - 1.0, -x - 1.0))) for k, x in zip(own, logits, strict=True)
            ]
            asked += own
            if len(batch) >= BATCH or i + 1 == rows:
                began = time.process_time()
                answers.get([key for key, _ in batch])
                answers.put(batch)
                spent["answers"] += time.process_time() - began
                batch = []
        began = time.process_time()
        files.write(attempt)
        spent["verdicts"] += time.process_time() - began
        began = time.process_time()
        answers.finish(attempt / ANSWERS)
        spent["answers"] += time.process_time() - began
        part_pool.remove_folder(home / "answers-under-way")
        began = time.process_time()
        known = KnownAnswers([attempt / ANSWERS])
        found = sum(
            len(known.find(asked[start : start + BATCH])) for start in range(0, len(asked), BATCH)
        )
        spent["look up"] += time.process_time() - began
        assert found == len(asked)
        held += sum(file.stat().st_size for file in attempt.iterdir())
        done += len(asked)
        del files, answers, known, asked
        first = first or resident()
    return {
        "keys": done,
        **{name: seconds / done * 1e6 for name, seconds in spent.items()},
        "bytes": held / done,
        "first": first,
        "last": resident(),
    }


class SimulatedLabelers:
    """A backend in simulated time.

    Args:
        seconds: that a part takes a labeler, by its number.
        dies: whether a labeler dies at this part.
    """

    def __init__(self, seconds: Callable[[int], float], dies: Callable[[], bool]) -> None:
        self.make: Any = None
        self.now = 0.0
        self._seconds, self._dies = seconds, dies
        self._events: list[tuple[float, int, int, Any]] = []
        self._count = 0
        self._queues: dict[int, list[Any]] = {}
        self._until: dict[int, float] = {}

    def _at(self, when: float, number: int, what: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, number, what))

    def start(self, number: int) -> None:
        """A start takes half a minute."""
        self._queues[number], self._until[number] = [], 0.0
        self._at(self.now + 30.0, number, WorkerReady("simulated"))

    def submit(self, number: int, tasks: list[Any]) -> None:
        """A call ends with the first part that is done."""
        for task in tasks:
            begins = max(self.now, self._until[number])
            self._until[number] = begins + self._seconds(number)
            self._queues[number].append((self._until[number], task))
        when, task = self._queues[number][0]
        if self._dies():
            self._queues[number] = []
            self._at(self.now + (when - self.now) / 2, number, WorkerDied("it was taken away"))
        else:
            self._at(when, number, task)

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        """The next event; time passes."""
        if not self._events or (seconds is not None and self._events[0][0] > self.now + seconds):
            self.now += seconds or 0.0
            return []
        self.now, _, number, what = heapq.heappop(self._events)
        if isinstance(what, WorkerReady | WorkerDied):
            return [(number, what)]
        self._queues[number].pop(0)
        tally = Tally(rows=what.input.count, pairs=what.input.count)
        record = PartRecord(what.part, what.attempt, tally.rows, {"x": 1}, dump_tally(tally))
        return [(number, WorkerReport(WorkerCounts(), [PartDone(what.first, record)]))]

    def close(self) -> None:
        """Nothing runs."""


class SimulatedLabeling(PartedLabeling):
    """Records are real, and the files that they tell of are not."""

    def _check_seen(self, record: PartRecord) -> None:
        pass


def simulate(
    folder: Path, *, labelers: int, parts: int, rows: int, part_seconds: float, seed: int
) -> dict[str, float]:
    """A run of so many parts by labelers in simulated time; CPU time and memory are real."""
    rng = random.Random(seed)
    # One labeler in sixteen is three times as slow; one part in five hundred loses its labeler.
    pace = [3.0 if n % 16 == 15 else 1.0 for n in range(labelers)]
    backend = SimulatedLabelers(
        lambda number: part_seconds * pace[number] * rng.uniform(0.9, 1.1),
        lambda: rng.random() < 0.002,
    )
    vars(labeler_pool)["open_backend"] = lambda _: backend
    real, clock = time.monotonic, lambda: backend.now
    judge = EngineSettings(engine="scripted", model="hashed", data_parallel_size=labelers)
    cuts = [
        InputPart(file="x", kind="jsonl", label="", first=n * rows, count=rows, before=0).to_data()
        for n in range(parts)
    ]
    index = PartIndex(rows, "", "simulated", cuts)
    index.save(folder)
    sink = PartFiles()
    before, began = resident(), time.process_time()
    time.monotonic = clock
    try:
        pool = PartPool(judge, None)  # type: ignore[arg-type]
        labeling = SimulatedLabeling(
            pool,
            folder,
            index,
            UsageMeter(sink, pool),
            reasons=False,
            earlier={},
            on_progress=lambda _: None,
        )
        tally = labeling.label()
    finally:
        time.monotonic = real
    assert tally.rows == parts * rows
    return {
        "simulated": backend.now,
        "cpu": time.process_time() - began,
        "memory": resident() - before,
        "index": (folder / "parts.json").stat().st_size
        + (folder / "finished-parts.jsonl").stat().st_size,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=float, default=1e7)
    parser.add_argument("--rows", type=int, default=10_000, help="of the input in a part")
    parser.add_argument("--principles", type=int, default=16)
    parser.add_argument("--labelers", type=int, default=64)
    parser.add_argument("--pairs", type=float, default=1e8)
    parser.add_argument("--rate", type=float, default=5000.0, help="verdicts/s of a labeler")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure_storage(Path(scratch), int(args.keys), args.rows, args.principles)
    each = found["verdicts"] + found["answers"]
    print(
        table(
            [
                "keys",
                "verdicts, us",
                "answers, us",
                "look up, us",
                "bytes",
                "MiB, first part",
                "last",
            ],
            [
                (
                    f"{found['keys']:,.0f}",
                    *(f"{found[n]:.2f}" for n in ("verdicts", "answers", "look up")),
                    f"{found['bytes']:.1f}",
                    f"{found['first']:.0f}",
                    f"{found['last']:.0f}",
                )
            ],
        )
    )
    verdicts = args.rows * 2 * args.principles
    parts = int(args.pairs / args.rows)
    with tempfile.TemporaryDirectory() as scratch:
        run = simulate(
            Path(scratch),
            labelers=args.labelers,
            parts=parts,
            rows=args.rows,
            part_seconds=verdicts / args.rate,
            seed=1,
        )
    total = parts * verdicts
    ideal = total / (args.rate * (args.labelers - args.labelers // 16 * 2 / 3))
    print()
    print(
        table(
            [
                "parts",
                "verdicts",
                "hours",
                "verdicts/s",
                "of the labelers'",
                "CPU s here",
                "MiB",
                "KiB",
            ],
            [
                (
                    f"{parts:,}",
                    f"{total:,.0f}",
                    f"{run['simulated'] / 3600:.2f}",
                    f"{total / run['simulated']:,.0f}",
                    f"{ideal / run['simulated']:.1%}",
                    f"{run['cpu']:.1f}",
                    f"{run['memory']:.0f}",
                    f"{run['index'] / 1024:,.0f}",
                )
            ],
        )
    )
    print(
        f"\non paper: storage allows {1e6 / each:,.0f} verdicts/s a worker's core, "
        f"{args.labelers * 1e6 / each:,.0f} from {args.labelers}; the process that asks "
        f"{total / run['cpu']:,.0f}"
    )
    print(json.dumps({**found, **run}))


if __name__ == "__main__":
    main()
