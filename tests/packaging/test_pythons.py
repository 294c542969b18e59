"""Python 3.11 to 3.13 are declared: what can be checked of the newer ones from here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
DECLARED = ("3.11", "3.12", "3.13")
# Taken out of the standard library in 3.12 (PEP 594's earlier part, PEP 632) and in 3.13.
REMOVED = {
    "asynchat",
    "asyncore",
    "distutils",
    "imp",
    "smtpd",
    "aifc",
    "audioop",
    "cgi",
    "cgitb",
    "chunk",
    "crypt",
    "imghdr",
    "lib2to3",
    "mailcap",
    "msilib",
    "nis",
    "nntplib",
    "ossaudiodev",
    "pipes",
    "sndhdr",
    "spwd",
    "sunau",
    "telnetlib",
    "uu",
    "xdrlib",
}


def test_the_project_declares_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    assert [v for v in ("3.10", *DECLARED, "3.14") if f"{v}.0" in allowed] == list(DECLARED)
    named = {c.rsplit(" ", 1)[1] for c in project["classifiers"] if "Python ::" in c}
    assert named == set(DECLARED)


@pytest.mark.parametrize("version", DECLARED)
def test_every_pinned_package_accepts_it(version: str) -> None:
    refused, seen = [], 0
    for lock in ("cpu", "dev"):
        for name in re.findall(
            r"^([\w.-]+)==", (ROOT / f"requirements/{lock}.lock").read_text(), re.M
        ):
            try:
                wanted = metadata.metadata(name).get("Requires-Python")
            except metadata.PackageNotFoundError:
                continue  # for another platform
            seen += 1
            if wanted and f"{version}.0" not in SpecifierSet(wanted):
                refused.append(f"{name}: {wanted}")
    assert seen > 200
    assert not refused


@pytest.mark.parametrize("version", ["py312", "py313"])
def test_the_syntax_is_valid_in_it(version: str) -> None:
    ruff = Path(sys.executable).parent / "ruff"
    done = subprocess.run(
        [ruff, "check", "--isolated", "--target-version", version, "--select", "E9,F", "rlaif"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_nothing_imports_a_module_that_they_took_out() -> None:
    imported = set()
    for path in (ROOT / "rlaif").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    assert {"json", "sqlite3"} <= imported
    assert not imported & REMOVED
