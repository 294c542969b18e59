"""Lets a chain ask the judge which of two completions follows the constitution better."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rlaif.constitution.schema import Principle
from rlaif.generation.conversations import Ask, Told
from rlaif.judging.aggregation import FoldSettings
from rlaif.judging.questions import OrdersMode, plan, screen
from rlaif.judging.rendering import Renderer
from rlaif.judging.scoring import score_pair
from rlaif.judging.verdicts import read_verdict
from rlaif.labeling.calibration import Folding
from rlaif.records import ChoiceResult, Codec, Failure, Pair, Preference
from rlaif.templates.judge import JudgeTemplate

JUDGE = "judge"


@dataclass(frozen=True)
class Judging:
    """How pairs are judged inside a chain.

    Attributes:
        label_mass_floor: see `rlaif.judging.verdicts`.
        orders, seed: see `rlaif.judging.questions.plan`.
        folding: from opinions to preferences; None: by `fold`, uncalibrated.
    """

    template: JudgeTemplate
    codec: Codec
    fold: FoldSettings
    label_mass_floor: float
    orders: OrdersMode = "both"
    seed: int = 0
    folding: Folding | None = None

    @cached_property
    def renderer(self) -> Renderer:
        """What turns questions into tokens."""
        return Renderer(self.template, self.codec)

    def compare(
        self, pairs: Sequence[Pair], principles: Sequence[Principle]
    ) -> Generator[list[Ask], list[Told], list[Preference]]:
        """Judge pairs, all at once.

        Returns:
            A preference for each pair.  Equal completions are a tie and cost nothing.
        """
        asks: list[Ask] = []
        planned = []
        for pair in pairs:
            settled = screen(pair)
            questions = (
                [] if settled else plan(pair, principles, orders=self.orders, seed=self.seed)
            )
            asks += [Ask(JUDGE, r) for r in self.renderer.requests(pair, questions, "")]
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
            folding = self.folding or Folding(self.fold)
            found.append(folding.preference(score_pair(pair, principles, verdicts)))
        return found
