"""`rlaif report`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Command
from rlaif.cli.labels import refresh_review
from rlaif.reporting.page import write_report


@click.command(cls=Command, name="report")
@click.argument("run")
@click.option("--contested", default=20, show_default=True, help="Pairs to show side by side.")
def command(run: str, contested: int) -> None:
    """Write report.html into the folder of a labeling run: one page, nothing to load.

    It shows how sure the labels are, what each principle contributed, position bias, and the
    pairs that most deserve a second look.
    """
    refresh_review(run)
    click.echo(str(write_report(Path(run), contested=max(0, contested))))
