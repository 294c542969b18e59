"""Judges through a chat API: by the likeliest tokens where the server gives them, else by votes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationResult, Result
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
    """

    name: str
    messages: Sequence[Mapping[str, Any]]
    opening: str
    labels: Sequence[str]


class ChatJudge:
    """Asks which of two labels a model answers with.

    Args:
        ask: sends a question with parameters and lets a function read the choice that came.
    """

    def __init__(
        self,
        ask: Callable[
            [LabelQuestion, Mapping[str, Any], Callable[[Mapping[str, Any], str], Result]], Result
        ],
        settings: VoteSettings,
    ) -> None:
        self._ask, self._settings = ask, settings
        self._plan = VotePlan(settings.votes, settings.error)
        self._by_votes, self._gave = settings.means == "votes", False

    def answer(self, request: ChoiceRequest, question: LabelQuestion) -> ChoiceResult | Failure:
        """The log-probabilities of the labels, or why there are none."""
        if not self._by_votes:
            found = self._read(question)
            if isinstance(found, ChoiceResult):
                self._gave = True
            if not (isinstance(found, Failure) and found.reason == LACKING):
                return found
            if self._settings.means == "logprobs" or self._gave:
                return found  # of a server that gives them, it is this answer's fault
            self._by_votes = True  # it gives none to anybody
        return self._vote(request, question)

    def _read(self, question: LabelQuestion) -> ChoiceResult | Failure:
        """One question, answered by the likeliest tokens."""
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

        found = self._ask(question, parameters, read)
        if isinstance(found, Failure) and _refuses_logprobs(found.reason):
            return Failure(question.name, LACKING)
        assert not isinstance(found, GenerationResult)
        return found

    def _vote(self, request: ChoiceRequest, question: LabelQuestion) -> ChoiceResult | Failure:
        """The same question until the answer is clear."""
        counts, odd, reason = [0, 0], 0, ""
        base = int(digest([list(request.token_ids), self._settings.seed])[:12], 16)
        while not self._plan.is_clear(*counts) and odd <= max(2, sum(counts)):
            parameters = {
                "temperature": self._settings.temperature,
                "tokens": self._settings.tokens,
                "seed": (base + sum(counts) + odd) % (1 << 31),
            }
            said = self._ask(
                question,
                parameters,
                lambda _, text: GenerationResult(
                    question.name, tuple(text.encode("utf-8", "replace")), finished=True
                ),
            )
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
