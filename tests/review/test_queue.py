"""The queue: what is most worth a look first, and a random audit that stays unbiased."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif.demo.oracle import prefer
from rlaif.demo.world import World
from rlaif.engines.base import EngineSettings
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.review.doubt import DoubtSignals, doubt
from rlaif.review.items import PrincipleEvidence, ReviewItem, read_items
from rlaif.review.queue import QueueCandidate, QueuePlan, plan_queue
from rlaif.review.start import plan_review
from rlaif.review.store import Decision, ReviewTask
from rlaif.review.votes import audit_labels, combine
from rlaif.runs.context import RunContext
from tests.review.helpers import labeled

SURE = ReviewItem(
    id="x",
    row=1,
    prompt=[],
    a=[],
    b=[],
    status="decided",
    winner="a",
    reason="",
    p_a=0.99,
    order_consistency=1.0,
    opinions=[PrincipleEvidence("p", 0.99)],
)


def test_doubt_names_its_reasons() -> None:
    assert doubt(SURE).reasons == ()
    assert doubt(SURE).wrong == pytest.approx(0.01)
    unsure = doubt(replace(SURE, p_a=0.55))
    assert unsure.reasons == ("low judge confidence",)
    assert unsure.wrong == pytest.approx(0.45)
    opposed = replace(SURE, opinions=[PrincipleEvidence("p", 0.95), PrincipleEvidence("q", 0.1)])
    assert doubt(opposed).reasons == ("principles disagree",)
    assert doubt(replace(SURE, order_consistency=0.0)).reasons == ("the two orders disagree",)
    judges = replace(SURE, judges=[("one", 0.9), ("two", 0.2)])
    assert doubt(judges).reasons == ("judges disagree",)
    prompt_injection = doubt(replace(SURE, prompt_injection="b: instruction"))
    assert prompt_injection.reasons == ("possible prompt injection (b: instruction)",)
    rare = doubt(replace(SURE, tags=("rare", "other")), frozenset({"rare"}))
    assert rare.reasons == ("few pairs have the tag 'rare'",)
    mine = replace(SURE, origins=("Qwen/Qwen3-8B", "gpt-5"))
    family = doubt(mine, judges=("Qwen/Qwen3-32B",))
    assert family.reasons == ("the judge prefers a model of its own family (self-preference)",)
    assert doubt(replace(mine, winner="b", p_a=0.01), judges=("Qwen/Qwen3-32B",)).reasons == ()
    for more in (family, unsure, doubt(opposed), doubt(judges), prompt_injection, rare):
        assert more.score > doubt(SURE).score
    tie = doubt(replace(SURE, status="tie", winner="", p_a=0.5))
    assert (tie.wrong, tie.reasons) == (0.0, ("the judge's verdict is a tie",))
    assert doubt(SURE).score < tie.score < unsure.score


def planned(scores: list[float], budget: int, seed: int = 0, share: float = 0.3) -> QueuePlan:
    found = (QueueCandidate(i, f"n{i}", DoubtSignals(s, s, ())) for i, s in enumerate(scores))
    return plan_queue(found, budget, audit_share=share, seed=seed)


def test_a_longer_queue_holds_a_shorter_one_and_no_pair_twice() -> None:
    scores = list(np.random.default_rng(0).random(300))
    drawn: set[int] = set()
    for budget in (1, 10, 20, 50, 100, 299, 300, 400):
        plan = planned(scores, budget)
        numbers = [q.candidate.number for q in plan.queue]
        assert len(numbers) == len(set(numbers)) == min(budget, 300)
        audited = {q.candidate.number for q in plan.queue if q.audit}
        assert audited >= drawn
        drawn = audited
    assert all(q.inclusion == 1.0 for q in planned(scores, 300).queue)


def test_the_queue_begins_with_both_kinds() -> None:
    """The audit is spread evenly, so that a stop anywhere leaves its share."""
    plan = planned(list(np.random.default_rng(1).random(1000)), 100, share=0.2)
    for upto in (10, 25, 50, 100):
        share = sum(q.audit for q in plan.queue[:upto]) / upto
        assert 0.1 <= share <= 0.3
    certain = [q.candidate.number for q in plan.queue if q.certain]
    top = sorted(range(1000), key=lambda i: -np.random.default_rng(1).random(1000)[i])
    assert set(certain) == set(top[: len(certain)])


def test_inclusion_chances_make_estimates_unbiased() -> None:
    """Horvitz-Thompson totals over 2,000 audits of a population of 200 meet the true total."""
    rng = np.random.default_rng(3)
    scores = rng.random(200)
    value = scores + rng.normal(0, 0.3, 200)
    totals = []
    for seed in range(2000):
        plan = planned(list(scores), 40, seed=seed)
        totals.append(sum(value[q.candidate.number] / q.inclusion for q in plan.queue))
    error = np.std(totals) / len(totals) ** 0.5
    assert abs(np.mean(totals) - value.sum()) < 4 * error
    assert error > 0


def labels_for(plan: QueuePlan, wrong: np.ndarray) -> tuple[list[ReviewTask], list[Decision]]:
    tasks, said = [], []
    for k, q in enumerate(plan.queue):
        number = q.candidate.number
        tasks.append(
            ReviewTask(
                number=number,
                item=replace(SURE, prompt=[{"role": "user", "content": f"q {number}"}]),
                reasons=[],
                audit=q.audit,
                certain=q.certain,
                inclusion=q.inclusion,
                wanted=1,
                gold="",
            )
        )
        verdict = "b" if wrong[number] else "a"
        said.append(
            Decision(
                number=k,
                item=number,
                reviewer="anna",
                verdict=verdict,
                first="a",
                blind=True,
                seconds=1.0,
                at=0.0,
                note="",
                edited="",
                pasted=0,
            )
        )  # type: ignore[arg-type]
    return tasks, said


@pytest.mark.slow
def test_the_audit_says_how_many_labels_are_wrong() -> None:
    """Over 500 audits the mean of the estimate is the true share, and its interval holds it in
    95% (- 2 SE), counted or estimated.
    """
    rng = np.random.default_rng(5)
    scores = rng.random(1000) / 2
    wrong = rng.random(1000) < scores**2
    for upto in (1.0, 0.5):
        rates, held = [], 0
        for seed in range(500):
            plan = planned(list(scores), 150, seed=seed, share=0.4)
            tasks, said = labels_for(plan, wrong)
            said = said[: int(len(said) * upto)]
            found = audit_labels(combine(tasks, said), tasks, 1000)
            assert found.whole == (upto == 1.0)
            rates.append(found.wrong.rate)
            held += found.wrong.low <= wrong.mean() <= found.wrong.high
        assert abs(np.mean(rates) - wrong.mean()) < 0.005 + 4 * np.std(rates) / 500**0.5
        assert held / 500 >= 0.95 - 2 * (0.05 * 0.95 / 500) ** 0.5


def test_the_head_of_a_queue_does_not_pass_for_the_audit() -> None:
    """Every pair is in the queue, but only its doubtful beginning was seen."""
    rng = np.random.default_rng(7)
    scores = list(rng.random(300))
    wrong = np.array(scores) > 0.75
    plan = planned(scores, 300, share=0.2)
    tasks, said = labels_for(plan, wrong)
    found = audit_labels(combine(tasks, said[:60]), tasks, 300)
    assert found.wrong.total == sum(q.audit for q in plan.queue[:60])
    assert found.wrong.low <= wrong.mean() <= found.wrong.high


def test_a_queue_of_everything_counts_and_does_not_estimate() -> None:
    rng = np.random.default_rng(6)
    scores = list(rng.random(100))
    wrong = rng.random(100) < 0.4
    plan = planned(scores, 100)
    tasks, said = labels_for(plan, wrong)
    found = audit_labels(combine(tasks, said), tasks, 100)
    assert (found.wrong.rate, found.wrong.low, found.wrong.high) == (wrong.mean(),) * 3
    assert found.whole


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 pairs of the demo world, labeled by the demo judge with all principles in one tier: it
    is wrong on about one in twelve.
    """
    folder = tmp_path_factory.mktemp("review")
    rows = [
        {"id": f"d{i}", "prompt": p.prompt, "response_a": p.response_a, "response_b": p.response_b}
        for i, p in enumerate(World(21, "train").pairs(400))
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = Path("constitutions/demo.yaml").read_text()
    for tier in (2, 3):
        text = text.replace(f"tier: {tier}", "tier: 1")
    (folder / "flat.yaml").write_text(text)
    judge = EngineSettings(engine="packed", model="demo")
    job = prepare(
        str(folder / "pairs.jsonl"),
        str(folder / "flat.yaml"),
        LabelSettings(judge=judge, template="demo"),
    )
    run_label(job, folder / "run", context=RunContext(cache_dir=folder / "cache.sqlite"))
    return folder / "run"


@pytest.mark.slow
def test_a_tenth_by_the_queue_corrects_twice_as_many_labels_as_at_random(demo_run: Path) -> None:
    items = list(read_items(demo_run))

    def is_wrong(item: ReviewItem) -> bool:
        told = prefer(*(m[0]["content"] for m in (item.prompt, item.a, item.b)))
        return bool(item.winner) and told != 0 and (told > 0) != (item.winner == "a")

    wrong = np.array([is_wrong(item) for item in items])
    plan = plan_review(demo_run, len(items) // 10)
    corrected = sum(wrong[q.candidate.number] for q in plan.queue)
    at_random = wrong.sum() / 10
    assert wrong.sum() >= 15
    assert corrected >= 2 * at_random


def test_what_is_settled_is_not_in_the_queue(tmp_path: Path) -> None:
    run = labeled(tmp_path, 5)
    plan = plan_review(run, 100)
    assert len(plan.queue) == plan.total == 5
    assert "few pairs" not in str([q.candidate.doubt.reasons for q in plan.queue])
