"""How much the server costs: like pairs through the bare engine, the Python API and HTTP.

    python scripts/bench_serve.py --pairs 200 --repetitions 3
    python scripts/bench_serve.py --shape 22m --pairs 40 --repetitions 3

Ways take turns, each with an engine of its own, on fresh pairs of the demo world (nothing comes
from a cache), and each repetition compares them side by side.  `bare` gives the engine the same
questions at once, tokenized beforehand; `api` is `Judge.compare_many`; `http` one request per pair
from many clients; `http-batch` requests of 32 pairs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from rlaif.api.judge import Judge
from rlaif.api.remote import RemoteJudge
from rlaif.api.setup import JudgeSettings, prepare_judge, with_defaults
from rlaif.benchmark.shapes import write_judge
from rlaif.demo.world import World
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.judging.prefix_order import common_length
from rlaif.judging.questions import plan_questions, principles_for
from rlaif.records import ChoiceRequest, Pair

PORT = 8377


def make_rows(count: int, seed: int) -> list[dict[str, str]]:
    """Pairs of the demo world."""
    return [
        {"prompt": p.prompt, "response_a": p.response_a, "response_b": p.response_b}
        for p in World(seed, "test").pairs(count)
    ]


class Bare:
    """The engine alone."""

    def __init__(self, engine: str, model: str) -> None:
        judge = EngineSettings(engine=engine, model=model)
        values = with_defaults({"template": "demo", "pointwise": "anchored"}, judge)
        self._setup = prepare_judge("demo", JudgeSettings(**values))
        self._engine: Engine = create_engine(judge)

    def __call__(self, rows: list[dict[str, str]]) -> float:
        """Seconds that the engine takes; rendering is done before."""
        asked: list[ChoiceRequest] = []
        for n, row in enumerate(rows):
            sides = [
                [{"role": "assistant", "content": row[k]}] for k in ("response_a", "response_b")
            ]
            pair = Pair(str(n), [{"role": "user", "content": row["prompt"]}], *sides)  # type: ignore[arg-type]
            questions = plan_questions(pair, principles_for(pair, self._setup.constitution))
            for request in self._setup.judging.renderer.requests(pair, questions, str(n)):
                last = asked[-1].token_ids if asked else ()
                request.shared = common_length(last, request.token_ids)
                asked.append(request)
        began = time.perf_counter()
        done = sum(len(results) for results in self._engine.run(iter(asked)))
        seconds = time.perf_counter() - began
        assert done == len(asked)
        return seconds

    def close(self) -> None:
        """Stop it."""
        self._engine.close()


def timed(work: Callable[[], int], expected: int) -> float:
    """Seconds for work that answers everything."""
    began = time.perf_counter()
    assert work() == expected
    return time.perf_counter() - began


def serve(engine: str, model: str, folder: str) -> subprocess.Popen[bytes]:
    """A server process that is ready."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rlaif",
            "serve",
            "-c",
            "demo",
            "--engine",
            engine,
            "--port",
            str(PORT),
            "--cache-dir",
            folder,
            "--judge",
            model,
            "--writer",
            model,
            "--template",
            "demo",
            "--pointwise",
            "anchored",
            "--label-mass-floor",
            "0",
        ],
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        try:
            if httpx.get(f"http://127.0.0.1:{PORT}/health").status_code == 200:
                return process
        except httpx.HTTPError:
            time.sleep(0.5)
    raise SystemExit("the server did not start")


def one_by_one(rows: list[dict[str, str]], clients: int) -> int:
    """One request per pair, from several clients."""
    with (
        httpx.Client(
            base_url=f"http://127.0.0.1:{PORT}",
            timeout=600,
            limits=httpx.Limits(max_connections=clients),
        ) as http,
        ThreadPoolExecutor(clients) as pool,
    ):
        answers = pool.map(lambda row: http.post("/v1/judge/pairwise", json=row), rows)
        return sum(answer.status_code == 200 for answer in answers)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--shape", help="a judge with random weights, such as 22m")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, str(write_judge(args.shape, Path(folder))) if args.shape else "demo")


def measure(args: argparse.Namespace, model: str) -> None:
    """Take turns and print."""
    ways: dict[str, list[float]] = {"bare": [], "api": [], "http": [], "http-batch": []}
    verdicts = args.pairs * 12
    for repetition in range(args.repetitions + 1):
        for number, way in enumerate(ways):
            rows = make_rows(args.pairs, 1000 * repetition + number)
            warm = make_rows(20, 900_000 + 1000 * repetition + number)
            with tempfile.TemporaryDirectory() as folder:
                if way == "bare":
                    bare = Bare(args.engine, model)
                    bare(warm)
                    seconds = bare(rows)
                    bare.close()
                elif way == "api":
                    with Judge(
                        "demo",
                        model,
                        engine=args.engine,
                        cache_dir=folder,
                        template="demo",
                        pointwise="anchored",
                        label_mass_floor=0.0,
                    ) as judge:
                        list(judge.compare_many(warm))
                        seconds = timed(lambda: len(list(judge.compare_many(rows))), args.pairs)  # noqa: B023
                else:
                    process = serve(args.engine, model, folder)
                    with RemoteJudge(f"http://127.0.0.1:{PORT}") as remote:
                        list(remote.compare_many(warm))
                        if way == "http":
                            seconds = timed(lambda: one_by_one(rows, args.clients), args.pairs)  # noqa: B023
                        else:
                            seconds = timed(
                                lambda: len(list(remote.compare_many(rows))),  # noqa: B023
                                args.pairs,
                            )
                    process.terminate()
                    process.wait()
            if repetition:  # the first round warms the machine
                ways[way].append(verdicts / seconds)
                print(f"{way:>10}  {verdicts / seconds:8.0f} verdicts/s", flush=True)
    print(f"\n{'way':>10}  {'median':>8}  {'of bare, by repetition':>24}")
    for way, rates in ways.items():
        shares = [rate / bare for rate, bare in zip(rates, ways["bare"], strict=True)]
        shown = f"{statistics.median(shares):.2f} [{min(shares):.2f}, {max(shares):.2f}]"
        print(f"{way:>10}  {statistics.median(rates):8.0f}  {shown:>24}")


if __name__ == "__main__":
    main()
