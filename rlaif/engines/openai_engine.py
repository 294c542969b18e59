"""Models behind a server that speaks OpenAI's chat protocol: `vllm serve`, others, or a service.

Such a server writes; it does not read labels exactly, so it is for generating, not for judging.
Its tokens here are the UTF-8 bytes of the conversation as JSON: the server has its own tokenizer
and chat template.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineStats, Intake
from rlaif.errors import RlaifError
from rlaif.hashing import digest
from rlaif.records import Failure, GenerationRequest, GenerationResult, Message, Request, Result

KEY_VARIABLE = "OPENAI_API_KEY"
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 60.0


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
        "engine 'openai' does not read label probabilities, so it can't judge",
        hint="Judge with --engine vllm; this engine is for models that write.",
    )


class OpenAIEngine:
    """A chat server.

    Args:
        model: as the server calls it.
        url: of its API, up to and with `/v1`.
        most: requests under way at once.
        retries: how often a request is sent again that met a passing fault.
        timeout: seconds for one answer.
    """

    def __init__(self, model: str, url: str, *, most: int, retries: int, timeout: float) -> None:
        self.codec = MessageCodec()
        self.fingerprint = digest({"openai": model, "url": url})
        self.max_prompt_tokens = 1 << 30
        self.sharing = None
        self._model, self._url = model, url.rstrip("/")
        self._most, self._retries = most, retries
        self._requests = self._tokens = 0
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key.isascii() or not key.isprintable():
            raise RlaifError(
                f"{KEY_VARIABLE} holds characters that no key has", hint="Set it anew."
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._client = httpx.Client(headers=headers, timeout=timeout, limits=limits)
        self._pool = ThreadPoolExecutor(most)
        self._stopping = False
        try:
            found = self._client.get(f"{self._url}/models", timeout=min(timeout, 30.0))
        except httpx.HTTPError as error:
            self.close()
            raise RlaifError(
                f"no server answers at {url!r} ({error})",
                hint="Start it, or name it with --option base_url=http://HOST:PORT/v1.",
            ) from None
        if found.status_code in (401, 403):
            self.close()
            raise RlaifError(
                f"the server at {url!r} refuses the key (status {found.status_code})",
                hint=f"Set {KEY_VARIABLE} in the environment.",
            )

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests, as many at once as allowed, as they finish."""
        intake = Intake(requests)
        flying: set[Future[Result]] = set()
        while True:
            for request in intake.take(self._most - len(flying)):
                flying.add(self._pool.submit(self._answer, request))
            if not flying:
                if intake.exhausted:
                    return
                continue
            done, flying = wait(flying, return_when=FIRST_COMPLETED)
            results = [future.result() for future in done]
            self._requests += len(results)
            yield results

    def _answer(self, request: Request) -> Result:
        if not isinstance(request, GenerationRequest):
            return Failure(request.id, "engine 'openai' does not read label probabilities")
        body: dict[str, Any] = {
            "model": self._model,
            "messages": json.loads(self.codec.decode(request.token_ids)),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        reason, passing = "", True
        for attempt in range(self._retries + 1):
            if attempt:
                self._pause(min(_LONGEST_WAIT, 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)))
            if self._stopping:
                return Failure(request.id, "the engine was closed")
            try:
                answer = self._client.post(f"{self._url}/chat/completions", json=body)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if answer.status_code == 200:
                return self._read(request.id, answer)
            reason = f"status {answer.status_code}: {' '.join(answer.text.split())[:200]}"
            if answer.status_code not in _PASSING:
                passing = False
                break
            self._pause(_retry_after(answer))
        return Failure(request.id, reason, passing)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(min(0.1, seconds))

    def _read(self, name: str, answer: httpx.Response) -> Result:
        try:
            found = answer.json()
            choice = found["choices"][0]
            text = choice["message"]["content"] or ""
            finished = choice["finish_reason"] == "stop"
            self._tokens += int((found.get("usage") or {}).get("prompt_tokens", 0))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return Failure(name, f"the server's answer is not understood ({error!r})"[:200])
        return GenerationResult(name, tuple(str(text).encode("utf-8", "replace")), finished)

    def stats(self) -> EngineStats:
        """Requests answered and prompt tokens, as the server counts them."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Let go of what is under way."""
        self._stopping = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(answer.headers.get("retry-after", 0))))
    except ValueError:
        return 0.0


SPEED_OPTIONS = ("retries", "timeout")
"""Options that change no answer."""


def _url(settings: EngineSettings) -> str:
    url = settings.options.get("base_url") or os.environ.get("OPENAI_BASE_URL")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise RlaifError(
            "engine 'openai' needs the address of a server",
            hint="Add --option base_url=http://HOST:PORT/v1 or set OPENAI_BASE_URL.",
        )
    return url


def fingerprint(settings: EngineSettings) -> str:
    """What is known of a model behind a server: where it is and what it is called."""
    return digest({"openai": settings.model, "url": _url(settings)})


def codec(settings: EngineSettings) -> MessageCodec:
    """Conversations as JSON."""
    return MessageCodec()


def create(settings: EngineSettings) -> OpenAIEngine:
    """Connect; options: `base_url`, `retries` (5), `timeout` (600 seconds)."""
    unknown = settings.options.keys() - {"base_url", "retries", "timeout"}
    if unknown:
        raise RlaifError(
            f"engine 'openai' has no option {min(unknown)!r}",
            hint="It has base_url, retries and timeout.",
        )
    retries, timeout = settings.options.get("retries", 5), settings.options.get("timeout", 600)
    if not isinstance(retries, int) or not 0 <= retries <= 100:
        raise RlaifError(f"option retries is {retries!r}", hint="Give a whole number from 0.")
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise RlaifError(f"option timeout is {timeout!r}", hint="Give seconds above 0.")
    return OpenAIEngine(
        settings.model,
        _url(settings),
        most=min(settings.max_in_flight, 256),
        retries=retries,
        timeout=float(timeout),
    )
