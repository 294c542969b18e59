"""Reviewers: agreement by hand, tests that attentive people pass, and simulated crowds."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import fisher_exact, hypergeom, nchypergeom_fisher
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.review.echo import GoldCounts, echo_p_values
from rlaif.review.integrity import ECHO, cohen, krippendorff, prevalence, report_reviewers
from rlaif.review.items import PrincipleEvidence, ReviewItem
from rlaif.review.store import DESK, Decision, ReviewStore, ReviewTask
from rlaif.review.votes import combine
from scripts.measure_reviewers import crowd, score
from tests.review.helpers import labeled, store_of

TEXT = [{"role": "assistant", "content": "word " * 60}]
ITEM = ReviewItem(
    id="x",
    row=1,
    prompt=[],
    a=TEXT,
    b=TEXT,
    status="decided",
    winner="a",
    reason="",
    p_a=0.9,
    order_consistency=1.0,
    opinions=[PrincipleEvidence("p", 0.9)],
)


def test_krippendorff_s_own_example() -> None:
    """Four observers and twelve units with gaps (Krippendorff 2011, section C): 0.743."""
    data = """
        1 2 3 3 2 1 4 1 2 . . .
        1 2 3 3 2 2 4 1 2 5 . 3
        . 3 3 3 2 3 4 2 2 5 1 .
        1 2 3 3 2 4 4 1 2 5 1 ."""
    columns = zip(*(line.split() for line in data.split("\n") if line.strip()), strict=True)
    assert krippendorff([[v for v in c if v != "."] for c in columns]) == pytest.approx(
        0.743, abs=5e-4
    )


def test_cohen_is_scikit_learn_s() -> None:
    rng = np.random.default_rng(0)
    pairs = [(str(a), str(b)) for a, b in rng.integers(0, 3, (200, 2))]
    expected = cohen_kappa_score([a for a, _ in pairs], [b for _, b in pairs])
    assert cohen(pairs) == pytest.approx(expected)
    assert np.isnan(cohen([("a", "a")]))
    assert np.isnan(krippendorff([["a"]]))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.33, 0.46])
def test_contaminated_reviewers_are_told_apart(share: float) -> None:
    """Seven crowds of 100: AUC of at least 0.9, prevalence within 5 points on average and within
    twelve in each, at most 5% (+ 2 SE) of attentive reviewers flagged.
    """
    aucs, rates, flagged, honest = [], [], 0, 0
    for seed in range(7):
        tasks, said, lazy, people = crowd(np.random.default_rng(seed), 100, share)
        reports = report_reviewers(tasks, said, detector=score, human_texts=people)
        truth = [lazy[r.name] for r in reports]
        aucs.append(roc_auc_score(truth, [-r.p for r in reports]))
        rates.append(prevalence(reports)[1].rate)
        flagged += sum(bool(r.flags) for r in reports if not lazy[r.name])
        honest += truth.count(False)
    assert min(aucs) >= 0.9
    assert abs(np.mean(rates) - share) <= 0.05
    assert max(abs(r - share) for r in rates) <= 0.12
    assert flagged / honest <= 0.05 + 2 * (0.05 * 0.95 / honest) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("hard", [0.35, 0.5])
def test_pairs_that_are_hard_for_people_flag_nobody(hard: float) -> None:
    """Where attentive people err more on what the judge has wrong, the plain test flags a quarter
    to a half of them.
    """
    flagged, plain, n, caught = 0, 0, 0, []
    for seed in range(6):
        tasks, said, lazy, _ = crowd(np.random.default_rng(300 + seed), 60, 0.2, hard=hard)
        everyone = report_reviewers(tasks, said)
        reports = [r for r in everyone if not lazy[r.name]]
        flagged += sum(any(f.name == ECHO for f in r.flags) for r in reports)
        plain += sum(bool(r.unclear) for r in reports)
        n += len(reports)
        caught += [bool(r.flags) for r in everyone if lazy[r.name]]
    assert flagged / n <= 0.05 + 2 * (0.05 * 0.95 / n) ** 0.5
    assert plain / n > 0.1
    assert np.mean(caught) > (0.5 if hard < 0.4 else 0.25)


def test_echoes_are_held_against_others() -> None:
    """Odds from many others are those of the law by hand; one alone is never flagged."""
    rng = np.random.default_rng(0)
    others = [
        GoldCounts(int(rng.binomial(8, 0.5)), 8, int(rng.binomial(16, 0.15)), 16)
        for _ in range(400)
    ]
    own = GoldCounts(6, 8, 2, 16)
    odds = (0.5 / 0.5) / (0.15 / 0.85)
    assert echo_p_values([*others, own])[-1] == pytest.approx(own.p(odds), abs=0.03)
    assert own.p(1.0) == pytest.approx(
        fisher_exact([[6, 2], [2, 14]], alternative="greater").pvalue
        - 0.5 * hypergeom(24, 8, 8).pmf(6)
    )
    assert echo_p_values([GoldCounts(7, 8, 2, 16)])[0] > 0.05
    many = GoldCounts(400, 500, 100, 1000)
    assert 0.0 <= echo_p_values([many, many, GoldCounts(490, 500, 20, 1000)])[-1] < 1e-6
    law = nchypergeom_fisher(24, 8, 8, 3.0)
    assert own.p(3.0) == pytest.approx(law.sf(6) + 0.5 * law.pmf(6))
    easy = [GoldCounts(1, 8, 2, 16)] * 5
    assert echo_p_values([*easy, GoldCounts(7, 8, 2, 16)])[-1] < 0.01
    assert echo_p_values([]) == []


@pytest.mark.slow
def test_attentive_reviewers_are_flagged_once_in_twenty_times() -> None:
    flagged = n = 0
    for seed in range(8):
        tasks, said, _, people = crowd(np.random.default_rng(100 + seed), 60, 0.0)
        reports = report_reviewers(tasks, said, detector=score, human_texts=people)
        assert all(len(r.tests) == 4 for r in reports)
        flagged += sum(bool(r.flags) for r in reports)
        n += len(reports)
        assert prevalence(reports)[1].rate <= 0.15
    assert flagged / n <= 0.05 + 2 * (0.05 * 0.95 / n) ** 0.5


def test_a_side_and_a_streak_are_named() -> None:
    tasks, said, _, _ = crowd(np.random.default_rng(0), 2, 0.0)
    one = [replace(d, first=d.verdict) if d.reviewer == "r0" else d for d in said]
    flags = {f.name for f in report_reviewers(tasks, one)[0].flags}
    assert "favors one side" in flags
    left = [d for d in said if d.reviewer == "r1"]
    halves = [
        replace(d, first=d.verdict if k < 42 else {"a": "b", "b": "a"}[d.verdict])
        for k, d in enumerate(left)
    ]
    (report,) = report_reviewers(tasks, halves)
    assert [f.name for f in report.flags] == ["repeats one answer"]
    assert "42 times in a row" in report.flags[0].reason


def test_counts_of_a_reviewer_by_hand() -> None:
    tasks = [
        ReviewTask(
            number=k,
            item=replace(ITEM, id=f"n{k}"),
            reasons=[],
            audit=False,
            certain=False,
            inclusion=1.0,
            wanted=1,
            gold="b" if k == 0 else "",
        )
        for k in range(4)
    ]
    base = Decision(
        number=0,
        item=0,
        reviewer="anna",
        verdict="a",
        first="a",
        blind=True,
        seconds=1.0,
        at=0.0,
        note="",
        edited="",
        pasted=0,
    )
    said = [
        base,  # wrong on a planted pair, with the judge, too fast for 120 words
        replace(base, number=1, item=1, verdict="b", seconds=30.0),
        replace(base, number=2, item=1, verdict="a", blind=False),  # changed to the judge's
        replace(base, number=3, item=2, verdict="tie", seconds=30.0),
        replace(base, number=4, item=3, verdict="skip"),
        replace(base, number=5, item=2, verdict="a", edited="0123456789", pasted=6, blind=False),
    ]
    (report,) = report_reviewers(tasks, said)
    assert report.decisions == 3
    assert (report.gold.hits, report.gold.total) == (0, 1)
    assert (report.judge.hits, report.judge.total) == (1, 2)
    assert (report.too_fast.hits, report.too_fast.total) == (1, 3)
    assert (report.left.hits, report.left.total) == (1, 2)
    assert (report.pasted.hits, report.pasted.total) == (1, 1)
    assert (report.changed.hits, report.changed.total) == (2, 2)
    assert (report.tests, report.flags, report.p) == ([], [], 1.0)


def test_an_expert_s_pairs_are_planted_among_the_others_and_count_as_the_expert_s(
    tmp_path: Path,
) -> None:
    with closing(store_of(labeled(tmp_path), 40, overlap=0.0)) as store:
        with pytest.raises(RlaifError, match="has not labeled any pair"):
            store.plant("eve", 0.25)
        for _ in range(10):
            number = store.next_for("expert")
            assert number is not None
            store.decide(number, "expert", "a", first="a")
        assert store.plant("expert", 0.25) == 10
        gold = {t.number for t in store.tasks() if t.gold}
        seen = []
        for _ in range(20):
            number = store.next_for("anna")
            assert number is not None
            assert store.next_for("anna") == number
            store.decide(number, "anna", "b", first="a")
            seen.append(number in gold)
        # Drawn around the share of 5, by a secret that is new in every review: from 4 to 6.
        planted = sum(seen)
        assert 4 <= planted <= 6
        assert not all(seen[:5])
        found = combine(store.tasks(), store.decisions(), expert="expert")
        assert all(f.winner == ("a" if f.task.gold else "b") for f in found)
    out = CliRunner().invoke(
        cli, ["labels", "reviewers", str(tmp_path / "run"), "--json"], catch_exceptions=False
    )
    (anna,) = json.loads(out.output)["reviewers"]
    assert (anna["gold"]["hits"], anna["gold"]["total"]) == (0, planted)
    table = CliRunner().invoke(
        cli, ["labels", "reviewers", str(tmp_path / "run")], catch_exceptions=False
    )
    assert re.search(r"gold\b.*\n +accuracy", table.output)


def test_a_detector_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    run = labeled(tmp_path)
    with closing(store_of(run, 20, overlap=0.0)) as store:
        for k in range(12):
            number = store.next_for("anna")
            assert number is not None
            store.decide(number, "anna", "a", first="ab"[k % 2], edited=f"delve into {k}")
    (tmp_path / "own_detector.py").write_text(
        "def score(texts):\n    return [t.count('delve') for t in texts]\n"
    )
    (tmp_path / "people.txt").write_text("".join(f"plain words {k}\n" for k in range(12)))
    args = ["labels", "reviewers", str(run), "--detector", "own_detector:score"]
    assert isinstance(CliRunner().invoke(cli, args).exception, RlaifError)
    found = CliRunner().invoke(
        cli, [*args, "--human-texts", str(tmp_path / "people.txt")], catch_exceptions=False
    )
    assert "median score 1.000 for 12 edits, 0.000 for 12 human texts" in found.output
    with closing(ReviewStore(run / DESK)) as store:
        assert len(store.decisions()) == 12
