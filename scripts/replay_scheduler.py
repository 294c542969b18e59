"""Replays a labeling run on vLLM's own scheduler, with a clock in place of a GPU.

    python scripts/replay_scheduler.py --principles 16 --context 600 --question 40

The scheduler, its prefix cache and its steps are those of the installed vLLM; requests come in as
`VLLMEngine` lets them in (`rlaif/engines/admission.py`), in the order in which rlaif asks. What a
step takes is modeled: a fixed part and a part per token on the device; a fixed part and a part per
request on the CPU. With `--process own` the engine core has a process of its own, as on a GPU: the
front adds requests and reads answers while the core steps, and the next step is scheduled while the
device computes. With `--process same` one thread does one thing after the other.

The default rates are those of an 8B model in bfloat16 on an H100 (16 GFLOP a token at about 600
TFLOP/s) and of the CPU beside it. They are assumptions, and so is what follows from them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlaif.engines.admission import Admission
from rlaif.util.resources import demo_model


@dataclass(frozen=True)
class Replay:
    """A job, a device and how requests come in.

    Attributes:
        contexts: of so many tokens, each with `principles` questions of `question` tokens.
        capacity: of the KV cache, in blocks of `block` tokens.
        step: tokens that a step computes at most.
        most: requests at once; None for as many as a few steps take.
        token, launch: microseconds on the device, per token and per step.
        add, read: microseconds on the CPU, per request that comes in and that is done.
        schedule, scheduled: microseconds on the CPU per step, and per request in it.
        own_process: whether the front and the core work side by side.
    """

    contexts: int = 64
    principles: int = 16
    context: int = 600
    question: int = 40
    capacity: int = 20_000
    block: int = 16
    step: int = 16_384
    sequences: int = 1024
    most: int | None = None
    token: float = 27.0
    launch: float = 4000.0
    add: float = 150.0
    read: float = 150.0
    schedule: float = 3000.0
    scheduled: float = 150.0
    own_process: bool = True


@dataclass(frozen=True)
class Replayed:
    """What came of it.

    Attributes:
        busy: share of the time in which the device computes tokens.
        computed: tokens computed, as a multiple of those of the tree of prefixes.
        step: tokens a step.
        rate: verdicts a second.
    """

    busy: float
    computed: float
    step: float
    rate: float
    steps: int


def replay(job: Replay) -> Replayed:
    """Run the job to its end.

    Long because it is one loop over two clocks.
    """
    scheduler, make = _scheduler(job)
    requests = _requests(job)
    admission = Admission(job.capacity * job.block, job.step, job.most)
    tokens_of: dict[str, int] = {}
    held = computed = steps = done = 0
    front = core = device = busy = 0.0
    running: deque[tuple[Any, float]] = deque()
    upcoming = next(requests, None)
    while True:
        while upcoming is not None and admission.has_room(len(tokens_of), held):
            ids, own = upcoming
            request = make(str(done + len(tokens_of)) + f"-{steps}-{held}", ids)
            scheduler.add_request(request)
            tokens_of[request.request_id] = own
            held += own
            front += job.add
            upcoming = next(requests, None)
        if not tokens_of:
            break
        if not job.own_process:
            core = front = max(core, front)
        else:
            core = max(core, front)  # what came in is known once the front has sent it
        output = scheduler.schedule() if scheduler.has_requests() else None
        count = 0
        if output is not None and output.total_num_scheduled_tokens:
            count = output.total_num_scheduled_tokens
            core += job.schedule + job.scheduled * len(output.num_scheduled_tokens)
            device = max(core, device) + job.launch + job.token * count
            busy += job.token * count
            computed += count
            steps += 1
        if output is not None:
            running.append((output, device if count else core))
        if job.own_process and count and len(running) < 2:
            continue  # the next step is scheduled while this one computes
        finished, ready = running.popleft()
        core = max(core, ready)
        ended = _finish(scheduler, finished)
        for name in ended:
            held -= tokens_of.pop(name)
        done += len(ended)
        if job.own_process:
            # The front reads answers while the core goes on; it lags behind if it is slower.
            front = max(front, core - job.read) + job.read * len(ended)
            front = min(front, core) if front < core else front
        else:
            front = core = core + job.read * len(ended)
    clock = max(front, core, device)
    unique = job.contexts * (job.context + job.principles * job.question)
    return Replayed(
        busy=busy / clock,
        computed=computed / unique,
        step=computed / max(steps, 1),
        rate=job.contexts * job.principles / clock * 1e6,
        steps=steps,
    )


def _requests(job: Replay) -> Iterator[tuple[list[int], int]]:
    """Prompts in the order in which rlaif asks, and how many tokens no earlier one has."""
    rng = random.Random(0)
    tails = [_tokens(rng, job.question) for _ in range(job.principles)]
    for _ in range(job.contexts):
        context = _tokens(rng, job.context)
        for number, tail in enumerate(tails):
            yield context + tail, len(tail) + (len(context) if not number else 0) + 1


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(3, 500) for _ in range(count)]


def _finish(scheduler: Any, output: Any) -> list[str]:
    """Tell the scheduler that a step is done; the requests that end with it."""
    from vllm.v1.outputs import ModelRunnerOutput

    names = list(output.num_scheduled_tokens)
    sampled = [[5] if _whole(scheduler.requests.get(name)) else [] for name in names]
    answers = scheduler.update_from_output(
        output,
        ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: i for i, name in enumerate(names)},
            sampled_token_ids=sampled,
        ),
    )
    return [
        one.request_id
        for group in answers.values()
        for one in group.outputs
        if one.finish_reason is not None
    ]


def _whole(request: Any) -> bool:
    return request is not None and request.num_computed_tokens >= request.num_prompt_tokens


def _scheduler(job: Replay) -> tuple[Any, Any]:
    """VLLM's scheduler for a dense model, and what makes a request for it."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    import torch
    from vllm import SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.request import Request
    from vllm.v1.structured_output import StructuredOutputManager

    config = EngineArgs(
        model=str(demo_model("judge")),
        dtype="float32",
        max_model_len=job.context + job.question + 64,
        hf_overrides={"max_position_embeddings": job.context + job.question + 64},
        enforce_eager=True,
        block_size=32,
        enable_prefix_caching=True,
        prefix_caching_hash_algo="sha256",
        max_num_seqs=job.sequences,
        max_num_batched_tokens=job.step,
        kv_cache_memory_bytes=1 << 28,
        async_scheduling=job.own_process,
    ).create_engine_config()
    config.cache_config.block_size = job.block
    config.cache_config.num_gpu_blocks = job.capacity
    layers = FullAttentionSpec(
        block_size=job.block, num_kv_heads=2, head_size=32, dtype=torch.float32
    )
    scheduler = (AsyncScheduler if job.own_process else Scheduler)(
        config,
        KVCacheConfig(
            num_blocks=job.capacity,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layers"], layers)],
            hash_block_size=job.block,
        ),
        StructuredOutputManager(config),
        block_size=job.block,
        hash_block_size=job.block,
    )
    hash_of = get_hash_fn_by_name("sha256")
    init_none_hash(hash_of)
    hasher = get_request_block_hasher(job.block, hash_of)
    sampling = SamplingParams(max_tokens=1, temperature=0.0)

    def make(name: str, ids: list[int]) -> Any:
        return Request(name, ids, sampling, None, block_hasher=hasher)

    return scheduler, make


