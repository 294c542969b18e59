"""The wheel alone, in an empty folder: constitutions, prompts and demo models are inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(folder),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--target",
            str(folder),
            str(wheel),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def run(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_wheel_holds_data_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "rlaif/_data/constitutions/demo.yaml",
        "rlaif/_data/constitutions/helpful-honest-harmless.yaml",
        "rlaif/_data/prompts/judge/pairwise.txt",
        "rlaif/_data/prompts/demo-pairs.jsonl",
        "rlaif/_data/prompts/critique/plain.txt",
        "rlaif/_data/prompts/synth/topics.txt",
        "rlaif/_data/recipes/constitutional-ai.yaml",
        "rlaif/demo/models/judge/model.safetensors",
        "rlaif/demo/models/policy/model.safetensors",
        "rlaif/demo/models/writer/model.safetensors",
        "rlaif/reporting/templates/report.html.j2",
    ):
        assert needed in names
    assert not any(name.startswith(("tests/", "scripts/")) for name in names)


def test_installed_wheel_labels_and_reports_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    where = run(site, tmp_path, "-c", "import rlaif; print(rlaif.__file__)").stdout
    assert where.startswith(str(site))
    assert run(site, tmp_path, "-m", "rlaif", "init", "p").returncode == 0
    labeled = run(
        site,
        tmp_path / "p",
        "-m",
        "rlaif",
        "label",
        "pairs.jsonl",
        "-c",
        "constitution.yaml",
        "-o",
        "run",
        "--engine",
        "transformers",
        "--limit",
        "20",
        "--json",
    )
    assert labeled.returncode == 0, labeled.stderr
    counts = json.loads(labeled.stdout)["counts"]
    assert counts["decided"] >= 15
    assert counts["invalid_verdicts"] == 0
    assert run(site, tmp_path / "p", "-m", "rlaif", "report", "run").returncode == 0
    assert (tmp_path / "p" / "run" / "report.html").stat().st_size > 5000
