"""Labelers of shards: the same run as one labeler's, whoever dies, and nothing paid for twice."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines.base import EngineSettings
from rlaif.engines.scripted import ScriptedEngine
from rlaif.engines.workers import MAX_RESTARTS, WorkerDied
from rlaif.errors import EngineStopped, RlaifError
from rlaif.labeling import shard_pool as sharding
from rlaif.labeling.labeler import LabelProgress
from rlaif.labeling.shard_pool import SHARDS_AHEAD, SHARDS_WAITING
from rlaif.store.verdict_cache import VerdictCache
from tests.labeling.helpers import contents, label, write_inputs
from tests.labeling.labelers import WAYS, InProcessLabelers, run, tally_of

ROWS = 120


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[sharding.ShardPool]:
    """The crews that were made, to see behind them."""
    found: list[sharding.ShardPool] = []
    made = sharding.ShardPool.__init__

    def remember(self: sharding.ShardPool, *arguments: Any) -> None:
        found.append(self)
        made(self, *arguments)

    monkeypatch.setattr(sharding.ShardPool, "__init__", remember)
    return found


@pytest.mark.parametrize(("shard_rows", "changes"), WAYS)
def test_the_run_is_that_of_one_labeler(
    tmp_path: Path, backends: list[InProcessLabelers], shard_rows: int, changes: dict[str, Any]
) -> None:
    write_inputs(tmp_path, ROWS)
    alone = run(tmp_path, "alone", None, copies=1, **changes)
    backends.append(InProcessLabelers(seed=shard_rows))
    summary = run(tmp_path, "shards", shard_rows, **changes)
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert tally_of(summary) == tally_of(alone)
    one, many = alone.manifest, summary.manifest
    assert many["tokens"]["written"] == one["tokens"]["written"]
    assert many["config"] == one["config"]
    asked = [m["last_process"]["verdicts_asked"] for m in (one, many)]
    assert asked[0] <= asked[1] <= many["counts"]["verdicts"], "equal questions of two shards"
    assert many["tokens"]["computed"] >= one["tokens"]["computed"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_deaths_lose_and_double_nothing(
    tmp_path: Path, backends: list[InProcessLabelers], seed: int
) -> None:
    data, constitution = write_inputs(tmp_path, ROWS)
    alone = label(data, constitution, tmp_path / "alone").manifest["last_process"]
    rng = random.Random(seed)
    deaths = {rng.randrange(1, 24): rng.choice(["before", "after"]) for _ in range(MAX_RESTARTS)}
    backend = InProcessLabelers(seed, lambda number, call: deaths.get(call, ""))
    backends.append(backend)
    run(tmp_path, "shards", 7)
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert len(backend.began) > len(set(backend.began)), "none was handed out again"
    # Also where a labeler died after it had answered: its answers are in the cache.
    asked = sum(worker._engine.stats().requests for worker in backend.made)
    assert asked == alone["verdicts_asked"]


def test_a_slow_labeler_holds_the_others_back_only_so_far(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    """What is done and can't write yet is kept in memory, so it is bounded."""

    class Slow(InProcessLabelers):
        """The first shard is done last of all that may be."""

        most = 0

        def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
            if self.starting:
                number = self.starting.pop()
                return [(number, self._workers[number].traits())]
            late = [n for n, shards in self.calls.items() if any(s.first == 0 for s in shards)]
            others = [number for number in self.calls if number not in late]
            if late and others:
                found = [self.call(others[0])]
                self.most = max(self.most, len(self.finished))
                return found
            return super().wait(seconds)

    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1)
    backend = Slow(1)
    backends.append(backend)
    run(tmp_path, "shards", 2)
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert backend.most == SHARDS_AHEAD * 3 - SHARDS_WAITING, "all but what the slow one has"


class Stopped(Exception):
    """The process that asks is told to end."""


@pytest.mark.parametrize("later", [None, 5, 16])
def test_a_stopped_run_goes_on_in_shards_or_without(
    tmp_path: Path, backends: list[InProcessLabelers], later: int | None
) -> None:
    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1)

    def stop(progress: LabelProgress) -> None:
        if progress.rows > 40:
            raise Stopped

    backends += [InProcessLabelers(2), InProcessLabelers(3)]
    with pytest.raises(Stopped):
        run(tmp_path, "shards", 8, on_progress=stop)
    assert not (tmp_path / "shards" / "manifest.json").exists()
    before = (tmp_path / "shards" / "verdicts.jsonl").read_bytes()
    assert before
    summary = run(tmp_path, "shards", later)
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert summary.manifest["last_process"]["verdicts_asked"] < summary.tally.verdicts
    backends.append(InProcessLabelers(4))
    assert not run(tmp_path, "shards", 3).fresh
    assert len(backends) == (2 if later is None else 1), "a complete run started labelers"


