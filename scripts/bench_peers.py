r"""Compares labeling with other ways of asking a judge: same machine, model, pairs and principles.

Every contender runs in a process of its own and waits while another runs.  In each repetition
all of them judge the same new pairs, in rotating order; a warm-up on at most 20 pairs is not
counted.  What is printed are ratios within a repetition: median, lowest, highest.  (On a GPU,
which holds one engine at a time, contenders run one after the other.)

Contenders: `rlaif` (this package on vLLM); `packed` (this package on its packed engine);
`planned` (vLLM's `LLM.generate` on the requests that rlaif planned, all at hand: the ceiling);
`generate` and `generate-uncached` (`LLM.generate`, one principle-first prompt per verdict, prefix
caching on and off); `http` (64 requests at a time to a vLLM server, principle first);
`transformers` (batched `generate`, principle first).  Asked for by name: the labelers `distilabel`
and `oumi`, each with its own code in an environment of its own (below --work, made the first time)
on a vLLM server, principle first; ways of running the engine on the planned requests,
`own-process`, `sha256`, `block-128` and `classify` (a classification head made of the label
tokens, which tells their difference and no label mass).

How cost grows, leaving out who would take over five minutes for a line:

    python scripts/bench_peers.py --shape 4m --pairs 100 1000 10000 --principles 1 4 16 \
        --context 200 2000 --repetitions 1 --patience 300 --contenders rlaif packed generate http
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from peers.asked import judge_settings
from peers.in_process import (
    WAYS,
    run_generate,
    run_planned,
    run_rlaif,
    run_transformers,
    run_way,
)
from peers.served import LABELERS, run_http, run_labeler

from rlaif.benchmark.measure import Timing, against_limit, workload_settings, write_job
from rlaif.benchmark.shapes import SHAPES, write_judge
from rlaif.benchmark.workload import Workload
from rlaif.cli.output import quiet_libraries, table
from rlaif.engines.base import create_engine

CONTENDERS = (
    "rlaif", "planned", "packed", "generate", "generate-uncached", "http", "transformers",
)  # fmt: skip
WARM_UP_PAIRS = 20
Seconds = dict[str, list[float]]
Limits = dict[str, list[dict[str, float]]]


def serve(name: str, model: str, dtype: str, work: Path, pipe: Connection) -> None:
    """A contender's process: gets ready, then runs a job whenever it is told to."""
    quiet_libraries()
    timings: list[Timing] = []
    settings = judge_settings(model, "packed" if name == "packed" else "vllm", dtype)
    with ExitStack() as stack:
        match name:
            case "rlaif" | "packed":
                run = run_rlaif(create_engine(settings), timings)
            case "planned":
                run = run_planned(create_engine(settings))
            case "generate" | "generate-uncached":
                run = run_generate(model, dtype, caching=name == "generate")
            case way if way in WAYS:
                run = run_way(model, dtype, way)
            case "http":
                run = run_http(model, dtype, stack)
            case labeler if labeler in LABELERS:
                run = run_labeler(labeler, model, dtype, work, stack)
            case _:
                run = run_transformers(model, dtype)
        pipe.send("ready")
        while (message := pipe.recv()) is not None:
            folder, seed, workload = message
            label = workload_settings(settings, workload, "pairwise")
            job = write_job(Path(folder), workload, label, seed=seed)
            seconds = run(job, Path(folder))
            limits = None
            if timings:
                limits = against_limit(timings[-1], Path(model), settings)
                planned = timings[-1].tokens.predicted
                limits["computed_over_planned"] = timings[-1].computed / planned
            pipe.send((seconds, limits))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="22m", choices=SHAPES, help="judge, random weights")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--pairs", type=int, nargs="+", default=[4])
    parser.add_argument("--principles", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--context", type=int, nargs="+", default=[600])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--contenders", nargs="+", default=CONTENDERS, choices=[*CONTENDERS, *LABELERS, *WAYS]
    )
    parser.add_argument(
        "--serial", action="store_true", help="one contender after the other, as always on a GPU"
    )
    parser.add_argument(
        "--patience", type=float, default=math.inf, metavar="SECONDS",
        help="leave a contender out of a workload whose repetitions would take it longer",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "rlaif-peers",
        help="where labelers' environments are made and kept (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    quiet_libraries()
    workloads = [
        Workload(pairs, principles, context)
        for pairs in args.pairs
        for context in args.context
        for principles in args.principles
    ]
    serial = args.serial or torch.cuda.is_available()
    groups = [[name] for name in args.contenders] if serial else [list(args.contenders)]
    found = [Found() for _ in workloads]
    with tempfile.TemporaryDirectory() as scratch:
        model = str(write_judge(args.shape, Path(scratch) / "judge"))
        for group in groups:
            with started(group, model, args.dtype, args.work) as pipes:
                for number, workload in enumerate(workloads):
                    folder = Path(scratch) / str(number)
                    few = replace(workload, pairs=min(workload.pairs, WARM_UP_PAIRS))
                    expected = {}
                    for name, pipe in pipes.items():
                        once, _ = ask(pipe, folder / f"{name}-warm-up", 1000 * number, few)
                        expected[name] = once * args.repetitions * workload.pairs / few.pairs
                    able = {n: p for n, p in pipes.items() if expected[n] <= args.patience}
                    seconds, limits = measure(
                        able, workload, args.repetitions, folder, 1000 * number
                    )
                    found[number].seconds.update(seconds)
                    found[number].limits.update(limits)
                    found[number].left_out.update(
                        {n: t for n, t in expected.items() if n not in able}
                    )
                    if not serial:
                        report(args, workload, found[number])
    if serial:
        for workload, entry in zip(workloads, found, strict=True):
            report(args, workload, entry)


@dataclass(frozen=True)
class Found:
    """What was measured on one workload.

    Attributes:
        seconds, limits: by contender, one entry per counted repetition.
        left_out: seconds that a contender would have taken.
    """

    seconds: Seconds = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)


