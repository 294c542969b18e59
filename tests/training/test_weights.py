"""Weights of prompts reach preference training: from the labeled file to the rows trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rlaif.engines.base import EngineSettings
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from rlaif.training.data import find_labels, read_preferences
from rlaif.training.weights import by_weight
from tests.generation.helpers import write_rows

pytestmark = pytest.mark.slow


def test_a_pair_of_weight_three_is_trained_on_three_times(tmp_path: Path) -> None:
    weights = {"light": 1.0, "heavy": 3.0, "none": 0.0, "half": 2.5}
    data = write_rows(
        tmp_path / "pairs.jsonl",
        [
            {
                "id": f"{name}-{i}",
                "prompt": f"q {i}",
                "response_a": f"a {i} {name}",
                "response_b": f"b {i}",
                "weight": weight,
            }
            for name, weight in weights.items()
            for i in range(40)
        ],
    )
    judge = EngineSettings(engine="scripted", model="hashed")
    job = prepare(data, "demo", LabelSettings(judge=judge, template="demo"))
    run_label(job, tmp_path / "run", context=RunContext(cache_dir=tmp_path / "cache.sqlite"))
    rows = read_preferences(find_labels(tmp_path / "run"))
    before = Counter(row.id.split("-")[0] for row in rows)
    after = Counter(row.id.split("-")[0] for row in by_weight(rows, seed=1))
    assert after["light"] == before["light"] > 0
    assert after["heavy"] == 3 * before["heavy"]
    assert after["none"] == 0
    assert 2 * before["half"] <= after["half"] <= 3 * before["half"]
    assert abs(after["half"] - 2.5 * before["half"]) < 4 * (before["half"] / 4) ** 0.5
