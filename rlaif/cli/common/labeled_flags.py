"""Flags of commands that read labeled data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rlaif.cli.common.layout_flags import layout_flags
from rlaif.cli.common.options import config_flag

Command = TypeVar("Command", bound=Callable[..., Any])


def labeled_flags(command: Command) -> Command:
    """Add `--config`, `--split`, those of `layout_flags`, and `--json` (as `as_json`)."""
    command = layout_flags(command)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--split", default="train", show_default=True, help="Dataset split."),
        config_flag,
    ):
        command = option(command)
    return command
