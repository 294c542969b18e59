"""A small part of `scripts/attack.py`: the rest is run by hand, see BENCHMARKS.md."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("what", "count"),
    [("--inputs", 12), ("--kills", 4), ("--faults", 8), ("--servers", 3)],
)
def test_hostile_files_kills_and_faults_lose_nothing(what: str, count: int, tmp_path: Path) -> None:
    counts = {"--inputs": 0, "--kills": 0, "--faults": 0, "--servers": 0, what: count}
    done = subprocess.run(
        [
            sys.executable,
            "scripts/attack.py",
            *(str(word) for pair in counts.items() for word in pair),
            "--seed",
            "11",
            "--work",
            str(tmp_path / "work"),
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " 0 failures" in done.stdout
    runs = int(done.stdout.splitlines()[-1].split()[0])
    assert runs >= count * 0.8
