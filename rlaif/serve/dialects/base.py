"""How a harness's own judge prompt is read, and how its verdict is written back.

A harness sends its question as a chat; a dialect finds the conversation and the responses in it,
and writes what the judge found in the form that the harness parses.  A prompt that does not have
the expected form is refused, never guessed at; so is one in which a response contains the very
marks that separate the parts.  Where the judge has no verdict, the answer holds none either, so
that the harness counts it as it counts other invalid answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlaif.api.answers import Comparison, Score
from rlaif.constitution.schema import Constitution
from rlaif.data.single_rows import BadRow, read_prompt
from rlaif.records import Message


class UnreadablePrompt(Exception):
    """A prompt that the dialect cannot read; the message says what was expected."""


@dataclass(frozen=True)
class PairwisePrompt:
    """Two responses to one conversation."""

    prompt: list[Message]
    a: list[Message]
    b: list[Message]


@dataclass(frozen=True)
class BestOfChoice:
    """Several responses to one conversation; the best is asked for."""

    prompt: list[Message]
    responses: list[list[Message]]


@dataclass(frozen=True)
class SingleResponse:
    """One response; `principles` are those asked about, None for all."""

    prompt: list[Message]
    response: list[Message]
    principles: list[str] | None = None


@dataclass(frozen=True)
class ImmediateAnswer:
    """What needs no judge: its answer."""

    text: str


DialectReading = PairwisePrompt | BestOfChoice | SingleResponse | ImmediateAnswer


@dataclass(frozen=True)
class Ranking:
    """Which of several responses is best: each one's mean probability of beating another.

    Attributes:
        values: by response; empty where there is no verdict.
        reason: why there is none.
    """

    values: Sequence[float]
    reason: str = ""


@dataclass(frozen=True)
class DialectReply:
    """What the harness is told.

    Attributes:
        text: the message.
        tokens: for a message of one token: the alternatives with their probabilities.
    """

    text: str
    tokens: Mapping[str, float] | None = None


class Dialect(Protocol):
    """A harness's way to ask and to be answered."""

    @property
    def name(self) -> str:
        """As it stands in a model alias."""
        ...

    @property
    def expects(self) -> str:
        """What a prompt looks like, for errors."""
        ...

    def read(self, messages: Sequence[Message], constitution: Constitution) -> DialectReading:
        """Find the parts of a prompt.

        Raises:
            NotUnderstood: the prompt has another form.
        """
        ...

    def write(self, reading: DialectReading, found: Comparison | Score | Ranking) -> DialectReply:
        """The verdict in the harness's words."""
        ...


def turn(role: str, text: str) -> list[Message]:
    """A conversation of one message."""
    return [{"role": role, "content": text}]


def between(
    text: str, marks: Sequence[str], *, start: bool = False, end: bool = False
) -> list[str]:
    """What stands between marks that must each occur exactly once, in order.

    Args:
        start, end: whether text before the first and after the last mark must be empty.

    Raises:
        NotUnderstood: a mark is missing or occurs more than once.
    """
    for mark in marks:
        times = text.count(mark)
        shown = " ".join(mark.split())
        if not times:
            raise UnreadablePrompt(f"{shown!r} is missing")
        if times > 1:
            raise UnreadablePrompt(f"{shown!r} occurs {times} times, so the parts are ambiguous")
    pattern = "(.*?)".join(map(re.escape, marks))
    match = re.search(pattern, text, re.DOTALL)
    if match is None:
        raise UnreadablePrompt("the markers are in a different order")
    if start and text[: match.start()].strip():
        raise UnreadablePrompt("there is text before the first marker")
    if end and text[match.end() :].strip():
        raise UnreadablePrompt("there is text after the last marker")
    return list(match.groups())


def question(messages: Sequence[Message]) -> str:
    """The text of the one user message, which a system message may precede.

    More messages than that may have been split off a response that holds chat marks.

    Raises:
        NotUnderstood: there are others.
    """
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["system", "user"], ["system"]):
        raise UnreadablePrompt(f"expected one user or system message, got {len(roles)} messages")
    return messages[-1]["content"]


def conversation(text: str) -> list[Message]:
    """A prompt as `rlaif label` reads it: one turn, or those of a transcript."""
    try:
        return read_prompt({"prompt": text}).prompt
    except BadRow:
        return turn("user", text)


def named_principles(text: str, constitution: Constitution) -> list[str] | None:
    """What a harness's criterion selects: `constitution` is all, ids with commas are those.

    Raises:
        NotUnderstood: it is some other text, which this judge would have to ignore.
    """
    wanted = text.strip().strip(".").strip()
    if wanted.lower() == "constitution":
        return None
    known = [p.id for p in constitution.principles]
    names = [name.strip() for name in wanted.split(",")]
    if all(name in known for name in names):
        return names
    raise UnreadablePrompt(
        f"the criterion {wanted[:80]!r} is neither `constitution` nor a list of principle "
        f"IDs ({', '.join(known[:8])})"
    )


def no_verdict(reason: str) -> DialectReply:
    """A message in which no harness finds a verdict."""
    return DialectReply(f"no verdict: {reason}")


def forced(found: Comparison) -> str | None:
    """`a` or `b` where a harness knows no tie: the likelier one; None at exactly one half."""
    if found.p_a == 0.5:
        return None
    return "a" if found.p_a > 0.5 else "b"


def ranking(comparisons: Mapping[tuple[int, int], Comparison], count: int) -> Ranking:
    """The mean probability of each response to beat another one."""
    sums = [0.0] * count
    for (i, j), found in comparisons.items():
        if found.status == "abstained":
            return Ranking((), found.reason)
        sums[i] += found.p_a
        sums[j] += 1.0 - found.p_a
    return Ranking([s / (count - 1) for s in sums])


def logprob(p: float) -> float:
    """Log of a probability, as servers give it for one that is zero in floating point."""
    return math.log(p) if p > 0 else -9999.0
