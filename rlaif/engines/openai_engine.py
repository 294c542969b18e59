"""Models behind a server that speaks OpenAI's chat protocol: `vllm serve`, others, or a service.

Its tokens here are the UTF-8 bytes of the conversation as JSON, and behind it those of the words
that open the answer: the server has its own tokenizer and chat template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from rlaif.engines.base import EngineSettings, EngineSpec, EngineStats
from rlaif.engines.batch_files import BatchFiles
from rlaif.engines.batch_ledger import BatchLedger
from rlaif.engines.batch_runner import BatchRunner
from rlaif.engines.chat_judge import ChatJudge, LabelCall, LabelQuestion, VoteSettings
from rlaif.engines.control_tokens import defuse_spelled
from rlaif.engines.server_calls import ServerCall, ServerCalls, finish, map_steps
from rlaif.engines.server_client import (
    SPEED_OPTIONS,
    ServerClient,
    Unusable,
    patience,
    server_url,
)
from rlaif.engines.voting import MOST_VOTES
from rlaif.errors import RlaifError
from rlaif.records import Failure, GenerationRequest, GenerationResult, Message, Request, Result
from rlaif.util.addresses import without_secrets
from rlaif.util.hashing import digest
from rlaif.util.thinking import after_thinking, find_spoken, may_end_thinking, open_thinking


class MessageCodec:
    """Conversations as JSON, one token a byte.

    Args:
        defuses: whether text that spells a control token of a known model is defused, as
            `control_tokens` does for tokenizers at hand: servers of open models read such text as
            the token.
    """

    eos_ids: tuple[int, ...] = ()
    ends_reasoning = False
    """Behind a chat server nobody knows how thinking is closed, nor whether it is open."""

    def __init__(self, *, defuses: bool = True) -> None:
        self._defuses = defuses

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """The bytes of the conversation as JSON."""
        turns = [dict(m) for m in messages]
        for turn in turns:
            if isinstance(turn["content"], str):
                turn["content"] = self._safe(turn["content"])
        return _bytes(json.dumps(turns, ensure_ascii=False))

    def encode_branches(
        self, shared: str, tails: Sequence[str], fixed: int = 0, prefill: str = ""
    ) -> tuple[list[int], list[list[int]]]:
        """The bytes of the conversation as JSON, and of the words that open the answer."""
        head, end = '[{"role": "user", "content": ', "}]"
        texts = [self._safe(shared + tail) for tail in tails]
        start = self._safe(shared)
        if not all(text.startswith(start) for text in texts):
            start = ""  # two harmless halves spell a control token
        context = head + _quote(start)[:-1]
        ends = [f"{_quote(text[len(start) :])[1:]}{end}{prefill}" for text in texts]
        return _bytes(context), [_bytes(rest) for rest in ends]

    def _safe(self, text: str) -> str:
        return defuse_spelled(text) if self._defuses else text

    def split_prompt(self, token_ids: Sequence[int]) -> tuple[list[dict[str, Any]], str]:
        """The messages of a prompt, and the words that open its answer."""
        text = self.decode(token_ids)
        messages, end = json.JSONDecoder().raw_decode(text)
        return messages, text[end:]

    def encode_text(self, text: str) -> list[int]:
        """The bytes of the text."""
        return _bytes(text)

    def spellings(self, label: str) -> tuple[int, ...]:
        """The label's bytes, one after another: the server has tokens of its own."""
        return tuple(label.encode())

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


