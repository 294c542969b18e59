"""One forward pass for a whole tree of questions: the engine for small judges.

A judge under about three billion parameters is held back by the time that an engine spends on
each request, not by arithmetic.  Here a context and all questions about it (every principle, both
orders) are one packed sequence under a tree mask, and logits are computed where answers are read
and nowhere else.  It runs the weights of the `transformers` library and does not generate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake, PrefixSharing
from rlaif.engines.causal_model import load_causal_model
from rlaif.engines.codec import HFCodec, context_length
from rlaif.engines.cpu import load_decoder
from rlaif.engines.cpu.memory import keep_freed_memory
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.segments import shared_length
from rlaif.engines.transformers_engine import DTYPES, steady_positions
from rlaif.engines.tree_attention import Forest, TreeModel, pack
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, Request, Result
from rlaif.util.hashing import digest

transformers_logging.disable_progress_bar()
_log = logging.getLogger(__name__)
_PROBE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.75, torch.float16: 0.1}
"""Maximum difference of logits; in half precision, where deep models are noisy and the head rounds,
relative to their standard deviation."""


class Layers(Protocol):
    """What computes a forest."""

    def hidden(self, forest: Forest) -> torch.Tensor:
        """Final hidden states (prompts, width) where the prompts of a forest end.

        If the forest has a past, that is the beginning of the last prompt of the one before it.
        """
        ...

    def forget(self) -> None:
        """Drop what was kept of the forest before."""
        ...


class PackedEngine:
    """A causal language model asked tree by tree.

    Args:
        files: where the model lies.
        batch_tokens: tokens in one forward pass.  A pass goes on from the last prompt of the
            one before it, so that cutting a tree costs nothing.
        made_up: random weights on a folder that has none: for timing.

    Raises:
        RlaifError: the model can't be loaded, or its attention is of a kind that this engine
            does not reproduce (found out by comparing a small forest with plain passes).
    """

    def __init__(
        self,
        files: ModelFiles,
        settings: EngineSettings,
        batch_tokens: int,
        *,
        made_up: bool = False,
    ) -> None:
        self.codec = HFCodec(files, settings.chat_template_options, settings.max_model_len)
        self.sharing = PrefixSharing(1, 0)
        self._batch_tokens = batch_tokens
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        # As on vLLM: half precision is slow on a CPU.
        auto = torch.float32 if self._device == "cpu" else "auto"
        dtype = DTYPES.get(settings.dtype, auto)
        if made_up:
            config = AutoConfig.from_pretrained(files.path, trust_remote_code=False)
            with torch.device(self._device):
                model: Any = AutoModelForCausalLM.from_config(
                    config, dtype=config.dtype if dtype == "auto" else dtype
                )
        else:
            model = load_causal_model(files.path, files.name, dtype)
        self._model = model.to(self._device).eval()
        longest = settings.max_model_len or context_length(files)
        config = self._model.config
        self.max_prompt_tokens = min(longest, _window(config), steady_positions(config)) - 1
        kind = str(self._model.dtype).removeprefix("torch.")
        self.fingerprint = digest({"model": files.fingerprint, "dtype": kind, "by": "packed"})
        head = self._model.get_output_embeddings()
        self._head = head.weight.detach().float()  # a float32 head: bf16 logits step by 0.125
        self._head_bias = None if head.bias is None else head.bias.detach().float()
        self._layers: Any = None
        self._last: Sequence[int] = ()  # the last prompt
        self._requests = self._tokens = self._cached = 0
        self._idle = 0.0
        self._probe(files.name, _PROBE_TOLERANCE[self._model.dtype])

    @torch.inference_mode()
    def _probe(self, name: str, tolerance: float) -> None:
        """Compare a small forest with plain forward passes of the untouched model."""
        vocabulary = self._model.get_input_embeddings().num_embeddings
        draw = torch.Generator().manual_seed(0)
        context = torch.randint(vocabulary, (300,), generator=draw).tolist()
        prompts = [
            [*context[: cut or 300], *torch.randint(vocabulary, (9,), generator=draw).tolist()]
            for cut in (0, 0, 140, 0)
        ]
        most = self.max_prompt_tokens
        prompts = [prompt[-most:] for prompt in prompts]
        expected = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=self._device)
            expected.append(self._model(input_ids=ids, logits_to_keep=1).logits[0, -1].float())
        try:
            self._layers = self._fastest_layers()
            shared = [0, *(shared_length(pair) for pair in pairwise(prompts))]
            asked = [ChoiceRequest("", p, (), n) for p, n in zip(prompts, shared, strict=True)]
            # In two passes, the second of which goes on from the first.
            found = torch.cat([self._logits(self._forest(part)) for part in (asked[:2], asked[2:])])
            self._last = ()
            self._layers.forget()
            error = _difference(found, torch.stack(expected), self._model.dtype)
        except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as problem:
            error, reason = float("inf"), f" ({problem})"
        else:
            reason = f" (logits differ by {error:.3g})"
        if not error <= tolerance:
            raise RlaifError(
                f"engine 'packed' cannot reproduce the attention of {name!r}{reason}",
                hint="Use --engine vllm.",
            )

    def _fastest_layers(self) -> Layers:
        """The model's layers as they compute forests; those of the model are changed by it."""
        if self._device == "cpu":
            keep_freed_memory()
            module = load_decoder()
            layers: Layers | None = None
            if module is not None and self._model.dtype == torch.float32:
                layers = module.build_decoder(self._model.base_model, self.max_prompt_tokens)
            if layers is not None:
                return layers
            why = (
                "numba is not installed"
                if module is None
                else f"its weights are {str(self._model.dtype).removeprefix('torch.')}"
                if self._model.dtype != torch.float32
                else "its layers are of another kind"
            )
            _log.warning(
                "engine 'packed' computes this model with PyTorch, more slowly than with its own "
                "CPU kernels (%s)",
                why,
            )
        return TreeModel(self._model, self._device)

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer pack by pack, in order."""
        intake = Intake(requests)
        while not intake.exhausted:
            results: list[Result] = []
            waited = intake.waited
            batch = self._next_batch(intake, results)
            self._idle += intake.waited - waited
            if batch:
                results += self._choose(batch)
            if results:
                yield results

    def _next_batch(self, intake: Intake, failures: list[Result]) -> list[ChoiceRequest]:
        """Requests for one pass."""
        batch: list[ChoiceRequest] = []
        tokens = 0
        while tokens < self._batch_tokens:
            taken = intake.take(1)
            if not taken:
                break
            request = taken[0]
            refusal = self._refusal(request)
            if refusal:
                failures.append(Failure(request.id, refusal))
                continue
            assert isinstance(request, ChoiceRequest)
            batch.append(request)
            tokens += len(request.token_ids) - request.shared
        return batch

    def _refusal(self, request: Request) -> str:
        if not isinstance(request, ChoiceRequest):
            return "engine 'packed' cannot generate text; use --engine vllm"
        length = len(request.token_ids)
        if length > self.max_prompt_tokens:
            return f"prompt has {length} tokens; the limit is {self.max_prompt_tokens}"
        return "" if length else "prompt has no tokens"

    @torch.inference_mode()
    def _choose(self, batch: Sequence[ChoiceRequest]) -> list[Result]:
        forest = self._forest(batch)
        prompt_tokens = sum(len(r.token_ids) for r in batch)
        self._requests += len(batch)
        self._tokens += prompt_tokens
        self._cached += prompt_tokens - (len(forest.tokens) - forest.past)
        logprobs = self._logits(forest).log_softmax(-1)
        wanted = sorted({t for r in batch for spelled in r.label_ids for t in spelled})
        place = {token: i for i, token in enumerate(wanted)}
        rows = logprobs[:, wanted].double().cpu()
        columns = {
            spelled: rows[:, [place[t] for t in spelled]].logsumexp(1).tolist()
            for spelled in {spelled for r in batch for spelled in r.label_ids}
        }
        return [
            ChoiceResult(r.id, tuple(columns[spelled][n] for spelled in r.label_ids))
            for n, r in enumerate(batch)
        ]

    def _forest(self, batch: Sequence[ChoiceRequest]) -> Forest:
        first = batch[0]
        past = list(first.token_ids[: min(first.shared, len(first.token_ids) - 1)])
        if past != list(self._last[: len(past)]):
            past = []
        return pack(((r.token_ids, r.shared) for r in batch), past)

    def _logits(self, forest: Forest) -> torch.Tensor:
        """Float32 logits (prompts, vocabulary) at the last token of each prompt."""
        self._last = ()  # until it is known what was kept
        hidden = self._layers.hidden(forest)
        self._last = [forest.tokens[i] for i in forest.path]
        return torch.nn.functional.linear(hidden.float(), self._head, self._head_bias)

    def stats(self) -> EngineStats:
        """Requests, prompt tokens, and those that another prompt of the pack had computed."""
        return EngineStats(self._requests, self._tokens, self._cached, self._idle)

    def close(self) -> None:
        """Drop the weights."""
        self._model = self._head = self._layers = None


def _difference(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> float:
    """How far logits (prompts, vocabulary) are apart, as `_PROBE_TOLERANCE` counts."""
    most = (found - expected).abs().amax(-1)
    return float((most if dtype == torch.float32 else most / expected.std(-1)).max())


def _window(config: Any) -> int:
    """Tokens that every layer sees at once; longer prompts would see more than they should."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    window = getattr(text, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else getattr(text, "use_sliding_window", True)
    return int(window) if window and slides else 1 << 30


