"""The judge that a settings file names is the one that judges, whatever the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rlaif.cli.main import cli

CONSTITUTION = """\
schema: 1
name: small
version: "1"
principles:
  - id: one
    preference: "Which response is one?"
    examples: [{prompt: p, chosen: c, rejected: r}]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    (tmp_path / "y.yaml").write_text("judge: {model: named-in-the-file, engine: scripted}\n")
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"}
        for i in range(30)
    ]
    (tmp_path / "labeled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "label labeled.jsonl -c c.yaml -o out",
        "eval labeled.jsonl -c c.yaml -o out",
        "constitution test c.yaml",
        "constitution coverage c.yaml labeled.jsonl -o out",
        "constitution ablate c.yaml labeled.jsonl -o out",
    ],
)
@pytest.mark.usefixtures("folder")
def test_the_judge_of_the_file_judges_and_a_flag_wins(line: str) -> None:
    done = CliRunner().invoke(cli, [*line.split(), "--config", "y.yaml"])
    assert "named-in-the-file" in done.stderr + done.stdout, done.stderr
    assert "'demo'" not in done.stderr
    other = line.replace("-o out", "-o other")
    done = CliRunner().invoke(cli, [*other.split(), "--config", "y.yaml", "-j", "named-by-flag"])
    assert "named-by-flag" in done.stderr + done.stdout, done.stderr
    assert "named-in-the-file" not in done.stderr
