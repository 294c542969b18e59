"""Stopping early: never wrong where it says exact, seldom where it says likely."""

from __future__ import annotations

import random

import numpy as np
import pytest

from rlaif.constitution.schema import Principle
from rlaif.judging.aggregation import AggregationSettings, aggregate
from rlaif.judging.early_stopping import JudgedPair, StoppingRule, choose, replay
from rlaif.judging.questions import Question
from rlaif.judging.scoring import score_pair
from rlaif.records import Pair, PrincipleScore, Verdict


def principle(name: str, tier: int = 1, weight: float = 1.0) -> Principle:
    return Principle(id=name, tier=tier, weight=weight, preference="Which response?")


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["share", "mean"])
def test_an_exact_stop_is_never_overturned(pooling: str) -> None:
    """Random constitutions and opinions; where it stops, 40 random and all extreme completions
    of what is left keep winner and status.
    """
    rng = random.Random(1)
    stops = 0
    for _ in range(3000):
        settings = AggregationSettings(
            pooling=pooling,
            clear_margin=rng.choice([0.0, 0.1, 0.2, 0.5]),  # type: ignore[arg-type]
            tie_margin=rng.choice([0.0, 0.05, 0.3]),
        )
        names = [
            principle(f"p{k}", rng.randint(1, 3), rng.choice([0.5, 1.0, 2.0])) for k in range(6)
        ]
        stopping = StoppingRule("exact", settings)
        ranked = sorted(names, key=lambda p: (p.tier, -p.weight, p.id))
        known: list[PrincipleScore] = []
        for k, p in enumerate(ranked):
            logit = rng.choice([rng.gauss(0, 3), rng.gauss(0, 0.1), 9.0, -9.0])
            invalid = "broken" if rng.random() < 0.08 else ""
            known.append(PrincipleScore(p.id, p.tier, p.weight, logit, invalid=invalid))
            left = ranked[k + 1 :]
            if left and stopping.enough(known, left):
                stops += 1
                now = aggregate(known, settings)
                for trial in range(42):
                    more = [
                        PrincipleScore(
                            q.id,
                            q.tier,
                            q.weight,
                            (60.0 if trial == 0 else -60.0 if trial == 1 else rng.gauss(0, 4)),
                            invalid="x" * (trial == 2 or (trial > 30 and rng.random() < 0.3)),
                        )
                        for q in left
                    ]
                    then = aggregate([*known, *more], settings)
                    assert (then.winner, then.status) == (now.winner, now.status)
                break
    assert stops > 500


def judged(rng: np.random.Generator, k: int, names: list[Principle]) -> JudgedPair:
    """A pair with verdicts of a judge with a planted offset of 0.8 nats."""
    verdicts, questions = [], []
    truth = rng.normal(0, 2.5)
    for i, p in enumerate(names):
        opinion = truth + rng.normal(0, 1) if i == 0 else rng.normal(0, 0.4 if i < 4 else 2.0)
        for order in ("ab", "ba"):
            questions.append(Question(p, order))  # type: ignore[arg-type]
            sign = 1.0 if order == "ab" else -1.0
            logit = sign * opinion + 0.8 + rng.normal(0, 0.3)
            verdicts.append(Verdict(p.id, order, float(logit), 1.0))  # type: ignore[arg-type]
    return JudgedPair(Pair(f"n{k}", [], [], [], row=k + 1), names, questions, verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["orders", "likely"])
def test_the_pilot_s_promise_is_kept(kind: str) -> None:
    """16 pilots of 400 pairs: the share of changed decisions in the population exceeds what was
    asked for in no more than delta plus two standard errors of them; and verdicts are saved.
    """
    names = [principle(f"p{i}", weight=2.0 if i == 0 else 1.0) for i in range(6)]
    rng = np.random.default_rng(0)
    population = [judged(rng, k, names) for k in range(2000)]
    settings = AggregationSettings()
    aggregator = lambda scores: aggregate(scores, settings)  # noqa: E731
    full = [aggregator(j.scores()) for j in population]
    wrong_at: dict[float, tuple[float, float]] = {}
    missed, spared = 0, []
    pick = random.Random(3)
    for _ in range(16):
        pilot = pick.sample(population, 400)
        found = choose(pilot, StoppingRule(kind, settings), aggregator, error=0.03, delta=0.05)  # type: ignore[arg-type]
        key = found.stopping.aggressiveness
        if key not in wrong_at:
            again = [replay(j, found.stopping, aggregator) for j in population]
            changed = np.mean(
                [
                    (r.preference.winner, r.preference.status) != (f.winner, f.status)
                    for r, f in zip(again, full, strict=True)
                ]
            )
            wrong_at[key] = (float(changed), 1 - sum(r.asked for r in again) / (12 * len(again)))
        missed += wrong_at[key][0] > 0.03
        spared.append(wrong_at[key][1])
        assert found.bound <= 0.03
    assert missed / 16 <= 0.05 + 2 * (0.05 * 0.95 / 16) ** 0.5
    assert np.mean(spared) > 0.05


