"""People's own errors: recovered from pairs with several votes, and taken out of what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlaif.evaluation.stats.intervals import Share, share
from rlaif.review.human_error import estimate_human_error, take_out_error
from rlaif.review.store import Decision, ReviewTask
from rlaif.review.votes import CERTAINTY, combine, review_facts
from tests.review.test_queue import SURE


def task(number: int, *, gold: str = "", audit: bool = True) -> ReviewTask:
    prompt = [{"role": "user", "content": f"q {number}"}]
    return ReviewTask(
        number=number,
        item=replace(SURE, id=f"n{number}", row=number + 1, prompt=prompt),
        reasons=[],
        audit=audit,
        certain=False,
        inclusion=0.1,
        wanted=1,
        gold=gold,
    )


def vote(item: int, reviewer: str, verdict: str, *, blind: bool = True) -> Decision:
    return Decision(
        number=item,
        item=item,
        reviewer=reviewer,
        verdict=verdict,  # type: ignore[arg-type]
        first="a",
        blind=blind,
        seconds=9.0,
        at=0.0,
        note="",
        edited="",
        pasted=0,
    )


def reviewed(
    rng: np.random.Generator,
    pairs: int,
    *,
    wrong: float,
    errors: dict[str, float],
    overlap: float,
) -> tuple[list[ReviewTask], list[Decision], np.ndarray]:
    """A judge that says `a` everywhere and is wrong on a share; reviewers who err independently,
    two of them on a share of the pairs.
    """
    truth = rng.random(pairs) < wrong
    names = list(errors)
    said = []
    for k in range(pairs):
        first, second = rng.permutation(len(names))[:2]
        for i in (first, second) if rng.random() < overlap else (first,):
            right = "b" if truth[k] else "a"
            other = "a" if truth[k] else "b"
            said.append(vote(k, names[i], other if rng.random() < errors[names[i]] else right))
    return [task(k) for k in range(pairs)], said, truth


@pytest.mark.slow
def test_what_people_say_is_corrected_by_how_often_they_err() -> None:
    """Reviewers of 10% error: the plain share of wrong labels is off by five points, the corrected
    one is right on average, and its interval holds the truth in 95%.
    """
    plain, corrected, held, rates = [], [], 0, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        errors = {"anna": 0.1, "ben": 0.1, "carl": 0.1}
        tasks, said, _ = reviewed(rng, 300, wrong=0.2, errors=errors, overlap=0.5)
        facts = review_facts(tasks, said, 100_000, certainty=None)
        rates.append(facts["human_error"]["rate"])
        plain.append(facts["wrong"]["rate"])
        found = facts["wrong_without_human_error"]
        corrected.append(found["rate"])
        held += found["low"] <= 0.2 <= found["high"]
    assert np.mean(rates) == pytest.approx(0.1, abs=0.01)
    assert np.mean(plain) == pytest.approx(0.2 * 0.9 + 0.8 * 0.1, abs=0.01)
    assert np.mean(corrected) == pytest.approx(0.2, abs=0.012)
    assert held / 200 >= 0.95 - 2 * (0.05 * 0.95 / 200) ** 0.5


def test_each_reviewer_has_an_error_of_their_own() -> None:
    errors = {"careful": 0.02, "usual": 0.1, "hasty": 0.3}
    rng = np.random.default_rng(3)
    tasks, said, truth = reviewed(rng, 8000, wrong=0.3, errors=errors, overlap=1.0)
    found = estimate_human_error(tasks, said)
    assert found is not None
    for name, error in errors.items():
        assert found.by_reviewer[name] == pytest.approx(error, abs=0.04)
    # A vote counts by who gave it: what is combined is calibrated, and right more often.
    known = {f.task.number: f for f in combine(tasks, said, certainty=None)}
    plain = {f.task.number: f for f in combine(tasks, said)}
    right = {
        name: np.mean([(f.p_a > 0.5) != truth[k] for k, f in labels.items() if f.p_a != 0.5])
        for name, labels in (("own", known), ("same", plain))
    }
    split = [k for k, f in plain.items() if f.split]
    assert len(split) > 200
    assert not any(known[k].split for k in split)
    assert np.mean([(known[k].p_a > 0.5) != truth[k] for k in split]) > 0.8
    assert right["own"] > 0.9
    sure = np.array([max(f.p_a, 1 - f.p_a) for f in known.values()])
    hits = np.array([(f.p_a > 0.5) != truth[k] for k, f in known.items()])
    for low, high in ((0.5, 0.9), (0.9, 0.99), (0.99, 1.0)):
        here = (sure >= low) & (sure < high)
        if here.sum() > 50:
            assert hits[here].mean() == pytest.approx(sure[here].mean(), abs=0.06)


def test_planted_pairs_tell_the_error_where_there_are_more_of_them() -> None:
    rng = np.random.default_rng(0)
    tasks = [task(k, gold="b") for k in range(200)]
    said = [vote(k, "anna", "a" if rng.random() < 0.15 else "b") for k in range(200)]
    # The expert's own votes, and those given with the judge's verdict in sight, are no test.
    said += [vote(k, "expert", "b") for k in range(200)]
    said += [vote(k, "late", "a", blind=False) for k in range(200)]
    found = estimate_human_error(tasks, said, expert="expert")
    assert found is not None
    assert found.planted
    assert found.pairs == 200
    assert found.low <= 0.15 <= found.high
    assert found.by_reviewer["anna"] == pytest.approx(found.rate, abs=0.01)
    assert "late" not in found.by_reviewer


def test_too_few_pairs_with_two_votes_say_nothing() -> None:
    tasks = [task(k) for k in range(40)]
    said = [vote(k, "anna", "a") for k in range(40)] + [vote(k, "ben", "a") for k in range(19)]
    assert estimate_human_error(tasks, said) is None
    facts = review_facts(tasks, said, 1000, certainty=None)
    assert facts["human_error"] is None
    assert facts["wrong_without_human_error"] is None
    assert combine(tasks, said, certainty=None) == combine(tasks, said, certainty=CERTAINTY)
    more = [*said, vote(19, "ben", "a")]
    found = estimate_human_error(tasks, more)
    assert found is not None
    assert (found.rate, found.ceiling) == (0.0, 1.0)
    assert found.high > 0.03  # twenty pairs can't show that people never err


def test_ties_are_no_errors_and_ends_stay_in_bounds() -> None:
    tasks, said, _ = reviewed(
        np.random.default_rng(1), 200, wrong=0.0, errors={"a": 0.2, "b": 0.2}, overlap=1.0
    )
    error = estimate_human_error(tasks, said)
    assert error is not None
    wrong = share(30, 200)
    alone = take_out_error(wrong, 1.0, error)  # all of it ties
    assert (alone.rate, alone.low, alone.high) == pytest.approx((wrong.rate, wrong.low, wrong.high))
    none = take_out_error(share(10, 200), 0.0, error)  # fewer than people's errors alone make
    assert none.rate == none.low == 0.0
    assert none.high < 0.1
    certain = Share(20, 200, 0.1, 0.1, 0.1)
    assert take_out_error(certain, 0.0, replace(error, rate=0.0, low=0.0, high=0.0)) == certain
