"""Writes the starter project of `rlaif init`."""

from __future__ import annotations

import json
from pathlib import Path

from rlaif.constitution.schema import json_schema
from rlaif.errors import RlaifError
from rlaif.util.output import explain_failure
from rlaif.util.resources import data_root

SCHEMA = "constitution.schema.json"

_HEADER = f"""# yaml-language-server: $schema={SCHEMA}
# A constitution: principles that a judge model applies to pairs of responses.  Check it with
# `rlaif constitution lint constitution.yaml`.  It extends the demo constitution, which the demo
# judge was trained on.  With `--judge MODEL` you can write any principles.
schema: 1
name: my-constitution
version: "0.1.0"
license: CC0-1.0
extends: [demo]
principles:
  - id: be-concise                  # overrides only these fields of the inherited principle
    weight: 2.0
  - id: no-shouting                 # a programmatic principle costs no judge call
    tier: 3
    check: {{kind: regex, pattern: "[A-Z]{{6,}}", must: not_match}}
"""


def write_project(folder: Path) -> list[Path]:
    """Write constitution, its schema, sample pairs, sample prompts and held-out ones.

    Raises:
        RlaifError: one of the files exists, or the folder can't be written.
    """
    files = {
        "constitution.yaml": _HEADER,
        SCHEMA: json.dumps(json_schema(), indent=2) + "\n",
        **{
            f"{name}.jsonl": (data_root() / "prompts" / f"demo-{name}.jsonl").read_text(
                encoding="utf-8"
            )
            for name in ("pairs", "prompts", "heldout")
        },
    }
    for name in files:
        if (folder / name).exists():
            raise RlaifError(f"{str(folder / name)!r} already exists", hint="Use a new folder.")
    with explain_failure(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]
