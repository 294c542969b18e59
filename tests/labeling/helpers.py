"""Labeling with the scripted engine, through the command line or in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.engines.base import EngineSettings
from rlaif.labeling.job import LabelSummary, prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.runs.context import RunContext

CONSTITUTION = """\
schema: 1
name: small
version: "1"
principles:
  - {id: one, tier: 1, preference: "Which response is one?"}
  - {id: two, tier: 2, preference: "Which response is two?"}
  - {id: short, tier: 2, weight: 0.5, check: {kind: max_length, words: 3}}
"""
ROW_FILES = ("preferences.jsonl", "verdicts.jsonl", "undecided.jsonl", "rejected.jsonl")


def write_inputs(folder: Path, rows: int) -> tuple[Path, Path]:
    """Pairs with some oddities, and a constitution."""
    lines = []
    for i in range(rows):
        responses = [f"a {i}", "b c d e"]
        if i % 11 == 3:
            responses[1] = responses[0]
        if i % 13 == 5:
            responses[0] = ""
        if i % 17 == 7:
            responses = [f"x {i}", f"y {i}", f"z {i} 1 2 3"]
        row = {"prompt": f"q {i}", "responses": responses}
        lines.append("{broken" if i % 19 == 9 else json.dumps(row))
    data, constitution = folder / "pairs.jsonl", folder / "constitution.yaml"
    data.write_text("\n".join(lines) + "\n")
    constitution.write_text(CONSTITUTION)
    return data, constitution


def settings(**changes: Any) -> LabelSettings:
    """Settings for the scripted engine; `options` go to it."""
    judge = EngineSettings(
        engine="scripted",
        model="hashed",
        max_in_flight=changes.pop("max_in_flight", 16),
        options=changes.pop("options", {}),
    )
    return LabelSettings(judge=judge, **changes)


def label(data: Path, constitution: Path, out: Path, **changes: Any) -> LabelSummary:
    """Run a job in this process."""
    cache = changes.pop("cache", out.parent / f"{out.name}.sqlite")
    job = prepare(str(data), str(constitution), settings(**changes))
    return run_label(job, out, context=RunContext(cache_dir=cache))


def contents(run: Path) -> dict[str, bytes]:
    """The row files of a run."""
    return {name: (run / name).read_bytes() for name in ROW_FILES}


def rows(run: Path, name: str) -> list[dict[str, Any]]:
    """One row file, parsed."""
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def restate_sizes(run: Path) -> None:
    """Let a run's manifest tell the sizes that its files have now, as if it had ended so."""
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["bytes"] = {name: (run / name).stat().st_size for name in manifest["bytes"]}
    file.write_text(json.dumps(manifest))
