"""Runs in parts: the same rows as one labeler's, whoever dies, and nothing paid for twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.engines.scripted import ScriptedEngine
from rlaif.engines.workers import MAX_RESTARTS
from rlaif.errors import RlaifError
from rlaif.labeling import part_pool
from rlaif.labeling.job import LabelSummary, Split
from rlaif.labeling.labeler import LabelProgress
from rlaif.labeling.part_run import PartPlan
from rlaif.records import Failure
from rlaif.runs.directory import read_manifest, read_rows
from rlaif.runs.parts import FINISHED, RECORD, load_finished, load_index, part_files
from rlaif.store.part_answers import SEGMENTS, KnownAnswers
from tests.labeling.helpers import CONSTITUTION, ROW_FILES, label, write_inputs
from tests.labeling.labelers import WAYS, InProcessLabelers, run, tally_of

ROWS = 120


def parted(folder: Path, out: str, rows: int, **changes: Any) -> LabelSummary:
    plan = PartPlan(rows, changes.pop("where", ""), changes.pop("answers_from", ()))
    return run(folder, out, Split(parts=plan), **changes)


def all_rows(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run as every later command reads them."""
    return {name: [row for _, row in read_rows(run / name)] for name in ROW_FILES}


def files_of_parts(run: Path) -> dict[str, bytes]:
    """What is in the parts of a run, whichever attempt wrote it."""
    names = (*ROW_FILES, "answers.parquet")
    return {
        f"{part} {name}": file.read_bytes()
        for name in names
        for part, file in enumerate(part_files(run, name))
    }


