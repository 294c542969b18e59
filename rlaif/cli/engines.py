"""`rlaif engines`."""

from __future__ import annotations

import shutil
import textwrap

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, print_json, table
from rlaif.engines.registry import ENTRY_POINT_GROUP, list_engines


@click.command(
    cls=Command,
    name="engines",
    epilog=f"To add an engine, register it in the entry point group {ENTRY_POINT_GROUP!r}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(as_json: bool) -> None:
    """List the engines that can run a judge, and how to install missing ones."""
    found = list_engines()
    if as_json:
        print_json(
            [
                {
                    "name": e.name,
                    "summary": e.summary,
                    "reads": e.reads,
                    "available": e.available,
                    "install": e.install,
                }
                for e in found
            ]
        )
        return
    rows = [(e.name, "yes" if e.available else "no", e.summary) for e in found]
    echo(table(["engine", "ready", "description"], rows))
    echo("\nHow each engine computes a verdict:")
    for engine in found:
        if engine.reads:
            width = max(40, shutil.get_terminal_size().columns - 2)
            told = f"{engine.name}: {engine.reads}"
            echo(textwrap.fill(told, min(width, 98), subsequent_indent="  "))
    for engine in found:
        if not engine.available:
            echo(f"{engine.name}: {engine.install}")
