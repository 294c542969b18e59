"""What a verdict calls the responses: by names of their own, which stand beside their texts."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.data.columns import Column, tokens_of
from rlaif.data.inference.evidence import entry_keys
from rlaif.data.inference.state import Inference
from rlaif.data.layout import code_of
from rlaif.data.row_cells import ORIGIN_KEYS, values_at

_NAMES = {"id", "idx", "index", "key", "label", "letter", "model", "name", "no", "number"}
"""Words of what names an entry."""


def name_paths(state: Inference) -> list[str]:
    """Paths of what may name the responses of a list, each of its own in every row."""
    paths = state.fields.get("responses", ())
    own = state.columns.get(paths[0]) if len(paths) == 1 else None
    if own is None or own.shape != "entries":
        return []
    found = []
    for key in entry_keys(own):
        if not (_NAMES & set(tokens_of(key)) or key in ORIGIN_KEYS):
            continue
        lists = [
            [code_of(e.get(key)) for e in value if isinstance(e, Mapping)]
            for value in own.values
            if isinstance(value, list)
        ]
        if all(len(set(names)) == len(names) and "none" not in names for names in lists):
            found.append(f"{own.path}[].{key}")
    return found


def find_names(state: Inference, paths: tuple[str, ...]) -> str:
    """The names that all values of some columns are among, row by row; "" where there are none.

    Letters in their order say nothing that the order does not.
    """
    for names in name_paths(state):
        said, differs = 0, False
        for row in state.rows:
            held = [code_of(v) for v in values_at(row, names) if v is not None]
            values = [
                code_of(item)
                for path in paths
                for v in values_at(row, path)
                for item in (v if isinstance(v, list) else [v])
                if item is not None and item != ""
            ]
            differs = differs or held != sorted(held)
            if not set(values) <= set(held):
                said = 0
                break
            said += len(values)
        if said and (differs or not all(len(c) == 1 and c.isalpha() for c in held)):
            return names
    return ""


def names_others(state: Inference, own: Column, path: str) -> bool:
    """Whether the entries of a list beside the responses name them in another order.

    Args:
        own: the responses.
        path: into the list's entries.
    """
    column = state.columns.get(path.split("[]")[0])
    if column is None or column is own or column.shape != "entries":
        return False
    beside = [c for c in state.columns.values() if c.shape == "texts" and c is not column]
    for key in entry_keys(column):
        for k, value in enumerate(column.values):
            said = [code_of(e.get(key)) for e in value or () if isinstance(e, Mapping)]
            lists = [c.values[k] for c in beside]
            lists.append([e.get(key) for e in own.values[k] or () if isinstance(e, Mapping)])
            for names in lists:
                held = [code_of(name) for name in names or ()]
                if len(set(held)) > 1 and held != said and sorted(held) == sorted(said):
                    return True
    return False
