"""The recipe of the embedded models is the one in scripts/, and it runs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.util.resources import demo_model

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "train_demo_models.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("train_demo_models", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_vocabulary_is_rebuilt_from_the_seed(script: Any) -> None:
    rebuilt = json.loads(script.build_tokenizer(20).backend_tokenizer.to_str())["model"]
    for name in ("judge", "policy", "writer"):
        shipped = json.loads((demo_model(name) / "tokenizer.json").read_text())["model"]
        assert shipped["vocab"] == rebuilt["vocab"]
        assert shipped["merges"] == rebuilt["merges"]


@pytest.mark.parametrize("which", ["judge", "policy", "writer"])
def test_training_takes_steps_and_saves_a_model_of_the_shipped_shape(
    which: str,
    tmp_path: Path,
    script: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--steps", "4", "--batch", "8", "--log-every", "2", "--out", str(tmp_path / which)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), which, *flags])
    script.main()
    losses = [
        float(word.removeprefix("loss="))
        for word in capsys.readouterr().out.split()
        if word.startswith("loss=")
    ]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    made = json.loads((tmp_path / which / "config.json").read_text())
    shipped = json.loads((demo_model(which) / "config.json").read_text())
    assert made == shipped
