"""The judge as a stage of a Ray Data pipeline, by the code of its page; an actor is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.harness.helpers import label_pairs

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "harnesses" / "ray-data.md"
PAIRS, SHARDS = 300, 4


def answers_in(cache: Path) -> int:
    """How many answers a verdict cache holds."""
    if not cache.is_file():
        return 0
    with closing(sqlite3.connect(cache)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.Error:  # it is just being made
            return 0


def kill_an_actor(pipeline: subprocess.Popen[str], cache: Path) -> None:
    """Kill one of the pipeline's actors once answers are known, which are not all yet."""
    while not answers_in(cache):
        assert pipeline.poll() is None
        time.sleep(0.02)
    family = psutil.Process(pipeline.pid).children(recursive=True)
    actors = [p for p in family if "(Compare)" in " ".join(p.cmdline())]
    os.kill(actors[0].pid, signal.SIGKILL)
    assert answers_in(cache) < PAIRS  # each pair has several: it died at work


def test_the_page_s_pipeline_says_what_label_says_though_an_actor_dies(tmp_path: Path) -> None:
    labels = label_pairs(tmp_path, PAIRS)
    shards, written, cache = tmp_path / "shards", tmp_path / "written", tmp_path / "of-actors"
    shards.mkdir()
    for n in range(SHARDS):
        lines = [json.dumps(row) + "\n" for row in labels.rows[n::SHARDS]]
        (shards / f"{n}.json").write_text("".join(lines))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    log = tmp_path / "log"
    with log.open("w") as out:
        pipeline = subprocess.Popen(
            [sys.executable, "-c", code, "demo", str(shards), str(written)],
            env={**os.environ, "RLAIF_CACHE_DIR": str(cache)},
            stdout=out,
            stderr=out,
            text=True,
        )
        kill_an_actor(pipeline, cache / "verdicts.v1.sqlite")
        assert pipeline.wait(800) == 0, log.read_text()[-3000:]
    rows = [json.loads(line) for f in written.iterdir() for line in f.read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(labels.p_a)
    for row in rows:
        judged = json.loads(row["judged"])
        assert judged["winner"] == labels.winner[row["id"]]
        assert judged["p_a"] == pytest.approx(labels.p_a[row["id"]], abs=1e-4)
        assert judged["provenance"]["judge"] == "demo"
