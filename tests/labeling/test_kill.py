"""`kill -9` at random moments, many times: the output is that of a run left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.labeling.helpers import contents, rows, write_inputs

pytestmark = pytest.mark.slow


def command(data: Path, constitution: Path, out: Path, cache: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "rlaif",
        "label",
        str(data),
        "-c",
        str(constitution),
        "-o",
        str(out),
        "--engine",
        "scripted",
        "--judge",
        "hashed",
        "--cache-dir",
        str(cache),
        "--max-in-flight",
        "24",
        "--option",
        "delay=0.006",
    ]


def test_killed_runs_end_like_one_left_alone(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 1800)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(data, constitution, whole, tmp_path / "w.sqlite"), check=True)
    rng = random.Random(5)
    kills = running = 0
    while not (killed / "manifest.json").exists():
        process = subprocess.Popen(
            command(data, constitution, killed, tmp_path / "k.sqlite"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "columns" in process.stderr.readline()
        assert "starting" in process.stderr.readline()
        if kills < 12:
            time.sleep(rng.uniform(0.0, 0.8))
            running += process.poll() is None
            process.kill()
            kills += 1
        process.stderr.read()
        assert process.wait(timeout=120) in (0, -signal.SIGKILL)
    assert running >= 5, "too few kills hit a running process for the test to mean anything"
    assert contents(killed) == contents(whole)
    ids = [r["provenance"]["id"] for r in rows(killed, "preferences.jsonl")]
    assert len(ids) == len(set(ids))
