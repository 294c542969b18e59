"""Flags of commands that read labeled data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rlaif.cli.common.model_flags import assignments
from rlaif.data.layouts import FIELDS

Command = TypeVar("Command", bound=Callable[..., Any])


def labeled_flags(command: Command) -> Command:
    """Add `--config`, `--split`, `--map` (as `maps`) and `--json` (as `as_json`)."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout."),
        click.option(
            "--map",
            "maps",
            multiple=True,
            metavar="NAME=COLUMN",
            help=f"Where a field is; NAME is label, subset, or one of {', '.join(FIELDS)}.",
        ),
        click.option("--split", default="train", show_default=True, help="Split of a data set."),
        click.option("--config", metavar="FILE", help="YAML file with any of the settings below."),
    ):
        command = option(command)
    return command


def column_map(maps: tuple[str, ...]) -> dict[str, str]:
    """Columns by field.

    Raises:
        RlaifError: an assignment is none, or names no field.
    """
    return assignments("--map", maps, (*FIELDS, "label", "subset"))
