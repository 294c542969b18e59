"""Lets a conversation ask the judge which of two completions follows the constitution better."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlaif.constitution.schema import Principle
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.generation.conversations import Query, Reply
from rlaif.judging.aggregation import AggregationSettings
from rlaif.judging.questions import OrdersMode, Question, plan_questions, screen
from rlaif.judging.rendering import Renderer
from rlaif.judging.scoring import score_pair
from rlaif.judging.verdicts import read_verdict
from rlaif.labeling.load_calibration import Aggregator
from rlaif.records import ChoiceResult, Codec, Failure, Pair, Preference
from rlaif.templates.judge import JudgeTemplate

JUDGE = "judge"


@dataclass(frozen=True)
class PairCaller:
    """How pairs are judged inside a conversation.

    Attributes:
        label_mass_floor: see `rlaif.judging.verdicts`.
        orders, seed: see `rlaif.judging.questions.plan`.
        aggregation: from opinions to preferences; None: by `aggregate`, uncalibrated.
    """

    template: JudgeTemplate
    codec: Codec
    aggregation: AggregationSettings
    label_mass_floor: float
    orders: OrdersMode = "both"
    seed: int = 0
    aggregator: Aggregator | None = None

    @cached_property
    def renderer(self) -> Renderer:
        """What turns questions into tokens.

        Raises:
            RlaifError: the template asks more than one label of a question.
        """
        template = self.template
        own = next((slot for slot in ("reference", "rubric") if template.uses(slot)), "")
        if template.answer or template.scores or own:
            way = "uses reasoning" if template.answer else "reads scores"
            way = f"has a place for a row's {own}" if own else way
            raise RlaifError(
                f"template {self.template.name!r} {way}, which only `rlaif label` supports",
                hint="Use a template with two labels and without `answer`.",
            )
        return Renderer(self.template, self.codec)

    def compare(
        self, pairs: Sequence[Pair], principles: Sequence[Principle]
    ) -> Generator[list[Query], list[Reply], list[Preference]]:
        """Judge pairs, all at once.

        Returns:
            A preference for each pair.  Equal completions are a tie and cost nothing.
        """
        asks: list[Query] = []
        planned = []
        for pair in pairs:
            settled = screen(pair)
            questions: list[Question] = []
            if settled is None:
                questions = plan_questions(pair, principles, orders=self.orders, seed=self.seed)
                try:
                    asks += [Query(JUDGE, r) for r in self.renderer.requests(pair, questions, "")]
                except ConversationRefused as error:
                    settled, questions = ("abstained", error.message), []
            planned.append((pair, settled, questions))
        told = iter((yield asks) if asks else [])
        found = []
        for pair, settled, questions in planned:
            if settled:
                status, reason = settled
                found.append(
                    Preference(
                        status=status, winner=None, p_a=0.5, margin=0.0, scores=(), reason=reason
                    )
                )
                continue
            verdicts = []
            for question in questions:
                answer = next(told)
                assert isinstance(answer, ChoiceResult | Failure)
                verdicts.append(
                    read_verdict(
                        answer,
                        principle=question.principle.id,
                        order=question.order,
                        floor=self.label_mass_floor,
                    )
                )
            aggregator = self.aggregator or Aggregator(self.aggregation)
            found.append(aggregator.preference(score_pair(pair, principles, verdicts)))
        return found
