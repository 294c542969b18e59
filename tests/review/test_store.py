"""The desk: who sees what, and that nothing said is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.errors import RlaifError
from rlaif.review.start import open_store
from rlaif.review.store import DESK, LEASE_SECONDS, ReviewStore
from tests.labeling.helpers import label
from tests.review.helpers import labeled, store_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_two_people_get_different_pairs_until_a_lease_ends(tmp_path: Path) -> None:
    store_of(labeled(tmp_path), 6, overlap=0.0).close()
    clock = Clock()
    with closing(ReviewStore(tmp_path / "run" / DESK, clock=clock)) as store:
        anna, ben = store.next_for("anna"), store.next_for("ben")
        assert anna is not None
        assert ben is not None
        assert anna != ben
        assert store.next_for("anna") == anna  # a reload shows the same pair
        clock.now += 12.5
        kept = store.decide(anna, "anna", "a", first="b", note="clear")
        assert (kept.seconds, kept.blind, kept.at) == (12.5, True, clock.now)
        assert store.next_for("anna") not in (anna, ben)
        clock.now += LEASE_SECONDS + 1
        assert store.next_for("carl") == ben  # who left it


def test_every_pair_is_seen_by_as_many_as_wanted_and_skips_go_to_others(tmp_path: Path) -> None:
    with closing(store_of(labeled(tmp_path), 10, overlap=0.3)) as store:
        wanted = {t.number: t.wanted for t in store.tasks()}
        assert sum(n == 2 for n in wanted.values()) == 3
        twice = [t for t in store.tasks() if t.wanted == 2]
        assert sum(t.audit for t in twice) == 2  # all that the audit has
        first = store.next_for("anna")
        assert first is not None
        store.decide(first, "anna", "skip", first="a")
        for who in ("anna", "ben", "carl"):
            while (number := store.next_for(who)) is not None:
                store.decide(number, who, "a", first="a")
        said: dict[int, set[str]] = {}
        for d in store.decisions():
            if d.verdict != "skip":
                said.setdefault(d.item, set()).add(d.reviewer)
        assert {k: len(v) for k, v in said.items()} == wanted
        assert "anna" not in said[first]
        assert store.progress("anna").done == store.progress("anna").total == 10


def test_many_at_once_never_decide_a_pair_more_often_than_wanted(tmp_path: Path) -> None:
    with closing(store_of(labeled(tmp_path), 40, overlap=0.25)) as store:

        def work(who: str) -> int:
            done = 0
            while (number := store.next_for(who)) is not None:
                store.decide(number, who, "a", first="a")
                done += 1
            return done

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(work, [f"r{k}" for k in range(8)]))
        assert sum(done) == sum(t.wanted for t in store.tasks()) == 50


def test_undo_gives_the_pair_back_and_what_was_seen_is_not_blind(tmp_path: Path) -> None:
    with closing(store_of(labeled(tmp_path), 10, overlap=0.0)) as store:
        assert store.undo("anna") is None
        one = store.next_for("anna")
        assert one is not None
        store.decide(one, "anna", "a", first="a")
        two = store.next_for("anna")
        assert two is not None
        store.decide(two, "anna", "b", first="a")
        assert store.undo("anna") == two
        assert store.decision(two, "anna") is None
        assert store.next_for("anna") == two
        again = store.decide(two, "anna", "tie", first="a")
        assert not again.blind
        assert [d.verdict for d in store.decisions(reviewer="anna")] == ["a", "tie"]
        assert store.undo("anna") == two
        assert store.undo("anna") == one
        assert store.undo("anna") is None


def test_a_kill_right_after_a_decision_loses_nothing(tmp_path: Path) -> None:
    run = labeled(tmp_path)
    store_of(run, 5, overlap=0.0).close()
    code = f"""
import os, signal
from pathlib import Path
from rlaif.review.store import ReviewStore
store = ReviewStore(Path({str(run / DESK)!r}))
store.decide(store.next_for("anna"), "anna", "b", first="a", note="the last word")
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert killed.returncode == -9
    with closing(ReviewStore(run / DESK)) as store:
        assert [(d.verdict, d.note) for d in store.decisions()] == [("b", "the last word")]


def test_a_longer_queue_keeps_what_was_said(tmp_path: Path) -> None:
    run = labeled(tmp_path)
    with closing(store_of(run, 5)) as store:
        number = store.next_for("anna")
        assert number is not None
        store.decide(number, "anna", "a", first="a")
        before = [t.number for t in store.tasks()]
    opened = open_store(run, 12)
    with closing(opened.store) as store:
        after = [t.number for t in store.tasks()]
        assert after[:5] == before
        assert len(after) >= 12
        assert opened.new == len(after) - 5
        assert len(store.decisions()) == 1


def test_a_shorter_budget_or_another_audit_does_not_mix_designs(tmp_path: Path) -> None:
    run = labeled(tmp_path)
    with closing(store_of(run, 20)) as store:
        before = [(t.number, t.certain, t.inclusion) for t in store.tasks()]
    with closing(store_of(run, 5)) as store:
        assert [(t.number, t.certain, t.inclusion) for t in store.tasks()] == before
    for other in ({"seed": 1}, {"audit_share": 0.5}):
        with pytest.raises(RlaifError, match=r"was started with --audit-share 0\.2 --seed 0"):
            store_of(run, 20, **other)


def test_a_decision_taken_back_by_a_skip_is_open_again(tmp_path: Path) -> None:
    with closing(store_of(labeled(tmp_path), 3, overlap=0.0)) as store:
        number = store.next_for("anna")
        assert number is not None
        store.decide(number, "anna", "a", first="a")
        store.decide(number, "anna", "skip", first="a")
        assert store.progress("anna").done == 0
        assert number in {store.next_for(who) for who in ("ben", "carl", "dora")}


def test_a_pair_left_open_over_a_weekend_took_no_weekend(tmp_path: Path) -> None:
    store_of(labeled(tmp_path), 6, overlap=0.0).close()
    clock = Clock()
    with closing(ReviewStore(tmp_path / "run" / DESK, clock=clock)) as store:
        number = store.next_for("anna")
        clock.now += 200_000
        assert store.next_for("anna") == number
        clock.now += 9
        assert number is not None
        assert store.decide(number, "anna", "a", first="a").seconds == 9


def test_a_run_that_was_labeled_anew_is_refused(tmp_path: Path) -> None:
    run = labeled(tmp_path)
    store_of(run, 5).close()
    (run / DESK).rename(tmp_path / "old.sqlite")
    other = tmp_path / "other"
    text = (tmp_path / "constitution.yaml").read_text().replace("is two", "is three")
    (tmp_path / "constitution.yaml").write_text(text)
    label(tmp_path / "pairs.jsonl", tmp_path / "constitution.yaml", other)
    (tmp_path / "old.sqlite").rename(other / DESK)
    with pytest.raises(RlaifError, match="has changed since its review started"):
        open_store(other, 5)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / DESK).write_bytes(b"not a database at all, whatever its name says")
    with pytest.raises(RlaifError, match="could not be opened"):
        ReviewStore(tmp_path / DESK)
    with pytest.raises(RlaifError, match="not a run directory"):
        open_store(tmp_path, 5)
