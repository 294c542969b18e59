"""Commands in this process: what they import and compile is there already.

Which exit codes and messages a process of its own ends with is held by `tests/cli`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from rlaif.cli.main import cli
from rlaif.errors import RlaifError


@dataclass(frozen=True)
class Done:
    """What a command came to; as `subprocess.CompletedProcess` says it."""

    returncode: int
    stdout: str
    stderr: str


def run_command(*arguments: str, cwd: Path | None = None) -> Done:
    """`rlaif ARGUMENTS` in a folder; an error that is no user's is raised."""
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        done = CliRunner().invoke(cli, list(arguments))
    finally:
        os.chdir(before)
    if isinstance(done.exception, RlaifError):
        error = f"{done.stderr}error: {done.exception}\n"
        return Done(done.exception.exit_code, done.stdout, error)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)
