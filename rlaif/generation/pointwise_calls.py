"""Scores one response by a constitution.

Two ways.  A judge that follows instructions is asked about the response alone, and the probability
of "yes" is read, or of each grade from 1 to k (`prompts/pointwise`).  A judge that only compares is
shown the response beside the chosen and the rejected response of the principle's own examples:
what is as good as the chosen ones comes out near 0.75, what is as bad as the rejected ones near
0.25.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

from rlaif.constitution.checks import CheckFailed, run_check
from rlaif.constitution.schema import Principle
from rlaif.errors import RlaifError
from rlaif.generation.conversations import Query, Reply
from rlaif.generation.judge_calls import JUDGE, PairCaller
from rlaif.judging.aggregation import CHECK_LOGIT
from rlaif.judging.verdicts import read_grade, read_verdict
from rlaif.records import ChoiceRequest, ChoiceResult, Codec, Failure, Message, Pair
from rlaif.templates.messages import completion_text, conversation_text
from rlaif.templates.writer import Template, load_template

Way = Literal["asked", "anchored"]
_SLOTS = ("conversation", "response", "principle")
_PASS = 1.0 / (1.0 + math.exp(-CHECK_LOGIT))


@dataclass(frozen=True, slots=True)
class PointwisePrinciple:
    """What one principle says of a response.

    Attributes:
        p: from 0 (breaks it) to 1 (follows it); None where `invalid` says why not.
        label_mass: least probability on labels among the answers; None for checks.
        grade, spread: mean and standard deviation of the grade, where the judge was asked for one.
    """

    principle: str
    tier: int
    weight: float
    p: float | None
    label_mass: float | None = None
    invalid: str = ""
    grade: float | None = None
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class PointwiseScore:
    """A response's score.

    Attributes:
        score: mean of the principles' `p` by weight, from 0 to 1 (tiers say which principle
            decides between two responses and have no say here); None if too few are valid.
        reason: why there is no score, or "".
    """

    score: float | None
    principles: tuple[PointwisePrinciple, ...]
    reason: str = ""


class PointwiseScorer(Protocol):
    """One of the two ways."""

    def score(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        principles: Sequence[Principle],
    ) -> Generator[list[Query], list[Reply], PointwiseScore]:
        """Score a response by `principles`."""
        ...


@dataclass(frozen=True)
class DirectScorer:
    """Asks whether a response follows a principle, or how far.

    Attributes:
        template: has the labels for yes and no, or the grades, in its front matter.
    """

    template: Template
    codec: Codec
    label_mass_floor: float
    min_coverage: float

    @cached_property
    def _label_ids(self) -> tuple[tuple[int, ...], ...]:
        said = self.template.settings["labels"] or self.template.settings["scores"]
        labels = [label.strip() for label in said.split(",")]
        found = tuple(self.codec.spellings(label) for label in labels)
        tokens = [token for spelled in found for token in spelled]
        if (len(found) != 2 and not self._grades) or len(set(tokens)) < len(tokens):
            raise RlaifError(
                f"pointwise template {self.template.name!r} has invalid labels {labels}",
                hint="Use two labels that differ in more than case, such as `labels: Yes, No`.",
            )
        return found

    @property
    def _grades(self) -> tuple[int, ...]:
        """The grades that the judge may give, lowest first; none if it says yes or no."""
        said = self.template.settings["scores"]
        return tuple(int(grade) for grade in said.split(",")) if said else ()

    def check(self) -> None:
        """Find out whether the judge has tokens for the labels.

        Raises:
            RlaifError: it has not.
        """
        assert self._label_ids

    def score(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        principles: Sequence[Principle],
    ) -> Generator[list[Query], list[Reply], PointwiseScore]:
        """See `PointwiseScorer.score`."""
        asked = [p for p in principles if p.check is None]
        before, after = re.split(r"\{\{\s*principle\s*\}\}", self.template.body, maxsplit=1)
        values = {
            "conversation": conversation_text(prompt),
            "response": completion_text(response),
        }
        texts = [Template("", part, {}).render(**values) for part in (before, after)]
        told: list[Reply] = []
        if asked:
            fixed = 0 if "{{" in after else len(before.split("}}")[-1])
            prefill = self.template.settings["prefill"]
            opening = {"prefill": prefill} if prefill else {}
            context, tails = self.codec.encode_branches(
                texts[0], [f"{p.preference}{texts[1]}" for p in asked], fixed, **opening
            )
            told = yield [
                Query(JUDGE, ChoiceRequest("", context + tail, self._label_ids)) for tail in tails
            ]
        answers = iter(told)
        points = []
        for principle in principles:
            if principle.check is not None:
                points.append(_check(principle, prompt, response))
                continue
            answer = next(answers)
            assert isinstance(answer, ChoiceResult | Failure)
            if self._grades:
                points.append(self._graded(principle, answer))
                continue
            verdict = read_verdict(
                answer, principle=principle.id, order="ab", floor=self.label_mass_floor
            )
            p = None if verdict.invalid else 1.0 / (1.0 + math.exp(-verdict.logit))
            points.append(_point(principle, p, verdict.label_mass, verdict.invalid))
        return _mean(points, self.min_coverage)

    def _graded(self, principle: Principle, answer: ChoiceResult | Failure) -> PointwisePrinciple:
        """A grade as a share of the way from the lowest to the highest."""
        if isinstance(answer, Failure):
            return _point(principle, None, 0.0, answer.reason)
        grades = self._grades
        read = read_grade(answer.logprobs, grades, floor=self.label_mass_floor)
        if read.invalid:
            return _point(principle, None, read.mass, read.invalid)
        p = (read.mean - grades[0]) / (grades[-1] - grades[0])
        found = _point(principle, p, read.mass, "")
        return replace(found, grade=read.mean, spread=read.spread)


@dataclass(frozen=True)
class AnchoredScorer:
    """Compares a response with those of the principle's examples.

    Attributes:
        examples: of each principle, at most.
    """

    judging: PairCaller
    min_coverage: float
    examples: int = 2

    def check(self) -> None:
        """Nothing can be wrong here."""

    def score(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        principles: Sequence[Principle],
    ) -> Generator[list[Query], list[Reply], PointwiseScore]:
        """See `PointwiseScorer.score`."""
        points = []
        # One principle after the other in the answer, but all of them asked at once.
        conversations = [self._one(p, prompt, response) for p in principles]
        found = yield from _together(conversations)
        for principle, (p, mass, invalid) in zip(principles, found, strict=True):
            if not principle.judged:
                points.append(_check(principle, prompt, response))
            else:
                points.append(_point(principle, p, mass, invalid))
        return _mean(points, self.min_coverage)

    def _one(
        self, principle: Principle, prompt: Sequence[Message], response: Sequence[Message]
    ) -> Generator[list[Query], list[Reply], tuple[float | None, float | None, str]]:
        anchors = [
            text
            for example in principle.examples[: self.examples]
            for text in (example.chosen, example.rejected)
        ]
        if not principle.judged:
            return None, None, ""
        if not anchors:
            return None, None, "no examples to compare with"
        pairs = [
            Pair("", prompt, response, [{"role": "assistant", "content": anchor}])
            for anchor in anchors
        ]
        found = yield from self.judging.compare(pairs, [principle])
        values: list[float] = []
        masses: list[float] = []
        for preference in found:
            if preference.status == "tie" and not preference.scores:
                values.append(0.5)  # it is the anchor
                continue
            if not preference.scores:
                return None, None, preference.reason
            (own,) = preference.scores
            if own.invalid:
                return None, own.label_mass, own.invalid
            values.append(own.p_a)
            masses.append(own.label_mass or 0.0)
        return math.fsum(values) / len(values), min(masses, default=None), ""


def load_pointwise_template(name: str) -> Template:
    """A template by shipped name or path.

    Raises:
        RlaifError: it is missing, lacks a placeholder or its labels, or has wrong `scores`.
    """
    template = load_template(
        name, "pointwise", required=_SLOTS, defaults={"labels": "", "scores": "", "prefill": ""}
    )
    labels, scores = template.settings["labels"], template.settings["scores"]
    if bool(labels) == bool(scores):
        raise RlaifError(
            f"pointwise template {name!r} needs one of the settings `labels` and `scores`",
            hint="Add a line `labels: Yes, No`, or `scores: 1, 2, 3, 4, 5`.",
        )
    grades = [part.strip() for part in scores.split(",")] if scores else []
    numbers = [int(grade) for grade in grades if grade.isdecimal()]
    if scores and (len(numbers) != len(grades) or numbers != sorted(set(numbers))):
        raise RlaifError(
            f"pointwise template {name!r} has invalid `scores`: {scores[:60]}",
            hint="List whole numbers from low to high, such as `scores: 1, 2, 3, 4, 5`.",
        )
    if scores and len(numbers) < 2:
        raise RlaifError(
            f"pointwise template {name!r} has one score", hint="List two or more, from low to high."
        )
    if len(re.findall(r"\{\{\s*principle\s*\}\}", template.body)) > 1:
        raise RlaifError(
            f"pointwise template {name!r} has the placeholder {{{{principle}}}} more than once",
            hint="Use it once, at the end.",
        )
    return template


def _together(
    conversations: Sequence[
        Generator[list[Query], list[Reply], tuple[float | None, float | None, str]]
    ],
) -> Generator[list[Query], list[Reply], list[tuple[float | None, float | None, str]]]:
    """Conversations of one question round each, as one round."""
    found: list[tuple[float | None, float | None, str]] = [(None, None, "")] * len(conversations)
    open_: list[tuple[int, int]] = []
    asks: list[Query] = []
    for i, conversation in enumerate(conversations):
        try:
            own = next(conversation)
        except StopIteration as end:
            found[i] = end.value
        else:
            asks += own
            open_.append((i, len(own)))
    told = (yield asks) if asks else []
    start = 0
    for i, count in open_:
        try:
            conversations[i].send(told[start : start + count])
        except StopIteration as end:
            found[i] = end.value
        start += count
    return found


def _check(
    principle: Principle, prompt: Sequence[Message], response: Sequence[Message]
) -> PointwisePrinciple:
    assert principle.check is not None
    if principle.judged:
        return _point(principle, None, None, "a reward says nothing of one response alone")
    try:
        passes = run_check(principle.check, conversation_text(prompt), completion_text(response))
    except CheckFailed as error:
        return _point(principle, None, None, str(error))
    return _point(principle, _PASS if passes else 1.0 - _PASS, None, "")


def _point(
    principle: Principle, p: float | None, mass: float | None, invalid: str
) -> PointwisePrinciple:
    return PointwisePrinciple(
        principle=principle.id,
        tier=principle.tier,
        weight=principle.weight,
        p=p,
        label_mass=mass,
        invalid=invalid,
    )


def _mean(points: Sequence[PointwisePrinciple], min_coverage: float) -> PointwiseScore:
    total = math.fsum(point.weight for point in points)
    if not total:
        return PointwiseScore(None, tuple(points), "no principle applies")
    valid = [(point.weight, point.p) for point in points if point.p is not None]
    weight = math.fsum(w for w, _ in valid)
    if not weight or weight / total < min_coverage:
        broken = next(point for point in points if point.invalid)
        reason = f"coverage {weight / total:.2f}: {broken.principle}: {broken.invalid}"
        return PointwiseScore(None, tuple(points), reason)
    return PointwiseScore(math.fsum(w * p for w, p in valid) / weight, tuple(points))
