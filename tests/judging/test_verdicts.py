"""Reading label log-probabilities, by hand."""

from __future__ import annotations

import math

import pytest

from rlaif.judging.verdicts import read_verdict
from rlaif.records import ChoiceResult, Failure


def read(first: float, second: float, floor: float = 0.5):
    logs = tuple(math.log(p) if p else -math.inf for p in (first, second))
    return read_verdict(ChoiceResult("1", logs), principle="p", order="ab", floor=floor)


def test_logit_is_the_log_odds_and_mass_the_sum() -> None:
    verdict = read(0.6, 0.2)
    assert verdict.logit == pytest.approx(math.log(3))
    assert verdict.label_mass == pytest.approx(0.8)
    assert verdict.invalid == ""


def test_mass_under_the_floor_is_invalid_and_not_renormalized() -> None:
    verdict = read(0.3, 0.1)
    assert verdict.invalid == "low label mass (0.4 < 0.5)"
    assert verdict.logit == 0.0
    assert verdict.label_mass == pytest.approx(0.4)


def test_impossible_label_has_a_finite_logit() -> None:
    assert read(1.0, 0.0).logit == 60.0
    assert read(0.0, 1.0).logit == -60.0
    assert read(0.0, 0.0, floor=0.0).invalid


def test_failure_and_nan_are_invalid_with_a_reason() -> None:
    failed = read_verdict(Failure("1", "prompt too long"), principle="p", order="ba", floor=0.5)
    assert (failed.invalid, failed.logit) == ("prompt too long", 0.0)
    nan = read_verdict(ChoiceResult("1", (math.nan, -1.0)), principle="p", order="ab", floor=0.5)
    assert nan.invalid == "label log-probability is NaN"
