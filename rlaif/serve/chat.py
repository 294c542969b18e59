"""Answers a harness's chat: reads it in its dialect, asks the judge, writes the verdict back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import combinations
from typing import Any, TypeVar

from rlaif.api.answers import Comparison, Score
from rlaif.api.judge import Judge
from rlaif.records import Message, Pair
from rlaif.serve.dialects.base import (
    BestOfChoice,
    Dialect,
    DialectReply,
    ImmediateAnswer,
    PairwisePrompt,
    SingleResponse,
    UnreadablePrompt,
    logprob,
    ranking,
)
from rlaif.serve.schemas import ChatMessage, Logprobs, TokenLogprob, TopToken

Found = TypeVar("Found")
Wait = Callable[[Future[Any]], Awaitable[Any]]
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


def plain(messages: Sequence[ChatMessage]) -> list[Message]:
    """Messages as texts.

    Raises:
        NotUnderstood: one has parts other than text, an unknown role, or broken characters.
    """
    found: list[Message] = []
    for number, message in enumerate(messages, 1):
        content = message.content
        if not isinstance(content, str):
            texts = [
                part.get("text") if part.get("type", "text") == "text" else None for part in content
            ]
            if not all(isinstance(text, str) for text in texts):
                raise UnreadablePrompt(f"message {number} has parts that are not text")
            content = "\n".join(str(text) for text in texts)
        if message.role not in _ROLES:
            raise UnreadablePrompt(
                f"message {number} has the unsupported role {message.role[:40]!r}"
            )
        try:
            content.encode()
        except UnicodeEncodeError:
            raise UnreadablePrompt(f"message {number} contains an unpaired surrogate") from None
        found.append({"role": _ROLES[message.role], "content": content})
    return found


class RequestTooLarge(Exception):
    """A request that can never be taken."""


async def answer(
    judge: Judge, dialect: Dialect, messages: list[Message], wait: Wait
) -> tuple[DialectReply, dict[str, Any]]:
    """The reply to a harness, and the evidence behind it.

    Args:
        wait: waits for a future, as long as a request may take.

    Raises:
        NotUnderstood: the prompt is not of the dialect.
        TooLarge: it asks for more comparisons than may wait at once.
    """
    try:
        reading = dialect.read(messages, judge.setup.constitution)
    except UnreadablePrompt as error:
        raise UnreadablePrompt(
            f"{error}. The dialect {dialect.name!r} expects {dialect.expects}"
        ) from None
    if isinstance(reading, ImmediateAnswer):
        return DialectReply(reading.text), {}
    if isinstance(reading, PairwisePrompt):
        pair = Pair("", reading.prompt, reading.a, reading.b)
        comparison: Comparison = await wait(judge.submit_pair(pair))
        return dialect.write(reading, comparison), {"comparison": comparison.model_dump()}
    if isinstance(reading, SingleResponse):
        score: Score = await wait(
            judge.submit_response(reading.prompt, reading.response, reading.principles)
        )
        return dialect.write(reading, score), {"score": score.model_dump()}
    assert isinstance(reading, BestOfChoice)
    compared = await _all_pairs(judge, reading, wait)
    evidence = [{"a": i, "b": j, **c.model_dump()} for (i, j), c in compared.items()]
    found = ranking(compared, len(reading.responses))
    return dialect.write(reading, found), {"comparisons": evidence, "values": list(found.values)}


async def _all_pairs(
    judge: Judge, reading: BestOfChoice, wait: Wait
) -> Mapping[tuple[int, int], Comparison]:
    count = len(reading.responses)
    most = judge.start().most_waiting
    if most is not None and count * (count - 1) // 2 > most:
        raise RequestTooLarge(f"{count} responses need more pairs than the queue allows ({most})")
    places = list(combinations(range(count), 2))
    futures = []
    try:
        for i, j in places:
            pair = Pair("", reading.prompt, reading.responses[i], reading.responses[j])
            futures.append(judge.submit_pair(pair))
        found = await asyncio.gather(*(wait(future) for future in futures))
    finally:
        for future in futures:
            future.cancel()
    return dict(zip(places, found, strict=True))


def logprobs_of(reply: DialectReply, most: int) -> Logprobs | None:
    """The one token of a reply with its rivals, as OpenAI gives them; None for longer replies."""
    if reply.tokens is None:
        return None
    ranked = sorted(reply.tokens.items(), key=lambda item: -item[1])
    tops = [
        TopToken(token=token, logprob=logprob(p), bytes=list(token.encode())) for token, p in ranked
    ]
    own = next(top for top in tops if top.token == reply.text)
    return Logprobs(content=[TokenLogprob(**own.model_dump(), top_logprobs=tops[:most])])