@pytest.mark.parametrize(("rows", "changes"), WAYS)
def test_the_run_is_that_of_one_labeler(
    tmp_path: Path, backends: list[InProcessLabelers], rows: int, changes: dict[str, Any]
) -> None:
    write_inputs(tmp_path, ROWS)
    alone = run(tmp_path, "alone", None, copies=1, **changes)
    backends.append(InProcessLabelers(seed=rows))
    summary = parted(tmp_path, "parts", rows, **changes)
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
    assert tally_of(summary) == tally_of(alone)
    one, many = alone.manifest, summary.manifest
    assert many["tokens"]["written"] == one["tokens"]["written"]
    assert many["config"] == one["config"]
    asked = [m["last_process"]["verdicts_asked"] for m in (one, many)]
    assert asked[0] <= asked[1] <= many["counts"]["verdicts"], "equal questions of two parts"
    assert not (tmp_path / "parts" / "verdicts.jsonl").exists()
    assert not list((tmp_path / "parts").rglob(SEGMENTS))
    parts = {"count": -(-changes.get("limit", ROWS) // rows), "rows": rows, "where": "parts"}
    assert summary.manifest["parts"] == parts
    assert read_manifest(tmp_path / "parts") == summary.manifest | {"bytes": {}}


def test_input_in_several_files_keeps_its_places(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    data, _ = write_inputs(tmp_path, ROWS)
    lines = data.read_text().splitlines(keepends=True)
    for name, part in (("b", lines[50:]), ("a", [*lines[:20], "\n", *lines[20:50]])):
        (folder / f"{name}.jsonl").write_text("".join(part))
    run(tmp_path, "alone", None, copies=1, data=folder)
    backends.append(InProcessLabelers(seed=3))
    parted(tmp_path, "parts", 16, data=folder)
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
    places = [row["place"] for row in all_rows(tmp_path / "parts")["rejected.jsonl"]]
    assert places[0] == "a.jsonl line 10"
    assert places[1] == "a.jsonl line 30", "an empty line counts as a line, not as a row"
    assert {place.split()[0] for place in places} == {"a.jsonl", "b.jsonl"}


@pytest.mark.parametrize("seed", range(5))
def test_deaths_lose_and_double_nothing(
    tmp_path: Path, backends: list[InProcessLabelers], seed: int
) -> None:
    data, constitution = write_inputs(tmp_path, ROWS)
    alone = label(data, constitution, tmp_path / "alone").manifest["last_process"]
    backends.append(InProcessLabelers(seed))
    parted(tmp_path, "calm", 7)
    rng = random.Random(seed)
    deaths = {rng.randrange(1, 24): rng.choice(["before", "after"]) for _ in range(MAX_RESTARTS)}
    backend = InProcessLabelers(seed, lambda number, call: deaths.get(call, ""))
    backends.append(backend)
    parted(tmp_path, "parts", 7)
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
    assert files_of_parts(tmp_path / "parts") == files_of_parts(tmp_path / "calm")
    assert len(backend.began) > len(set(backend.began)), "none was handed out again"
    # Also where a labeler died after it had answered: its answers stand beside the part.
    asked = sum(worker._engine.stats().requests for worker in backend.made)
    assert asked == alone["verdicts_asked"]


class Stopped(Exception):
    """The process that asks is told to end."""


@pytest.mark.parametrize("after", [0, 1, 4, 9, 14])
def test_a_stopped_run_goes_on_and_comes_to_the_same_bytes(
    tmp_path: Path, backends: list[InProcessLabelers], after: int
) -> None:
    write_inputs(tmp_path, ROWS)
    backends += [InProcessLabelers(1), InProcessLabelers(2), InProcessLabelers(3)]
    whole = parted(tmp_path, "whole", 8)
    calls: list[int] = []

    def stop(progress: LabelProgress) -> None:
        calls.append(progress.rows)
        if len(calls) > after:
            raise Stopped

    with pytest.raises(Stopped):
        parted(tmp_path, "parts", 8, on_progress=stop)
    before = load_finished(tmp_path / "parts")
    assert not (tmp_path / "parts" / "manifest.json").exists()
    summary = parted(tmp_path, "parts", 8)
    assert files_of_parts(tmp_path / "parts") == files_of_parts(tmp_path / "whole")
    assert tally_of(summary) == tally_of(whole)
    assert load_finished(tmp_path / "parts").items() >= before.items()
    redone = summary.manifest["last_process"]["verdicts_asked"]
    spared = sum(record.counts["verdicts"] for record in before.values())
    assert redone + spared <= whole.manifest["counts"]["verdicts"]
    assert not parted(tmp_path, "parts", 8).fresh


def test_a_part_that_was_done_and_not_noted_is_taken_as_it_is(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    backends += [InProcessLabelers(1), InProcessLabelers(2)]
    parted(tmp_path, "parts", 10)
    out = tmp_path / "parts"
    expected = files_of_parts(out)
    (out / "manifest.json").unlink()
    lines = (out / FINISHED).read_text().splitlines(keepends=True)
    # The machine died while the last line was written, and before two others were.
    (out / FINISHED).write_text("".join(lines[:-3]) + lines[-1][:40])
    summary = parted(tmp_path, "parts", 10)
    assert summary.manifest["last_process"]["verdicts_asked"] == 0
    assert files_of_parts(out) == expected


def test_a_run_is_resumed_without_reading_its_input(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path, ROWS)
    backends += [InProcessLabelers(1), InProcessLabelers(2)]
    parted(tmp_path, "parts", 10)
    (tmp_path / "parts" / "manifest.json").unlink()
    monkeypatch.setattr("rlaif.labeling.part_run.cut_source", lambda *_: pytest.fail("read"))
    parted(tmp_path, "parts", 10)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_pool, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(part_pool, "LAST_SECONDS", 0.1)


class OneHangs(InProcessLabelers):
    """The labeler that gets the first part does not come back while others have work."""

    def wait(self, seconds: float | None) -> list[tuple[int, Any]]:
        if self.starting:
            number = self.starting.pop()
            return [(number, self._workers[number].traits())]
        late = [n for n, parts in self.calls.items() if self.holds_first(n)]
        others = [number for number in self.calls if number not in late]
        if others:
            return [self.call(others[0])]
        time.sleep(0.01)
        return []

    def holds_first(self, number: int) -> bool:
        return number == self.slow

    slow = -1

    def submit(self, number: int, task: list[Any]) -> None:
        if self.slow < 0 and any(one.part == 0 for one in task):
            self.slow = number
        super().submit(number, task)


@pytest.mark.usefixtures("impatient")
def test_what_takes_long_is_given_to_a_second_labeler_and_the_first_to_finish_counts(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1)
    backend = OneHangs(1)
    backends.append(backend)
    summary = parted(tmp_path, "parts", 5)
    assert summary.fresh
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
    assert len(backend.began) > len(set(backend.began)), "nothing was given to a second one"
    again = {first for first in backend.began if backend.began.count(first) > 1}
    assert 0 in again
    assert all(backend.began.count(first) <= 2 for first in again), "nobody asks a third time"
    attempts = {p.parent.name for p in (tmp_path / "parts").rglob(RECORD)}
    records = load_finished(tmp_path / "parts")
    assert attempts == {record.attempt for record in records.values()}
    assert records[0].attempt != "1"


@pytest.mark.usefixtures("impatient")
def test_two_attempts_that_both_finish_count_once(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow one comes back after all, while another part is under way."""

    class ComesBack(OneHangs):
        def holds_first(self, number: int) -> bool:
            return super().holds_first(number) and self.finished.count(0) == 0

    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1)
    monkeypatch.setattr(part_pool, "SLOW", 0.0)
    backend = ComesBack(1)
    backends.append(backend)
    summary = parted(tmp_path, "parts", 5)
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
    assert summary.tally.rows == ROWS
    lines = (tmp_path / "parts" / FINISHED).read_text().splitlines()
    parts = [json.loads(line)["part"] for line in lines]
    assert sorted(parts) == list(range(ROWS // 5))


def edited(folder: Path) -> None:
    text = CONSTITUTION.replace("Which response is two?", "Which response is better?")
    (folder / "constitution.yaml").write_text(text)


def test_answers_of_an_earlier_run_are_taken_over_part_by_part(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    backends += [InProcessLabelers(n) for n in range(3)]
    first = parted(tmp_path, "first", 10)
    edited(tmp_path)
    run(tmp_path, "alone", None, copies=1)
    second = parted(tmp_path, "second", 10, answers_from=(tmp_path / "first",))
    assert all_rows(tmp_path / "second") == all_rows(tmp_path / "alone")
    asked = second.manifest["last_process"]["verdicts_asked"]
    assert 0 < asked < 0.6 * first.manifest["last_process"]["verdicts_asked"]
    new = [r for r in all_rows(tmp_path / "second")["verdicts.jsonl"] if r["principle"] == "two"]
    assert asked <= len(new)
    third = parted(tmp_path, "third", 10, answers_from=(tmp_path / "second",))
    assert third.manifest["last_process"]["verdicts_asked"] == 0


def test_answers_of_other_parts_are_refused(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    backends.append(InProcessLabelers(1))
    parted(tmp_path, "first", 10)
    run(tmp_path, "alone", None, copies=1)
    for rows, earlier, message in (
        (9, "first", r"made from other parts\. Use the same data, --limit and --part-rows 10"),
        (10, "alone", "is not a run in parts"),
    ):
        with pytest.raises(RlaifError, match=message):
            parted(tmp_path, "x", rows, answers_from=(tmp_path / earlier,))
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "one more", "responses": ["x", "y"]}) + "\n")
    with pytest.raises(RlaifError, match="made from other data"):
        parted(tmp_path, "x", 10, answers_from=(tmp_path / "first",))
    assert not (tmp_path / "x").exists()


def test_parts_elsewhere_belong_to_one_run(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    """Through fsspec, as in an object store."""
    write_inputs(tmp_path, ROWS)
    run(tmp_path, "alone", None, copies=1)
    where = f"memory://{tmp_path.name}/parts"
    backends += [InProcessLabelers(n) for n in range(3)]
    calls: list[int] = []

    def stop(progress: LabelProgress) -> None:
        calls.append(1)
        if len(calls) > 6:
            raise Stopped

    with pytest.raises(Stopped):
        parted(tmp_path, "parts", 10, where=where, on_progress=stop)
    parted(tmp_path, "parts", 10, where=where)
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
    assert {p.name for p in (tmp_path / "parts").iterdir() if p.is_dir()} == set()
    assert load_index(tmp_path / "parts").where == where
    with pytest.raises(RlaifError, match="holds the parts of another run"):
        parted(tmp_path, "other", 11, where=where)
    with pytest.raises(RlaifError, match="Install the fsspec package of that storage"):
        parted(tmp_path, "other", 11, where="nowhere://bucket/x")


def test_a_labeler_that_writes_elsewhere_is_an_error_and_no_part(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine does that does not share the folder."""

    class OnAnotherMachine(InProcessLabelers):
        def call(self, number: int) -> Any:
            found = super().call(number)
            for record in (tmp_path / "parts").rglob(RECORD):
                record.unlink()
            return found

    write_inputs(tmp_path, ROWS)
    monkeypatch.setattr(part_pool, "SEEN_SECONDS", 0.1)
    backends.append(OnAnotherMachine(1))
    with pytest.raises(RlaifError, match="it is not there on this machine"):
        parted(tmp_path, "parts", 10)
    assert not load_finished(tmp_path / "parts")


def test_only_the_first_rows_decide_whether_the_judge_can_be_read(
    tmp_path: Path, backends: list[InProcessLabelers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further on, a part may begin with rows that no judge can answer."""
    answer = ScriptedEngine._answer

    def answer_most(self: ScriptedEngine, request: Any) -> Any:
        if "odd" in self.codec.decode(request.token_ids):
            return Failure(request.id, "it is odd")
        return answer(self, request)

    monkeypatch.setattr(ScriptedEngine, "_answer", answer_most)
    (tmp_path / "constitution.yaml").write_text(CONSTITUTION)
    plan = Split(parts=PartPlan(60))
    for out, first in (("first", "odd"), ("last", "even")):
        rows = [{"prompt": f"{first} {i}", "responses": [f"a {i}", "b"]} for i in range(60)]
        rows += [{"prompt": f"odd {i}", "responses": [f"a {i}", "b"]} for i in range(60, 120)]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        backends.append(InProcessLabelers(1))
        if first == "odd":
            with pytest.raises(RlaifError, match="of the first 100 verdicts are invalid"):
                run(tmp_path, out, plan, first_look=True)
        else:
            assert run(tmp_path, out, plan, first_look=True).tally.invalid_verdicts == 240


def test_damage_is_found_and_mended_by_the_same_command(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, ROWS)
    backends += [InProcessLabelers(n) for n in range(2)]
    parted(tmp_path, "parts", 10)
    out = tmp_path / "parts"
    expected = files_of_parts(out)
    file = part_files(out, "preferences.jsonl")[3]
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(RlaifError, match=r"000003/1/preferences.jsonl has \d+ bytes, and had"):
        read_manifest(out)
    with pytest.raises(RlaifError, match="it was cut or edited"):
        parted(tmp_path, "parts", 10)
    # As the message says.
    records = [r.to_json() + "\n" for n, r in load_finished(out).items() if n != 3]
    (out / FINISHED).write_text("".join(records))
    (out / "manifest.json").unlink()
    summary = parted(tmp_path, "parts", 10)
    assert files_of_parts(out) == expected
    assert summary.manifest["last_process"]["verdicts_asked"] == 0, "its answers were not damaged"


def test_damaged_answers_are_asked_again(
    tmp_path: Path, backends: list[InProcessLabelers], caplog: pytest.LogCaptureFixture
) -> None:
    write_inputs(tmp_path, ROWS)
    backends += [InProcessLabelers(n) for n in range(2)]
    parted(tmp_path, "first", 10)
    one, two, three = part_files(tmp_path / "first", "answers.parquet")[:3]
    one.write_bytes(b"PAR1 this is none")
    two.unlink()
    table = pq.read_table(three)
    odd = table.set_column(1, "logprobs", pa.array([[None]] * len(table), pa.list_(pa.float64())))
    pq.write_table(odd, three)
    summary = parted(tmp_path, "second", 10, answers_from=(tmp_path / "first",))
    assert all_rows(tmp_path / "second") == all_rows(tmp_path / "first")
    again = [len(KnownAnswers([f])) for f in part_files(tmp_path / "second", "answers.parquet")]
    assert summary.manifest["last_process"]["verdicts_asked"] == sum(again[:3])
    assert "what it held is asked again" in caplog.text


def command(folder: Path, *more: str) -> tuple[int, str]:
    arguments = ["label", str(folder / "pairs.jsonl"), "-c", str(folder / "constitution.yaml")]
    arguments += ["-o", str(folder / "parts"), "--engine", "scripted", "--judge", "hashed"]
    arguments += ["--template", "demo", "--cache-dir", str(folder / "cache")]
    result = CliRunner().invoke(cli, [*arguments, *more])
    return result.exit_code, " ".join(f"{result.output} {result.exception or ''}".split())


def invoke(folder: Path, *arguments: str) -> tuple[int, str]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = CliRunner().invoke(cli, list(arguments))
    finally:
        os.chdir(before)
    return result.exit_code, f"{result.stdout} {result.exception or ''}"


@pytest.mark.parametrize(
    "line",
    [
        "export RUN -o RUN-out --format openrlhf --json",
        "mix RUN=1.0 --total 40 --min-human 0 -o RUN-mix --json",
        "audit RUN --json",
        "verify RUN --cache-dir cache --json",
        "report RUN",
        "train-dpo RUN --model demo -o RUN-policy --dry-run",
        "lineage RUN",
    ],
)
def test_later_commands_read_it_like_any_other(
    tmp_path: Path, backends: list[InProcessLabelers], line: str
) -> None:
    write_inputs(tmp_path, ROWS)
    run(tmp_path, "run-1", None, copies=1, cache="cache")
    backends.append(InProcessLabelers(1))
    parted(tmp_path, "run-2", 9)
    found = []
    for name in ("run-1", "run-2"):
        code, text = invoke(tmp_path, *line.replace("RUN", name).split())
        # Where the rows are differs, and nothing else does.
        told = [
            line
            for line in text.replace(name, "RUN").splitlines()
            if '"file"' not in line and '"hash"' not in line
        ]
        found.append((code, told))
        made = sorted(tmp_path.glob(f"{name}-*/*.jsonl")) + sorted(tmp_path.glob(f"{name}-*.jsonl"))
        found[-1] += tuple(file.read_text() for file in made)
    assert found[0][0] == 0, found[0]
    assert found[1] == found[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part-rows", "5", "--shard-rows", "5"], "cannot be combined with --shard-rows"),
        (["--part-rows", "5", "--stop", "exact"], "--part-rows cannot be combined with --stop"),
        (["--part-rows", "5", "--max-cost", "1", "--price-per-hour", "1"], "with --part-rows"),
        (["--parts-at", "x"], "--parts-at needs --part-rows"),
        (["--answers-from", "x"], "--answers-from needs --part-rows"),
        (["--part-rows", "0"], "0 is not in the range x>=1"),
        (["--part-rows", "5", "-j", "b"], "--part-rows cannot be used with a panel"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    write_inputs(tmp_path, 10)
    code, text = command(tmp_path, *flags)
    assert code
    assert message in text
    assert not (tmp_path / "parts").exists()


def test_a_run_is_resumed_as_it_was_started(
    tmp_path: Path, backends: list[InProcessLabelers]
) -> None:
    write_inputs(tmp_path, 30)
    backends += [InProcessLabelers(n) for n in range(2)]
    plain = ["--data-parallel-size", "3"]
    assert command(tmp_path, *plain, "--part-rows", "10")[0] == 0
    (tmp_path / "parts" / "manifest.json").unlink()
    for flags, message in (
        ([], "was started with --part-rows"),
        (["--part-rows", "9"], "was started with --part-rows 10"),
        (["--part-rows", "10", "--parts-at", "memory://x"], "started with --parts-at (none)"),
    ):
        code, text = command(tmp_path, *plain, *flags)
        assert code
        assert message in text
    assert command(tmp_path, *plain, "--part-rows", "10")[0] == 0


@pytest.mark.parametrize("kind", ["csv", "grouped"])
def test_data_that_cannot_be_cut_is_refused(tmp_path: Path, kind: str) -> None:
    write_inputs(tmp_path, 30)
    data = tmp_path / "pairs.jsonl"
    if kind == "csv":
        data.unlink()
        data = tmp_path / "pairs.csv"
        data.write_text("prompt,chosen,rejected\nq,a,b\n")
        message = "which is of the kind 'csv'. Use JSONL or Parquet files, or --shard-rows"
    else:
        rows = [{"prompt": f"q {i // 2}", "response": f"a {i}", "qid": i // 2} for i in range(30)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        message = "several of its rows belong together"
    arguments = ["label", str(data), "-c", str(tmp_path / "constitution.yaml"), "--engine"]
    arguments += ["scripted", "--judge", "hashed", "--template", "demo", "--part-rows", "5"]
    if kind == "grouped":
        arguments += ["--map", "group_by=qid"]
    result = CliRunner().invoke(cli, [*arguments, "-o", str(tmp_path / "x")])
    assert result.exit_code
    assert message in " ".join(f"{result.output} {result.exception or ''}".split())


def test_labelers_in_processes_of_which_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with the scripted engine at work; one is killed while it has parts."""
    write_inputs(tmp_path, ROWS)
    options = {"delay": 0.002}
    run(tmp_path, "alone", None, copies=1, options=options)
    pools: list[part_pool.PartPool] = []
    made: Callable[..., None] = part_pool.PartPool.__init__

    def remember(self: part_pool.PartPool, *arguments: Any) -> None:
        pools.append(self)
        made(self, *arguments)

    monkeypatch.setattr(part_pool.PartPool, "__init__", remember)
    victims: list[int] = []

    def kill(progress: LabelProgress) -> None:
        processes = pools[0]._backend._processes  # type: ignore[attr-defined]
        if progress.rows and not victims:
            busy = next(n for n, worker in pools[0]._workers.items() if worker.tasks)
            victims.append(processes[busy].pid)
            os.kill(processes[busy].pid, signal.SIGKILL)

    parted(tmp_path, "parts", 6, copies=2, options=options, on_progress=kill)
    assert victims
    assert all_rows(tmp_path / "parts") == all_rows(tmp_path / "alone")
