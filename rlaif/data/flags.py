"""Flags of the command line as messages name them: as they can be typed into a shell."""

from __future__ import annotations

import shlex


def write_flag(flag: str, value: str) -> str:
    """A flag and its value, quoted where a shell would read the value as something else."""
    return f"{flag} {shlex.quote(value)}"


def write_map(field: str, value: str) -> str:
    """`--map FIELD=VALUE`."""
    return write_flag("--map", f"{field}={value}")


def write_ignore(*paths: str) -> str:
    """The flags that leave columns out."""
    return " ".join(write_flag("--ignore", path) for path in paths)
