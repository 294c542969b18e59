"""Files that are shorter or longer than when their command ended are not taken for its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.runs.lineage import lineage
from tests.review.helpers import labeled


def cut(file: Path) -> None:
    """Take the last line away, so that what is left reads as well as before."""
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) > 1
    file.write_bytes(b"".join(lines[:-1]))


def invoke(*words: str) -> None:
    CliRunner().invoke(cli, list(words), catch_exceptions=False)


READERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "report": lambda run, out: ["report", str(run)],
    "export": lambda run, out: ["export", str(run), "--format", "trl", "-o", str(out)],
    "mix": lambda run, out: ["mix", f"{run}=1", "--min-human", "0", "-o", str(out)],
    "push": lambda run, out: ["push", str(run), "me/data", "--dry-run"],
    "guard": lambda run, out: ["guard", str(run), "--against", str(run)],
    "train-dpo": lambda run, out: ["train-dpo", str(run), "--model", "demo", "-o", str(out)],
}


@pytest.mark.parametrize("name", READERS)
def test_no_command_takes_a_run_whose_rows_were_cut(tmp_path: Path, name: str) -> None:
    run = labeled(tmp_path)
    cut(run / "preferences.jsonl")
    with pytest.raises(RlaifError, match=r"preferences.jsonl has \d+ bytes, and had \d+ when"):
        invoke(*READERS[name](run, tmp_path / "out"))


def test_a_row_file_by_its_own_path_is_data_like_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = labeled(tmp_path)
    cut(run / "preferences.jsonl")
    invoke("mix", f"{run / 'preferences.jsonl'}=1", "--min-human", "0", "-o", str(tmp_path / "m"))
    assert (tmp_path / "m" / "data" / "train.parquet").exists()
    assert "it was cut or edited, and is read as it is now" in caplog.text
    assert "it was cut or edited" in str(lineage(run))


def test_a_mix_that_was_cut_is_not_complete(tmp_path: Path) -> None:
    run, out = labeled(tmp_path), tmp_path / "m"
    words = ("mix", f"{run}=1", "--min-human", "0", "-o", str(out))
    invoke(*words)
    invoke(*words)
    file = out / "data" / "train.parquet"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(RlaifError, match=r"train.parquet has .* cut or edited"):
        invoke(*words)


def test_an_import_that_was_cut_is_not_complete(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [
        {"prompt": f"q {i}", "response": f"a {i}", "thumbs": "up" if i % 2 else "down"}
        for i in range(12)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("import-feedback", str(log), "-o", str(tmp_path / "f"))
    invoke(*words)
    invoke(*words)
    cut(tmp_path / "f" / "kto.jsonl")
    with pytest.raises(RlaifError, match=r"kto.jsonl has .* cut or edited"):
        invoke(*words)