def _batch_tokens() -> int:
    """Tokens in a pass: enough for every thread, and no more than memory is sure to hold."""
    return 16384 if torch.cuda.is_available() else min(8192, 1024 * torch.get_num_threads())


def create(settings: EngineSettings) -> PackedEngine:
    """Load the model; options: `batch_tokens`, and `load_format` (auto, or dummy for timing)."""
    options = dict(settings.options)
    batch_tokens = options.pop("batch_tokens", _batch_tokens())
    load_format = options.pop("load_format", "auto")
    if options:
        raise RlaifError(
            f"engine 'packed' has no option {next(iter(options))!r}",
            hint="Available options: batch_tokens and load_format.",
        )
    if load_format not in ("auto", "dummy"):
        raise RlaifError(
            f"invalid value {load_format!r} for option load_format",
            hint="Use auto, or dummy to measure speed only.",
        )
    if not isinstance(batch_tokens, int) or batch_tokens < 1:
        raise RlaifError(
            f"invalid value {batch_tokens!r} for option batch_tokens",
            hint="Use an integer of 1 or more.",
        )
    if settings.quantization:
        raise RlaifError("engine 'packed' does not support quantization", hint="Use --engine vllm.")
    return PackedEngine(
        resolve_model(settings.model, settings.revision),
        settings,
        batch_tokens,
        made_up=load_format == "dummy",
    )


SPEC = EngineSpec(create=create, can_generate=lambda settings: False)
