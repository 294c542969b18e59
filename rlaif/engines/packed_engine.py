"""One forward pass for a whole tree of questions: the engine for small judges.

A judge under about three billion parameters is held back by the time that an engine spends on
each request, not by arithmetic.  Here a context and all questions about it (every principle, both
orders) are one packed sequence under a tree mask, and logits are computed where answers are read
and nowhere else.  It runs the weights of the `transformers` library and does not generate.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, cast

import torch
import transformers
from transformers.utils import logging as transformers_logging

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake, PrefixSharing
from rlaif.engines.causal_model import load_causal_model
from rlaif.engines.codec import HFCodec, context_length
from rlaif.engines.cpu import load_decoder
from rlaif.engines.cpu.memory import keep_freed_memory
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.engines.segments import shared_length
from rlaif.engines.transformers_engine import DTYPES, steady_positions
from rlaif.engines.tree_attention import Forest, TreeModel, pack_branches
from rlaif.errors import RlaifError, first_line
from rlaif.records import (
    AnyRequest,
    ChoiceRequest,
    ChoiceResult,
    ContextRequest,
    Failure,
    GenerationRequest,
    Request,
    Result,
)
from rlaif.util.hashing import digest

transformers_logging.disable_progress_bar()
_log = logging.getLogger(__name__)
_PROBE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.75, torch.float16: 0.1}
"""Maximum difference of logits, relative to their standard deviation where that is over 1: deep
models are noisy in half precision, and their heads round."""
_PROBE_TOKENS = 300
_RECURRENT = ("mamba", "shortconv", "deltanet", "rwkv", "rglru", "recurrent")
"""In names of modules through which a token sees its neighbors without attention."""


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


class Branch(NamedTuple):
    """A prompt: a context, which its neighbors have too, and a tail.

    Attributes:
        shared: how many leading tokens the prompt before it has too.
    """

    id: str
    context: Sequence[int]
    tail: Sequence[int]
    label_ids: tuple[tuple[int, ...], ...]
    shared: int

    @property
    def length(self) -> int:
        """Its tokens."""
        return len(self.context) + len(self.tail)


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

    takes_contexts = True

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
            config = transformers.AutoConfig.from_pretrained(files.path, trust_remote_code=False)
            with torch.device(self._device):
                model: Any = transformers.AutoModelForCausalLM.from_config(
                    config, dtype=config.dtype if dtype == "auto" else dtype
                )
        else:
            model = load_causal_model(files.path, files.name, dtype)
        self._model = model.to(self._device).eval()
        longest = settings.max_model_len or context_length(files)
        config = self._model.config
        self.max_prompt_tokens = min(longest, steady_positions(config), _chunk(config)) - 1
        kind = str(self._model.dtype).removeprefix("torch.")
        self.fingerprint = digest({"model": files.fingerprint, "dtype": kind, "by": "packed"})
        head = self._model.get_output_embeddings()
        self._head = head.weight.detach().float()  # a float32 head: bf16 logits step by 0.125
        self._head_bias = None if head.bias is None else head.bias.detach().float()
        self._bend = _after_head(config)
        self._layers: Any = None
        self._last: Sequence[int] = ()  # the last prompt
        self._rest: deque[Branch] = deque()
        self._requests = self._tokens = self._cached = 0
        self._idle = 0.0
        self._probe(files.name)
        windows = getattr(self._layers, "windows", {})
        self.max_prompt_tokens = min(self.max_prompt_tokens, _unseen_window(config, windows) - 1)

    @torch.inference_mode()
    def _probe(self, name: str) -> None:
        """Compare a small forest with plain forward passes of the untouched model.

        A model in half precision is compared in single precision too, where its noise hides
        nothing, if memory allows.

        Raises:
            RlaifError: they differ, or its layers are of a kind that can't be asked as a forest.
        """
        problem = _recurrence(self._model)
        if problem:
            raise _unlike(name, problem)
        vocabulary = self._model.get_input_embeddings().num_embeddings
        draw = torch.Generator().manual_seed(0)
        context = torch.randint(vocabulary, (_PROBE_TOKENS,), generator=draw).tolist()
        prompts = [
            [*context[:cut], *torch.randint(vocabulary, (9,), generator=draw).tolist()]
            for cut in (_PROBE_TOKENS, _PROBE_TOKENS, 140, _PROBE_TOKENS)
        ]
        prompts = [prompt[-self.max_prompt_tokens :] for prompt in prompts]
        expected = self._plain_logits(self._model, prompts)
        if self._model.dtype != torch.float32 and (single := _in_single(self._model)) is not None:
            exact = self._plain_logits(single, prompts)
            self._compare(name, lambda: TreeModel(single, self._device), prompts, exact)
        self._compare(name, self._fastest_layers, prompts, expected)

    def _plain_logits(self, model: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Float32 logits (prompts, vocabulary) by plain forward passes."""
        rows = [torch.tensor([list(prompt)], device=self._device) for prompt in prompts]
        return torch.stack(
            [model(input_ids=ids, logits_to_keep=1).logits[0, -1].float() for ids in rows]
        )

    def _compare(
        self,
        name: str,
        make: Callable[[], Layers],
        prompts: Sequence[Sequence[int]],
        expected: torch.Tensor,
    ) -> None:
        """Let `make` give the layers that compute forests from now on, and try them.

        Raises:
            RlaifError: what they compute is not what was expected.
        """
        try:
            self._layers = make()
            shared = [0, *(shared_length(pair) for pair in pairwise(prompts))]
            asked = [
                Branch(id="", context=p, tail=(), label_ids=(), shared=n)
                for p, n in zip(prompts, shared, strict=True)
            ]
            # In two passes, the second of which goes on from the first.
            found = torch.cat([self._logits(self._forest(part)) for part in (asked[:2], asked[2:])])
            self._last = ()
            self._layers.forget()
        except (TypeError, ValueError, RuntimeError, AssertionError, AttributeError) as problem:
            raise _unlike(name, first_line(problem)) from None
        scale = expected.std(-1).clamp(min=1.0)
        error = float(((found - expected).abs().amax(-1) / scale).max())
        kind = self._layers.dtype if isinstance(self._layers, TreeModel) else torch.float32
        if not error <= _PROBE_TOLERANCE[kind]:
            raise _unlike(name, f"logits differ by {error:.3g}")

    def _fastest_layers(self) -> Layers:
        """The model's layers as they compute forests; those of the model are changed by it."""
        if self._device == "cpu":
            keep_freed_memory()
            module = load_decoder()
            layers: Layers | None = None
            # The kernels know no windows.
            narrow = _unseen_window(self._model.config, {}) <= self.max_prompt_tokens
            if module is not None and self._model.dtype == torch.float32 and not narrow:
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

    def run(self, requests: Iterable[AnyRequest | None]) -> Iterator[list[Result]]:
        """Answer pack by pack, in order."""
        intake = Intake(cast("Iterable[Request | None]", requests))
        self._rest.clear()  # of a run that was given up
        while not intake.exhausted or self._rest:
            results: list[Result] = []
            waited = intake.waited
            batch = self._next_batch(intake, results)
            self._idle += intake.waited - waited
            if batch:
                results += self._choose(batch)
            if results:
                yield results

    def _next_batch(self, intake: Intake, failures: list[Result]) -> list[Branch]:
        """Prompts for one pass; those of a context that do not fit wait for the next."""
        batch: list[Branch] = []
        tokens = 0
        while tokens < self._batch_tokens:
            if not self._rest:
                taken = cast("list[AnyRequest]", intake.take(1))
                if not taken:
                    break
                if isinstance(taken[0], GenerationRequest):
                    reason = "engine 'packed' cannot generate text; use --engine vllm"
                    failures.append(Failure(taken[0].id, reason))
                    continue
                self._rest.extend(_branches(taken[0]))
                continue
            prompt = self._rest.popleft()
            refusal = self._refusal(prompt)
            if refusal:
                failures.append(Failure(prompt.id, refusal))
                continue
            batch.append(prompt)
            tokens += prompt.length - prompt.shared
        return batch

    def _refusal(self, prompt: Branch) -> str:
        if prompt.length > self.max_prompt_tokens:
            return f"prompt has {prompt.length} tokens; the limit is {self.max_prompt_tokens}"
        return "" if prompt.length else "prompt has no tokens"

    @torch.inference_mode()
    def _choose(self, batch: Sequence[Branch]) -> list[Result]:
        forest = self._forest(batch)
        prompt_tokens = sum(prompt.length for prompt in batch)
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

    def _forest(self, batch: Sequence[Branch]) -> Forest:
        first = batch[0]
        past = [*first.context, *first.tail][: min(first.shared, first.length - 1)]
        if past != list(self._last[: len(past)]):
            past = []
        return pack_branches(((p.context, p.tail, p.shared) for p in batch), past)

    def _logits(self, forest: Forest) -> torch.Tensor:
        """Float32 logits (prompts, vocabulary) at the last token of each prompt."""
        self._last = ()  # until it is known what was kept
        hidden = self._layers.hidden(forest)
        self._last = [forest.tokens[i] for i in forest.path]
        logits = torch.nn.functional.linear(hidden.float(), self._head, self._head_bias)
        return self._bend(logits)

    def stats(self) -> EngineStats:
        """Requests, prompt tokens, and those that another prompt of the pack had computed."""
        return EngineStats(self._requests, self._tokens, self._cached, self._idle)

    def close(self) -> None:
        """Drop the weights."""
        self._model = self._head = self._layers = None


