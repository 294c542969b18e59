"""MT-bench (FastChat) and RewardBench, whose prompts share their marks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.records import Message
from rlaif.serve.dialects.base import (
    Choice,
    NotUnderstood,
    Pairwise,
    Ranking,
    Reading,
    Reply,
    Single,
    between,
    forced,
    last_user,
    no_verdict,
    turn,
)

_TALK = re.compile(r"### (User|Assistant A|Assistant B|Assistant|Reference answer):\n")


def _answers(text: str, question: str, letters: str) -> tuple[str, list[str]]:
    """The question and the answers of assistants named by letters."""
    marks = [question]
    for i, letter in enumerate(letters):
        start = f"[The Start of Assistant {letter}'s Answer]\n"
        before = f"\n[The End of Assistant {letters[i - 1]}'s Answer]\n\n" if i else "\n\n"
        marks.append(before + start)
    marks.append(f"\n[The End of Assistant {letters[-1]}'s Answer]")
    prompt, *answers = between(text, marks, end=True)
    return prompt, answers


def _two_talks(text: str) -> Pairwise:
    """Two conversations of two turns, one with each assistant."""
    found = []
    for letter in "AB":
        start = f"<|The Start of Assistant {letter}'s Conversation with User|>"
        end = f"<|The End of Assistant {letter}'s Conversation with User|>"
        (talk,) = between(text, (start, end))
        found.append(_turns(talk, f"Assistant {letter}"))
    users = [[m["content"] for m in talk if m["role"] == "user"] for talk in found]
    if users[0] != users[1]:
        raise NotUnderstood("the two conversations have other questions")
    # What is compared is everything after the first question, as the harness shows it.
    return Pairwise(found[0][:1], found[0][1:], found[1][1:])


def _turns(talk: str, assistant: str) -> list[Message]:
    head, *parts = _TALK.split(talk)
    names, texts = parts[0::2], parts[1::2]
    expected = ["User", assistant] * (len(names) // 2)
    if head.strip() or not names or names != expected:
        raise NotUnderstood(f"expected '### User:' and '### {assistant}:' in turn")
    roles = ["user", "assistant"] * (len(names) // 2)
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
        "FastChat's pairwise prompt ([User Question] with the answers of assistants A and B, or "
        "two conversations in marks), or its single one ([Question] with one answer)"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> Reading:
        """See `Dialect.read`."""
        text = last_user(messages)
        if "Conversation with User|>" in text:
            return _two_talks(text)
        if "[The Start of Assistant A's Answer]" in text:
            head = "[User Question]\n"
            if "[The Start of Reference Answer]" in text:
                # What the reference says is the harness's business: the constitution decides.
                question, _, rest = text.partition("\n\n[The Start of Reference Answer]\n")
                _, end, rest = rest.partition("\n[The End of Reference Answer]\n\n")
                if not end:
                    raise NotUnderstood("'[The End of Reference Answer]' is missing")
                text = f"{question}\n\n{rest}"
            prompt, (a, b) = _answers(text, head, "AB")
            return Pairwise(turn("user", prompt), turn("assistant", a), turn("assistant", b))
        prompt, answer = between(
            text,
            ("[Question]\n", "\n\n[The Start of Assistant's Answer]\n",
             "\n[The End of Assistant's Answer]"),
            end=True,
        )  # fmt: skip
        return Single(turn("user", prompt), turn("assistant", answer))

    def write(self, reading: Reading, found: Comparison | Score | Ranking) -> Reply:
        """See `Dialect.write`."""
        if isinstance(found, Score):
            if found.score is None:
                return no_verdict(found.reason)
            return Reply(f"Rating: [[{_rating(found)}]]")
        assert isinstance(found, Comparison)
        if found.status == "abstained":
            return no_verdict(found.reason)
        return Reply({"a": "[[A]]", "b": "[[B]]"}.get(found.winner or "", "[[C]]"))


class RewardBench:
    """Version 1: `[[A]]` or `[[B]]`.  Version 2: `[[A]]` to `[[D]]`, or a rating from 1 to 10."""

    name = "rewardbench"
    expects = (
        "RewardBench's prompt: [User Question] with the answers of assistants A and B (or A to D), "
        "two conversations in marks, or [Query] with one [Response]"
    )

    def read(self, messages: Sequence[Message], constitution: Constitution) -> Reading:
        """See `Dialect.read`."""
        text = last_user(messages)
        if "Conversation with User|>" in text:
            return _two_talks(text)
        if "[The Start of Assistant C's Answer]" in text:
            prompt, answers = _answers(text, "[User Question]\n", "ABCD")
            return Choice(turn("user", prompt), [turn("assistant", a) for a in answers])
        if "[The Start of Assistant A's Answer]" in text:
            prompt, (a, b) = _answers(text, "[User Question]\n", "AB")
            return Pairwise(turn("user", prompt), turn("assistant", a), turn("assistant", b))
        prompt, answer = between(
            text, ("[Query]\n", "\n\n[Response]\n", "\n\n[Your judgement]"), end=True
        )
        return Single(turn("user", prompt), turn("assistant", answer))

    def write(self, reading: Reading, found: Comparison | Score | Ranking) -> Reply:
        """See `Dialect.write`."""
        if isinstance(found, Score):
            return no_verdict(found.reason) if found.score is None else Reply(f"{_rating(found)}")
        if isinstance(found, Ranking):
            if not found.values:
                return no_verdict(found.reason)
            best = max(found.values)
            if list(found.values).count(best) > 1:
                return no_verdict("several are equally good")
            return Reply(f"[[{'ABCD'[list(found.values).index(best)]}]]")
        if found.status == "abstained":
            return no_verdict(found.reason)
        winner = forced(found)
        return Reply(f"[[{winner.upper()}]]") if winner else no_verdict("both are equally good")
