"""Samples completions of a policy."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.engines.base import Engine
from rlaif.errors import RlaifError
from rlaif.records import Failure, GenerationRequest, GenerationResult, Message


def sample_completions(
    engine: Engine,
    prompts: Sequence[Sequence[Message]],
    *,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> list[str]:
    """One completion for each prompt, in order.

    Raises:
        RlaifError: the engine failed on a prompt.
    """
    requests = [
        GenerationRequest(
            str(i), engine.codec.encode_chat(prompt), max_tokens, temperature=temperature, seed=seed
        )
        for i, prompt in enumerate(prompts)
    ]
    texts: dict[str, str] = {}
    for results in engine.run(requests):
        for result in results:
            if isinstance(result, Failure):
                raise RlaifError(
                    f"prompt {int(result.id) + 1} got no completion ({result.reason})",
                    hint="Shorten it or raise max_model_len.",
                )
            assert isinstance(result, GenerationResult)
            texts[result.id] = engine.codec.decode(result.token_ids).strip()
    return [texts[str(i)] for i in range(len(prompts))]
