"""inspect_ai's model-graded scorers: `GRADE: C`, `P` or `I`."""

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
    SingleResponse,
    UnreadablePrompt,
    between,
    conversation,
    forced,
    named_principles,
    no_verdict,
    question,
    turn,
)

_STARS = "\n************\n"


class InspectGraders:
    """`model_graded_qa` with the criterion `constitution` (or principle ids): correct if the score
    is at least one half.  `model_graded_fact`: correct if the submission is at least as good as the
    expert's answer.
    """

    name = "inspect"
    expects = (
        "inspect's prompt with [Task], [Submission] and [Criterion] (`constitution` or "
        "principle IDs), or with [Question], [Expert] and [Submission]"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        text = question(messages)
        for mark in ("[BEGIN DATA]", "[END DATA]"):
            if text.count(mark) != 1:
                raise UnreadablePrompt(f"{mark!r} occurs {text.count(mark)} times")
        if "[BEGIN DATA]" + _STARS in text:
            prompt, expert, answer = between(
                text,
                (
                    "[BEGIN DATA]" + _STARS + "[Question]: ",
                    _STARS + "[Expert]: ",
                    _STARS + "[Submission]: ",
                    _STARS + "[END DATA]",
                ),
            )
            return PairwisePrompt(
                conversation(prompt), turn("assistant", answer), turn("assistant", expert)
            )
        stars = "\n***\n"
        prompt, answer, criterion = between(
            text,
            (
                "[BEGIN DATA]" + stars + "[Task]: ",
                stars + "[Submission]: ",
                stars + "[Criterion]: ",
                stars + "[END DATA]",
            ),
        )
        names = named_principles(criterion, constitution)
        return SingleResponse(conversation(prompt), turn("assistant", answer), names)

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`."""
        if isinstance(found, Score):
            if found.score is None:
                return no_verdict(found.reason)
            return DialectReply(f"GRADE: {'C' if found.score >= 0.5 else 'I'}")
        assert isinstance(found, Comparison)
        if found.status == "abstained":
            return no_verdict(found.reason)
        return DialectReply(
            f"GRADE: {'I' if found.status == 'decided' and forced(found) == 'b' else 'C'}"
        )
