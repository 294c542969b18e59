"""Compares labeling with other ways of asking a judge: same machine, model, pairs and principles.

Every contender runs in a process of its own and waits while another runs.  In each repetition
all of them judge the same new pairs, in rotating order; the first repetition is a warm-up and is
not counted.  What is printed are ratios within a repetition: median, lowest, highest.  (On a GPU,
which holds one engine at a time, contenders run one after the other.)

Contenders: `rlaif` (this package on vLLM); `packed` (this package on its packed engine);
`planned` (vLLM's `LLM.generate` on the requests that rlaif planned, all at hand: the ceiling);
`generate` and `generate-uncached` (`LLM.generate`, one principle-first prompt per verdict, prefix
caching on and off); `http` (64 requests at a time to a vLLM server, principle first);
`transformers` (batched `generate`, principle first).  Asked for by name: ways of running the engine
on the planned requests, `own-process`, `sha256`, `block-128` and `classify` (a classification head
made of the label tokens, which tells their difference and no label mass).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from rlaif.benchmark.measure import (
    Timing,
    WatchedEngine,
    against_limit,
    label_once,
    workload_settings,
    write_job,
)
from rlaif.benchmark.shapes import SHAPES, write_judge
from rlaif.benchmark.workload import Workload
from rlaif.cli.output import quiet_libraries, table
from rlaif.engines.base import Codec, Engine, EngineSettings, codec_for, create_engine
from rlaif.pipeline.job import LabelJob
from rlaif.pipeline.planning import Planner
from rlaif.pipeline.rendering import Renderer
from rlaif.prompts import completion_text, conversation_text
from rlaif.stages.layouts import read_row
from rlaif.stages.ordering import walk
from rlaif.stages.pairing import make_pairs

CONTENDERS = (
    "rlaif", "planned", "packed", "generate", "generate-uncached", "http", "transformers",
)  # fmt: skip
WAYS: dict[str, dict[str, str | int]] = {
    "own-process": {},
    "sha256": {"prefix_caching_hash_algo": "sha256"},
    "block-128": {"block_size": 128},
    "classify": {},
}
CONCURRENCY = 64
Runner = Callable[[LabelJob, Path], float]
Seconds = dict[str, list[float]]
Limits = dict[str, list[dict[str, float]]]


def judge_settings(model: str, engine: str, dtype: str) -> EngineSettings:
    """The judge as every contender runs it."""
    dummy = not any(Path(model).glob("*.safetensors"))
    options: dict[str, str | int | float | bool] = {}
    if dummy:
        options["load_format"] = "dummy"
    return EngineSettings(engine=engine, model=model, dtype=dtype, options=options)  # type: ignore[arg-type]


def principle_first(job: LabelJob) -> list[str]:
    """What a plain script asks: the principle, then the pair; one prompt per verdict."""
    prompts = []
    for _, row in job.source.rows():
        assert isinstance(row, dict)
        for pair in make_pairs(read_row(row), ""):
            for one, two in ((pair.a, pair.b), (pair.b, pair.a)):
                prompts += [
                    f"Which response follows the principle better? Principle: {p.preference}\n\n"
                    f"[Conversation]\n{conversation_text(pair.prompt)}\n\n"
                    f"[Response A]\n{completion_text(one)}\n\n"
                    f"[Response B]\n{completion_text(two)}\n\nAnswer A or B."
                    for p in job.constitution.principles
                ]
    return prompts


def run_rlaif(engine: Engine, timings: list[Timing]) -> Runner:
    """The whole of `rlaif label` but starting the engine."""
    watched = WatchedEngine(engine)

    def run(job: LabelJob, folder: Path) -> float:
        timings.append(label_once(watched, job, folder))
        return timings[-1].seconds

    return run


def planned_prompts(job: LabelJob, codec: Codec) -> tuple[list[Any], list[int]]:
    """Every prompt that rlaif would ask, in its order, and the label tokens."""
    from vllm import TokensPrompt

    renderer = Renderer(job.template, codec)
    prompts = []
    for window in Planner(job.constitution, renderer, job.settings, "bench").windows(job.source, 0):
        branches = [b for item in window for b in item.branches]
        for n in walk([b.path for b in branches]):
            prompts += [
                TokensPrompt(prompt_token_ids=branches[n].context + tail)
                for _, tail in branches[n].tails
            ]
    return prompts, [token for spelled in renderer.label_ids for token in spelled]


def run_planned(engine: Any) -> Runner:
    """`LLM.generate` on planned requests: what the engine alone needs."""
    from vllm import SamplingParams

    def run(job: LabelJob, folder: Path) -> float:
        prompts, labels = planned_prompts(job, engine.codec)
        params = SamplingParams(
            max_tokens=1, temperature=0, detokenize=False, logprob_token_ids=labels
        )
        began = time.perf_counter()
        engine._llm.generate(prompts, params, use_tqdm=False)
        return time.perf_counter() - began

    return run


def run_way(model: str, dtype: str, way: str) -> Runner:
    """`run_planned` on an engine that is set up another way."""
    if way == "own-process":
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
    settings = judge_settings(model, "vllm", dtype)
    options = {**settings.options, **WAYS[way]}
    if way != "classify":
        return run_planned(create_engine(settings.model_copy(update={"options": options})))
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, PoolingParams

    architecture = json.loads((Path(model) / "config.json").read_text())["architectures"][0]
    llm: Any = LLM(
        model=model, runner="pooling", max_model_len=4096, enforce_eager=True, block_size=32,
        enable_prefix_caching=True, prefix_caching_hash_algo="xxhash", disable_log_stats=True,
        hf_overrides={
            "architectures": [architecture.replace("ForCausalLM", "ForSequenceClassification")],
            "classifier_from_token": ["B", "A"],
            "method": "from_2_way_softmax",
        },
    )  # fmt: skip
    codec = codec_for(judge_settings(model, "vllm", dtype))
    params = PoolingParams(task="classify", use_activation=False)

    def run(job: LabelJob, folder: Path) -> float:
        prompts, _ = planned_prompts(job, codec)
        began = time.perf_counter()
        llm.encode(prompts, pooling_task="classify", pooling_params=params, use_tqdm=False)
        return time.perf_counter() - began

    return run


def run_generate(model: str, dtype: str, *, caching: bool) -> Runner:
    """`LLM.chat` on principle-first prompts, as a script would use it."""
    settings = judge_settings(model, "vllm", dtype)
    options = {**settings.options, "enable_prefix_caching": caching}
    engine: Any = create_engine(settings.model_copy(update={"options": options}))
    from vllm import SamplingParams

    def run(job: LabelJob, folder: Path) -> float:
        chats = [[{"role": "user", "content": text}] for text in principle_first(job)]
        params = SamplingParams(max_tokens=1, temperature=0, logprobs=20)
        began = time.perf_counter()
        engine._llm.chat(chats, params, use_tqdm=False)
        return time.perf_counter() - began

    return run


def run_http(model: str, dtype: str, stack: ExitStack) -> Runner:
    """A vLLM server and a client with a fixed number of requests under way."""
    import aiohttp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
        "--served-model-name", "judge", "--port", str(port), "--host", "127.0.0.1",
        "--enforce-eager", "--max-model-len", "4096",
    ]  # fmt: skip
    if not any(Path(model).glob("*.safetensors")):
        command += ["--load-format", "dummy"]
    if dtype != "auto":
        command += ["--dtype", dtype]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    stack.callback(server.terminate)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
            break
        except (urllib.error.URLError, OSError):
            if server.poll() is not None:
                raise RuntimeError("the vLLM server did not start") from None
            time.sleep(0.5)

    async def ask_all(prompts: list[str]) -> float:
        waiting = iter(prompts)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"

        async def worker(session: aiohttp.ClientSession) -> None:
            for text in waiting:
                body = {
                    "model": "judge", "messages": [{"role": "user", "content": text}],
                    "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 5,
                }  # fmt: skip
                async with session.post(url, json=body) as answer:
                    answer.raise_for_status()
                    await answer.json()

        connector = aiohttp.TCPConnector(limit=CONCURRENCY)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            began = time.perf_counter()
            await asyncio.gather(*(worker(session) for _ in range(CONCURRENCY)))
            return time.perf_counter() - began

    return lambda job, folder: asyncio.run(ask_all(principle_first(job)))


def run_transformers(model: str, dtype: str) -> Runner:
    """Left-padded batches of 16 through `generate`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, padding_side="left")
    if any(Path(model).glob("*.safetensors")):
        lm: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    else:
        config = AutoConfig.from_pretrained(model)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            lm = AutoModelForCausalLM.from_config(config, dtype=config.dtype)
    lm = lm.eval()
    if torch.cuda.is_available():
        lm = lm.cuda()

    def run(job: LabelJob, folder: Path) -> float:
        prompts = principle_first(job)
        began = time.perf_counter()
        for start in range(0, len(prompts), 16):
            part = prompts[start : start + 16]
            chats = [
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
                )
                for text in part
            ]
            batch = tokenizer(chats, padding=True, return_tensors="pt", add_special_tokens=False)
            with torch.inference_mode():
                lm.generate(
                    **batch.to(lm.device), max_new_tokens=1, do_sample=False, output_logits=True,
                    return_dict_in_generate=True, pad_token_id=tokenizer.eos_token_id,
                )  # fmt: skip
        return time.perf_counter() - began

    return run


