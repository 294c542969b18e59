"""Grades of one response: expected value and spread, by hand; and templates that are refused."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.constitution.load import load_constitution
from rlaif.engines.scripted import ByteCodec
from rlaif.errors import RlaifError
from rlaif.generation.pointwise_calls import (
    DirectScorer,
    PointwiseScore,
    load_pointwise_template,
)
from rlaif.judging.verdicts import read_grade
from rlaif.records import ChoiceRequest, ChoiceResult, Failure


@given(
    st.lists(st.floats(0.001, 1.0), min_size=2, max_size=9),
    st.floats(0.5, 1.0),
    st.integers(0, 3),
)
def test_mean_and_spread_are_those_of_many_draws(
    weights: list[float], mass: float, first: int
) -> None:
    total = sum(weights)
    grades = range(first, first + len(weights))
    found = read_grade([math.log(mass * w / total) for w in weights], grades, floor=0.4)
    mean = sum(g * w for g, w in zip(grades, weights, strict=True)) / total
    second = sum(g * g * w for g, w in zip(grades, weights, strict=True)) / total
    assert found.mean == pytest.approx(mean)
    assert found.spread == pytest.approx(math.sqrt(max(0.0, second - mean**2)), abs=1e-6)
    assert found.mass == pytest.approx(mass)
    assert not found.invalid


@pytest.mark.parametrize(
    ("logs", "said"),
    [
        ([-3.0, -4.0], "low label mass"),
        ([-math.inf, -math.inf], "low label mass"),
        ([math.nan, -1.0], "together"),
        ([0.0, -0.1], "together"),
    ],
)
def test_no_grade_is_guessed(logs: list[float], said: str) -> None:
    assert said in read_grade(logs, (1, 2), floor=0.5).invalid


def score(template: str, told: list[ChoiceResult | Failure]) -> PointwiseScore:
    scorer = DirectScorer(load_pointwise_template(template), ByteCodec(), 0.5, 0.5)
    scorer.check()
    asks = scorer.score(
        [{"role": "user", "content": "Hi?"}],
        [{"role": "assistant", "content": "Hello."}],
        load_constitution("demo").constitution.principles[: len(told)],
    )
    requests = [query.request for query in next(asks)]
    for request in requests:
        assert isinstance(request, ChoiceRequest)
        assert len(request.label_ids) == 5
        assert bytes(request.token_ids).decode().endswith("Grade=")
    with pytest.raises(StopIteration) as ended:
        asks.send(list(told))
    found: PointwiseScore = ended.value.value
    return found


def test_a_score_is_the_share_of_the_way_up() -> None:
    """A judge whose doubt is a bell over the grades: its mean and spread come back."""
    bell = NormalDist(3.4, 0.7)
    weights = [bell.cdf(g + 0.5) - bell.cdf(g - 0.5) for g in range(1, 6)]
    logs = tuple(math.log(0.98 * w / sum(weights)) for w in weights)
    found = score("score", [ChoiceResult("", logs), ChoiceResult("", logs), Failure("", "cut")])
    mark = found.principles[0]
    assert mark.grade == pytest.approx(3.4, abs=0.02)
    # Rounding to whole grades adds a twelfth to the variance (Sheppard 1898).
    assert mark.spread == pytest.approx(math.sqrt(0.49 + 1 / 12), abs=0.02)
    assert mark.p == pytest.approx((3.4 - 1) / 4, abs=0.01)
    assert mark.label_mass == pytest.approx(0.98)
    assert found.principles[2].invalid == "cut"
    assert found.score == pytest.approx(mark.p)


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("labels: Yes, No\nscores: 1, 2", "needs one of the settings"),
        ("prefill: x", "needs one of the settings"),
        ("scores: 2, 1", "invalid `scores`"),
        ("scores: 1, two", "invalid `scores`"),
        ('scores: "3"', "has one score"),
        ("scores: 1, 1", "invalid `scores`"),
        ("scores: 9, 10", "longer than one byte"),  # no single token
    ],
)
def test_wrong_scales_are_refused(tmp_path: Path, front: str, said: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(f"---\n{front}\n---\n{{{{conversation}}}} {{{{response}}}} {{{{principle}}}}\n")
    with pytest.raises(RlaifError, match=said):
        DirectScorer(load_pointwise_template(str(path)), ByteCodec(), 0.5, 0.5).check()
