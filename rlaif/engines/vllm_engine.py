"""vLLM in this process, on a GPU or with the CPU build.

A choice is one prefill: `max_tokens=1` with `logprob_token_ids`, which returns the raw
log-probabilities of exactly the label tokens (top-k logprobs would miss them).  Requests are
fed to the running engine one by one, so it never waits at a batch's end.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from safetensors.torch import save_file

from rlaif.engines.admission import Admission
from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake, PrefixSharing
from rlaif.engines.causal_model import refuse_other_heads
from rlaif.engines.codec import HFCodec, has_vision
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.vllm_start import (
    cache_tokens,
    dtype_of,
    head_overrides,
    refuse_wrong,
    sequence_length,
    start_vllm,
    stop_vllm,
    unscaled_length,
)
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
_OWN_TOKENS = 48
"Approximate number of tokens that a prompt does not share with others."


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
