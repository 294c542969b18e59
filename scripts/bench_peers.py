r"""Compares labeling with other ways of asking a judge: same machine, model, pairs and principles.

Every contender runs in a process of its own and waits while another runs.  In each repetition
all of them judge the same new pairs, in rotating order; a warm-up on at most 20 pairs is not
counted.  What is printed are ratios within a repetition: median, lowest, highest.  With --serial,
and on a GPU, which holds one engine at a time, contenders run one after the other: servers of
several processes, which wait by spinning, then do not disturb others.  A contender that fails is
reported, and the others go on.

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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from peers.asked import judge_settings
from peers.in_process import (
    WAYS,
    Runner,
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
from rlaif.cli.common.output import quiet_libraries, table
from rlaif.engines.registry import create_engine

CONTENDERS = (
    "rlaif",
    "planned",
    "packed",
    "generate",
    "generate-uncached",
    "http",
    "transformers",
)
ON_ONE_ENGINE = ("rlaif", "planned", "generate")
"""Contenders that can take turns on one engine, so that a GPU need not load it three times."""
WARM_UP_PAIRS = 20


def serve(names: list[str], args: argparse.Namespace, model: str, pipe: Connection) -> None:
    """A process of contenders on one engine: gets ready, then runs whichever it is told to."""
    quiet_libraries()
    timings: list[Timing] = []
    dtype = args.dtype
    settings = judge_settings(model, "packed" if names == ["packed"] else "vllm", dtype)
    settings = settings.model_copy(update={"quantization": args.quantization})
    engine: Any = None
    runners: dict[str, Runner] = {}
    with ExitStack() as stack:
        if set(names) <= {*ON_ONE_ENGINE, "packed"}:
            engine = create_engine(settings)
        for name in names:
            match name:
                case "rlaif" | "packed":
                    runners[name] = run_rlaif(engine, timings)
                case "planned":
                    runners[name] = run_planned(engine)
                case "generate":
                    runners[name] = run_generate(engine)
                case "generate-uncached":
                    options = {**settings.options, "enable_prefix_caching": False}
                    uncached = settings.model_copy(update={"options": options})
                    runners[name] = run_generate(create_engine(uncached))
                case way if way in WAYS:
                    runners[name] = run_way(model, dtype, way)
                case "http":
                    runners[name] = run_http(model, dtype, stack)
                case labeler if labeler in LABELERS:
                    runners[name] = run_labeler(labeler, model, dtype, args.work, stack)
                case _:
                    runners[name] = run_transformers(model, dtype)
        pipe.send("ready")
        while (message := pipe.recv()) is not None:
            name, folder, seed, workload = message
            label = workload_settings(settings, workload, "pairwise")
            job = write_job(Path(folder), workload, label, seed=seed)
            if hasattr(engine, "_llm"):  # another contender may have left these prompts there
                engine._llm.reset_prefix_cache()
            seconds = runners[name](job, Path(folder))
            limits = None
            if name in ("rlaif", "packed"):
                limits = against_limit(timings[-1], Path(model), settings)
                planned = timings[-1].tokens.predicted
                limits["computed_over_planned"] = timings[-1].computed / planned
            pipe.send((seconds, limits))


class Contenders:
    """A process with one contender, or with several that share an engine in turn.

    Attributes:
        names: of its contenders.
        failed: whether it has stopped by itself.
    """

    def __init__(self, names: list[str], args: argparse.Namespace, model: str) -> None:
        self.names = names
        self.failed = False
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(names, args, model, theirs))
        self._process.start()
        theirs.close()
        if self._receive() is not None:
            print(f"{', '.join(names)}: ready", file=sys.stderr, flush=True)

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self.failed = True
            print(f"{', '.join(self.names)}: failed", file=sys.stderr, flush=True)
            return None

    def ask(
        self, name: str, folder: Path, seed: int, workload: Workload
    ) -> tuple[float, dict[str, float] | None]:
        """Seconds that a contender takes, not a number if it fails; its limits, where known."""
        if self.failed:
            return math.nan, None
        with suppress(OSError):  # that it is gone shows at once
            self._pipe.send((name, str(folder), seed, workload))
        return self._receive() or (math.nan, None)

    def close(self) -> None:
        """End the process, and what it has started."""
        with suppress(OSError):
            self._pipe.send(None)
        self._process.join(60)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [*CONTENDERS, *LABELERS, *WAYS]
    parser.add_argument("--shape", default="22m", choices=SHAPES, help="judge, random weights")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--quantization", help="of the judge, where vLLM runs in the contender's process"
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=[4])
    parser.add_argument("--principles", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--context", type=int, nargs="+", default=[600])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=known)
    parser.add_argument(
        "--serial", action="store_true", help="one process after the other, as always on a GPU"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="leave a contender out of a workload whose repetitions would take it longer",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "rlaif-peers",
        help="where labelers' environments are made and kept (default %(default)s)",
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    quiet_libraries()
    workloads = [
        Workload(pairs, principles, context)
        for pairs in args.pairs
        for context in args.context
        for principles in args.principles
    ]
    found = [Found() for _ in workloads]
    with tempfile.TemporaryDirectory() as scratch:
        model = str(write_judge(args.shape, Path(scratch) / "judge"))
        for group in together(args.contenders, serial=args.serial):
            with ExitStack() as stack:
                processes = []
                for names in group:
                    processes.append(Contenders(names, args, model))
                    stack.callback(processes[-1].close)
                for number, workload in enumerate(workloads):
                    folder = Path(scratch) / str(number)
                    measure(
                        processes=processes,
                        args=args,
                        workload=workload,
                        folder=folder,
                        seed=1000 * number,
                        found=found[number],
                    )
                    report(args, workload, found[number])


def together(contenders: list[str], *, serial: bool) -> list[list[list[str]]]:
    """Groups of processes that run side by side, each with its contenders."""
    if torch.cuda.is_available():
        shared = [name for name in contenders if name in ON_ONE_ENGINE]
        alone = [[name] for name in contenders if name not in shared]
        return [[names] for names in [shared, *alone] if names]
    if serial:
        return [[[name]] for name in contenders]
    return [[[name] for name in contenders]]


@dataclass(frozen=True)
class Found:
    """What was measured on one workload.

    Attributes:
        seconds, limits: by contender, one entry per counted repetition.
        left_out: seconds that a contender would have taken; not a number if it failed.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    limits: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)


