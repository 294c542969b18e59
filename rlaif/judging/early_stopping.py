"""Asks no more about a pair than its decision needs: which questions come first, and when to stop.

Exactly: tiers come one after the other, and within a tier a pair is done when no opinion of the
principles left could change who wins.  Likely: the principles left are credited with less than
they could say at most, down to what a pilot of fully judged pairs shows to change decisions
seldom enough.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rlaif.constitution.schema import Principle
from rlaif.judging.aggregation import AggregationSettings, aggregate, heard, is_covered, pool
from rlaif.judging.calibration import tempered
from rlaif.judging.questions import Question
from rlaif.judging.scoring import score_pair
from rlaif.judging.verdicts import LARGEST_LOGIT
from rlaif.records import Pair, Preference, PrincipleScore, Verdict

StoppingKind = Literal["orders", "exact", "likely"]
AGGRESSIVENESS = tuple(k / 20 for k in range(21))
"""What is tried on the pilot, from safe (0: exact, or every second order asked) to bold (1)."""


@dataclass(frozen=True)
class StoppingRule:
    """When a pair needs no more questions.

    Attributes:
        kind: "orders": the second order only where the first is not clear enough; "exact";
            "likely".
        aggressiveness: from 0 (never wrong) to 1 (stop at the first clear opinion).
        reach: by principle, how much of its greatest possible opinion it is credited with.
        temperatures: of principles, where a calibration tempers them before they are aggregated.
    """

    kind: StoppingKind
    aggregation: AggregationSettings
    aggressiveness: float = 0.0
    reach: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    temperatures: Mapping[str, float] = field(default_factory=dict)

    def stages(self, pair: Pair, questions: Sequence[Question]) -> list[list[int]]:
        """The places of the questions, in the groups in which they are asked."""
        if self.kind == "orders":
            bit = hashlib.blake2b(f"{self.seed}/{pair.id}".encode(), digest_size=1).digest()[0] & 1
            first = ("ab", "ba")[bit]
            found = [
                [i for i, q in enumerate(questions) if (q.order == first) is now]
                for now in (True, False)
            ]
            return [stage for stage in found if stage]
        ranked = sorted(
            {q.principle.id: q.principle for q in questions}.values(),
            key=lambda p: (p.tier, -p.weight * self.reach.get(p.id, 1.0), p.id),
        )
        return [[i for i, q in enumerate(questions) if q.principle.id == p.id] for p in ranked]

    def enough(self, scores: Sequence[PrincipleScore], left: Sequence[Principle]) -> bool:
        """Whether a pair's decision stands.

        Args:
            scores: the opinions so far.
            left: principles that have not been asked (or, with "orders", asked in one order).
        """
        scores = heard(tempered(scores, self.temperatures), self.aggregation)
        if self.kind == "orders":
            found = aggregate(scores, self.aggregation)
            # At aggressiveness 0 no margin is enough.
            return found.winner is not None and found.margin > 1.0 - self.aggressiveness
        return self._settled(scores, left)

    def _settled(self, scores: Sequence[PrincipleScore], left: Sequence[Principle]) -> bool:
        """Whether the decision is the same if all that is left speaks for `a`, and for `b`: what
        comes in between lies in between, since a preference is monotone in every opinion.
        """
        covered = self._covered_up_to(scores, left)
        if covered is None:
            return False
        if not covered:
            return True  # an abstention, whatever lower tiers would say
        ends = []
        for sign in (1.0, -1.0):
            ends.append(aggregate([*scores, *self._all_for(left, sign)], self.aggregation))
        one, two = ((end.winner, end.status) for end in ends)
        return one == two and one[1] != "abstained"

    def _covered_up_to(
        self, scores: Sequence[PrincipleScore], left: Sequence[Principle]
    ) -> bool | None:
        """Whether each tier has enough valid verdicts, down to the first that is clear whatever
        else is said: False for one that has not, None where what is left may decide that.
        """
        clear = False
        for tier in sorted({s.tier for s in scores} | {p.tier for p in left}):
            members = [s for s in scores if s.tier == tier]
            own = [p for p in left if p.tier == tier]
            missing = math.fsum(p.weight for p in own)
            if not own and not is_covered(members, 0.0, self.aggregation.min_coverage):
                return clear  # below a clear tier, it is left out
            # Above an aggressiveness of 0, the pilot tells how often verdicts fail.
            likely = self.aggressiveness > 0.0 and bool(members)
            if not likely and not is_covered(members, missing, self.aggregation.min_coverage):
                return None
            margin = self._least_margin(members, own)
            sure = margin > 0.0 and margin >= self.aggregation.clear_margin
            if sure and margin >= self.aggregation.tie_margin:
                return True
            clear = clear or sure
        return True

    def _least_margin(self, members: Sequence[PrincipleScore], own: Sequence[Principle]) -> float:
        """The margin of a tier, whatever its principles that are left say; negative where they
        may turn it.
        """
        known = [s for s in members if not s.invalid]
        ends = []
        for sign in (1.0, -1.0):
            said = [
                PrincipleScore(p.id, p.tier, p.weight, sign * self._strongest(p.id)) for p in own
            ]
            ends.append(pool(self.aggregation, [*known, *said]))
        least = min(abs(end) for end in ends)
        return least if ends[0] * ends[1] > 0.0 else -least

    def _credit(self, principle: str) -> float:
        """How strong an opinion the principle is credited with: 1, or less by aggressiveness."""
        return (1.0 - self.aggressiveness) + self.aggressiveness * min(
            self.reach.get(principle, 1.0), 1.0 - self.aggressiveness
        )

    def _all_for(self, left: Sequence[Principle], sign: float) -> list[PrincipleScore]:
        """Opinions of principles that were not asked, as if all of them spoke for one side."""
        return [PrincipleScore(p.id, p.tier, p.weight, sign * self._strongest(p.id)) for p in left]

    def _strongest(self, principle: str) -> float:
        """The log-odds of the strongest opinion that the principle is credited with."""
        credit = self._credit(principle)
        return LARGEST_LOGIT if credit >= 1.0 else 2.0 * math.atanh(credit)


Aggregate = Callable[[list[PrincipleScore]], Preference]


@dataclass(frozen=True)
class JudgedPair:
    """A pair of the pilot with all its verdicts, in the order of its questions."""

    pair: Pair
    principles: Sequence[Principle]
    questions: Sequence[Question]
    verdicts: Sequence[Verdict]

    def scores(self, asked: Iterable[int] | None = None) -> list[PrincipleScore]:
        """Opinions from the questions at some places; default: from all."""
        verdicts = self.verdicts if asked is None else [self.verdicts[i] for i in asked]
        return score_pair(self.pair, self.principles, verdicts, asked_only=True)


@dataclass(frozen=True)
class StoppingReplay:
    """What stopping would have done to a judged pair: questions asked, and the preference."""

    asked: int
    preference: Preference


def replay(judged: JudgedPair, stopping: StoppingRule, aggregator: Aggregate) -> StoppingReplay:
    """Ask about a judged pair as `stopping` would."""
    asked: list[int] = []
    scores: list[PrincipleScore] = []
    for stage in stopping.stages(judged.pair, judged.questions):
        asked += stage
        scores = judged.scores(asked)
        if len(asked) < len(judged.questions) and stopping.enough(
            scores, unasked(judged.questions, asked)
        ):
            break
    return StoppingReplay(len(asked), aggregator(scores))


def follows_stages(
    rule: StoppingRule,
    pair: Pair,
    principles: Sequence[Principle],
    questions: Sequence[Question],
    answers: Mapping[int, Verdict],
) -> bool:
    """Whether exactly those questions were asked that the rule asks, given their answers.

    Args:
        answers: by the place of the question.
    """
    asked: list[int] = []
    for stage in rule.stages(pair, questions):
        asked += stage
        if not answers.keys() >= set(stage):
            return False
        scores = score_pair(pair, principles, [answers[i] for i in asked], asked_only=True)
        if len(asked) < len(questions) and rule.enough(scores, unasked(questions, asked)):
            break
    return answers.keys() == set(asked)


def unasked(questions: Sequence[Question], asked: Iterable[int]) -> list[Principle]:
    """Principles of which no question has been asked."""
    done = {questions[i].principle.id for i in asked}
    left = {q.principle.id: q.principle for q in questions if q.principle.id not in done}
    return list(left.values())


@dataclass(frozen=True)
class ChosenStopping:
    """What the pilot allows.

    Attributes:
        errors: pilot pairs whose decision would have changed, of `pairs` held for the test.
        bound: share of changed decisions, at most, with probability 1 - delta.
        saved: share of the pilot's questions that would not have been asked.
        pilot_extra: questions that were asked about the pilot's pairs and would not have been.
    """

    stopping: StoppingRule
    pairs: int
    errors: int
    bound: float
    saved: float
    pilot_extra: int


def choose(
    judged: Sequence[JudgedPair],
    stopping: StoppingRule,
    aggregator: Aggregate,
    *,
    error: float,
    delta: float,
) -> ChosenStopping:
    """The most aggressive stopping that a pilot shows to change at most `error` of decisions.

    A quarter of the pilot says how far each principle reaches; the rest tests settings from safe
    to bold, each at level `delta`, until one fails (fixed-sequence testing: Angelopoulos et al.
    2021, arXiv:2110.01052, with exact binomial bounds).
    """
    from rlaif.judging.selective import upper_bound  # noqa: PLC0415 - scipy, only where needed

    # Split at random, pairs of a row together: files are often sorted.
    judged = sorted(
        judged,
        key=lambda j: (
            hashlib.blake2b(f"{stopping.seed}/split/{j.pair.row}".encode()).digest(),
            j.pair.id,
        ),
    )
    quarter = len(judged) // 4
    reach = _reach(judged[:quarter])
    test = _independent(judged[quarter:], stopping.seed)
    full = [aggregator(j.scores()) for j in test]
    best = None
    for aggressiveness in AGGRESSIVENESS:
        setting = replace(stopping, aggressiveness=aggressiveness, reach=reach)
        replays = [replay(j, setting, aggregator) for j in test]
        wrong = sum(
            (r.preference.winner, r.preference.status) != (f.winner, f.status)
            for r, f in zip(replays, full, strict=True)
        )
        exact = aggressiveness == 0.0 and not wrong
        bound = 0.0 if exact else upper_bound(wrong, len(test), delta)
        if bound > error:
            break
        questions = sum(len(j.questions) for j in test)
        asked = sum(r.asked for r in replays)
        saved = 1.0 - asked / questions if questions else 0.0
        best = ChosenStopping(
            stopping=setting, pairs=len(test), errors=wrong, bound=bound, saved=saved, pilot_extra=0
        )
    if best is None:  # not even the safest is safe enough: everything is asked
        best = ChosenStopping(
            stopping=replace(stopping, kind="orders", aggressiveness=0.0),
            pairs=len(test),
            errors=0,
            bound=0.0,
            saved=0.0,
            pilot_extra=0,
        )
    # Every question about the pilot's pairs was asked, whatever stopping would have done.
    extra = sum(len(j.questions) - replay(j, best.stopping, aggregator).asked for j in judged)
    return replace(best, pilot_extra=extra)


def _independent(judged: Sequence[JudgedPair], seed: int) -> list[JudgedPair]:
    """One pair of a row at most, since those of one row may turn together; every pair with the
    same chance: rows with fewer pairs are taken more seldom.
    """
    rows: dict[int, list[JudgedPair]] = {}
    for j in judged:
        rows.setdefault(j.pair.row, []).append(j)
    most = max(map(len, rows.values()), default=1)
    taken = []
    for row, pairs in rows.items():
        drawn = hashlib.blake2b(f"{seed}/test/{row}".encode(), digest_size=8).digest()
        place = int(int.from_bytes(drawn, "big") / 2**64 * most)
        if place < len(pairs):
            taken.append(pairs[place])
    return taken


def _reach(judged: Sequence[JudgedPair]) -> dict[str, float]:
    """The root mean square of each principle's opinions."""
    squares: dict[str, list[float]] = {}
    for j in judged:
        for score in j.scores():
            if score.source == "judge" and not score.invalid:
                squares.setdefault(score.principle, []).append(score.sign**2)
    return {name: math.sqrt(math.fsum(v) / len(v)) for name, v in squares.items()}
