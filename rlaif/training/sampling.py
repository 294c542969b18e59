"""Completions of a policy that is being trained, by a fast engine beside the trainer.

The engine starts once from a copy of the policy's files; later its weights are replaced by the
trainer's, in place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.records import Failure, GenerationRequest, GenerationResult, Message

_WRAPPING = "base_model.model."


class PolicySampler:
    """Writes with the weights that a trainer has now.

    Args:
        engine: `vllm` takes new weights in place; others start anew from files each time.
        max_tokens: of a completion.
        temperature: 0 is greedy.
        settings: of the engine; on a GPU `gpu_memory_utilization` says how much is left beside
            the trainer.
    """

    def __init__(
        self,
        *,
        engine: str = "vllm",
        max_tokens: int = 256,
        temperature: float = 0.0,
        gpu_memory_utilization: float = 0.2,
        **settings: Any,
    ) -> None:
        self._settings = {
            "engine": engine,
            "gpu_memory_utilization": gpu_memory_utilization,
            **settings,
        }
        self._max_tokens = max_tokens
        self._temperature = temperature
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._engine: Engine | None = None

    def sample(
        self, model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]]
    ) -> list[str | None]:
        """A completion for each prompt; None where the engine gave none.

        Args:
            model: a transformers model, or one with PEFT adapters (merged for the copy).

        Raises:
            RlaifError: the engine can't run this model.
        """
        with _merged(model) as weights:
            engine = self._with(model, tokenizer, weights)
        requests = [
            GenerationRequest(
                str(i),
                engine.codec.encode_chat(prompt),
                self._max_tokens,
                self._temperature,
                seed=i if self._temperature else None,
            )
            for i, prompt in enumerate(prompts)
        ]
        found: list[str | None] = [None] * len(prompts)
        for results in engine.run(iter(requests)):
            for result in results:
                if isinstance(result, GenerationResult):
                    found[int(result.id)] = engine.codec.decode(result.token_ids).strip()
                else:
                    assert isinstance(result, Failure)
        return found

    def close(self) -> None:
        """Stop the engine and delete the copy."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _with(self, model: Any, tokenizer: Any, weights: dict[str, Any]) -> Engine:
        """The engine with these weights."""
        load = getattr(self._engine, "load_weights", None)
        if self._engine is not None and load is not None:
            load(weights.items())
            return self._engine
        if self._engine is not None:
            self.close()
        self._folder = tempfile.TemporaryDirectory(prefix="rlaif-policy-")
        own = model.get_base_model() if hasattr(model, "get_base_model") else model
        own.save_pretrained(self._folder.name, state_dict=weights)
        tokenizer.save_pretrained(self._folder.name)
        if not any(Path(self._folder.name).glob("*.safetensors")):
            raise RlaifError(
                "the policy's weights could not be copied", hint="Check free disk space."
            )
        settings = EngineSettings(model=self._folder.name, **self._settings)
        self._engine = create_engine(settings)
        return self._engine


@contextmanager
def _merged(model: Any) -> Iterator[dict[str, Any]]:
    """The weights of a model with its adapters merged, under the names of the bare model."""
    adapted = hasattr(model, "merge_adapter")
    if adapted:
        model.merge_adapter()
    try:
        yield {
            name.removeprefix(_WRAPPING).replace(".base_layer", ""): tensor
            for name, tensor in model.state_dict().items()
            if "lora_" not in name and "original_module" not in name
        }
    finally:
        if adapted:
            model.unmerge_adapter()
