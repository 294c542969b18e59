"""The reference engine: plain forward passes, one batch after the other, nothing clever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats, Intake
from rlaif.engines.causal_model import load_causal_model
from rlaif.engines.codec import HFCodec, context_length
from rlaif.engines.hub import ModelFiles, resolve_model
from rlaif.errors import RlaifError
from rlaif.records import (
    ChoiceRequest,
    ChoiceResult,
    Failure,
    GenerationRequest,
    GenerationResult,
    Request,
    Result,
)
from rlaif.util.hashing import digest

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def steady_positions(config: Any) -> int:
    """Longest prompt that may share a pass with others.

    Some rotary positions (`longrope`, `dynamic`) change all their frequencies once the longest
    prompt of a pass is longer than the model was first trained on.
    """
    text = config.get_text_config()
    found = getattr(text, "rope_parameters", None) or {}
    kinds = [found, *(part for part in found.values() if isinstance(part, dict))]
    for kind in kinds:
        if kind.get("rope_type") in ("longrope", "dynamic"):
            first = kind.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            return int(first or text.max_position_embeddings)
    return 1 << 30


class TransformersEngine:
    """A causal language model of the transformers library.

    Args:
        files: where the model lies.
        batch_size: sequences in one forward pass.
    """

    def __init__(self, files: ModelFiles, settings: EngineSettings, batch_size: int = 16) -> None:
        self.codec = HFCodec(files, settings.chat_template_options, settings.max_model_len)
        self.max_prompt_tokens = (settings.max_model_len or context_length(files)) - 1
        self.sharing = None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = DTYPES.get(settings.dtype, "auto")
        model = load_causal_model(files.path, files.name, dtype)
        self._model = model.to(self._device).eval()
        apart = steady_positions(self._model.config) < self.max_prompt_tokens
        self._batch_size = 1 if apart else batch_size
        kind = str(self._model.dtype).removeprefix("torch.")
        self.fingerprint = digest({"model": files.fingerprint, "dtype": kind, "by": "transformers"})
        self._requests = 0
        self._tokens = 0

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer in batches, in order."""
        intake = Intake(requests)
        while not intake.exhausted:
            batch = intake.take(self._batch_size)
            results: list[Result] = []
            ready = []
            for request in batch:
                if len(request.token_ids) > self.max_prompt_tokens:
                    reason = f"prompt has {len(request.token_ids)} tokens; the limit is "
                    results.append(Failure(request.id, f"{reason}{self.max_prompt_tokens}"))
                else:
                    ready.append(request)
            choices = [r for r in ready if isinstance(r, ChoiceRequest)]
            generations = [r for r in ready if isinstance(r, GenerationRequest)]
            if choices:
                results += self._choose(choices)
            for settings in sorted({_sampling(r) for r in generations}):
                results += self._generate([r for r in generations if _sampling(r) == settings])
            self._requests += len(batch)
            self._tokens += sum(len(r.token_ids) for r in ready)
            if results:
                yield results

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and attention mask, both (rows, longest)."""
        width = max(map(len, rows))
        pad = self.codec.eos_ids[0] if self.codec.eos_ids else 0
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :] = torch.tensor(list(row))
            mask[i, width - len(row) :] = 1
        return ids.to(self._device), mask.to(self._device)

    @torch.inference_mode()
    def _choose(self, requests: Sequence[ChoiceRequest]) -> list[Result]:
        ids, mask = self._padded([r.token_ids for r in requests])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1
        ).logits[:, -1]
        logprobs = logits.float().log_softmax(-1)
        results: list[Result] = []
        for request, row in zip(requests, logprobs, strict=True):
            labels = tuple(float(row[list(spelled)].logsumexp(0)) for spelled in request.label_ids)
            results.append(ChoiceResult(request.id, labels))
        return results

    @torch.inference_mode()
    def _generate(self, requests: Sequence[GenerationRequest]) -> list[Result]:
        first = requests[0]
        ids, mask = self._padded([r.token_ids for r in requests])
        if first.seed is not None:
            torch.manual_seed(first.seed)
        sampling: dict[str, Any] = {"do_sample": False}
        if first.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": first.temperature,
                "top_p": first.top_p,
                "top_k": 0,
            }
        out = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=first.max_tokens,
            pad_token_id=self.codec.eos_ids[0] if self.codec.eos_ids else 0,
            **sampling,
        )
        results: list[Result] = []
        for request, row in zip(requests, out[:, ids.shape[1] :].tolist(), strict=True):
            stops = [i for i, token in enumerate(row) if token in self.codec.eos_ids]
            written = row[: stops[0]] if stops else row
            results.append(GenerationResult(request.id, tuple(written), bool(stops)))
        return results

    def stats(self) -> EngineStats:
        """Requests and prompt tokens; this engine caches nothing."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Drop the weights."""
        self._model = None


def _sampling(request: GenerationRequest) -> tuple[int, float, float, int]:
    seed = -1 if request.seed is None else request.seed
    return request.max_tokens, request.temperature, request.top_p, seed


def create(settings: EngineSettings) -> TransformersEngine:
    """Load the model; option: `batch_size`."""
    options = dict(settings.options)
    batch_size = options.pop("batch_size", 16)
    if options:
        raise RlaifError(
            f"engine 'transformers' has no option {next(iter(options))!r}",
            hint="Available option: batch_size.",
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise RlaifError(
            f"invalid value {batch_size!r} for option batch_size",
            hint="Use an integer of 1 or more.",
        )
    if settings.quantization:
        raise RlaifError(
            "engine 'transformers' does not support quantization", hint="Use --engine vllm."
        )
    return TransformersEngine(
        resolve_model(settings.model, settings.revision), settings, batch_size
    )


SPEC = EngineSpec(create=create)