def show(job: Replay, found: Replayed) -> str:
    """A line about a replay."""
    limit = "by tokens" if job.most is None else str(job.most)
    return (
        f"K={job.principles} C={job.context} S={job.question}, in flight {limit}, "
        f"{'own' if job.own_process else 'same'} process: busy {found.busy:.2f}, "
        f"{found.step:.0f} tokens a step, computed/unique {found.computed:.2f}, "
        f"{found.rate:.0f} verdicts/s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Replay the shapes of BENCHMARKS.md, or one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--principles", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--context", type=int, default=600)
    parser.add_argument("--question", type=int, default=40)
    parser.add_argument("--contexts", type=int, default=64)
    parser.add_argument("--token", type=float, default=27.0, help="microseconds of a token")
    parser.add_argument("--most", type=int, help="requests in flight, in place of three steps")
    parser.add_argument("--process", choices=["own", "same", "both"], default="both")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    for principles in args.principles:
        base = Replay(
            contexts=args.contexts,
            principles=principles,
            context=args.context,
            question=args.question,
            token=args.token,
        )
        for most in [args.most] if args.most else [256, None]:
            for own in [True, False] if args.process == "both" else [args.process == "own"]:
                job = replace(base, most=most, own_process=own)
                found = replay(job)
                print(json.dumps(vars(found)) if args.json else show(job, found), flush=True)


if __name__ == "__main__":
    main()
