"""Where the files of a mix lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA_FILE, REPORT, CARD = "data/train.parquet", "mix.json", "README.md"


def read_mix(folder: Path) -> dict[str, Any] | None:
    """The report of a mix, or None if the folder holds none."""
    try:
        found = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "config" in found else None
