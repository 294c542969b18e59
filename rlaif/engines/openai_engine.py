"""Models behind a server that speaks OpenAI's chat protocol: `vllm serve`, others, or a service.

Such a server writes; it does not read labels exactly, so it is for generating, not for judging.
Its tokens here are the UTF-8 bytes of the conversation as JSON: the server has its own tokenizer
and chat template.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats
from rlaif.engines.control_tokens import defuse_spelled
from rlaif.engines.server_client import (
    SPEED_OPTIONS,
    ServerClient,
    patience,
    server_url,
)
from rlaif.errors import RlaifError
from rlaif.records import Failure, GenerationRequest, GenerationResult, Message, Request, Result
from rlaif.util.hashing import digest
from rlaif.util.thinking import find_spoken, may_end_thinking, open_thinking


class MessageCodec:
    """Conversations as JSON, one token a byte.

    Args:
        defuses: whether text that spells a control token of a known model is defused, as
            `control_tokens` does for tokenizers at hand: servers of open models read such text as
            the token.
    """

    eos_ids: tuple[int, ...] = ()

    def __init__(self, *, defuses: bool = True) -> None:
        self._defuses = defuses

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The bytes of the conversation as JSON."""
        turns = [dict(m) for m in messages]
        for turn in turns if self._defuses else ():
            if isinstance(turn["content"], str):
                turn["content"] = defuse_spelled(turn["content"])
        return list(json.dumps(turns, ensure_ascii=False).encode())

    def encode_branches(
        self, shared: str, tails: Sequence[str], fixed: int = 0, prefill: str = ""
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


_WHOLE = {
    "",
    "complete",
    "completed",
    "end",
    "end_turn",
    "eos",
    "eos_token",
    "finished",
    "function_call",
    "normal",
    "stop",
    "stop_sequence",
    "stop_token",
    "tool_call",
    "tool_calls",
}
"""How servers say that an answer is whole."""
_CUT = {
    "incomplete",
    "length",
    "max_length",
    "max_output_tokens",
    "max_tokens",
    "model_length",
    "token_limit",
}
"""How servers say that an answer was cut."""


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
        template_options: variables for the chat template; None where the user set none: servers of
            open models then get the default ones, others none.
        omitted: parameters that are not sent, such as `temperature`.
        thinks: whether the server's chat template opens a block for thinking, and leaves it in the
            answer.  None where the user said nothing: an answer that may open with the rest of such
            a block is then no answer.
        defuses: see `MessageCodec`.
    """

    def __init__(
        self,
        model: str,
        url: str,
        client: ServerClient,
        *,
        template_options: Mapping[str, Any] | None = None,
        omitted: Collection[str] = (),
        thinks: bool | None = None,
        defuses: bool = True,
    ) -> None:
        self.codec = MessageCodec(defuses=defuses)
        manner: dict[str, Any] = {"openai": model, "url": url}
        self.max_prompt_tokens = 1 << 30
        self.sharing = None
        self._model = model
        self._client = client
        self._requests = self._tokens = 0
        self._limit = "max_tokens"
        self._omitted = frozenset(omitted)
        self._thinks = thinks
        models = client.get("/models")
        # Servers of open models take variables for the chat template; services refuse them.
        known = any(owner in models.text for owner in ('"vllm"', '"sglang"'))
        default = EngineSettings.model_fields["chat_template_options"].default if known else {}
        self._template_options = dict(default if template_options is None else template_options)
        # Texts in the cache are those of a model that is asked in the same way.
        own = {"omit": sorted(omitted), "thinks": thinks, "template": self._template_options}
        self.fingerprint = digest(manner | {key: value for key, value in own.items() if value})

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests, as many at once as allowed, as they finish."""
        for results in self._client.run(requests, self._answer):
            self._requests += len(results)
            yield results

    def _answer(self, request: Request) -> Result:
        if not isinstance(request, GenerationRequest):
            return Failure(request.id, "engine 'openai' does not return label probabilities")
        body = self._body(request)
        result = self._ask(request.id, body)
        if isinstance(result, Failure) and _MODERN in result.reason and _MODERN not in body:
            self._limit = _MODERN  # what newer models of OpenAI call it
            result = self._ask(request.id, self._body(request))
        return result

    def _ask(self, name: str, body: dict[str, Any]) -> Result:
        return self._client.ask(
            "/chat/completions", body, name, lambda answer: self._read(name, answer)
        )

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": json.loads(self.codec.decode(request.token_ids)),
            self._limit: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if self._template_options:
            body["chat_template_kwargs"] = self._template_options
        return {key: value for key, value in body.items() if key not in self._omitted}

    def _read(self, name: str, answer: httpx.Response) -> Result:
        try:
            found = answer.json()
            choice = found["choices"][0]
            message = choice["message"]
            text, why = _text_of(message)
            reason = choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            return Failure(name, f"unexpected response from the server ({error!r})"[:200])
        self._tokens += prompt_tokens(found)
        if why:
            return Failure(name, why)
        if reason == "content_filter":
            return Failure(name, "the server's content filter stopped the answer")
        ended = str(reason or "").lower()
        if ended not in (*_WHOLE, *_CUT):
            return Failure(name, f"the server ended the answer with {str(reason)[:40]!r}")
        if self._thinks and find_spoken(text) == 0:
            text = open_thinking(text)
        elif self._thinks is None and (mark := may_end_thinking(text)):
            return Failure(
                name,
                f"the answer holds {mark!r}, and what stands before may be thinking that the "
                "server's chat template opened: say so with --option thinks=true or thinks=false",
            )
        return GenerationResult(name, tuple(text.encode("utf-8", "replace")), ended not in _CUT)

    def stats(self) -> EngineStats:
        """Requests answered and prompt tokens, as the server counts them."""
        return EngineStats(self._requests, self._tokens, 0)

    def close(self) -> None:
        """Let go of what is under way."""
        self._client.close()


_MODERN = "max_completion_tokens"


def _text_of(message: Mapping[str, Any]) -> tuple[str, str]:
    """What a message says, and why it says nothing: parts that are text, joined; a refusal is an
    answer, too.
    """
    content = message.get("content")
    if isinstance(content, list):
        texts, others = [], set()
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else None
            if isinstance(part, str):
                texts.append(part)
            elif kind in ("text", "output_text") and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif kind == "refusal" and isinstance(part.get("refusal"), str):
                texts.append(part["refusal"])
            elif kind not in ("thinking", "reasoning", "redacted_thinking"):
                others.add(str(kind))
        if others:
            return "", f"the answer holds content that is no text ({', '.join(sorted(others))})"
        content = "".join(texts)
    if content is not None and not isinstance(content, str):
        return "", f"the answer's content is {type(content).__name__}, not text"
    if not content and isinstance(message.get("refusal"), str):
        content = message["refusal"]
    if not content and message.get("tool_calls"):
        return "", "the answer is a tool call"
    thought = message.get("reasoning_content", message.get("reasoning"))
    if not content and isinstance(thought, str) and thought:
        return "", f"the answer is empty behind {len(thought)} characters of thinking"
    return content or "", ""


def prompt_tokens(found: Any) -> int:
    """The prompt's tokens as a server counts them; 0 where it says nothing that is a count."""
    usage = found.get("usage") if isinstance(found, Mapping) else None
    count = usage.get("prompt_tokens") if isinstance(usage, Mapping) else None
    whole = isinstance(count, int) and not isinstance(count, bool)
    return count if whole and 0 <= count < 1 << 40 else 0  # type: ignore[operator, return-value]


def fingerprint(settings: EngineSettings) -> str:
    """What is known of a model behind a server: where it is and what it is called."""
    return digest({"openai": settings.model, "url": server_url(settings)})


def create(settings: EngineSettings) -> OpenAIEngine:
    """Connect; options: `base_url`, `retries` (5), `timeout` (600 seconds), `omit` (parameters
    that are not sent, with `+` between them), `thinks` and `defuse` (see `OpenAIEngine`).
    """
    known = ("base_url", "defuse", "omit", "retries", "thinks", "timeout")
    retries, timeout = patience(settings, known)
    url = server_url(settings)
    most = min(settings.max_in_flight, 256)
    client = ServerClient(url, most=most, retries=retries, timeout=timeout)
    return OpenAIEngine(
        model=settings.model,
        url=url,
        client=client,
        template_options=settings.chat_template_options
        if "chat_template_options" in settings.model_fields_set
        else None,
        omitted=str(settings.options.get("omit", "")).split("+"),
        thinks=_flag(settings, "thinks"),
        defuses=_flag(settings, "defuse") is not False,
    )


def _flag(settings: EngineSettings, name: str) -> bool | None:
    value = settings.options.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise RlaifError(
        f"invalid value {value!r} for option {name}",
        hint=f"Use --option {name}=true or --option {name}=false.",
    )


SPEC = EngineSpec(
    create=create,
    codec=lambda settings: MessageCodec(defuses=_flag(settings, "defuse") is not False),
    fingerprint=fingerprint,
    speed_options=SPEED_OPTIONS,
)
