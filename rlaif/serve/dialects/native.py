"""Our own dialect: the last message is a JSON object, and so is the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.data.messages import BadRow, read_chat
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    DialectReading,
    DialectReply,
    PairwisePrompt,
    Ranking,
    SingleResponse,
    UnreadablePrompt,
    conversation,
    question,
    turn,
)
from rlaif.templates.messages import message_text
from rlaif.util.doubled_keys import refuse_doubles


class NativeJson:
    """`{"prompt": ..., "response_a": ..., "response_b": ...}`, or with one `response`.

    Each is a text or a list of messages.
    """

    name = "json"
    expects = (
        'a JSON object with "prompt", "response_a" and "response_b", or with "prompt" '
        'and "response"'
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        try:
            row = json.loads(question(messages), object_pairs_hook=refuse_doubles)
        except (ValueError, RecursionError) as error:
            raise UnreadablePrompt(f"the last message is not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise UnreadablePrompt("the last message is not a JSON object")
        names = ["response"] if "response" in row else ["response_a", "response_b"]
        if set(row) != {"prompt", *names}:
            raise UnreadablePrompt(f"the object has the keys {sorted(map(str, row))[:6]}")
        prompt = _messages(row, "prompt", "user")
        parts = [_messages(row, name, "assistant") for name in names]
        if len(parts) == 1:
            return SingleResponse(prompt, parts[0])
        return PairwisePrompt(prompt, parts[0], parts[1])

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """The answer as the native endpoints give it."""
        assert not isinstance(found, Ranking)
        return DialectReply(found.model_dump_json())


def _messages(row: Mapping[str, object], name: str, role: str) -> list[Message]:
    value = row.get(name)
    if isinstance(value, str):
        _check(name, value)
        return conversation(value) if role == "user" else turn(role, value)
    found: list[Message] = []
    if isinstance(value, list) and value:
        try:
            chat = read_chat(value, name)
        except BadRow as error:
            raise UnreadablePrompt(str(error).replace("column", "field")) from None
        if chat.media:
            raise UnreadablePrompt(f"`{name}` contains content that is no text ({chat.media[0]})")
        found = chat.messages
    if not found:
        raise UnreadablePrompt(f"`{name}` is neither text nor a list of messages")
    if (found[-1]["role"] == "assistant") != (role == "assistant"):
        raise UnreadablePrompt(
            f"the last message of `{name}` must not have the role {found[-1]['role']}"
        )
    _check(name, *map(message_text, found))
    return found


def _check(name: str, *texts: str) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnreadablePrompt(f"`{name}` contains an unpaired surrogate") from None
