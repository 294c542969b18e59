"""`rlaif init`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, note
from rlaif.recipes.project import write_project


@click.command(cls=Command, name="init")
@click.argument("folder", default=".")
def command(folder: str) -> None:
    """Create a starter project in FOLDER: a constitution to edit, pairs to label and prompts.

    Existing files are never overwritten.
    """
    for path in write_project(Path(folder)):
        note(f"wrote {path}")
    prefix = "" if folder == "." else f"cd {folder}, then "
    echo(f"Next: {prefix}rlaif label pairs.jsonl -c constitution.yaml -o runs/first", raw=True)