def _branches(request: ChoiceRequest | ContextRequest) -> Iterator[Branch]:
    labels = request.label_ids
    if isinstance(request, ChoiceRequest):
        whole, shared = request.token_ids, request.shared
        yield Branch(id=request.id, context=whole, tail=(), label_ids=labels, shared=shared)
        return
    context = request.context
    for name, tail, shared in zip(request.ids, request.tails, request.shared, strict=True):
        yield Branch(id=name, context=context, tail=tail, label_ids=labels, shared=shared)


def _unlike(name: str, reason: str) -> RlaifError:
    return RlaifError(
        f"engine 'packed' cannot reproduce the attention of {name!r} ({reason})",
        hint="Use --engine vllm.",
    )


def _in_single(model: Any) -> Any:
    """A copy in float32; None where memory does not allow it."""
    try:
        return copy.deepcopy(model).float()
    except (MemoryError, RuntimeError):
        return None


def _recurrence(model: Any) -> str:
    """Why tokens of a model see each other outside attention; "" where they do not."""
    for module in model.base_model.modules():
        kind = type(module).__name__.lower()
        if any(part in kind for part in _RECURRENT) or isinstance(module, torch.nn.Conv1d):
            return f"it has {type(module).__name__} layers, which read tokens one after the other"
    return ""


