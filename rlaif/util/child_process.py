"""Runs a command of rlaif as a process that ends with this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

GRACE = 10.0
"""Seconds that a command has to end by itself once it is asked to."""


def call_rlaif(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run `rlaif` with arguments and give its exit code; its standard output goes to ours for
    errors.

    It is asked to end when this process is asked to.  Modules of the current folder are not
    imported in place of libraries (`-P`).

    Args:
        environment: variables beside those of this process.
    """
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "rlaif", *arguments],
        stdout=sys.stderr,
        env={**os.environ, **(environment or {})},
    )

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {kind: signal.signal(kind, end) for kind in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return child.wait()
    except BaseException:  # also Ctrl-C, which the terminal sends to both
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
