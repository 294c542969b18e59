"""Arena-Hard-Auto: five labels from `[[A>>B]]` to `[[B>>A]]`."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    DialectReading,
    DialectReply,
    PairwisePrompt,
    Ranking,
    UnreadablePrompt,
    between,
    conversation,
    no_verdict,
    turn,
)

CLEARLY = 0.6
"Minimum margin |2p - 1| of a strong preference: 80% against 20%."
_MARKS = (
    "<|User Prompt|>\n",
    "\n\n<|The Start of Assistant A's Answer|>\n",
    "\n<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n",
    "\n<|The End of Assistant B's Answer|>",
)


class ArenaHard:
    """The label is as strong as the probability."""

    name = "arena-hard"
    expects = (
        "a message with <|User Prompt|> and the answers of assistants A and B between their markers"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        # A judge that gave no label is asked to go on: the question is the first user message.
        asked = [m["content"] for m in messages if m["role"] == "user"]
        if not asked:
            raise UnreadablePrompt("there is no user message")
        prompt, a, b = between(asked[0], _MARKS, start=True, end=True)
        return PairwisePrompt(conversation(prompt), turn("assistant", a), turn("assistant", b))

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`."""
        assert isinstance(found, Comparison)
        if found.status == "abstained":
            return no_verdict(found.reason)
        if found.winner is None:
            return DialectReply("[[A=B]]")
        sign = ">>" if found.margin >= CLEARLY else ">"
        label = f"A{sign}B" if found.winner == "a" else f"B{sign}A"
        return DialectReply(f"[[{label}]]")
