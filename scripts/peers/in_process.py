"""Ways of asking that run the judge in this process: rlaif, vLLM's `LLM`, `transformers`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from peers.asked import judge_settings, planned_prompts, principle_first
from rlaif.benchmark.measure import Timing, WatchedEngine, label_once
from rlaif.engines.base import Engine
from rlaif.engines.registry import codec_for, create_engine
from rlaif.labeling.job import LabelJob

WAYS: dict[str, dict[str, str | int]] = {
    "own-process": {},
    "sha256": {"prefix_caching_hash_algo": "sha256"},
    "block-128": {"block_size": 128},
    "classify": {},
}
"""Engine options of ways to run the engine on the planned requests."""

Runner = Callable[[LabelJob, Path], float]
"""Judges a job, with a folder for what it writes; seconds."""


def run_rlaif(engine: Engine, timings: list[Timing]) -> Runner:
    """The whole of `rlaif label` but starting the engine."""

    def run(job: LabelJob, folder: Path) -> float:
        watched = WatchedEngine(engine)
        timings.append(label_once(watched, job, folder))
        return timings[-1].seconds

    return run


def run_planned(engine: Any) -> Runner:
    """`LLM.generate` on planned requests: what the engine alone needs."""
    from vllm import SamplingParams

    def run(job: LabelJob, folder: Path) -> float:
        prompts, labels = planned_prompts(job, engine.codec, engine.sharing)
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
        model=model,
        runner="pooling",
        max_model_len=4096,
        enforce_eager=True,
        block_size=32,
        enable_prefix_caching=True,
        prefix_caching_hash_algo="xxhash",
        disable_log_stats=True,
        hf_overrides={
            "architectures": [architecture.replace("ForCausalLM", "ForSequenceClassification")],
            "classifier_from_token": ["B", "A"],
            "method": "from_2_way_softmax",
        },
    )
    codec = codec_for(judge_settings(model, "vllm", dtype))
    params = PoolingParams(task="classify", use_activation=False)

    def run(job: LabelJob, folder: Path) -> float:
        prompts, _ = planned_prompts(job, codec)
        began = time.perf_counter()
        llm.encode(prompts, pooling_task="classify", pooling_params=params, use_tqdm=False)
        return time.perf_counter() - began

    return run


def run_generate(engine: Any) -> Runner:
    """`LLM.generate` on principle-first chats, as a script would use it."""
    from vllm import SamplingParams

    def run(job: LabelJob, folder: Path) -> float:
        chats = [
            engine._llm.get_tokenizer().apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            for text in principle_first(job)
        ]
        params = SamplingParams(max_tokens=1, temperature=0, logprobs=5)
        began = time.perf_counter()
        engine._llm.generate(chats, params, use_tqdm=False)
        return time.perf_counter() - began

    return run


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
                    **batch.to(lm.device),
                    max_new_tokens=1,
                    do_sample=False,
                    output_logits=True,
                    return_dict_in_generate=True,
                    pad_token_id=tokenizer.eos_token_id,
                )
        return time.perf_counter() - began

    return run
