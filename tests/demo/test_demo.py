"""The proof: the judge knows, the policy improves, and with shuffled labels it does not."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from rlaif.demo import run as demo_run
from rlaif.demo.measure import measure_judge, oracle_win_rate
from rlaif.demo.run import PROMPTS, TEST_SEED, TRAINING, sample_answers
from rlaif.engines.base import Engine
from rlaif.training.dpo import prepare_dpo
from rlaif.training.frame import run_training
from rlaif.training.settings import DPOSettings
from tests.labeling.helpers import restate_sizes

pytestmark = pytest.mark.slow


def test_judge_agrees_with_the_oracle_on_text_it_never_saw(demo_judge: Engine) -> None:
    """The bar is 90% and 80%; `scripts/measure_demo_judge.py` measures it on more pairs."""
    found = measure_judge(demo_judge, pairs=400, seed=202)
    assert found.overall.total > 300
    assert found.overall.low > 0.90, found.overall
    for name, agreement in found.principles.items():
        assert agreement.low > 0.80, (name, agreement)
        assert found.same_position[name].high < 0.15, name


@pytest.fixture(scope="module")
def demo(run_folder: Path) -> tuple[Path, dict]:
    """A demo's folder and what it printed; made once, whichever processes ask for it."""
    folder, result = run_folder / "demo", run_folder / "demo.json"
    with FileLock(f"{folder}.lock"):
        if not result.exists():
            done = subprocess.run(
                [sys.executable, "-m", "rlaif", "demo", "-o", str(folder), "--json"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            result.write_text(done.stdout)
    return folder, json.loads(result.read_text())


def test_trained_policy_follows_the_constitution_better(demo: tuple[Path, dict]) -> None:
    _, result = demo
    assert result["oracle"]["low"] > 0.55
    assert result["judge"]["low"] > 0.55
    assert result["labeled"] > 400
    right, said = result["label_agreement"]
    assert right / said > 0.9


def test_policy_still_answers(demo: tuple[Path, dict]) -> None:
    """A policy that fell silent or only said thanks would win too: no principle asks to answer."""
    before, after = demo[1]["answered"]
    assert after > 0.8
    assert after > before - 0.12


def shuffle_labels(run: Path, out: Path, *, seed: int) -> None:
    """A copy of a run whose labels are drawn by coin: the control that must not improve."""
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("preferences.jsonl", ".lock"))
    rng = random.Random(seed)
    rows = [json.loads(line) for line in (run / "preferences.jsonl").read_text().splitlines()]
    for row in rows:
        if rng.random() < 0.5:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (out / "preferences.jsonl").write_text(text)
    restate_sizes(out)


def test_demo_refuses_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "rlaif", "demo", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "holds files but no demo" in done.stderr
    assert (tmp_path / "pairs.jsonl").read_text() == "mine"


def test_second_run_only_reports(demo: tuple[Path, dict]) -> None:
    folder, result = demo
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    done = subprocess.run(
        [sys.executable, "-m", "rlaif", "demo", "-o", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("is already complete") == 3
    # Another engine's labels are not taken for done: the command refuses them.
    assert not demo_run._is_labeled(folder / "labels", "packed", print)
    assert f"{result['oracle']['wins']}" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == before


def test_report_page_of_the_demo_is_self_contained(demo: tuple[Path, dict]) -> None:
    page = (demo[0] / "labels" / "report.html").read_text()
    assert "<svg" in page
    assert "stay-on-topic" in page
    assert "http" not in page
    assert "<script" not in page
    assert page.count("<article>") == 20


def test_shuffled_labels_do_not_improve_the_policy(demo: tuple[Path, dict], tmp_path: Path) -> None:
    shuffle_labels(demo[0] / "labels", tmp_path / "shuffled", seed=1)
    settings = DPOSettings(model="demo", **TRAINING)
    run_training(
        prepare_dpo(tmp_path / "shuffled", settings),
        tmp_path / "policy",
    )
    answers = [json.loads(line) for line in (demo[0] / "answers.jsonl").open()]
    prompts = [row["prompt"] for row in answers]
    assert len(prompts) == PROMPTS
    old = [row["response_a"] for row in answers]
    new = sample_answers(tmp_path / "policy", prompts, seed=TEST_SEED)
    control = oracle_win_rate(prompts, old, new).rate
    assert control.low < 0.5, control
    assert control.high < demo[1]["oracle"]["low"], control
