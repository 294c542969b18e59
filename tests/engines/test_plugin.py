"""The plug-in of the docs, installed as a user installs it, labels pairs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif.engines import registry
from rlaif.engines.base import EngineSettings, Intake
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import RlaifError
from rlaif.records import ChoiceRequest, ChoiceResult

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def read_blocks() -> list[str]:
    page = (ROOT / "docs/engines.md").read_text()
    return re.findall(r"```(?:toml|python)\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the plug-in of the page is installed."""
    package = tmp_path_factory.mktemp("rlaif-shorter")
    for name, text in zip(("pyproject.toml", "rlaif_shorter.py"), read_blocks()[:2], strict=True):
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
    fingerprint = ScriptedEngine(name="shorter/1").fingerprint
    assert fingerprint in (out / "run.yaml").read_text()


def test_a_template_that_the_plug_in_can_not_read_stops_with_its_reason(
    site: Path, tmp_path: Path
) -> None:
    assert sum(bool(line.strip()) for line in read_blocks()[1].splitlines()) <= 20
    data = tmp_path / "pairs.jsonl"
    row = {"prompt": "q", "response_a": "x", "response_b": "y y"}
    data.write_text("".join(json.dumps({**row, "prompt": f"q{i}"}) + "\n" for i in range(60)))
    flags = ["-c", "demo", "--template", "demo", "--engine", "shorter", "-o", str(tmp_path / "r")]
    done = rlaif(site, "label", str(data), *flags, "--cache-dir", str(tmp_path / "c"))
    assert done.returncode != 0
    assert "this prompt is not the template pairwise" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_loop_of_the_page_answers_each_request_once_and_minds_pauses() -> None:
    space: dict[str, Any] = {"Intake": Intake, "ChoiceResult": ChoiceResult}
    exec(read_blocks()[2], space)
    engine = SimpleNamespace(read=lambda prompts: [(-float(ids[0]), -1.0) for ids in prompts])
    asked = [ChoiceRequest(i, (i,), (1, 2)) for i in range(200)]
    batches = list(space["run"](engine, [*asked[:10], None, *asked[10:]]))
    assert [len(batch) for batch in batches] == [10, 64, 64, 62]
    answers = [found for batch in batches for found in batch]
    assert [(a.id, a.logprobs[0]) for a in answers] == [(i, -float(i)) for i in range(200)]


def test_an_entry_point_that_names_no_spec_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_package.py").write_text("def create(settings):\n    return None\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    entry = EntryPoint("theirs", "their_package:create", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry])
    with pytest.raises(RlaifError, match="'their_package:create' is no EngineSpec"):
        registry.create_engine(EngineSettings(engine="theirs", model="m"))
