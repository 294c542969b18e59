"""deepeval's G-Eval: first it asks for evaluation steps, then for a score by them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    DialectReading,
    DialectReply,
    ImmediateAnswer,
    Ranking,
    SingleResponse,
    UnreadablePrompt,
    between,
    conversation,
    named_principles,
    no_verdict,
    question,
    turn,
)
from rlaif.serve.dialects.reasons import in_words

_RANGE = re.compile(r"an integer between (-?\d+) and (-?\d+)")


class GEval:
    """`{"score": ..., "reason": ...}`; the criteria are `constitution` or principle ids."""

    name = "deepeval"
    expects = (
        "G-Eval's prompt for evaluation steps or for a score, with `constitution` or "
        "principle IDs as criteria (or steps), and the parameters Input and Actual Output"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        text = question(messages)
        if "\nEvaluation Steps:\n" not in text:
            (criteria,) = between(text, ("\nEvaluation Criteria:\n", "\n\n**\nIMPORTANT:"))
            names = named_principles(criteria, constitution)
            return ImmediateAnswer(json.dumps({"steps": names or ["constitution"]}))
        head, _, rest = text.partition("\nEvaluation Steps:\n")
        scale = _RANGE.search(head)
        if scale is None:
            raise UnreadablePrompt("the score range is missing")
        marks = ("\0", "Test Case:\nInput:\n", " \n\nActual Output:\n", "\n\nParameters:\n")
        steps, prompt, output = between("\0" + rest, marks)
        parameters = rest.rpartition(marks[-1])[2].split("\n")[0]
        if parameters != "Input and Actual Output":
            raise UnreadablePrompt(f"unsupported parameters {parameters[:60]!r}")
        named = [re.sub(r"^\s*\d+[.)]\s*", "", line) for line in steps.splitlines() if line.strip()]
        return _Scaled(
            prompt=conversation(prompt),
            response=turn("assistant", output.rstrip()),
            principles=named_principles(",".join(named), constitution),
            low=int(scale.group(1)),
            high=int(scale.group(2)),
        )

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`."""
        assert isinstance(found, Score)
        assert isinstance(reading, _Scaled)
        if found.score is None:
            return no_verdict(found.reason)
        score = round(reading.low + (reading.high - reading.low) * found.score)
        return DialectReply(json.dumps({"reason": in_words(found), "score": score}))


class _Scaled(SingleResponse):
    """A response to be scored on a scale of whole numbers."""

    def __init__(
        self,
        prompt: list[Message],
        response: list[Message],
        principles: list[str] | None,
        low: int,
        high: int,
    ) -> None:
        super().__init__(prompt, response, principles)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    low: int
    high: int