def serve(name: str, model: str, dtype: str, pipe: Connection) -> None:
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="22m", choices=SHAPES, help="judge, random weights")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--pairs", type=int, nargs="+", default=[4])
    parser.add_argument("--principles", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--context", type=int, nargs="+", default=[600])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=[*CONTENDERS, *WAYS])
    parser.add_argument(
        "--serial", action="store_true", help="one contender after the other, as always on a GPU"
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
    serial = args.serial or torch.cuda.is_available()
    groups = [[name] for name in args.contenders] if serial else [list(args.contenders)]
    found: list[tuple[Seconds, Limits]] = [({}, {}) for _ in workloads]
    with tempfile.TemporaryDirectory() as scratch:
        model = str(write_judge(args.shape, Path(scratch) / "judge"))
        for group in groups:
            with started(group, model, args.dtype) as pipes:
                for number, workload in enumerate(workloads):
                    folder = Path(scratch) / str(number)
                    seconds, limits = measure(
                        pipes, workload, args.repetitions, folder, 1000 * number
                    )
                    found[number][0].update(seconds)
                    found[number][1].update(limits)
    for workload, (seconds, limits) in zip(workloads, found, strict=True):
        arguments = {"shape": args.shape, "dtype": args.dtype, **vars(workload)}
        report(arguments, seconds, limits, as_json=args.json)


@contextmanager
def started(names: list[str], model: str, dtype: str) -> Iterator[dict[str, Connection]]:
    """Contenders in processes of their own, all ready."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    workers = []
    for name in names:
        ours, theirs = spawn.Pipe()
        worker = spawn.Process(target=serve, args=(name, model, dtype, theirs))
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


def measure(
    pipes: dict[str, Connection], workload: Workload, repetitions: int, folder: Path, seed: int
) -> tuple[Seconds, Limits]:
    """Seconds and, where known, limits of every contender in each counted repetition."""
    seconds: Seconds = {name: [] for name in pipes}
    limits: Limits = {name: [] for name in pipes}
    for repetition in range(repetitions + 1):
        names = list(pipes)
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            pipes[name].send((f"{folder}/{name}-{repetition}", seed + repetition, workload))
            spent, limit = pipes[name].recv()
            if repetition:
                seconds[name].append(spent)
                if limit:
                    limits[name].append(limit)
    return seconds, limits


def report(
    arguments: dict[str, Any],
    seconds: Seconds,
    limits: Limits,
    *,
    as_json: bool,
) -> None:
    """Print speeds, and how many times faster rlaif was than each, within a repetition."""
    verdicts = arguments["pairs"] * arguments["principles"] * 2
    ours = seconds.get("rlaif") or next(iter(seconds.values()))
    found = []
    for name, spent in seconds.items():
        ratios = [theirs / own for theirs, own in zip(spent, ours, strict=True)]
        entry: dict[str, Any] = {
            "contender": name,
            "verdicts_per_second": verdicts / statistics.median(spent),
            "rlaif_is_faster_by": [statistics.median(ratios), min(ratios), max(ratios)],
        }
        for key in ("limit_fraction", "model_flops_utilization", "computed_over_planned"):
            values = [limit[key] for limit in limits[name]]
            if values:
                entry[key] = statistics.median(values)
        found.append(entry)
    if as_json:
        print(json.dumps({"arguments": arguments, "contenders": found}), flush=True)
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
    shown = ", ".join(f"{key} {value}" for key, value in arguments.items())
    print(f"{shown}\n{table(header, rows)}\n", flush=True)


if __name__ == "__main__":
    main()
