"""The plug-in of the docs, installed as a user installs it, labels pairs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from rlaif.engines import registry
from rlaif.engines.base import EngineSettings
from rlaif.errors import RlaifError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the plug-in of the page is installed."""
    blocks = re.findall(
        r"```(?:toml|python)\n(.*?)```", (ROOT / "docs/engines.md").read_text(), re.DOTALL
    )
    package = tmp_path_factory.mktemp("rlaif-shorter")
    for name, text in zip(("pyproject.toml", "rlaif_shorter.py"), blocks, strict=True):
        (package / name).write_text(text)
    target = package / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--target",
            str(target),
            str(package),
        ],
        check=True,
    )
    return target


def rlaif(site: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "rlaif", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **env},
    )


def test_the_plug_in_of_the_docs_labels_pairs(site: Path, tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"q{i}", "response_a": "x" * (1 + i), "response_b": "y" * (20 - i)}
        for i in range(20)
    ]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    assert "rlaif-shorter" in rlaif(site, "engines").stdout
    out = tmp_path / "run"
    flags = ["-c", "demo", "--template", "pairwise", "--engine", "shorter", "-o", str(out)]
    done = rlaif(site, "label", str(data), *flags, "--cache-dir", str(tmp_path / "c.sqlite"))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "preferences.jsonl").read_text().splitlines()]
    assert len(rows) >= 18
    for row in rows:
        assert len(row["chosen"][0]["content"]) < len(row["rejected"][0]["content"])
    assert "judge" in (out / "run.yaml").read_text()
    assert "shorter/1" in (out / "run.yaml").read_text()


def test_an_entry_point_that_names_no_spec_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_package.py").write_text("def create(settings):\n    return None\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    entry = EntryPoint("theirs", "their_package:create", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    with pytest.raises(RlaifError, match="'their_package:create' is no EngineSpec"):
        registry.create_engine(EngineSettings(engine="theirs", model="m"))
