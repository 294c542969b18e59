"""The records that flow from stage to stage: pairs, requests, results, verdicts, preferences.

Plain data without behavior beyond small derived values.  Nothing changes a record once it is
made; those made by the million are not frozen, since that triples the cost of making one.

Sign convention, used everywhere: a positive number speaks for the first of two things (the
first shown, or response `a`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, Protocol, TypedDict

CLEAR = 0.2
"""The margin |2p - 1| from which a single answer counts as an opinion."""
CUT = "[cut off here, and asked for the answer]"
"""Ends a reasoning that came to no end by itself."""
DIGITS = 5
"""Decimals in rows: float32 engines repeat themselves to about 1e-6, whatever the batch."""
_CLEAR_LOGIT = 2.0 * math.atanh(CLEAR)

Order = Literal["ab", "ba"]
Status = Literal["decided", "tie", "abstained", "human"]


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it.

    Attributes:
        tool_calls: what an assistant calls, in the form of chat templates: each
            `{"type": "function", "function": {"name": ..., "arguments": {...}}}`, with its `id`
            where the data has one.
        tool_call_id, name: of a tool's result: the call that it answers, and the tool.
        reasoning_content: what a model thought before it spoke or called.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    reasoning_content: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a text comes from.

    Attributes:
        kind: "human", "model", or "" for unknown.
        model, revision: which model, and which commit or fingerprint of it.
        license: under which the text may be used: a model's own, or a data set's.
        depth: synthetic generations: 0 for people, for a model 1 + the deepest of what it was
            trained on here and of what it was shown.
        sampling: how it was drawn, such as "temperature=1.0 seed=3".
        time: when it was written, UTC, as ISO 8601.
    """

    kind: str = ""
    model: str = ""
    revision: str = ""
    license: str = ""
    depth: int = 0
    sampling: str = ""
    time: str = ""


UNKNOWN_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a prompt.

    Attributes:
        data: the bytes of its file, such as PNG or JPEG.
        source: how a row that is written names it: a path, or a `data:` address.
    """

    data: bytes
    source: str


@dataclass(frozen=True, slots=True)
class Criterion:
    """A row's own criterion: a principle of that row alone.

    Attributes:
        id: `rubric-1`, `rubric-2`, ..., by its place in the row.
        weight: as a principle's; negative for something that a response should not do.
    """

    id: str
    text: str
    weight: float = 1.0
    tier: int = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with two completions, `a` and `b`, as they came in.

    Attributes:
        id: stable name of the pair: from its data, or from its place in the input.
        prompt: the conversation so far; ends with the turn to be answered.
        a, b: one completion each, as messages.
        origin_a, origin_b: who wrote it ("human", a model's name, or "" for unknown).
        tags: what `applies_to` selects principles by.
        row: number of the input row, from 1: unique where ids of the data are not.
        depth: synthetic generations of the deeper completion; 0 for human or unknown ones.
        weight: how often it counts in training.
        origins: of the prompt, of `a` and of `b`.
        tools: definitions of the tools that could be called.
        pictures: of the prompt, in the order of the marks in its text.
        reference: the row's reference answer, or "".
        criteria: the row's own rubric.
        language: of the prompt, as an ISO 639-1 code; "" where nobody asks for it.
    """

    id: str
    prompt: Sequence[Message]
    a: Sequence[Message]
    b: Sequence[Message]
    origin_a: str = ""
    origin_b: str = ""
    tags: frozenset[str] = frozenset()
    row: int = 0
    depth: int = 0
    weight: float = 1.0
    origins: tuple[Origin, Origin, Origin] = (UNKNOWN_ORIGIN,) * 3
    tools: Sequence[Any] = ()
    pictures: tuple[Picture, ...] = ()
    reference: str = ""
    criteria: tuple[Criterion, ...] = ()
    language: str = ""


@dataclass(slots=True)
class ChoiceRequest:
    """Which of these label tokens follows the prompt?  One forward pass, no decoding.

    Attributes:
        id: unique among the requests in flight.
        token_ids: the rendered prompt.
        label_ids: for each label, every token that spells it.
        shared: how many leading tokens the request before it in the plan has too: an engine
            that keeps keys and values need not compute them again.
        pictures: those that the prompt has marks for; only for engines that take them.
    """

    id: str
    token_ids: Sequence[int]
    label_ids: tuple[tuple[int, ...], ...]
    shared: int = 0
    pictures: tuple[Picture, ...] = ()


