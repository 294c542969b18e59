"""`rlaif win-rate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlaif.errors import RlaifError
from rlaif.evaluation.stats.resampling import mean_with_interval
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
    tied, said_nothing = (
        [
            r
            for r in read(tmp_path / "run" / "undecided.jsonl")
            if r["provenance"]["status"] == status and r["prompt"][0]["content"] != "same"
        ]
        for status in ("tie", "abstained")
    )
    assert found["old"].ties == found["new"].ties == len(tied) >= 9
    assert found["old"].abstained == found["new"].abstained == len(said_nothing)
    old = found["old"]
    counted = old.wins + old.losses + old.ties
    assert old.rate.value == pytest.approx((old.wins + old.ties / 2) / counted)
    assert old.rate.value + found["new"].rate.value == pytest.approx(1.0)
    assert (1 - old.rate.high, 1 - old.rate.low) == pytest.approx(
        (found["new"].rate.low, found["new"].rate.high)
    )
    plain = write_rows(
        tmp_path / "p.jsonl", [{"prompt": "q", "response_a": "a", "response_b": "b"}]
    )
    run_label(prepare(plain, "demo", settings), tmp_path / "plain")
    with pytest.raises(RlaifError, match="no pair with completions from two models"):
        win_rates(tmp_path / "plain")


def test_pairs_of_one_prompt_are_not_independent(tmp_path: Path) -> None:
    """Twelve prompts with sixteen pairs each, as of four completions of each model: the interval
    is that of the pairs grouped by prompt, and much wider than that of as many prompts.
    """
    rows = [
        {
            "prompt": f"q {i}",
            "response_a": f"x {i} {k}",
            "response_a_model": "old",
            "response_b": f"y {i} {k}",
            "response_b_model": "new",
        }
        for i in range(12)
        for k in range(16)
    ]
    data = write_rows(tmp_path / "c.jsonl", rows)
    settings = LabelSettings(judge=SCRIPTED, template="demo")
    run_label(prepare(data, "demo", settings), tmp_path / "run")
    scores, prompts = [], []
    for name in ("preferences", "undecided"):
        for row in read(tmp_path / "run" / f"{name}.jsonl"):
            if row["provenance"]["status"] != "abstained":
                mine = row.get("chosen", [{"content": ""}])[0]["content"].startswith("x")
                scores.append(float(mine) if "chosen" in row else 0.5)
                prompts.append(row["prompt"][0]["content"])
    (old,) = (w for w in win_rates(tmp_path / "run") if w.model == "old")
    assert old.rate == mean_with_interval(np.array(scores), prompts)