def test_what_is_known_is_not_asked_again(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1, cache="both.sqlite")
    backends.append(InProcessLabelers(1))
    summary = run(tmp_path, "shards", 10, cache="both.sqlite")
    assert summary.manifest["last_process"]["verdicts_asked"] == 0
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")


def test_labelers_that_die_again_and_again_are_an_error(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    backends.append(InProcessLabelers(1, lambda number, call: "before"))
    with pytest.raises(
        RlaifError, match=r"died 16 times without finishing a shard \(the last: told to"
    ):
        run(tmp_path, "shards", 10)


def test_a_labeler_that_does_not_start_is_an_error(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    class Broken(InProcessLabelers):
        def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
            return [(self.starting.pop(), WorkerDied("out of memory"))]

    write_inputs(tmp_path, ROWS)
    backends.append(Broken(1))
    with pytest.raises(RlaifError, match=r"labeler 2 did not start \(out of memory\)"):
        run(tmp_path, "shards", 10)


def test_a_row_that_pickle_cannot_nest_is_labeled_all_the_same(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    data, _ = write_inputs(tmp_path, ROWS)
    lines = data.read_text().splitlines()
    row = json.dumps({"prompt": "deep", "responses": ["a", "b"]})
    depth = int(0.7 * sys.getrecursionlimit())  # JSON nests so deep, and pickle does not
    lines[50] = row[:-1] + ', "unused": ' + "[" * depth + "]" * depth + "}"
    data.write_text("\n".join(lines) + "\n")
    with pytest.raises(RecursionError):
        pickle.dumps(json.loads(lines[50]))
    run(tmp_path, "alone", None, copies=1)
    backends.append(InProcessLabelers(6))
    run(tmp_path, "shards", 9)
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert b'"deep"' in contents(tmp_path / "shards")["preferences.jsonl"]


def test_a_mistake_ends_the_run_as_itself_and_no_labeler_is_started_again(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: VerdictCache, answers: Any) -> None:
        raise RlaifError("the disk is full", hint="Make room.")

    write_inputs(tmp_path, ROWS)
    monkeypatch.setattr(VerdictCache, "put", full)
    backend = InProcessLabelers(6)
    backends.append(backend)
    with pytest.raises(RlaifError, match=r"^the disk is full\. Make room\.$"):
        run(tmp_path, "shards", 9)
    assert len(backend.made) == 3


def test_an_engine_that_stops_is_started_again(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path, ROWS)
    alone = run(tmp_path, "alone", None, copies=1).manifest["last_process"]
    answer, asked = ScriptedEngine._answer, []

    def answer_until(self: ScriptedEngine, request: Any) -> Any:
        asked.append(request)
        if len(asked) == 77:
            raise EngineStopped("the engine stopped (out of memory)")
        return answer(self, request)

    monkeypatch.setattr(ScriptedEngine, "_answer", answer_until)
    backend = InProcessLabelers(6)
    backends.append(backend)
    summary = run(tmp_path, "shards", 9)
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert len(backend.made) == 4
    last = summary.manifest["last_process"]
    # What the dead one was told of its last batch nobody counted; the rest was paid for and is.
    assert alone["verdicts_asked"] - 16 <= last["verdicts_asked"] <= alone["verdicts_asked"]


def test_what_is_paid_for_is_known_before_a_shard_is_done(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)

    def stop(progress: LabelProgress) -> None:
        if progress.verdicts:
            raise Stopped

    backends.append(InProcessLabelers(7))
    with pytest.raises(Stopped):
        run(tmp_path, "shards", 1000, options={"delay": 0.05}, on_progress=stop)
    spent = json.loads((tmp_path / "shards" / ".spent.json").read_text())
    assert spent["tokens"]["computed"] > 0
    assert not (tmp_path / "shards" / "verdicts.jsonl").read_bytes()


def test_workers_are_told_where_the_cache_is_and_not_how_to_get_there(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of a cluster was started in another folder."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path, 5)
    opened: list[Path] = []
    backend = InProcessLabelers(8)
    monkeypatch.setattr(backend, "host_proxy", lambda make: opened.append(make.args[0]) or make)
    backends.append(backend)
    run(Path(), "shards", 9)
    assert opened == [tmp_path / "shards.sqlite" / "verdicts.v1.sqlite"]


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_labelers_end_with_a_killed_command_and_not_with_their_shard(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, ROWS)
    cache = tmp_path / "cache.sqlite"
    command = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rlaif",
            "label",
            str(data),
            "-c",
            str(constitution),
            "-o",
            str(tmp_path / "run"),
            "--engine",
            "scripted",
            "--judge",
            "hashed",
            "--template",
            "demo",
            "--option",
            "delay=0.5",
            "--max-in-flight",
            "2",
            "--data-parallel-size",
            "2",
            "--shard-rows",
            "60",
            "--cache-dir",
            str(cache),
        ],
        stderr=subprocess.DEVNULL,
    )

    def answered() -> bool:
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(cache / "verdicts.v1.sqlite")) as found,
        ):
            return bool(found.execute("SELECT count(*) FROM answers").fetchone()[0] > 2)
        return False

    try:
        assert until(answered, 120), "a shard takes two minutes"
        workers = children(command.pid)
    finally:
        command.kill()
        command.wait()
    assert len(workers) >= 2
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)


