"""Where what can be computed again is kept for the user."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_dir() -> Path:
    """`$RLAIF_CACHE_DIR`, or the user's cache folder."""
    folder = os.environ.get("RLAIF_CACHE_DIR")
    if folder:
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rlaif"
