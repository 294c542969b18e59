"""Agreement, against counting by hand and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from rlaif.evaluation.stats.agreement import abstention_curve, agreement, consistent, credit, kappa
from rlaif.evaluation.stats.reliability import brier, ece, log_loss, reliability
from rlaif.evaluation.stats.resampling import holm, mean_with_interval, paired_test


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_counts_by_hand() -> None:
    label = ints(1, 1, -1, -1, 1, 0)
    winner = ints(1, -1, -1, 0, 1, 1)
    found = agreement(
        label, winner, list("uvwxyz"), by_order=(ints(1, -1, -1, 1, 1, 1), ints(1, -1, 1, 0, 1, 1))
    )
    assert found.accuracy.value == pytest.approx((1 + 0 + 1 + 0.5 + 1) / 5)
    assert found.of_decided.value == pytest.approx(3 / 4)
    assert found.coverage == pytest.approx(4 / 5)
    assert found.human_ties == 1
    assert found.order_consistent is not None
    assert found.order_consistent.value == pytest.approx(2 / 5)  # u and y
    assert found.groups_right is None
    # Said by both: a 3 and 3 times, b 2 and 2, neither 1 and 1; agreed on 3 of 6.
    expected = (3 / 6) * (3 / 6) + (2 / 6) * (2 / 6) + (1 / 6) * (1 / 6)
    assert kappa(label, winner) == pytest.approx((3 / 6 - expected) / (1 - expected))
    with pytest.raises(ValueError, match="ties"):
        credit(ints(0), ints(1))


def test_a_row_of_several_pairs_counts_when_all_are_right() -> None:
    found = agreement(ints(1, 1, -1, 1), ints(1, -1, -1, 1), ["r", "r", "s", "s"])
    assert found.groups_right is not None
    assert (found.groups_right.value, found.groups_right.n) == (0.5, 2)


def test_an_order_that_disagrees_is_wrong() -> None:
    label = ints(1, 1, -1)
    assert list(consistent(label, ints(1, 1, -1), ints(1, -1, 0))) == [1.0, 0.0, 0.0]


def test_the_abstention_curve_is_what_counting_gives() -> None:
    rng = np.random.default_rng(3)
    confidence = np.round(rng.uniform(0.5, 1, 200), 2)  # many equal ones
    right = (rng.random(200) < confidence).astype(float)
    for point in abstention_curve(right, confidence):
        kept = confidence >= point.confidence
        assert point.coverage == pytest.approx(kept.mean())
        assert point.accuracy == pytest.approx(right[kept].mean())
    assert abstention_curve(right, confidence)[-1].coverage == 1.0


def test_calibration_errors_by_hand() -> None:
    confidence = np.array([0.52, 0.54, 0.98, 0.96])
    right = np.array([1.0, 0.0, 1.0, 1.0])
    bins = reliability(confidence, right)
    assert [(b.count, round(b.right, 3)) for b in bins] == [(2, 0.5), (2, 1.0)]
    assert ece(confidence, right) == pytest.approx(0.5 * 0.03 + 0.5 * 0.03)
    assert brier(confidence, right) == pytest.approx((0.48**2 + 0.54**2 + 0.02**2 + 0.04**2) / 4)
    assert log_loss(confidence, right) == pytest.approx(
        -(np.log(0.52) + np.log(0.46) + np.log(0.98) + np.log(0.96)) / 4
    )


def test_a_calibrated_judge_has_a_small_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 40_000)
    right = (rng.random(40_000) < confidence).astype(float)
    assert ece(confidence, right) < 0.01
    assert ece(np.minimum(1, confidence + 0.1), right) > 0.05


def test_bootstrap_intervals_cover_also_where_pairs_of_a_prompt_hang_together() -> None:
    """200 data sets of 60 prompts with 5 pairs that are right or wrong together."""
    covered = wide = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        right = np.repeat(rng.random(60) < 0.7, 5).astype(float)
        groups = list(np.repeat(np.arange(60), 5))
        found = mean_with_interval(right, groups)
        covered += found.low <= 0.7 <= found.high
        alone = mean_with_interval(right, list(range(300)))
        wide += (found.high - found.low) > 1.7 * (alone.high - alone.low)
    assert 0.90 <= covered / 200 <= 0.99
    assert wide == 200


def test_prompts_and_not_pairs_make_an_interval_narrow() -> None:
    """Five prompts with 40 pairs each that are all right are five trials; one prompt says nothing."""
    found = mean_with_interval(np.ones(200), list(np.repeat(np.arange(5), 40)))
    wilson = binomtest(5, 5).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    one = mean_with_interval(np.arange(200) % 2.0, ["same"] * 200)
    assert (one.value, one.low, one.high) == (0.5, 0.0, 1.0)


def test_the_paired_test_is_mcnemars_where_that_is_exact() -> None:
    first = np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 20)
    second = np.array([0.0] * 9 + [1.0] * 2 + [1.0] * 20)
    found = paired_test(first, second, list(range(31)))
    assert found.p == pytest.approx(binomtest(2, 11).pvalue)
    assert (found.only_first, found.only_second) == (9, 2)
    assert found.difference.value == pytest.approx(7 / 31)


@pytest.mark.slow
def test_better_is_seldom_said_of_equals() -> None:
    """400 pairs of equal judges: the two-sided test is at most at its level (5% + 2 SE)."""
    said = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        one, two = ((rng.random(80) < 0.75).astype(float) for _ in range(2))
        said += paired_test(one, two, list(range(80)), seed=seed).better != 0
    assert said / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_no_difference_has_an_interval_on_both_sides() -> None:
    same = np.array([1.0, 0.0] * 20)
    found = paired_test(same, same, list(range(40)))
    assert found.difference.value == 0.0
    assert found.difference.low == -found.difference.high < 0.0
    assert found.better == 0
    one, zero = np.ones(12), np.zeros(12)
    up, down = paired_test(one, zero, list(range(12))), paired_test(zero, one, list(range(12)))
    assert (down.difference.low, down.difference.high) == (-up.difference.high, -up.difference.low)


@pytest.mark.slow
def test_holm_is_statsmodels() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p = list(rng.random(n) ** 3)
        p[0] = p[-1]  # equal ones too
        assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([]) == []