@contextmanager
def started(
    names: list[str], model: str, dtype: str, work: Path
) -> Iterator[dict[str, Connection]]:
    """Contenders in processes of their own, all ready."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    workers = []
    for name in names:
        ours, theirs = spawn.Pipe()
        worker = spawn.Process(target=serve, args=(name, model, dtype, work, theirs))
        worker.start()
        theirs.close()
        workers.append(worker)
        assert ours.recv() == "ready"
        pipes[name] = ours
        print(f"{name} is ready", file=sys.stderr, flush=True)
    yield pipes
    for pipe in pipes.values():
        with closing(pipe):
            pipe.send(None)
    for worker in workers:
        worker.join(30)


def ask(
    pipe: Connection, folder: Path, seed: int, workload: Workload
) -> tuple[float, dict[str, float] | None]:
    """Seconds that a contender takes for a workload, and its limits where it knows them."""
    pipe.send((str(folder), seed, workload))
    spent, limit = pipe.recv()
    return spent, limit


def measure(
    pipes: dict[str, Connection], workload: Workload, repetitions: int, folder: Path, seed: int
) -> tuple[Seconds, Limits]:
    """Seconds and, where known, limits of every contender in each repetition."""
    seconds: Seconds = {name: [] for name in pipes}
    limits: Limits = {name: [] for name in pipes}
    for repetition in range(1, repetitions + 1):
        names = list(pipes)
        turn = repetition % max(1, len(names))
        for name in names[turn:] + names[:turn]:
            here = folder / f"{name}-{repetition}"
            spent, limit = ask(pipes[name], here, seed + repetition, workload)
            seconds[name].append(spent)
            if limit:
                limits[name].append(limit)
    return seconds, limits


def report(args: argparse.Namespace, workload: Workload, measured: Found) -> None:
    """Print speeds, and how many times faster rlaif was than each, within a repetition."""
    arguments = {"shape": args.shape, "dtype": args.dtype, **vars(workload)}
    verdicts = workload.pairs * workload.principles * 2
    seconds = measured.seconds
    ours = seconds.get("rlaif") or next(iter(seconds.values()), [])
    found = []
    for name, spent in seconds.items():
        ratios = [theirs / own for theirs, own in zip(spent, ours, strict=True)]
        entry: dict[str, Any] = {
            "contender": name,
            "verdicts_per_second": verdicts / statistics.median(spent),
            "rlaif_is_faster_by": [statistics.median(ratios), min(ratios), max(ratios)],
        }
        for key in ("limit_fraction", "model_flops_utilization", "computed_over_planned"):
            values = [limit[key] for limit in measured.limits[name]]
            if values:
                entry[key] = statistics.median(values)
        found.append(entry)
    if args.json:
        left_out = measured.left_out
        shown = {"arguments": arguments, "contenders": found, "left_out_seconds": left_out}
        print(json.dumps(shown), flush=True)
        return
    rows = [
        (
            e["contender"],
            f"{e['verdicts_per_second']:.1f}",
            "{:.2f}".format(e["rlaif_is_faster_by"][0]),
            "{1:.2f} to {2:.2f}".format(*e["rlaif_is_faster_by"]),
            f"{e['limit_fraction']:.2f}" if "limit_fraction" in e else "-",
            f"{e['computed_over_planned']:.3f}" if "computed_over_planned" in e else "-",
        )
        for e in found
    ]
    header = ["contender", "verdicts/s", "rlaif is faster by", "from to", "limit fraction",
              "computed / planned"]  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in arguments.items()))
    print(table(header, rows))
    for name, expected in measured.left_out.items():
        print(f"{name} left out: {verdicts} verdicts would take it about {expected:.0f} s")
    print(flush=True)


if __name__ == "__main__":
    main()