def measure(
    processes: list[Contenders],
    args: argparse.Namespace,
    workload: Workload,
    folder: Path,
    seed: int,
    found: Found,
) -> None:
    """Add the seconds and, where known, limits of every contender in each repetition."""
    few = replace(workload, pairs=min(workload.pairs, WARM_UP_PAIRS))
    able: list[tuple[Contenders, str]] = []
    for process in processes:
        for name in process.names:
            once, _ = process.ask(name, folder / f"{name}-warm-up", seed, few)
            expected = once * args.repetitions * workload.pairs / few.pairs
            if expected <= args.patience:
                able.append((process, name))
                found.seconds[name], found.limits[name] = [], []
            else:
                found.left_out[name] = expected
    for repetition in range(1, args.repetitions + 1):
        turn = repetition % max(1, len(able))
        for process, name in able[turn:] + able[:turn]:
            here = folder / f"{name}-{repetition}"
            spent, limit = process.ask(name, here, seed + repetition, workload)
            if math.isnan(spent):
                found.left_out[name] = spent
            found.seconds[name].append(spent)
            if limit:
                found.limits[name].append(limit)
    for name in found.left_out:
        found.seconds.pop(name, None)


def report(args: argparse.Namespace, workload: Workload, measured: Found) -> None:
    """Print speeds, and how many times faster the first was than each, within a repetition."""
    arguments = {"shape": args.shape, "dtype": args.dtype, **vars(workload)}
    verdicts = workload.pairs * workload.principles * 2
    seconds = measured.seconds
    first = "rlaif" if "rlaif" in seconds else next(iter(seconds), "")
    found = []
    for name, spent in seconds.items():
        ratios = [theirs / own for theirs, own in zip(spent, seconds[first], strict=True)]
        entry: dict[str, Any] = {
            "contender": name,
            "verdicts_per_second": verdicts / statistics.median(spent),
            "first_is_faster_by": [statistics.median(ratios), min(ratios), max(ratios)],
        }
        for key in ("limit_fraction", "model_flops_utilization", "computed_over_planned"):
            values = [limit[key] for limit in measured.limits[name] if key in limit]
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
            "{:.2f}".format(e["first_is_faster_by"][0]),
            "{1:.2f} to {2:.2f}".format(*e["first_is_faster_by"]),
            f"{e['limit_fraction']:.2f}" if "limit_fraction" in e else "-",
            f"{e['computed_over_planned']:.3f}" if "computed_over_planned" in e else "-",
        )
        for e in found
    ]
    header = [
        "contender",
        "verdicts/s",
        f"{first} is faster by",
        "from to",
        "limit fraction",
        "computed / planned",
    ]
    print(", ".join(f"{key} {value}" for key, value in arguments.items()))
    print(table(header, rows))
    for name, expected in measured.left_out.items():
        why = "failed" if math.isnan(expected) else f"would take it about {expected:.0f} s"
        print(f"{name} left out: {verdicts} verdicts {why}")
    print(flush=True)


if __name__ == "__main__":
    main()
