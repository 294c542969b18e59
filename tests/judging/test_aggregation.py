"""Aggregation against hand arithmetic, and the symmetries that it must have."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.constitution.schema import Principle
from rlaif.judging.aggregation import AggregationSettings, aggregate, score_check, score_principle
from rlaif.records import PrincipleScore, Verdict

P = Principle(id="p", preference="Which response?")


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def score(p_a: float, *, tier: int = 1, weight: float = 1.0, name: str = "p", invalid: str = ""):
    return PrincipleScore(name, tier, weight, logit(p_a), invalid=invalid)


def test_orders_average_in_logits() -> None:
    # Shown first, `a` wins with 0.9; shown first, `b` wins with 0.6, so `a` with 0.4.
    # Logits ln 9 and -ln 1.5, mean ln(9 / 1.5) / 2 = ln sqrt 6: odds 2.449, p = 0.7101.
    found = score_principle(
        P, [Verdict("p", "ab", logit(0.9), 0.99), Verdict("p", "ba", logit(0.6), 0.8)]
    )
    assert found.p_a == pytest.approx(math.sqrt(6) / (1 + math.sqrt(6)))
    assert found.p_a == pytest.approx(0.7101, abs=1e-4)
    # The part that follows the position: (ln 9 + ln 1.5) / 2 = ln(13.5) / 2.
    assert found.position_logit == pytest.approx(math.log(13.5) / 2)
    assert found.flipped is True
    assert found.label_mass == 0.8


@pytest.mark.parametrize(
    ("contradiction", "status", "p"), [("keep", "decided", 0.7), ("tie", "tie", 0.5)]
)
def test_what_contradicting_orders_say(contradiction: str, status: str, p: float) -> None:
    settings = AggregationSettings(contradiction=contradiction)  # type: ignore[arg-type]
    verdicts = [Verdict("p", "ab", logit(0.95), 1.0), Verdict("p", "ba", logit(0.7773), 1.0)]
    against = score_principle(P, verdicts)
    assert against.flipped
    found = aggregate([against], settings)
    assert found.status == status
    assert found.p_a == pytest.approx(p, abs=1e-3)
    assert found.scores[0].p_a == pytest.approx(0.7, abs=1e-3)  # the evidence stays
    assert found.order_consistency == 0.0
    # Orders that differ in doubt alone, and orders that agree, are as before.
    for p_ba in (0.49, 0.1):
        same = score_principle(
            P, [Verdict("p", "ab", logit(0.52), 1.0), Verdict("p", "ba", logit(p_ba), 1.0)]
        )
        kept = aggregate([same], settings)
        assert kept == aggregate([same], AggregationSettings())
    # Another principle decides, where this one says nothing.
    other = score(0.1, name="other")
    decided = aggregate([against, other], settings)
    assert (decided.p_a == pytest.approx(0.1)) == (contradiction == "tie")


def test_contradicting_orders_can_be_no_verdict() -> None:
    verdicts = [Verdict("p", "ab", 3.0, 1.0), Verdict("p", "ba", 1.0, 1.0)]
    settings = AggregationSettings(contradiction="abstain")
    found = aggregate([score_principle(P, verdicts)], settings)
    assert found.status == "abstained"
    assert found.reason.endswith("p: its two orders contradict each other")
    assert found.order_consistency == 0.0


def test_one_invalid_order_invalidates_the_principle() -> None:
    found = score_principle(
        P, [Verdict("p", "ab", 2.0, 0.9), Verdict("p", "ba", 0.0, 0.1, invalid="label mass 0.1")]
    )
    assert found.invalid == "order ba: label mass 0.1"


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(True, False, 0.99), (False, True, 0.01), (True, True, 0.5)]
)
def test_check_speaks_only_where_it_tells_apart(a: bool, b: bool, expected: float) -> None:
    assert score_check(P, a, b).p_a == pytest.approx(expected)


def test_mean_pool_by_hand() -> None:
    # Signs 0.8 (weight 3) and -0.4 (weight 1): (2.4 - 0.4) / 4 = 0.5, p = 0.75.
    found = aggregate([score(0.9, weight=3), score(0.3)], AggregationSettings(pooling="mean"))
    assert (found.winner, found.status) == ("a", "decided")
    assert found.p_a == pytest.approx(0.75)
    assert found.margin == pytest.approx(0.5)


def test_share_pool_by_hand() -> None:
    # Signs 0.8 (weight 3) and -0.4 (weight 1): shares 2.4 / 2.8 and 0.4 / 2.8 of what is said.
    found = aggregate([score(0.9, weight=3), score(0.3)], AggregationSettings())
    assert found.margin == pytest.approx((0.8 * 2.4 - 0.4 * 0.4) / 2.8)
    # Opinions that agree come to the strongest of them, however many there are.
    agreed = [score(0.9), score(0.8), score(0.7)]
    assert aggregate(agreed, AggregationSettings()).margin == pytest.approx(0.8)
    # Five that are sure outvote one that is as sure, and none is certain in the end.
    voted = [*[score(0.9999) for _ in range(5)], score(0.0001)]
    assert aggregate(voted, AggregationSettings()).margin == pytest.approx(4 / 6, abs=1e-3)
    # Principles without an opinion do not dilute one that has one; in the mean they do.
    silent = [score(0.5, name=str(i)) for i in range(9)]
    assert aggregate([score(0.9), *silent], AggregationSettings()).margin == pytest.approx(0.8)
    assert aggregate(
        [score(0.9), *silent], AggregationSettings(pooling="mean")
    ).margin == pytest.approx(0.08)


def test_a_clear_tier_overrules_those_below() -> None:
    low = score(0.01, tier=2, weight=100)
    clear = aggregate([score(0.61, tier=1), low], AggregationSettings())
    assert (clear.winner, clear.deciding_tier) == ("a", 1)
    assert clear.p_a == pytest.approx(0.61)
    # Half as clear (margin 0.1 of 0.2), it lets half of what contradicts it through.
    unclear = aggregate([score(0.55, tier=1), low], AggregationSettings())
    assert (unclear.winner, unclear.deciding_tier) == ("b", 2)
    assert unclear.margin == pytest.approx(0.5 * 0.98 - 0.1)
    # Of tiers that agree, the surer one counts.
    agreed = aggregate([score(0.7, tier=1), score(0.9, tier=2)], AggregationSettings())
    assert agreed.p_a == pytest.approx(0.9)
    assert agreed.deciding_tier == 1


def test_no_clear_tier_is_no_deciding_tier() -> None:
    found = aggregate([score(0.59, tier=1), score(0.55, tier=2)], AggregationSettings())
    assert found.deciding_tier is None
    assert found.margin == pytest.approx(0.18)


def test_tie_and_abstention_have_no_winner_and_a_reason() -> None:
    tie = aggregate([score(0.52)], AggregationSettings())
    assert (tie.status, tie.winner) == ("tie", None)
    assert "margin 0.040 < 0.05" in tie.reason
    exact = aggregate([score(0.5)], AggregationSettings(tie_margin=0.0))
    assert (exact.status, exact.winner) == ("tie", None)
    none = aggregate([], AggregationSettings())
    assert (none.status, none.reason) == ("abstained", "no principle applies")
    broken = aggregate([score(0.9, invalid="too long")], AggregationSettings())
    assert (broken.status, broken.winner, broken.p_a) == ("abstained", None, 0.5)
    assert "too long" in broken.reason


def test_no_lower_tier_decides_for_one_that_was_not_answered() -> None:
    """Judges refuse where harm is asked about: six principles of style are no substitute."""
    harm = [score(0.5, tier=1, name=f"harm{k}", invalid="refused") for k in range(2)]
    style = [score(0.95, tier=2, name=f"style{k}") for k in range(6)]
    found = aggregate([*harm, *style], AggregationSettings())
    assert found.status == "abstained"
    assert found.reason == "too few valid verdicts in tier 1 (coverage 0.00): harm0: refused"
    # A tier that is answered and has no opinion passes on; one that decides needs no other.
    silent = [score(0.5, tier=1, name="harm")]
    assert aggregate([*silent, *style], AggregationSettings()).deciding_tier == 2
    clear = [score(0.9, tier=1, name="harm")]
    broken = [score(0.5, tier=2, name=f"style{k}", invalid="cut") for k in range(6)]
    assert aggregate([*clear, *broken], AggregationSettings()).deciding_tier == 1


def test_coverage_counts_only_the_tiers_that_were_needed() -> None:
    decided = aggregate(
        [score(0.9, tier=1), score(0.9, tier=2, name="late", invalid="too long")],
        AggregationSettings(),
    )
    assert decided.status == "decided"
    needed = [score(0.9, tier=1, weight=2), score(0.9, tier=1, name="late", invalid="too long")]
    assert aggregate(needed, AggregationSettings()).status == "abstained"  # 2 of 3 is below 0.75
    assert aggregate(needed, AggregationSettings(min_coverage=0.6)).status == "decided"


scores = st.lists(
    st.builds(
        PrincipleScore,
        principle=st.text("abc", min_size=1, max_size=3),
        tier=st.integers(1, 3),
        weight=st.floats(0.01, 100),
        logit=st.floats(-40, 40),
        invalid=st.sampled_from(["", "", "", "broken"]),
    ),
    max_size=8,
)
knobs = st.builds(
    AggregationSettings,
    pooling=st.sampled_from(["share", "mean"]),
    clear_margin=st.floats(0, 1),
    tie_margin=st.floats(0, 0.5),
    min_coverage=st.floats(0, 1),
)


def test_the_smallest_opinions_tie_on_both_sides() -> None:
    settings = AggregationSettings(tie_margin=0, clear_margin=0)
    for exponent in range(40, 80):
        for step in (1.0, 1.25, 1.5, 1.75):
            logit = step * 2.0**-exponent
            one, two = (
                aggregate([PrincipleScore("p", 1, 1.0, sign * logit)], settings) for sign in (1, -1)
            )
            assert one.status == two.status, logit


@given(scores, knobs)
def test_swapping_a_and_b_flips_everything_exactly(
    items: list, settings: AggregationSettings
) -> None:
    swapped = [
        PrincipleScore(s.principle, s.tier, s.weight, -s.logit, invalid=s.invalid) for s in items
    ]
    one, two = aggregate(items, settings), aggregate(swapped, settings)
    assert one.status == two.status
    assert one.margin == two.margin
    assert one.p_a - 0.5 == pytest.approx(0.5 - two.p_a, abs=1e-16)
    assert {one.winner, two.winner} in ({None}, {"a", "b"})
    assert one.deciding_tier == two.deciding_tier


@given(scores, knobs, st.randoms())
def test_order_of_principles_does_not_matter(
    items: list, settings: AggregationSettings, rng
) -> None:
    shuffled = list(items)
    rng.shuffle(shuffled)
    one, two = aggregate(items, settings), aggregate(shuffled, settings)
    assert (one.status, one.winner, one.p_a, one.margin) == (
        two.status,
        two.winner,
        two.p_a,
        two.margin,
    )


@given(
    st.lists(st.tuples(st.floats(-8, 8), st.floats(-8, 8)), min_size=1, max_size=5),
    st.floats(-6, 6),
)
def test_planted_position_offset_leaves_the_preference_unchanged(
    pairs: list[tuple[float, float]], offset: float
) -> None:
    def aggregated(shift: float):
        verdicts = [
            [
                Verdict(f"p{i}", "ab", ab + shift, 1.0),
                Verdict(f"p{i}", "ba", ba + shift, 1.0),
            ]
            for i, (ab, ba) in enumerate(pairs)
        ]
        made = [score_principle(P.model_copy(update={"id": v[0].principle}), v) for v in verdicts]
        return made, aggregate(made, AggregationSettings(tie_margin=0.0, clear_margin=0.0))

    plain, before = aggregated(0.0)
    moved, after = aggregated(offset)
    assert after.p_a == pytest.approx(before.p_a, abs=1e-9)
    for one, two in zip(plain, moved, strict=True):
        assert two.logit == pytest.approx(one.logit, abs=1e-9)
        assert two.position_logit - one.position_logit == pytest.approx(offset, abs=1e-9)


opinions = st.lists(
    st.tuples(st.integers(1, 3), st.floats(0.5, 2), st.floats(-40, 40)), min_size=1, max_size=7
)
pools = st.sampled_from(["share", "mean"])
NO_TIES = {"tie_margin": 0.0, "min_coverage": 0.0}


def opinion(items: list[tuple[int, float, float]], settings: AggregationSettings) -> float:
    """The signed opinion, from -1 to 1."""
    found = aggregate([PrincipleScore(f"p{k}", *item) for k, item in enumerate(items)], settings)
    return found.margin if found.p_a > 0.5 else -found.margin


@given(opinions, pools, st.floats(0, 1), st.integers(0, 6), st.floats(0, 80))
def test_a_stronger_opinion_for_a_never_speaks_for_b(
    items: list[tuple[int, float, float]], pooling: str, clear: float, which: int, more: float
) -> None:
    settings = AggregationSettings(pooling=pooling, clear_margin=clear, **NO_TIES)  # type: ignore[arg-type]
    raised = list(items)
    k = which % len(items)
    tier, weight, logit_ = items[k]
    raised[k] = (tier, weight, logit_ + more)
    assert opinion(raised, settings) >= opinion(items, settings) - 1e-12


@given(opinions, pools, st.floats(0.05, 1), st.integers(0, 6), st.floats(-0.01, 0.01))
def test_a_small_change_of_an_opinion_is_one_of_the_probability(
    items: list[tuple[int, float, float]], pooling: str, clear: float, which: int, step: float
) -> None:
    """Weights differ fourfold, and a tier that overrules adds 1 / clear to the slope, for each of
    two tiers.
    """
    settings = AggregationSettings(pooling=pooling, clear_margin=clear, **NO_TIES)  # type: ignore[arg-type]
    moved = list(items)
    k = which % len(items)
    tier, weight, logit_ = items[k]
    moved[k] = (tier, weight, logit_ + step)
    slope = 8.0 * (1.0 + 1.0 / clear) ** 2
    apart = abs(opinion(moved, settings) - opinion(items, settings))
    assert apart <= slope * abs(step) / 2.0 + 1e-12


@given(opinions, st.floats(0, 1), st.integers(1, 3), st.floats(0.5, 50))
def test_a_principle_without_an_opinion_changes_nothing(
    items: list[tuple[int, float, float]], clear: float, tier: int, weight: float
) -> None:
    settings = AggregationSettings(clear_margin=clear, **NO_TIES)  # type: ignore[arg-type]
    assert opinion([*items, (tier, weight, 0.0)], settings) == opinion(items, settings)


@given(opinions, st.floats(0, 1))
def test_tiers_that_have_no_opinion_leave_it_to_those_below(
    items: list[tuple[int, float, float]], clear: float
) -> None:
    settings = AggregationSettings(clear_margin=clear, **NO_TIES)  # type: ignore[arg-type]
    moved = [(tier + 1, weight, logit_) for tier, weight, logit_ in items]
    assert opinion([(1, 1.0, 0.0), *moved], settings) == opinion(items, settings)


@given(st.floats(-40, 40), st.floats(0.01, 100), st.floats(0, 1), pools)
def test_one_opinion_stays_as_it_is(
    logit_: float, weight: float, clear: float, pooling: str
) -> None:
    settings = AggregationSettings(pooling=pooling, clear_margin=clear, **NO_TIES)  # type: ignore[arg-type]
    assert opinion([(1, weight, logit_)], settings) == pytest.approx(
        math.tanh(logit_ / 2), abs=1e-15
    )


def test_no_jump_where_a_tier_becomes_clear() -> None:
    """A margin of 0.19 and one of 0.2 in the first tier, and a sure second tier: close together."""
    for below in (0.975, 0.025):
        found = [
            aggregate([score((1 + m) / 2, tier=1), score(below, tier=2)], AggregationSettings())
            for m in (0.19, 0.1999, 0.2, 0.21)
        ]
        p = [f.p_a for f in found]
        assert max(p) - min(p) < 0.06


@given(scores, knobs)
def test_chosen_is_never_made_from_nothing(items: list, settings: AggregationSettings) -> None:
    found = aggregate(items, settings)
    assert (found.winner is None) == (found.status != "decided")
    if found.winner:
        assert found.margin > 0
        assert (found.p_a > 0.5) == (found.winner == "a")
        assert any(not s.invalid for s in items)
