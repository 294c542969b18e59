"""A file from a stranger runs no code: functions run only where the user allows them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import rlaif
from rlaif.cli.main import cli
from rlaif.errors import RlaifError
from rlaif.util.user_functions import allow_functions, is_allowed, load_function

CONSTITUTION = """\
schema: 1
name: stranger
version: "1"
principles:
  - id: harmless-looking
    check: {{kind: python, function: "{function}"}}
"""
SPY = """\
import pathlib
pathlib.Path(__file__).with_name("imported").write_text("")
from shutil import rmtree
def good(prompt, completion):
    pathlib.Path(__file__).with_name("called").write_text("")
    return "good" in completion
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that tells when it is imported, and data; the current folder."""
    name = f"spy_{os.getpid()}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SPY)
    rows = [
        {
            "prompt": f"Q{k}?",
            "response_a": "a good one",
            "response_b": "another one",
            "winner": "a",
        }
        for k in range(3)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "c.yaml").write_text(CONSTITUTION.format(function=f"{name}:good"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, list(arguments))
    text = done.output + (str(done.exception) if done.exception else "")
    return done.exit_code, text


LABEL = ("label", "pairs.jsonl", "-c", "c.yaml", "--engine", "scripted", "-j", "hashed")


@pytest.mark.parametrize(
    "arguments",
    [
        (*LABEL, "-o", "out"),
        (*LABEL, "-o", "out", "--dry-run"),
        ("eval", "pairs.jsonl", "-c", "c.yaml", "--engine", "scripted", "-j", "hashed", "-o", "e"),
        ("critique", "pairs.jsonl", "-c", "c.yaml", "-m", "demo", "-o", "k"),
        ("generate", "pairs.jsonl", "-m", "demo", "-c", "c.yaml", "-o", "g"),
        ("constitution", "lint", "c.yaml"),
        ("constitution", "show", "c.yaml"),
    ],
    ids=lambda a: " ".join(a[:2]),
)
def test_a_constitution_runs_no_code_by_its_own_word(
    project: Path, arguments: tuple[str, ...]
) -> None:
    code, text = call(*arguments)
    assert not (project / "imported").exists()
    if arguments[0] != "constitution":
        assert code != 0
        assert "functions run only where you allow them" in text
        assert "--allow-functions spy_" in text


def test_what_is_allowed_runs(project: Path) -> None:
    name = next(project.glob("spy_*.py")).stem
    code, text = call(*LABEL, "-o", "out", "--allow-functions", name)
    assert code == 0, text
    assert (project / "called").exists()
    rows = [json.loads(line) for line in (project / "out/preferences.jsonl").open()]
    assert [row["chosen"][0]["content"] for row in rows] == ["a good one"] * 3


def test_another_module_or_what_a_module_imports_is_not_allowed(project: Path) -> None:
    name = next(project.glob("spy_*.py")).stem
    (project / "c.yaml").write_text(CONSTITUTION.format(function=f"{name}:rmtree"))
    code, text = call(*LABEL, "-o", "out", "--allow-functions", name)
    assert code != 0
    assert "which 'spy_" in text
    assert "only imports" in text
    (project / "c.yaml").write_text(CONSTITUTION.format(function="shutil:rmtree"))
    code, text = call(*LABEL, "-o", "out", "--allow-functions", name)
    assert code != 0
    assert "--allow-functions shutil" in text


@pytest.mark.parametrize(
    ("allowed", "name", "right"),
    [
        ("my.checks", "my.checks:f", True),
        ("my", "my.checks:f", True),
        ("my.checks:f", "my.checks:f", True),
        ("my.checks:f", "my.checks:g", False),
        ("my.checks", "my.checks2:f", False),
        ("my.checks", "my:f", False),
    ],
)
def test_names_that_are_allowed(allowed: str, name: str, right: bool) -> None:
    allow_functions(allowed)
    assert is_allowed(name) is right


def test_names_are_checked_and_python_can_allow_too() -> None:
    for wrong in ("my-checks", "a..b", "", "a:b:c", "../x"):
        with pytest.raises(RlaifError, match="is not a module or a function"):
            allow_functions(wrong)
    with pytest.raises(RlaifError, match="functions run only where you allow"):
        load_function("json:dumps")
    rlaif.allow_functions("json")
    assert load_function("json:dumps") is json.dumps


def test_a_filter_on_the_command_line_is_allowed_and_one_in_a_file_is_not(project: Path) -> None:
    name = next(project.glob("spy_*.py")).stem
    (project / f"{name}.py").write_text(SPY + "def clean(text):\n    return text\n")
    row = {"prompt": "Q?", "response": "A.", "thumbs": "up"}
    (project / "log.jsonl").write_text(json.dumps(row) + "\n")
    (project / "s.yaml").write_text(f"personal: {name}:clean\n")
    code, text = call("import-feedback", "log.jsonl", "-o", "f", "--config", "s.yaml")
    assert code != 0
    assert "functions run only where you allow them" in text
    assert not (project / "imported").exists()
    code, text = call("import-feedback", "log.jsonl", "-o", "f", "--personal", f"{name}:clean")
    assert code == 0, text


@pytest.mark.slow
def test_a_recipe_runs_no_code_by_its_own_word(project: Path) -> None:
    name = next(project.glob("spy_*.py")).stem
    recipe = (
        "name: stranger\nsteps:\n  one:\n    run: label\n    input: pairs.jsonl\n"
        "    constitution: c.yaml\n    engine: scripted\n    judge: hashed\n"
    )
    (project / "r.yaml").write_text(recipe)
    environment = {**os.environ, "PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "rlaif", "run", "r.yaml", "-o", "work"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    assert "functions run only where you allow them" in done.stderr
    assert not (project / "imported").exists()
    (project / "s.yaml").write_text(
        recipe.replace("judge: hashed\n", f"judge: hashed\n    allow_functions: {name}\n")
    )
    command[4] = "s.yaml"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "has no option 'allow_functions'" in done.stderr
    command[4] = "r.yaml"
    done = subprocess.run(
        [*command, "--allow-functions", name], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (project / "called").exists()


def test_modules_of_the_current_folder_do_not_stand_in_for_libraries(project: Path) -> None:
    (project / "yaml.py").write_text("raise SystemExit('yaml.py of the folder was run')")
    (project / "c.yaml").write_text(
        'schema: 1\nname: plain\nversion: "1"\nprinciples:\n  - id: short\n'
        "    check: {kind: max_length, words: 2}\n"
    )
    (project / "r.yaml").write_text(
        "name: plain\nsteps:\n  one:\n    run: label\n    input: pairs.jsonl\n"
        "    constitution: c.yaml\n    engine: scripted\n    judge: hashed\n"
    )
    rlaif_command = Path(sys.executable).with_name("rlaif")
    done = subprocess.run(
        [str(rlaif_command), "run", "r.yaml", "-o", "work"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "of the folder was run" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_step_ends_with_the_recipe(project: Path, how: signal.Signals) -> None:
    (project / "child.py").write_text(
        "import os, sys, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    )
    code = (
        "import subprocess, sys\n"
        "import rlaif.util.child_process as c\n"
        "real = subprocess.Popen\n"
        "c.subprocess.Popen = lambda argv, **k: real([sys.executable, 'child.py'], **k)\n"
        "c.call_rlaif([])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    pid = project / "pid"
    while not (pid.exists() and pid.read_text()):
        time.sleep(0.05)
        assert parent.poll() is None
    parent.send_signal(how)
    assert parent.wait() != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