def test_the_promise_holds_on_sorted_files_too() -> None:
    """Among the first 15% of the pairs every decision turns with the second order."""
    names = [principle("p")]
    rng = np.random.default_rng(0)
    pilot = []
    for k in range(400):
        truth, offset = (rng.normal(0, 1), 9.0) if k < 60 else (rng.normal(0, 4), 0.0)
        verdicts = [
            Verdict("p", "ab", truth + offset, 1.0),
            Verdict("p", "ba", -truth + offset, 1.0),
        ]
        questions = [Question(names[0], "ab"), Question(names[0], "ba")]
        pilot.append(JudgedPair(Pair(f"n{k}", [], [], [], row=k + 1), names, questions, verdicts))
    aggregator = lambda scores: aggregate(scores, AggregationSettings())  # noqa: E731
    found = choose(
        pilot, StoppingRule("orders", AggregationSettings()), aggregator, error=0.02, delta=0.05
    )
    again = [replay(j, found.stopping, aggregator).preference.winner for j in pilot]
    full = [aggregator(j.scores()).winner for j in pilot]
    assert np.mean([a != f for a, f in zip(again, full, strict=True)]) <= 0.03


@pytest.mark.slow
def test_the_promise_holds_for_every_pair_of_a_row() -> None:
    """Rows of three pairs, in which the second order turns all but the first pair: the share of
    decisions that change in a population is within the bound (error 2%, delta 5%, 40 pilots).
    """
    names = [principle("p")]
    questions = [Question(names[0], "ab"), Question(names[0], "ba")]
    aggregator = lambda scores: aggregate(scores, AggregationSettings())  # noqa: E731

    def draw(rng: np.random.Generator, rows: int) -> list[JudgedPair]:
        found = []
        for row in range(rows):
            # Rows of one pair too: each pair has to count alike.
            for k, name in enumerate(("0-1", "0-2", "1-2") if row % 2 else ("0-1",)):
                truth = rng.normal(0, 1) + (6 * rng.choice([-1, 1]) if k == 0 else 0)
                offset = 6.0 if k else 0.0
                verdicts = [
                    Verdict("p", "ab", truth + offset, 1.0),
                    Verdict("p", "ba", -truth + offset, 1.0),
                ]
                pair = Pair(f"{row}/{name}", [], [], [], row=row)
                found.append(JudgedPair(pair, names, questions, verdicts))
        return found

    population = draw(np.random.default_rng(999), 1000)
    full = [aggregator(j.scores()).winner for j in population]
    missed = 0
    for seed in range(40):
        pilot = draw(np.random.default_rng(seed), 200)
        stopping = StoppingRule("orders", AggregationSettings(), seed=seed)
        found = choose(pilot, stopping, aggregator, error=0.02, delta=0.05)
        again = [replay(j, found.stopping, aggregator).preference.winner for j in population]
        missed += np.mean([a != f for a, f in zip(again, full, strict=True)]) > 0.02
    assert missed / 40 <= 0.05 + 2 * (0.05 * 0.95 / 40) ** 0.5


def test_boldness_zero_changes_nothing() -> None:
    names = [principle(f"p{i}", tier=1 + i // 2) for i in range(6)]
    rng = np.random.default_rng(1)
    aggregator = lambda scores: aggregate(scores, AggregationSettings())  # noqa: E731
    asked = []
    for k in range(300):
        pair = judged(rng, k, names)
        full = aggregator(pair.scores())
        exact = replay(pair, StoppingRule("exact", AggregationSettings()), aggregator)
        assert (exact.preference.winner, exact.preference.status) == (full.winner, full.status)
        orders = replay(pair, StoppingRule("orders", AggregationSettings()), aggregator)
        assert orders.asked == 12
        asked.append(exact.asked)
    assert np.mean(asked) < 11


@pytest.mark.parametrize("offset", [0.5, 1.5, -1.0])
def test_averaging_cancels_a_planted_offset_and_loses_no_accuracy(offset: float) -> None:
    """20,000 pairs: P(first wins) is even, and accuracy is no lower than with one order."""
    rng = np.random.default_rng(7)
    n, p = 20_000, principle("p")
    truth = rng.normal(0, 1.5, n)
    first_wins, both_right, one_right, one_first = [], [], [], []
    for t in truth:
        noise = rng.normal(0, 0.7, 2)
        verdicts = [
            Verdict("p", "ab", t + offset + noise[0], 1.0),
            Verdict("p", "ba", -t + offset + noise[1], 1.0),
        ]
        pair = Pair("x", [], [], [])
        both = aggregate(
            score_pair(pair, [p], verdicts, asked_only=True), AggregationSettings(tie_margin=0.0)
        )
        one = aggregate(
            score_pair(pair, [p], verdicts[:1], asked_only=True),
            AggregationSettings(tie_margin=0.0),
        )
        first_wins.append(both.winner == "a")
        one_first.append(one.winner == "a")
        both_right.append((both.winner == "a") == (t > 0))
        one_right.append((one.winner == "a") == (t > 0))
    assert 0.49 <= np.mean(first_wins) <= 0.51
    assert abs(np.mean(one_first) - 0.5) > 0.05
    assert np.mean(both_right) >= np.mean(one_right)
