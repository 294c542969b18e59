"""Cells that list all responses of a row: in their order, or with the rank of each."""

from __future__ import annotations

from collections.abc import Mapping

from rlaif.data.columns import Column
from rlaif.data.inference.evidence import as_number
from rlaif.data.inference.rest import listed_origins, origin_paths
from rlaif.data.inference.state import Inference
from rlaif.data.layout import code_of
from rlaif.data.row_cells import ORIGIN_KEYS, values_at
from rlaif.data.verdict_codes import read_order

RANK_WORDS = {"rank", "ranked", "ranking", "rankings", "ranks"}
"""Words of columns whose lists are about the order of the responses."""


def find_order(state: Inference) -> bool:
    """Find a column whose cells list all responses, and what its lists mean.

    Two responses have the same list either way.  Of three or more, numbers can be the ranks of the
    responses or the responses by rank: then the user is asked, and the column is claimed.
    """
    if state.fields.get("chosen") or (state.count() < 2 and not state.is_list()):
        return False
    for column in state.free({"texts", "numbers"}):
        if not RANK_WORDS & set(column.tokens):
            continue
        lists = [v for v in column.values if isinstance(v, list)]
        numeric = all(as_number(item) is not None for v in lists for item in v)
        if not lists or not _fits(state, column):
            continue
        if all(_is_order(state, column, k) for k in range(len(state.rows))):
            if numeric and any(len(v) > 2 for v in lists):
                state.questions.append(
                    f"column {column.path!r} can hold the rank of each response, or the responses "
                    f"by rank; say which with --map scores={column.path}, or with "
                    f"--map order={column.path}"
                )
                state.claim(column.path, "ranking (its values are not clear)")
            else:
                state.set("order", column.path, "order")
            return True
        if numeric:  # two of the same rank
            state.set("scores", (column.path,), "scores")
            state.fields["ranks"] = True
            return True
    return False


def lists_all_sides(state: Inference, column: Column) -> bool:
    """Whether each cell is a list that names every response of its row once: an order, or votes
    that never agree.
    """
    return (
        column.shape in ("texts", "numbers")
        and any(isinstance(v, list) for v in column.values)
        and _fits(state, column)
        and all(_is_order(state, column, k) for k in range(len(state.rows)))
    )


def _fits(state: Inference, column: Column) -> bool:
    """Whether each list has as many entries as its row has responses, and at least two."""
    return all(
        len(v) == _responses(state, k) > 1
        for k, v in enumerate(column.values)
        if isinstance(v, list)
    )


def _responses(state: Inference, row: int) -> int:
    paths = state.fields.get("responses", ())
    own = state.columns.get(paths[0]) if len(paths) == 1 else None
    held = own.values[row] if own is not None else None
    return len(held) if isinstance(held, list) else state.count()


def _is_order(state: Inference, column: Column, row: int) -> bool:
    return not isinstance(column.values[row], list) or read_places(state, column, row) is not None


def read_places(state: Inference, column: Column, row: int) -> list[int] | None:
    """The place of each response of a row, from 1, if a list names all of them."""
    value = column.values[row]
    codes = [code_of(item) for item in value] if isinstance(value, list) else []
    return read_order(
        codes,
        len(codes),
        sides=state.sides,
        columns=state.fields.get("responses", ()),
        names=_writers(state, row),
    )


def _writers(state: Inference, row: int) -> list[str]:
    """Who wrote the responses of a row, as far as its columns say."""
    paths = origin_paths(state) or (listed_origins(state),)
    own = state.columns.get((*state.fields.get("responses", ()), "")[0])
    if len(paths) == 1 and not paths[0] and own is not None and own.shape == "entries":
        names = [
            next((e[key] for key in ORIGIN_KEYS if isinstance(e.get(key), str)), "")
            for e in own.values[row] or ()
            if isinstance(e, Mapping)
        ]
    else:
        names = [name for path in paths if path for name in values_at(state.rows[row], path)]
    return [code_of(name) for name in names]