def _after_head(config: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a model does to the logits of its head: scales (Granite, Cohere) or caps (Gemma)."""
    text = config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    scale /= float(getattr(text, "logits_scaling", None) or 1.0)
    cap = getattr(text, "final_logit_softcapping", None)

    def bend(logits: torch.Tensor) -> torch.Tensor:
        logits = logits if scale == 1.0 else logits * scale
        return torch.tanh(logits / cap) * cap if cap else logits

    return bend


def _unseen_window(config: Any, windows: Mapping[int, int | None]) -> int:
    """Tokens that every layer sees at once, where layers look no further than a window.

    Args:
        windows: those that layers said they have: they are kept, and limit nothing.
    """
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or []
    window = getattr(text, "sliding_window", None)
    limit = 1 << 30
    slides = "sliding_attention" in kinds if kinds else getattr(text, "use_sliding_window", True)
    if window and slides:
        sliding = [n for n, kind in enumerate(kinds) if kind == "sliding_attention"]
        said = sliding or range(int(text.num_hidden_layers))
        if any(windows.get(n) != window for n in said):
            limit = int(window)
    return limit


def _chunk(config: Any) -> int:
    """Tokens of a prompt before layers begin to see their own chunk alone (Llama 4)."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    chunk = getattr(text, "attention_chunk_size", None)
    return int(chunk) if chunk and (not kinds or "chunked_attention" in kinds) else 1 << 30


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