def _bytes(text: str) -> list[int]:
    return list(text.encode("utf-8", "replace"))


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_USUAL_VOTES = VoteSettings()


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
        continues: whether the server goes on with an answer that is begun; None where the user
            said nothing: vLLM and SGLang do.
        votes: how the model is asked as a judge.
        batches: sends requests as batch files; None for one by one.
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
        continues: bool | None = None,
        votes: VoteSettings = _USUAL_VOTES,
        batches: BatchRunner | None = None,
    ) -> None:
        self.codec = MessageCodec(defuses=defuses)
        manner: dict[str, Any] = {"openai": model, "url": url}
        self.max_prompt_tokens = 1 << 30
        self.sharing = None
        self._model = model
        self._client = client
        self._requests = self._tokens = self._written = 0
        self._judge = ChatJudge(votes)
        self._batches = batches
        # A batch is worth its price when it holds all that can be asked: other models wait for it.
        self.elsewhere = batches is None
        self._limit = "max_tokens"
        self._omitted = frozenset(omitted)
        self._thinks = thinks
        models = client.get("/models")
        # Servers of open models take variables for the chat template; services refuse them.
        known = any(owner in models.text for owner in ('"vllm"', '"sglang"'))
        self._continues = known if continues is None else continues
        default = EngineSettings.model_fields["chat_template_options"].default if known else {}
        self._template_options = dict(default if template_options is None else template_options)
        # Texts in the cache are those of a model that is asked in the same way.
        own: dict[str, Any] = {
            "omit": sorted(omitted),
            "thinks": thinks,
            "continues": self._continues,
            "template": self._template_options,
            "votes": asdict(votes) if votes != VoteSettings() else None,
        }
        self.fingerprint = digest(manner | {key: value for key, value in own.items() if value})

    def run(self, requests: Iterable[Request | None]) -> Iterator[list[Result]]:
        """Answer requests, as many at once as allowed, as they finish; or in batches."""
        if self._batches is not None:
            self._judge.draws_together = True
            answers = self._batches.run(requests, self)
        else:
            answers = self._client.run(requests, self.answer_now)
        for results in answers:
            self._requests += len(results)
            yield results

    def answer_now(self, request: Request) -> Result:
        """One request, asked until it is answered."""
        return finish(self.calls(request), lambda calls: [self.send(call) for call in calls])

    @property
    def manner(self) -> dict[str, Any]:
        """What was learned of how the server wants to be asked."""
        return {"limit": self._limit, "by_votes": self._judge.by_votes}

    def take_manner(self, manner: Mapping[str, Any]) -> None:
        """Ask as an earlier process learned to."""
        if manner.get("limit") == _MODERN:
            self._limit = _MODERN
        self._judge.by_votes |= manner.get("by_votes") is True

    def calls(self, request: Request) -> ServerCalls:
        """The calls to the server that lead to the answer."""
        messages, opening = self.codec.split_prompt(request.token_ids)
        if isinstance(request, GenerationRequest):
            parameters = {
                "tokens": request.max_tokens,
                "temperature": request.temperature,
                "top_p": request.top_p,
                **({} if request.seed is None else {"seed": request.seed}),
            }
            made = partial(self._made, messages, opening, parameters)
            take = partial(self._read, self._take)
            (found,) = yield [ServerCall(request.id, made, take, request.seed or 0)]
            return found
        labels = [bytes(label).decode() for label in request.label_ids]
        asked = messages if self._continues else _ask_to_end(messages, opening, labels)
        seed = self._judge.seed_of(request.token_ids)
        question = LabelQuestion(
            name=request.id, messages=asked, opening=opening, labels=labels, seed=seed
        )
        steps = self._judge.ask(question)
        return (yield from map_steps(steps, partial(self._label_call, question)))

    def _label_call(self, question: LabelQuestion, call: LabelCall) -> ServerCall:
        """A question about a pair; its tokens count here, since no text is kept of it."""

        def take(name: str, choice: Mapping[str, Any], found: Any) -> Result:
            text, why = _text_of(choice["message"])
            if why or choice.get("finish_reason") == "content_filter":
                raise Unusable(why or _FILTERED)
            return call.read(choice, after_thinking(text) or "")

        made = partial(self._made, question.messages, question.opening, call.parameters)
        return ServerCall(question.name, made, partial(self._read, take), call.draw)

    def _read(
        self,
        take: Callable[[str, Mapping[str, Any], Any], Result],
        name: str,
        answer: httpx.Response,
    ) -> Result:
        try:
            found = answer.json()
            self._tokens += prompt_tokens(found)
            self._written += completion_tokens(found)
            return take(name, found["choices"][0], found)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            return Failure(name, f"unexpected response from the server ({error!r})"[:200])

    def send(self, call: ServerCall) -> Result:
        """The result of one call."""
        body = call.make()
        result = self._client.ask(PATH, body, call.name, call.read)
        if isinstance(result, Failure) and _MODERN in result.reason and _MODERN not in body:
            self._limit = _MODERN  # what newer models of OpenAI call it
            result = self._client.ask(PATH, call.make(), call.name, call.read)
        return result

    def _made(
        self, messages: Sequence[Mapping[str, Any]], opening: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of a request."""
        own = dict(parameters)
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(messages),
            self._limit: own.pop("tokens"),
            **own,
        }
        if opening and self._continues:
            body["messages"].append({"role": "assistant", "content": opening})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._template_options:
            body["chat_template_kwargs"] = self._template_options
        return {key: value for key, value in body.items() if key not in self._omitted}

    def _take(self, name: str, choice: Mapping[str, Any], found: Any) -> Result:
        """A text that was written."""
        text, why = _text_of(choice["message"])
        reason = choice.get("finish_reason")
        if why:
            return Failure(name, why)
        if reason == "content_filter":
            return Failure(name, _FILTERED)
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
        return EngineStats(self._requests, self._tokens, 0, written_tokens=self._written)

    def close(self) -> None:
        """Let go of what is under way."""
        self._client.close()


def _ask_to_end(
    messages: Sequence[Mapping[str, Any]], opening: str, labels: Sequence[str]
) -> list[Mapping[str, Any]]:
    """A question to a server that does not go on with an answer that is begun: it is asked to end
    the sentence, behind whatever it wrote before.
    """
    written, _, sentence = opening.rpartition("\n")
    if not sentence.strip():
        return list(messages)
    ask = (
        f"Complete this sentence with {' or '.join(labels)}, and write nothing else: "
        f"{sentence.strip()}"
    )
    if written.strip():
        turn = {"role": "assistant", "content": written.strip()}
        return [*messages, turn, {"role": "user", "content": ask}]
    *before, last = messages
    return [*before, {**last, "content": f"{last['content']}\n\n{ask}"}]


PATH = "/chat/completions"
_FILTERED = "the server's content filter stopped the answer"
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
    return _count(found, "prompt_tokens")


def completion_tokens(found: Any) -> int:
    """The answer's tokens as a server counts them; 0 where it says nothing that is a count."""
    return _count(found, "completion_tokens")


def _count(found: Any, name: str) -> int:
    usage = found.get("usage") if isinstance(found, Mapping) else None
    count = usage.get(name) if isinstance(usage, Mapping) else None
    whole = isinstance(count, int) and not isinstance(count, bool)
    return count if whole and 0 <= count < 1 << 40 else 0  # type: ignore[operator, return-value]


def fingerprint(settings: EngineSettings) -> str:
    """What is known of a model behind a server: where it is and what it is called."""
    vote_settings(settings)  # an odd option is told before anything starts
    return digest({"openai": settings.model, "url": server_url(settings)})


def create(settings: EngineSettings) -> OpenAIEngine:
    """Connect; options: `base_url`, `retries` (5), `timeout` (600 seconds), `omit` (parameters
    that are not sent, with `+` between them), `thinks`, `defuse` and `continues` (see
    `OpenAIEngine`), `batch` (a folder) and `poll`, and those of `vote_settings`.
    """
    retries, timeout = patience(settings, (*COMMON_OPTIONS, "batch", "poll"))
    url = server_url(settings)
    most = min(settings.most_in_flight, 256)
    poll = poll_seconds(settings)
    client = ServerClient(url, most=most, retries=retries, timeout=timeout)
    batches = None
    if folder := batch_folder(settings):
        ledger = BatchLedger(folder, without_secrets(url), settings.model)
        endpoint = f"/v1{PATH}"
        files = BatchFiles(client, ledger, endpoint=endpoint, poll=poll, patience=timeout)
        largest = requests_in_a_batch(settings)
        batches = BatchRunner(files, ledger, endpoint=endpoint, most=largest, retries=retries)
    return open_engine(settings, client, url, batches=batches)


def open_engine(
    settings: EngineSettings, client: ServerClient, url: str, batches: BatchRunner | None = None
) -> OpenAIEngine:
    """The engine on a client, by `COMMON_OPTIONS`.

    Args:
        url: what names the server in the fingerprint.
        batches: see `OpenAIEngine`.

    Raises:
        RlaifError: an option has a value that is none.
    """
    return OpenAIEngine(
        model=settings.model,
        url=url,
        client=client,
        template_options=settings.chat_template_options
        if "chat_template_options" in settings.model_fields_set
        else None,
        omitted=omitted(settings),
        thinks=flag(settings, "thinks"),
        defuses=flag(settings, "defuse") is not False,
        continues=flag(settings, "continues"),
        votes=vote_settings(settings),
        batches=batches,
    )


def batch_folder(settings: EngineSettings) -> Path | None:
    """Where batch files are kept, by the option `batch`; None where requests go one by one.

    Raises:
        RlaifError: the option names no folder.
    """
    found = settings.options.get("batch")
    if found is None or found is False:
        return None
    if not isinstance(found, str) or not found:
        raise _odd("batch", found, "the path of a folder, or --batch")
    return Path(found).expanduser()


def poll_seconds(settings: EngineSettings) -> float:
    """Seconds between two questions how far a batch is, by the option `poll` (30).

    Raises:
        RlaifError: it is no number of seconds.
    """
    found = settings.options.get("poll", 30.0)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 3600:
        raise _odd("poll", found, "a number of seconds above 0, at most 3600")
    return float(found)


def requests_in_a_batch(settings: EngineSettings) -> int:
    """How many requests a batch holds at most: `max_in_flight` if the user set it, else 20,000."""
    return settings.max_in_flight or 20_000


def pairs_of_a_batch(settings: EngineSettings) -> int | None:
    """With batches, so many pairs may be open that one is full."""
    return requests_in_a_batch(settings) if batch_folder(settings) else None


def omitted(settings: EngineSettings) -> list[str]:
    """The parameters that are not sent, by the option `omit`."""
    return str(settings.options.get("omit", "")).split("+")


_VOTING = ("answer_tokens", "labels", "vote_error", "vote_temperature", "votes")
COMMON_OPTIONS = (
    *("base_url", "continues", "defuse", "omit", "retries", "thinks", "timeout"),
    *_VOTING,
)
"""Options of every engine that asks chat servers."""


def vote_settings(settings: EngineSettings) -> VoteSettings:
    """How the model is asked as a judge, by the options `labels` (auto, logprobs or votes), `votes`
    (15), `vote_error` (0.05), `vote_temperature` (1.0) and `answer_tokens` (16).

    Raises:
        RlaifError: an option has a value that is none.
    """
    own, default = settings.options, VoteSettings()
    means = own.get("labels", default.means)
    if means not in ("auto", "logprobs", "votes"):
        raise _odd("labels", means, "auto, logprobs or votes")

    def number(name: str, usual: float, least: float, most: float) -> float:
        value = own.get(name, usual)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _odd(name, value, f"a number from {least:g} to {most:g}")
        if not least <= value <= most or (isinstance(usual, int) and int(value) != value):
            whole = "whole " if isinstance(usual, int) else ""
            raise _odd(name, value, f"a {whole}number from {least:g} to {most:g}")
        return value

    return VoteSettings(
        means=means,
        votes=int(number("votes", default.votes, 1, MOST_VOTES)),
        error=number("vote_error", default.error, 0.0, 0.5),
        temperature=number("vote_temperature", default.temperature, 0.01, 2.0),
        tokens=int(number("answer_tokens", default.tokens, 1, 1 << 20)),
        seed=settings.seed,
    )


def _odd(name: str, value: object, wanted: str) -> RlaifError:
    return RlaifError(f"invalid value {str(value)[:40]!r} for option {name}", hint=f"Use {wanted}.")


def flag(settings: EngineSettings, name: str) -> bool | None:
    """An option that is on, off, or not given.

    Raises:
        RlaifError: it has another value.
    """
    value = settings.options.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise RlaifError(
        f"invalid value {value!r} for option {name}",
        hint=f"Use --option {name}=true or --option {name}=false.",
    )


SPEC = EngineSpec(
    create=create,
    codec=lambda settings: MessageCodec(defuses=flag(settings, "defuse") is not False),
    fingerprint=fingerprint,
    speed_options=SPEED_OPTIONS,
    open_pairs=pairs_of_a_batch,
    has_tokens=False,
)
