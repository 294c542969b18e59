"""`rlaif lineage`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, print_json, quiet_libraries

_EXAMPLES = """
\b
Examples:
  rlaif lineage policies/second
  rlaif lineage runs/first/preferences.jsonl --format mermaid > lineage.mmd

A file stands for the run that wrote it. Inputs are found by the paths saved in each run,
relative to the working directory or next to the run. A file that has changed since is marked
with "!".
"""


@click.command(cls=Command, name="lineage", epilog=_EXAMPLES)
@click.argument("file")
@click.option(
    "--format",
    "form",
    type=click.Choice(["tree", "mermaid", "json"]),
    default="tree",
    show_default=True,
    help="Output format.",
)
def command(file: str, form: str) -> None:
    """Show where FILE comes from: from human seeds to the last checkpoint.

    FILE is a data file, a run, a mix or a policy.
    """
    quiet_libraries()
    from rlaif.runs.lineage import lineage

    found = lineage(file)
    if form == "json":
        nodes: list[dict[str, Any]] = [asdict(node) for node in found.nodes.values()]
        print_json({"root": found.root, "nodes": nodes})
        return
    for line in found.lines() if form == "tree" else found.mermaid():
        echo(line, raw=form == "mermaid")
