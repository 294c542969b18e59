"""What time it is, as files say it."""

from __future__ import annotations

import os
import time


def utc_now() -> str:
    """The time as `2026-01-31T12:00:00Z`.

    `$SOURCE_DATE_EPOCH` (seconds, see reproducible-builds.org) sets it, so that two runs can be
    made that are the same byte for byte.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    return utc(float(fixed) if fixed.isdigit() else time.time())


def utc(seconds: float) -> str:
    """Seconds since 1970 in the same form."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
