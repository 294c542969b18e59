"""`rlaif report`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo
from rlaif.reporting.fill_page import write_report
from rlaif.review.results import refresh_review


@click.command(cls=Command, name="report")
@click.argument("run")
@click.option(
    "--contested",
    default=20,
    show_default=True,
    help="Number of contested pairs to show side by side.",
)
def command(run: str, contested: int) -> None:
    """Write report.html, a self-contained page, into the folder of a labeling run.

    It shows label confidence, the contribution of each principle, position bias, and the
    pairs most in need of review.
    """
    refresh_review(run)
    echo(str(write_report(Path(run), contested=max(0, contested))))