@dataclass(slots=True)
class ContextRequest:
    """Several choices about one context: the prompt of each is the context and its own tail.

    For engines whose attribute `takes_contexts` is true; they answer each choice by its id.

    Attributes:
        ids: of the choices; unique among the requests in flight.
        context: token ids that all prompts begin with.
        tails: the token ids that follow, for each choice.
        label_ids: as in `ChoiceRequest`.
        shared: for each choice, how many leading tokens the prompt before it has too.
    """

    ids: list[str]
    context: list[int]
    tails: list[list[int]]
    label_ids: tuple[tuple[int, ...], ...]
    shared: list[int]

    def split(self) -> Iterator[ChoiceRequest]:
        """The choices as requests of their own."""
        for name, tail, shared in zip(self.ids, self.tails, self.shared, strict=True):
            yield ChoiceRequest(name, self.context + tail, self.label_ids, shared)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Continue the prompt.

    Attributes:
        max_tokens: the most tokens to write.
        temperature: 0 is greedy.
        seed: fixes the draw; None leaves it to the engine.
        pictures: as in `ChoiceRequest`.
    """

    id: str
    token_ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    pictures: tuple[Picture, ...] = ()


Request = ChoiceRequest | GenerationRequest
AnyRequest = Request | ContextRequest


@dataclass(slots=True)
class ChoiceResult:
    """Log-probability (nats) of each label, summed over its spellings, in request order.

    Attributes:
        evidence: what the engine says of how they were found, such as counts of votes; "" for
            probabilities that were read.
    """

    id: str
    logprobs: tuple[float, ...]
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """The tokens written; `finished` is False where the token limit cut them off."""

    id: str
    token_ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without an answer, and why: data, never a default.

    Attributes:
        passing: whether asking again later may well succeed.
    """

    id: str
    reason: str
    passing: bool = False


Result = ChoiceResult | GenerationResult | Failure


@dataclass(slots=True)
class Verdict:
    """What one judge said about one pair, one principle and one order.

    Attributes:
        principle: id of the principle.
        order: "ab" if response `a` was shown first.
        logit: log-odds (nats) that the response *shown first* is better; 0 where invalid.
        label_mass: probability that fell on the two labels at all.
        invalid: why there is no verdict, or "" for a valid one.
        cached: whether it came from the verdict cache rather than from the judge.
        reasoning: what the judge wrote before it answered, or "".
    """

    principle: str
    order: Order
    logit: float
    label_mass: float
    invalid: str = ""
    cached: bool = False
    reasoning: str = ""

    @property
    def logit_a(self) -> float:
        """The log-odds that response `a` is better, whichever was shown first."""
        return self.logit if self.order == "ab" else -self.logit


@dataclass(slots=True)
class PrincipleScore:
    """One principle's opinion of a pair, its orders aggregated.

    Attributes:
        logit: log-odds that `a` is better: the mean over orders.
        position_logit: half the difference between the orders: the part that follows the
            position and not the text; None unless both orders are known.
        source: "judge", or "check" for a programmatic principle.
        invalid: why it has no opinion, or "".
    """

    principle: str
    tier: int
    weight: float
    logit: float
    position_logit: float | None = None
    flipped: bool = False
    label_mass: float | None = None
    source: Literal["judge", "check"] = "judge"
    invalid: str = ""

    @property
    def p_a(self) -> float:
        """Probability that `a` is better."""
        return (1.0 + self.sign) / 2.0

    @property
    def clear(self) -> bool:
        """Whether the judge had an opinion in one order at least: a margin of `CLEAR`.

        Below it, the sign of an answer is noise, and a flip between orders means nothing.
        """
        # The orders' logits are logit + shift and logit - shift.
        return abs(self.logit) + abs(self.position_logit or 0.0) >= _CLEAR_LOGIT

    @property
    def sign(self) -> float:
        """The opinion between -1 (for `b`) and 1 (for `a`): 2p - 1, exactly odd in the logit."""
        return math.tanh(self.logit / 2.0)


@dataclass(frozen=True, slots=True)
class Preference:
    """The aggregated opinion of a pair.

    Attributes:
        winner: "a" or "b"; None for a tie or an abstention.
        p_a: probability that `a` is better (0.5 where nothing is known).
        margin: |2 p_a - 1|, from 0 to 1.
        deciding_tier: the tier whose margin was clear; None if none was.
        order_consistency: share of principles with a clear opinion whose orders agree; None if
            there is none or only one order was asked.
        reason: why it is a tie or an abstention.
        dissent: share of a panel's judges on the other side than the winner; None for one judge.
    """

    status: Status
    winner: Literal["a", "b"] | None
    p_a: float
    margin: float
    scores: tuple[PrincipleScore, ...]
    deciding_tier: int | None = None
    order_consistency: float | None = None
    reason: str = ""
    dissent: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input row that could not become a pair, with its place and the reason."""

    place: str
    reason: str
    row: Mapping[str, object] = field(default_factory=dict)


class Codec(Protocol):
    """A model's own text rendering: its chat template and its tokenizer."""

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, opened for the assistant's answer.

        Special tokens written out inside a message stay text: data cannot open a turn.
        """

    def encode_branches(
        self, shared: str, tails: Sequence[str], fixed: int = 0, prefill: str = ""
    ) -> tuple[list[int], list[list[int]]]:
        """Token ids of one-message conversations `shared + tail`, one for each tail.

        Args:
            fixed: how many characters at the end of `shared` never change; 0 where the tails
                are not going to come back.
            prefill: the beginning of the assistant's answer.

        Returns:
            The ids that all of them begin with, and the ids that each goes on with (at least
            one): joined, they are exactly `encode_chat` of the whole where `prefill` is empty.
        """

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text that continues an answer."""

    def spellings(self, label: str) -> tuple[int, ...]:
        """Every single token that spells `label`, with or without white space around it."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated tokens, without special tokens."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