def test_labelers_in_processes_of_which_one_is_killed(
    tmp_path: Path, pools: list[sharding.ShardPool]
) -> None:
    """Two processes with the scripted engine at work; one is killed while it has shards."""
    write_inputs(tmp_path, ROWS)
    options = {"delay": 0.002}
    run(tmp_path, "alone", None, copies=1, options=options)
    victims: list[tuple[int, int]] = []

    def kill(progress: LabelProgress) -> None:
        processes = pools[0]._backend._processes  # type: ignore[attr-defined]
        if progress.rows and not victims:
            busy = next(n for n, desk in pools[0]._workers.items() if desk.tasks)
            victims.append((busy, processes[busy].pid))
            os.kill(processes[busy].pid, signal.SIGKILL)

    summary = run(tmp_path, "shards", 4, copies=2, options=options, on_progress=kill)
    ((number, killed),) = victims
    assert pools[0]._backend._processes[number].pid != killed  # type: ignore[attr-defined]
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    assert summary.manifest["tokens"]["computed"] > 0


@pytest.mark.slow
def test_labelers_on_ray_of_which_one_is_killed(
    tmp_path: Path, pools: list[sharding.ShardPool]
) -> None:
    """A local cluster; actors plan, judge and fold, and the cache stays with who asks."""
    import ray

    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1)
    judge = EngineSettings(
        engine="ray",
        model="hashed",
        data_parallel_size=2,
        max_in_flight=16,
        options={"inner": "scripted", "cpus": 0.5},
    )
    killed: list[tuple[int, Any]] = []

    def kill(progress: LabelProgress) -> None:
        if progress.rows and not killed:
            number = next(n for n, desk in pools[0]._workers.items() if desk.tasks)
            killed.append((number, pools[0]._backend._actors[number]))  # type: ignore[attr-defined]
            ray.kill(killed[0][1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding.ShardPool, "close", lambda self: None)
        run(tmp_path, "shards", 3, judge=judge, on_progress=kill)
    ((number, actor),) = killed
    assert pools[0]._backend._actors[number] is not actor  # type: ignore[attr-defined]
    pools[0].close()
    assert contents(tmp_path / "shards") == contents(tmp_path / "alone")
    with sqlite3.connect(tmp_path / "alone.sqlite" / "verdicts.v1.sqlite") as one:
        expected = one.execute("SELECT count(*) FROM answers").fetchone()
    with sqlite3.connect(tmp_path / "shards.sqlite" / "verdicts.v1.sqlite") as two:
        assert two.execute("SELECT count(*) FROM answers").fetchone() == expected


def test_what_does_not_go_together_is_said_at_once(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 10)
    plain = [
        "label",
        str(data),
        "-c",
        str(constitution),
        "-o",
        str(tmp_path / "x"),
        "--template",
        "demo",
        "--shard-rows",
        "5",
    ]
    scripted = ["--engine", "scripted"]
    for more, message in (
        (
            [*scripted, "--judge", "hashed", "--stop", "exact"],
            "--shard-rows cannot be combined with",
        ),
        (
            [*scripted, "--judge", "hashed", "--orders", "adaptive"],
            "--shard-rows cannot be combined with",
        ),
        (
            [*scripted, "--judge", "hashed", "--stop", "exact", "--dry-run"],
            "--shard-rows cannot be combined with",
        ),
        ([*scripted, "-j", "a", "-j", "b"], "--shard-rows cannot be used with a panel"),
        ([*scripted, "--judge", "hashed", "--shard-rows", "0"], "0 is not in the range x>=1"),
    ):
        result = CliRunner().invoke(cli, [*plain, *more])
        assert result.exit_code, more
        text = result.output + str(result.exception or "")
        assert message in " ".join(text.split()), more
    assert not (tmp_path / "x").exists()
