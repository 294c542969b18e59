"""What goes wrong around a run: full disks, odd rows, impossible set-ups, tampered folders."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext
from tests.labeling.helpers import contents, label, rows, write_inputs


def run(folder: Path, *arguments: str, limit: int | None = None) -> subprocess.CompletedProcess:
    """`rlaif label` in a process, if need be with a limit on the size of files."""

    def before() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "rlaif", "label", *arguments, "--engine", "scripted", "-j", "x"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        preexec_fn=before,
    )


@pytest.mark.slow
def test_disk_that_fills_up_in_mid_run_is_one_line_and_the_run_goes_on_later(
    tmp_path: Path,
) -> None:
    data, constitution = write_inputs(tmp_path, 3000)
    arguments = (str(data), "-c", str(constitution), "-o", "out", "--cache-dir", "cache.sqlite")
    done = run(tmp_path, *arguments, limit=300_000)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "free disk space" in errors[0]
    assert "Traceback" not in done.stderr
    assert run(tmp_path, *arguments).returncode == 0
    label(data, constitution, tmp_path / "whole", max_in_flight=256)
    ours = {
        n: b.replace(b'"judge":"x"', b'"judge":"hashed"')
        for n, b in contents(tmp_path / "out").items()
    }
    whole = contents(tmp_path / "whole")
    assert ours["verdicts.jsonl"].count(b"\n") == whole["verdicts.jsonl"].count(b"\n")
    assert ours["rejected.jsonl"] == whole["rejected.jsonl"]


def test_value_that_cannot_be_read_rejects_its_row_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, constitution = write_inputs(tmp_path, 1)
    n = 20
    table = pa.table(
        {
            "prompt": [f"q{i}" for i in range(n)],
            "response_a": ["x y"] * n,
            "response_b": ["z"] * n,
            "day": pa.array([2**30 if i == 7 else i for i in range(n)], pa.int32()).cast(
                pa.date32()
            ),
        }
    )
    pq.write_table(table, tmp_path / "days.parquet")
    run_ = label(tmp_path / "days.parquet", constitution, tmp_path / "parquet")
    assert (run_.tally.rows, run_.tally.rejected, run_.tally.pairs) == (n, 1, n - 1)
    assert rows(tmp_path / "parquet", "rejected.jsonl")[0]["place"] == "row 8"
    import datasets

    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    run_ = label(tmp_path / "saved", constitution, tmp_path / "datasets")
    assert (run_.tally.rows, run_.tally.rejected, run_.tally.pairs) == (n, 1, n - 1)
    assert rows(tmp_path / "datasets", "rejected.jsonl")[0]["place"] == "row 8"


def test_score_beyond_any_float_is_no_score(tmp_path: Path) -> None:
    _, constitution = write_inputs(tmp_path, 1)
    data = tmp_path / "scores.jsonl"
    completions = [{"text": "a", "score": int("9" * 400)}, {"text": "b c", "score": 1}]
    data.write_text(json.dumps({"prompt": "p", "completions": completions}) + "\n")
    assert label(data, constitution, tmp_path / "out").tally.pairs == 1


def test_template_that_reasons_on_an_engine_that_does_not_write_is_refused(tmp_path: Path) -> None:
    data, _ = write_inputs(tmp_path, 3)
    for engine, options in (("packed", {}), ("ray", {"inner": "packed"})):
        judge = EngineSettings(engine=engine, model="demo", options=options)
        with pytest.raises(RlaifError, match="cannot generate"):
            prepare(str(data), "demo", LabelSettings(judge=judge, template="reasoned"))


def test_folder_that_cannot_be_written_is_known_before_the_engine_starts(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 3)
    job = prepare(
        str(data),
        str(constitution),
        LabelSettings(judge=EngineSettings(engine="scripted", model="x")),
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(RlaifError, match="can't write"):
        run_label(
            job,
            tmp_path / "file" / "run",
            context=RunContext(on_engine=lambda state: pytest.fail(state)),
        )


def test_tampered_runs_are_one_line_or_are_made_whole(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 30)
    label(data, constitution, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "preferences.jsonl").unlink()
    with pytest.raises(RlaifError, match=r"shorter than its journal.*Delete journal\.json"):
        label(data, constitution, tmp_path / "out")
    (tmp_path / "out" / "journal.json").unlink()
    label(data, constitution, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "manifest.json").unlink()
    journal = json.loads((tmp_path / "out" / "journal.json").read_text())
    journal["tally"] = {"rows": "many"}
    (tmp_path / "out" / "journal.json").write_text(json.dumps(journal))
    with pytest.raises(RlaifError, match=r"journal\.json is damaged"):
        label(data, constitution, tmp_path / "out")


def test_failed_question_is_not_asked_again_for_its_duplicates(tmp_path: Path) -> None:
    _, constitution = write_inputs(tmp_path, 1)
    data = tmp_path / "same.jsonl"
    row = {"prompt": "q", "response_a": "x", "response_b": "y z"}
    data.write_text((json.dumps(row) + "\n") * 300)
    run_ = label(data, constitution, tmp_path / "out", options={"fail_every": 1}, max_in_flight=1)
    assert run_.manifest["last_process"]["verdicts_asked"] == 4
    assert run_.tally.abstained == 300


def test_same_text_in_other_roles_is_not_identical(tmp_path: Path) -> None:
    from rlaif.judging.questions import screen
    from rlaif.records import Pair

    def side(role: str):
        return [{"role": role, "content": "x"}, {"role": "assistant", "content": "y"}]

    prompt = [{"role": "user", "content": "q"}]
    assert screen(Pair("1", prompt, side("assistant"), side("tool"))) is None
    assert screen(Pair("1", prompt, side("tool"), side("tool"))) is not None


def test_a_finished_run_whose_rows_were_cut_is_not_complete(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 20)
    label(data, constitution, tmp_path / "run")
    label(data, constitution, tmp_path / "run")
    file = tmp_path / "run/preferences.jsonl"
    whole = file.read_bytes()
    for damaged in (whole[:-30], b"", whole + b"{}\n"):
        file.write_bytes(damaged)
        with pytest.raises(RlaifError, match=r"preferences.jsonl has \d+ bytes, and had"):
            label(data, constitution, tmp_path / "run")
    file.write_bytes(whole)
    label(data, constitution, tmp_path / "run")
