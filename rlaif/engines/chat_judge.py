"""Judges through a chat API: by the likeliest tokens where the server gives them, else by votes."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlaif.engines.chat_labels import (
    NoLabel,
    NoProbabilities,
    read_probabilities,
    read_text_label,
)
from rlaif.engines.server_client import Unusable
from rlaif.engines.voting import VotePlan, posterior_mean
from rlaif.records import ChoiceResult, Failure, GenerationResult, Result
from rlaif.util.hashing import digest

Means = Literal["auto", "logprobs", "votes"]
TOP_TOKENS = 20
"""Likeliest tokens that are asked for: the most that OpenAI gives."""
LACKING = "the server gives no log-probabilities of tokens"


@dataclass(frozen=True)
class VoteSettings:
    """How a judge without probabilities is asked.

    Attributes:
        means: "auto" takes log-probabilities where the server gives them, and votes where not.
        votes: answers drawn for one verdict, at most.
        error: see `VotePlan`.
        temperature: at which they are drawn.
        tokens: that an answer may have.
        seed: fixes the draws, where the server minds seeds.
    """

    means: Means = "auto"
    votes: int = 15
    error: float = 0.05
    temperature: float = 1.0
    tokens: int = 16
    seed: int = 0


@dataclass(frozen=True)
class LabelQuestion:
    """A question about a pair as a chat server is asked it.

    Attributes:
        messages: of the request.
        opening: the words that the answer was to begin with; "" for none.
        labels: the two answers.
        seed: fixes the draws of votes.
    """

    name: str
    messages: Sequence[Mapping[str, Any]]
    opening: str
    labels: Sequence[str]
    seed: int


@dataclass(frozen=True)
class LabelCall:
    """One call to the server about a question.

    Attributes:
        parameters: beside its messages.
        read: makes a result of a choice and its text.
        draw: how often the question was asked before.
    """

    parameters: Mapping[str, Any]
    read: Callable[[Mapping[str, Any], str], Result]
    draw: int = 0


LabelCalls = Generator[list[LabelCall], list[Result], "ChoiceResult | Failure"]
"""Calls that can be made together, then those that follow from their results; ends with the
answer."""


class ChatJudge:
    """Finds out which of two labels a model answers with.

    Attributes:
        by_votes: whether the model is known to give no probabilities.
        draws_together: whether votes that are needed anyway are drawn in one go: fewer rounds, and
            as many votes.
    """

    def __init__(self, settings: VoteSettings) -> None:
        self._settings = settings
        self._plan = VotePlan(settings.votes, settings.error)
        self.by_votes, self._gave = settings.means == "votes", False
        self.draws_together = False

    def seed_of(self, token_ids: Sequence[int]) -> int:
        """What fixes the draws of votes for a question."""
        return int(digest([list(token_ids), self._settings.seed])[:12], 16)

    def ask(self, question: LabelQuestion) -> LabelCalls:
        """The calls that lead to the log-probabilities of the labels, or to why there are none."""
        if not self.by_votes:
            (found,) = yield [self._reading(question)]
            if isinstance(found, Failure) and _refuses_logprobs(found.reason):
                found = Failure(question.name, LACKING)
            assert not isinstance(found, GenerationResult)
            if isinstance(found, ChoiceResult):
                self._gave = True
            if not (isinstance(found, Failure) and found.reason == LACKING):
                return found
            if self._settings.means == "logprobs" or self._gave:
                return found  # of a server that gives them, it is this answer's fault
            self.by_votes = True  # it gives none to anybody
        return (yield from self._vote(question))

    def _reading(self, question: LabelQuestion) -> LabelCall:
        """A call that is answered by the likeliest tokens."""
        parameters = {
            "logprobs": True,
            "top_logprobs": TOP_TOKENS,
            "temperature": 0.0,
            "tokens": self._settings.tokens,
        }

        def read(choice: Mapping[str, Any], _: str) -> Result:
            try:
                found = read_probabilities(choice, question.labels)
            except NoProbabilities:
                return Failure(question.name, LACKING)
            except NoLabel as error:
                raise Unusable(str(error)) from None
            return ChoiceResult(question.name, found)

        return LabelCall(parameters, read)

    def _vote(self, question: LabelQuestion) -> LabelCalls:
        """The same question until the answer is clear."""
        counts, odd, reason = [0, 0], 0, ""

        def text_of(_: Mapping[str, Any], text: str) -> Result:
            ids = tuple(text.encode("utf-8", "replace"))
            return GenerationResult(question.name, ids, finished=True)

        while not self._plan.is_clear(*counts) and odd <= max(2, sum(counts)):
            cast = sum(counts) + odd
            least = self._plan.least_votes(*counts) if self.draws_together else 1
            calls = [
                LabelCall(
                    {
                        "temperature": self._settings.temperature,
                        "tokens": self._settings.tokens,
                        "seed": (question.seed + draw) % (1 << 31),
                    },
                    text_of,
                    draw,
                )
                for draw in range(cast, cast + least)
            ]
            for said in (yield calls):
                if isinstance(said, Failure):
                    return said
                assert isinstance(said, GenerationResult)
                text = bytes(said.token_ids).decode("utf-8", "replace")
                try:
                    counts[read_text_label(text, question.labels, question.opening)] += 1
                except NoLabel as error:
                    odd, reason = odd + 1, str(error)
        if not any(counts):
            return Failure(question.name, f"none of {odd} answers can be read: {reason}")
        return self._posterior(question.name, counts[0], counts[1], odd)

    def _posterior(self, name: str, first: int, second: int, odd: int) -> ChoiceResult:
        p, cast = posterior_mean(first, second), first + second
        mass = cast / (cast + odd)
        told = f"{first} of {cast} answers chose the response shown first"
        if odd:
            told += f", and {odd} more chose neither"
        if (first, second) in self._plan.outcomes:
            low, high = self._plan.interval(first, second)
            told += f" (probability {p:.3f}, 95% interval {low:.3f} to {high:.3f})"
        return ChoiceResult(name, (math.log(mass * p), math.log(mass * (1 - p))), told)


def _refuses_logprobs(reason: str) -> bool:
    """Whether a server says that it does not take the parameter."""
    return reason.startswith("status 4") and "logprob" in reason.casefold()
