"""Cells that list all responses of a row: in their order, or with the rank of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif.data.columns import Column, dig
from rlaif.data.flags import write_ignore, write_map
from rlaif.data.inference.evidence import as_number
from rlaif.data.inference.named import find_names, name_paths
from rlaif.data.inference.names import SCORE_WORDS
from rlaif.data.inference.rest import listed_origins, origin_paths
from rlaif.data.inference.state import Inference
from rlaif.data.layout import code_of
from rlaif.data.row_cells import ORIGIN_KEYS, values_at
from rlaif.data.verdict_codes import read_order, split_order

RANK_WORDS = {"rank", "ranked", "ranking", "rankings", "ranks"}
"""Words of columns whose lists are about the order of the responses."""


_PLAIN = RANK_WORDS | {
    "answer",
    "answers",
    "candidate",
    "candidates",
    "completion",
    "completions",
    "final",
    "human",
    "model",
    "models",
    "of",
    "order",
    "overall",
    "preference",
    "preferences",
    "response",
    "responses",
    "the",
}
"""Words of orders that leave no doubt that the best stands first, in every respect."""


def find_order(state: Inference) -> bool:
    """Find a column whose cells list all responses, and what its lists mean.

    Two responses have the same list either way.  Of three or more, numbers can be the ranks of the
    responses or the responses by rank: then the user is asked, and the column is claimed.
    """
    if state.fields.get("chosen") or (state.count() < 2 and not state.is_list()):
        return False
    found = orders_of(state)
    if not found:
        return False
    column, doubt = found[0], ""
    numeric = all(
        as_number(item) is not None for v in column.values for item in (items_of(v) or ())
    )
    whole = _fits(state, column) and all(
        _is_order(state, column, k) for k in range(len(state.rows))
    )
    if len(found) > 1:
        doubt = f"is one of several orders ({', '.join(repr(c.path) for c in found)})"
    elif not {t for t in column.tokens if not t.isdigit()} <= _PLAIN:
        doubt = "may not begin with the best response"
    elif whole and numeric and any(len(items_of(v) or ()) > 2 for v in column.values):
        doubt = "can hold the rank of each response, or the responses by rank"
    elif not whole and not (numeric and _fits(state, column) and _are_ranks(column)):
        doubt = "does not name each response once"
    if whole and (names := find_names(state, (column.path,))):
        state.set("names", (names,), "name")
        doubt = doubt if "can hold" not in doubt else ""
    if doubt:
        state.questions.append(
            f"column {column.path!r} {doubt}; say with {write_map('order', column.path)} that it "
            f"names the responses from the best on, with {write_map('scores', column.path)} that "
            f"it holds the rank of each, or leave it out with {write_ignore(column.path)}"
        )
        for one in found:
            state.claim(one.path, "ranking (its values are not clear)")
    elif whole and not any(isinstance(dig(row, column.path), Mapping) for row in state.rows):
        state.set("order", column.path, "order")
        _ask_of_scores(state, column)
    else:  # two of the same rank, or ranks by model
        state.set("scores", (column.path,), "scores")
        state.fields["ranks"] = True
    return True


def _ask_of_scores(state: Inference, order: Column) -> None:
    """Ask where scores in a list find another response best than the order does."""
    for column in state.free({"numbers"}):
        if not SCORE_WORDS.keys() & set(column.tokens):
            continue
        for k, value in enumerate(column.values):
            places = read_places(state, order, k)
            if not places or not isinstance(value, list) or len(value) != len(places):
                continue
            if value.count(max(value)) == 1 and value.index(max(value)) != places.index(1):
                state.questions.append(
                    f"{order.path!r} and {column.path!r} find different responses best; name one "
                    f"with {write_map('order', order.path)} {write_ignore(column.path)}, or with "
                    f"{write_map('scores', column.path)} {write_ignore(order.path)}"
                )
                return


def orders_of(state: Inference) -> list[Column]:
    """Columns that are named as rankings, with lists or with texts that list."""
    return [
        c
        for c in state.free({"texts", "numbers", "text"})
        if RANK_WORDS & set(c.tokens)
        and any(len(items_of(v) or ()) > 1 for v in c.values)
        and (c.shape != "text" or _lists_more(c))
    ]


def _lists_more(column: Column) -> bool:
    """Whether all texts of a column list, and more than two, which is a verdict (`B > A`)."""
    held = [v for v in column.values if v is not None]
    lists = [items_of(v) or [] for v in held]
    return all(lists) and any(len(i) > 2 or "," in v for i, v in zip(lists, held, strict=True))


def items_of(value: object) -> list[object] | None:
    """What a list holds, or a text that lists: `b, a, c`; None for others."""
    if isinstance(value, list):
        return value
    if isinstance(value, str) and "=" not in value and (">" in value or "," in value):
        return list(split_order(value))
    return None


def _are_ranks(column: Column) -> bool:
    """Whether all numbers count from the best on: no score is a rank."""
    return all(
        (n := as_number(item)) is not None and n.is_integer() and 0 <= n <= len(items)
        for items in (items_of(v) or [] for v in column.values)
        for item in items
    )


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
        len(items) == _responses(state, k) > 1
        for k, v in enumerate(column.values)
        if (items := items_of(v)) is not None
    )


def _responses(state: Inference, row: int) -> int:
    paths = state.fields.get("responses", ())
    own = state.columns.get(paths[0]) if len(paths) == 1 else None
    held = own.values[row] if own is not None else None
    return len(held) if isinstance(held, list) else state.count()


def _is_order(state: Inference, column: Column, row: int) -> bool:
    return items_of(column.values[row]) is None or read_places(state, column, row) is not None


def read_places(state: Inference, column: Column, row: int) -> list[int] | None:
    """The place of each response of a row, from 1, if a list names all of them."""
    items = items_of(column.values[row]) or []
    codes = [code_of(item) for item in items]
    return read_order(
        codes,
        len(codes),
        sides=state.sides,
        columns=state.fields.get("responses", ()),
        names=_writers(state, row, items),
    )


def _writers(state: Inference, row: int, items: Sequence[object]) -> list[str]:
    """What the responses of a row are called: by names of their own, or by who wrote them."""
    for path in name_paths(state):
        names = [code_of(v) for v in values_at(state.rows[row], path)]
        if all(code_of(item) in names for item in items):
            return names
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
