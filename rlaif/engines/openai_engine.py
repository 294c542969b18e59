"""Models behind a server that speaks OpenAI's chat protocol: `vllm serve`, others, or a service.

Such a server writes; it does not read labels exactly, so it is for generating, not for judging.
Its tokens here are the UTF-8 bytes of the conversation as JSON: the server has its own tokenizer
and chat template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats
from rlaif.engines.server_client import (
    SPEED_OPTIONS,
    Refusal,
    ServerClient,
    patience,
    server_url,
)
from rlaif.errors import RlaifError
from rlaif.records import Failure, GenerationRequest, GenerationResult, Message, Request, Result
from rlaif.util.hashing import digest


class MessageCodec:
    """Conversations as JSON, one token a byte."""

    eos_ids: tuple[int, ...] = ()

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The bytes of the conversation as JSON."""
        return list(json.dumps([dict(m) for m in messages], ensure_ascii=False).encode())

    def encode_branches(
        self, shared: str, tails: Sequence[str], fixed: int = 0
    ) -> tuple[list[int], list[list[int]]]:
        """Not possible: see the module."""
        raise _no_labels()

    def encode_text(self, text: str) -> list[int]:
        """The bytes of the text."""
        return list(text.encode("utf-8", "replace"))

    def spellings(self, label: str) -> tuple[int, ...]:
        """Not possible: see the module."""
        raise _no_labels()

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the bytes."""
        return bytes(token_ids).decode("utf-8", "replace")


def _no_labels() -> RlaifError:
    return RlaifError(
        "engine 'openai' cannot judge: it does not return label probabilities",
        hint="Use --engine vllm-server or --engine vllm for the judge; 'openai' is for "
        "generation only.",
    )


class OpenAIEngine:
    """A chat server.

    Args:
        model: as the server calls it.
        url: of its API, up to and with `/v1`.
    """

    def __init__(self, model: str, url: str, client: ServerClient) -> None:
        self.codec = MessageCodec()
        self.fingerprint = digest({"openai": model, "url": url})
        self.max_prompt_tokens = 1 << 30
        self.sharing = None
        self._model = model
        self._client = client
        self._requests = self._tokens = 0
        client.get("/models")

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests, as many at once as allowed, as they finish."""
        for results in self._client.run(requests, self._answer):
            self._requests += len(results)
            yield results

    def _answer(self, request: Request) -> Result:
        if not isinstance(request, GenerationRequest):
            return Failure(request.id, "engine 'openai' does not return label probabilities")
        body: dict[str, Any] = {
            "model": self._model,
            "messages": json.loads(self.codec.decode(request.token_ids)),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        answer = self._client.post("/chat/completions", body)
        if isinstance(answer, Refusal):
            return Failure(request.id, answer.reason, answer.passing)
        return self._read(request.id, answer)

    def _read(self, name: str, answer: httpx.Response) -> Result:
        try:
            found = answer.json()
            choice = found["choices"][0]
            text = choice["message"]["content"] or ""
            finished = choice["finish_reason"] == "stop"
            self._tokens += int((found.get("usage") or {}).get("prompt_tokens", 0))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return Failure(name, f"unexpected response from the server ({error!r})"[:200])
        return GenerationResult(name, tuple(str(text).encode("utf-8", "replace")), finished)

    def stats(self) -> EngineStats:
        """Requests answered and prompt tokens, as the server counts them."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Let go of what is under way."""
        self._client.close()


def fingerprint(settings: EngineSettings) -> str:
    """What is known of a model behind a server: where it is and what it is called."""
    return digest({"openai": settings.model, "url": server_url(settings)})


def create(settings: EngineSettings) -> OpenAIEngine:
    """Connect; options: `base_url`, `retries` (5), `timeout` (600 seconds)."""
    retries, timeout = patience(settings, ("base_url", "retries", "timeout"))
    url = server_url(settings)
    most = min(settings.max_in_flight, 256)
    client = ServerClient(url, most=most, retries=retries, timeout=timeout)
    return OpenAIEngine(settings.model, url, client)


SPEC = EngineSpec(
    create=create,
    codec=lambda settings: MessageCodec(),
    fingerprint=fingerprint,
    speed_options=SPEED_OPTIONS,
)
