"""Our own dialect: the last message is a JSON object, and so is the answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rlaif.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    NotUnderstood,
    Pairwise,
    Ranking,
    Reading,
    Reply,
    Single,
    last_user,
    turn,
)


class NativeJson:
    """`{"prompt": ..., "response_a": ..., "response_b": ...}`, or with one `response`."""

    name = "json"
    expects = (
        'a JSON object with the texts "prompt", "response_a" and "response_b", or "prompt" and '
        '"response"'
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> Reading:
        """See `Dialect.read`."""
        try:
            row = json.loads(last_user(messages))
        except (ValueError, RecursionError) as error:
            raise NotUnderstood(f"the last message is no JSON ({error})") from None
        if not isinstance(row, dict):
            raise NotUnderstood("the last message is no JSON object")
        prompt = row.get("prompt")
        if not isinstance(prompt, str):
            raise NotUnderstood("`prompt` is no text")
        names = ["response"] if "response" in row else ["response_a", "response_b"]
        texts = [row.get(name) for name in names]
        for name, text in zip(names, texts, strict=True):
            if not isinstance(text, str):
                raise NotUnderstood(f"`{name}` is no text")
        parts = [turn("assistant", str(text)) for text in texts]
        if len(parts) == 1:
            return Single(turn("user", prompt), parts[0])
        return Pairwise(turn("user", prompt), parts[0], parts[1])

    def write(self, reading: Reading, found: Comparison | Score | Ranking) -> Reply:
        """The answer as the native endpoints give it."""
        assert not isinstance(found, Ranking)
        return Reply(found.model_dump_json())
