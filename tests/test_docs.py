"""The README's commands and examples are true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.constitution.load import load_constitution
from rlaif.serve.dialects import DIALECTS
from tests.commands import run_command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_readme_opens_with_two_commands_and_ci_runs_the_second() -> None:
    demo, test, _ = blocks("bash")
    assert demo.strip() == "scripts/demo.sh"
    assert test.strip() == "scripts/test.sh"
    assert "scripts/test.sh" in (ROOT / ".ci" / "run").read_text()


def test_constitution_of_the_readme_loads(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    (tmp_path / "c.yaml").write_text(example)
    c = load_constitution(str(tmp_path / "c.yaml")).constitution
    ids = [p.id for p in c.principles]
    assert "no-flattery" not in ids
    assert {"concise", "valid-json"} <= set(ids)


def test_readme_session_runs_as_written(tmp_path: Path) -> None:
    """Each line of the block for one's own data, in order, in an empty folder."""
    lines = blocks("bash")[2].strip().splitlines()
    assert lines[0] == "source .venv/bin/activate"
    cwd = tmp_path
    for line in lines[1:]:
        if line.startswith("cd "):
            cwd = cwd / line[3:]
            continue
        program, *arguments = line.split()
        assert program == "rlaif"
        done = run_command(*arguments, cwd=cwd)
        assert done.returncode == 0, line + done.stderr[-2000:]
    assert (cwd / "policies" / "first" / "model.safetensors").is_file()
    assert (cwd / "runs" / "first" / "report.html").is_file()


def test_recipe_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    """The whole of Constitutional AI on the embedded models, in a fresh project."""
    (lines,) = blocks("sh")
    for line in ["rlaif init .", *lines.strip().splitlines()]:
        program, *arguments = line.split()
        assert program == "rlaif"
        done = run_command(*arguments, cwd=tmp_path)
        assert done.returncode == 0, line + done.stderr[-2000:]
    assert (tmp_path / "policies" / "final" / "model.safetensors").is_file()
    assert (tmp_path / "runs" / "revised" / "sft.jsonl").stat().st_size > 0


@pytest.mark.parametrize("name", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(name: str) -> None:
    assert (ROOT / name).exists()


def test_python_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    (code,) = blocks("python")
    assert run_command("init", "p", cwd=tmp_path).returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "p", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(("a 0.9", "a 1.0"))
    assert "winner='b'" in done.stdout


def test_every_harness_has_a_page_and_every_dialect_is_on_one() -> None:
    folder = ROOT / "docs" / "harnesses"
    index = (folder / "README.md").read_text()
    pages = {p.stem for p in folder.glob("*.md")} - {"README"}
    assert set(re.findall(r"\]\(([a-z-]+)\.md\)", index)) == pages
    text = index + "".join(p.read_text() for p in folder.glob("*.md"))
    for name in set(DIALECTS) - {"json"}:
        assert f"`{name}`" in text or f":{name}" in text, name
    for command in ("alpaca-eval", "arena-hard", "rewardbench", "promptfoo", "lm-eval"):
        assert f"rlaif harness {command}" in text
