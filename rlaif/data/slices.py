"""Slices of data: what a row has in a column, whatever form the column has."""

from __future__ import annotations

import json
from collections.abc import Mapping


def slice_values(row: Mapping[str, object], column: str) -> list[str]:
    """The values at a dotted path: those of a list, or the one that is there; none for null."""
    found: object = row
    for step in column.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    if found is None or found == "":
        return []
    items = found if isinstance(found, list) else [found]
    return [item if isinstance(item, str) else json.dumps(item) for item in items]
