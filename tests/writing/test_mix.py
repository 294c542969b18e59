"""`rlaif mix` and `rlaif win-rate`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rlaif.errors import RlaifError
from rlaif.evaluation.win_rates import win_rates
from rlaif.pipeline.guard import GuardSettings, guard
from rlaif.pipeline.job import prepare, run_label
from rlaif.pipeline.mix import MIXED, mix, read_parts
from rlaif.pipeline.settings import LabelSettings
from tests.writing.helpers import SCRIPTED, read, write_rows


def test_shares_are_kept_and_no_row_comes_twice(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", [{"prompt": f"a {i}"} for i in range(100)])
    two = write_rows(tmp_path / "two.jsonl", [{"prompt": f"b {i}"} for i in range(30)])
    parts = read_parts({one: "3", two: "1"})
    report = mix(parts, tmp_path / "m", total=None, seed=1)
    assert report.taken == {one: 90, two: 30}
    rows = read(tmp_path / "m" / MIXED)
    assert Counter(r["mixed_from"] for r in rows) == report.taken
    assert len({r["prompt"] for r in rows}) == 120
    assert [r["mixed_from"] for r in rows[:60]].count(two) not in (0, 60), "shuffled"
    first = (tmp_path / "m" / MIXED).read_bytes()
    mix(parts, tmp_path / "m", total=None, seed=1)
    assert (tmp_path / "m" / MIXED).read_bytes() == first
    assert mix(parts, tmp_path / "m", total=10, seed=1).taken == {one: 8, two: 2}
    with pytest.raises(RlaifError, match=r"has 100 rows, and 200 rows.*need 150.*--total 120"):
        mix(parts, tmp_path / "m", total=200, seed=1)
    with pytest.raises(RlaifError, match="share 'x' of"):
        read_parts({one: "x"})


def test_human_rows_say_so_and_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    one = write_rows(tmp_path / "one.jsonl", [{"prompt": f"a {i}"} for i in range(8)])
    two = write_rows(
        tmp_path / "two.jsonl",
        [{"prompt": f"b {i}", "origin": {"kind": "model", "depth": 2}} for i in range(8)],
    )
    mix(read_parts({one: "1", two: "3"}), tmp_path / "m", total=8, seed=0, human=[one])
    report = guard(str(tmp_path / "m" / MIXED), None, GuardSettings(min_human=0.2))
    assert (report.human_share, report.depth, report.tripped) == (0.25, 2, [])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / MIXED).write_text("precious")
    with pytest.raises(RlaifError, match="holds files but no mix"):
        mix(read_parts({one: "1"}), tmp_path / "mine", total=None, seed=0)


def test_win_rates_count_decided_pairs_of_two_models(tmp_path: Path) -> None:
    """Against a count of the rows by hand; the scripted judge decides by a hash."""
    rows = [
        {
            "prompt": f"q {i}",
            "completions": [
                {"content": f"x {i}", "model": "old"},
                {"content": f"y {i}" if i % 7 else f"x {i}", "model": "new"},
            ],
        }
        for i in range(60)
    ]
    rows.append({"prompt": "same", "completions": [{"content": "a", "model": "old"},
                                                   {"content": "b", "model": "old"}]})  # fmt: skip
    data = write_rows(tmp_path / "c.jsonl", rows)
    settings = LabelSettings(judge=SCRIPTED, template="demo")
    run_label(prepare(data, "demo", settings), tmp_path / "run")
    found = {w.model: w for w in win_rates(tmp_path / "run")}
    decided = [
        r["chosen"][0]["content"][0]
        for r in read(tmp_path / "run" / "preferences.jsonl")
        if r["prompt"][0]["content"] != "same"
    ]
    assert found["old"].wins == found["new"].losses == decided.count("x")
    assert found["new"].wins == found["old"].losses == decided.count("y")
    assert found["old"].undecided == found["new"].undecided == 60 - len(decided) >= 9
    plain = write_rows(
        tmp_path / "p.jsonl", [{"prompt": "q", "response_a": "a", "response_b": "b"}]
    )
    run_label(prepare(plain, "demo", settings), tmp_path / "plain")
    with pytest.raises(RlaifError, match="no pair of two models"):
        win_rates(tmp_path / "plain")
