"""MT-bench (FastChat) and RewardBench, whose prompts share their marks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    BestOfChoice,
    DialectReading,
    DialectReply,
    PairwisePrompt,
    Ranking,
    SingleResponse,
    UnreadablePrompt,
    between,
    conversation,
    forced,
    no_verdict,
    question,
    turn,
)

_TALK_A, _TALK_B = (f"<|The Start of Assistant {x}'s Conversation with User|>" for x in "AB")
_TALK_A_ENDS = "<|The End of Assistant A's Conversation with User|>"
_REFERENCE_TALK = "<|The Start of Reference Answer|>"
_TALK = re.compile(r"### (User|Assistant A|Assistant B|Assistant|Reference answer):\n")


_REFERENCE = "[The Start of Reference Answer]"


def _answers(text: str, letters: str, *, reference: bool = False) -> PairwisePrompt | BestOfChoice:
    """A question and the answers of assistants named by letters.

    Args:
        reference: whether a reference answer stands in between.  It is left out: the constitution
            decides.
    """
    marks = ["[User Question]\n"]
    before = "\n\n"
    if reference:
        marks.append("\n\n[The Start of Reference Answer]\n")
        before = "\n[The End of Reference Answer]\n\n"
    for letter in letters:
        marks.append(f"{before}[The Start of Assistant {letter}'s Answer]\n")
        before = f"\n[The End of Assistant {letter}'s Answer]\n\n"
    marks.append(before.rstrip("\n"))
    prompt, *rest = between(text, marks, start=True, end=True)
    answers = [turn("assistant", answer) for answer in rest[reference:]]
    if len(answers) == 2:
        return PairwisePrompt(conversation(prompt), *answers)
    return BestOfChoice(conversation(prompt), answers)


def _two_talks(text: str) -> PairwisePrompt:
    """Two conversations of two turns, one with each assistant."""
    ends = [f"<|The End of Assistant {x}'s Conversation with User|>" for x in "AB"]
    marks = (_TALK_A, f"{ends[0]}\n\n\n{_TALK_B}", ends[1])
    found = [
        _turns(talk, f"Assistant {letter}")
        for talk, letter in zip(between(text, marks, start=True, end=True), "AB", strict=True)
    ]
    users = [[m["content"] for m in talk if m["role"] == "user"] for talk in found]
    if users[0] != users[1]:
        raise UnreadablePrompt("the two conversations have different user messages")
    # What is compared is everything after the first question, as the harness shows it.
    return PairwisePrompt(found[0][:1], found[0][1:], found[1][1:])


def _talk_alone(text: str) -> SingleResponse:
    """One conversation of two turns, whose last answer is what is judged."""
    (talk,) = between(text, (_TALK_A, _TALK_A_ENDS), start=True, end=True)
    turns = _turns(talk, "Assistant A")
    return SingleResponse(turns[:-1], turns[-1:])


def _without_reference(text: str) -> str:
    """What follows the reference's conversation, which is left out: the constitution decides."""
    end = f"<|The End of Reference Answer|>\n\n\n{_TALK_A}"
    between(text, (_REFERENCE_TALK, end), start=True)
    return _TALK_A + text.split(end, 1)[1]


def _turns(talk: str, assistant: str) -> list[Message]:
    head, *parts = _TALK.split(talk)
    names, texts = parts[0::2], parts[1::2]
    if head.strip() or names != ["User", assistant] * 2:
        raise UnreadablePrompt(
            f"expected '### User:' and '### {assistant}:' to alternate, twice each"
        )
    roles = ["user", "assistant"] * 2
    return [
        {"role": role, "content": text.strip("\n")} for role, text in zip(roles, texts, strict=True)
    ]


def _rating(found: Score) -> int:
    assert found.score is not None
    return 1 + round(9 * found.score)


class MTBench:
    """`[[A]]`, `[[B]]` or, for a tie, `[[C]]`; one answer alone gets `[[rating]]` from 1 to 10."""

    name = "mt-bench"
    expects = (
        "FastChat's pairwise prompt ([User Question] with the answers of assistants A "
        "and B, or two marked conversations), or its single-answer prompt ([Question] "
        "with one answer, or one marked conversation)"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        # What form it is, its beginning says: an answer may hold the marks of another form.
        text = question(messages).strip()
        if text.startswith(_REFERENCE_TALK):
            text = _without_reference(text)
        if text.startswith(_TALK_A):
            return _talk_alone(text) if text.endswith(_TALK_A_ENDS) else _two_talks(text)
        if text.startswith("[User Question]"):
            return _answers(text, "AB", reference=_REFERENCE in text)
        before = "\n\n"
        marks = ["[Question]\n"]
        if _REFERENCE in text:
            marks.append(f"\n\n{_REFERENCE}\n")
            before = "\n[The End of Reference Answer]\n\n"
        marks += [
            f"{before}[The Start of Assistant's Answer]\n",
            "\n[The End of Assistant's Answer]",
        ]
        prompt, *_, answer = between(text, marks, end=True)
        return SingleResponse(conversation(prompt), turn("assistant", answer))

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`."""
        if isinstance(found, Score):
            if found.score is None:
                return no_verdict(found.reason)
            return DialectReply(f"Rating: [[{_rating(found)}]]")
        assert isinstance(found, Comparison)
        if found.status == "abstained":
            return no_verdict(found.reason)
        return DialectReply({"a": "[[A]]", "b": "[[B]]"}.get(found.winner or "", "[[C]]"))


class RewardBench:
    """Version 1: `[[A]]` or `[[B]]`.  Version 2: `[[A]]` to `[[D]]`, or a rating from 1 to 10."""

    name = "rewardbench"
    expects = (
        "RewardBench's prompt: [User Question] with the answers of assistants A and B "
        "(or A to D), two marked conversations, or [Query] with one [Response]"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """See `Dialect.read`."""
        text = question(messages).strip()
        if text.startswith(_TALK_A):
            return _two_talks(text)
        if text.startswith("[User Question]"):
            four = "[The Start of Assistant C's Answer]" in text
            return _answers(text, "ABCD" if four else "AB")
        prompt, answer = between(
            text, ("[Query]\n", "\n\n[Response]\n", "\n\n[Your judgement]"), end=True
        )
        return SingleResponse(conversation(prompt), turn("assistant", answer))

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """See `Dialect.write`."""
        if isinstance(found, Score):
            return (
                no_verdict(found.reason)
                if found.score is None
                else DialectReply(f"{_rating(found)}")
            )
        if isinstance(found, Ranking):
            if not found.values:
                return no_verdict(found.reason)
            best = max(found.values)
            if list(found.values).count(best) > 1:
                return no_verdict("several responses tie for best")
            return DialectReply(f"[[{'ABCD'[list(found.values).index(best)]}]]")
        if found.status == "abstained":
            return no_verdict(found.reason)
        winner = forced(found)
        return (
            DialectReply(f"[[{winner.upper()}]]") if winner else no_verdict("both are equally good")
        )
