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
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option(
            "--map",
            "maps",
            multiple=True,
            metavar="NAME=COLUMN",
            help="Read field NAME from COLUMN; NAME is label, subset, or one of "
            f"{', '.join(FIELDS)}.",
        ),
        click.option("--split", default="train", show_default=True, help="Dataset split."),
        click.option(
            "--config",
            metavar="FILE",
            help="YAML file with any of the settings below; flags take precedence.",
        ),
    ):
        command = option(command)
    return command


def column_map(maps: tuple[str, ...]) -> dict[str, str]:
    """Columns by field.

    Raises:
        RlaifError: an assignment is none, or names no field.
    """
    return assignments("--map", maps, (*FIELDS, "label", "subset"))
