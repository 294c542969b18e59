"""`rlaif win-rate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.errors import RlaifError
from rlaif.evaluation.win_rates import win_rates
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from tests.generation.helpers import SCRIPTED, read, write_rows


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
    rows.append(
        {
            "prompt": "same",
            "completions": [{"content": "a", "model": "old"}, {"content": "b", "model": "old"}],
        }
    )
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
    with pytest.raises(RlaifError, match="no pair with completions from two models"):
        win_rates(tmp_path / "plain")
