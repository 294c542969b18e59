"""Measures the embedded models against the oracle, on text that no training saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import Principle
from rlaif.demo.oracle import TIERS, compare_by_principle, prefer
from rlaif.demo.world import DemoPair, World
from rlaif.engines.base import Engine
from rlaif.evaluation.stats.intervals import Share, share
from rlaif.judging.aggregation import AggregationSettings, aggregate, score_principle
from rlaif.judging.questions import Question
from rlaif.judging.rendering import Renderer
from rlaif.judging.verdicts import read_verdict
from rlaif.records import ChoiceRequest, ChoiceResult, Order, Pair, Verdict
from rlaif.templates.judge import load_judge_template

ORDERS: tuple[Order, Order] = ("ab", "ba")


@dataclass(frozen=True)
class JudgeAgreement:
    """How often the judge sides with the oracle, where the oracle sides at all.

    Attributes:
        overall: on whole pairs, principles aggregated by tier.
        principles: per principle, order-averaged.
        same_position: per principle, how often the same position wins both orders of such a pair.
    """

    overall: Share
    principles: dict[str, Share]
    same_position: dict[str, Share]


def measure_judge(
    engine: Engine, *, pairs: int, seed: int = 101, questions: Mapping[str, str] | None = None
) -> JudgeAgreement:
    """Ask the judge about held-out prompts and sentences, in held-out wordings.

    Args:
        questions: by principle, a question to ask in place of the drawn ones.
    """
    world = World(seed, "test")
    drawn = [(pair, _held_out_principles(world, questions or {})) for pair in world.pairs(pairs)]
    verdicts = _ask(engine, drawn)
    right: dict[str, list[int]] = {name: [0, 0] for name in ("overall", *TIERS)}
    flips: dict[str, list[int]] = {name: [0, 0] for name in TIERS}
    for n, (pair, principles) in enumerate(drawn):
        scores = []
        for k, principle in enumerate(principles):
            score = score_principle(principle, [verdicts[n, k, order] for order in ORDERS])
            scores.append(score)
            truth = compare_by_principle(
                principle.id, pair.prompt, pair.response_a, pair.response_b
            )
            if truth:
                flips[principle.id][0] += score.flipped
                flips[principle.id][1] += 1
                right[principle.id][0] += score.logit * truth > 0
                right[principle.id][1] += 1
        truth = prefer(pair.prompt, pair.response_a, pair.response_b)
        if truth:
            aggregated = aggregate(scores, AggregationSettings())
            right["overall"][0] += aggregated.winner == ("a" if truth > 0 else "b")
            right["overall"][1] += 1
    return JudgeAgreement(
        share(*right.pop("overall")),
        {name: share(*counts) for name, counts in right.items()},
        {name: share(*counts) for name, counts in flips.items()},
    )


def _held_out_principles(world: World, questions: Mapping[str, str]) -> list[Principle]:
    shipped = {p.id: p for p in load_constitution("demo").constitution.principles}
    return [
        shipped[name].model_copy(update={"preference": questions.get(name) or world.wording(name)})
        for name in TIERS
    ]


def _ask(
    engine: Engine, drawn: list[tuple[DemoPair, list[Principle]]]
) -> dict[tuple[int, int, str], Verdict]:
    renderer = Renderer(load_judge_template("demo"), engine.codec)
    asked: dict[str, tuple[int, int, Question]] = {}

    def requests() -> Iterator[ChoiceRequest]:
        for n, (pair, principles) in enumerate(drawn):
            questions = [Question(p, order) for order in ORDERS for p in principles]
            made = renderer.requests(to_pair(str(n), pair), questions, str(n))
            for i, (question, request) in enumerate(zip(questions, made, strict=True)):
                asked[request.id] = (n, i % len(principles), question)
                yield request

    verdicts: dict[tuple[int, int, str], Verdict] = {}
    for results in engine.run(requests()):
        for result in results:
            assert isinstance(result, ChoiceResult), result
            n, k, question = asked.pop(result.id)
            verdicts[n, k, question.order] = read_verdict(
                result, principle=question.principle.id, order=question.order, floor=0.5
            )
    return verdicts


def to_pair(name: str, pair: DemoPair) -> Pair:
    """A pair of the demo world as a record."""
    return Pair(
        name,
        [{"role": "user", "content": pair.prompt}],
        [{"role": "assistant", "content": pair.response_a}],
        [{"role": "assistant", "content": pair.response_b}],
    )


@dataclass(frozen=True)
class DemoWinRate:
    """How a new policy fares against an old one on the same prompts.

    Attributes:
        rate: wins among decided comparisons, with its interval; ties are left out of it.
    """

    wins: int
    losses: int
    ties: int
    rate: Share


def oracle_win_rate(prompts: list[str], before: list[str], after: list[str]) -> DemoWinRate:
    """The oracle's verdict on completions of two policies, pair by pair."""
    verdicts = [prefer(p, new, old) for p, old, new in zip(prompts, before, after, strict=True)]
    return win_rate(verdicts.count(1), verdicts.count(-1), verdicts.count(0))


def win_rate(wins: int, losses: int, ties: int) -> DemoWinRate:
    """Counts with the rate among decided comparisons."""
    return DemoWinRate(wins, losses, ties, share(wins, wins + losses))
