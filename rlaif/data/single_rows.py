"""Reads single rows: the layout is found in the row itself.

Data sets are read by `dataset.open_dataset`, which decides from a thousand rows.  These functions
are for programs that hold one row at a time; rows with the same columns share one decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rlaif.data.columns import dig as find_value
from rlaif.data.columns import leaves, shape_of
from rlaif.data.infer import infer_layout
from rlaif.data.layout import FIELDS as LAYOUT_FIELDS
from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.data.row_cells import row_weight
from rlaif.data.row_model import Completion, DataRow

__all__ = ["BadRow", "Completion", "DataRow", "row_weight"]

FIELDS = (*LAYOUT_FIELDS, "response_a", "response_b")
"""What `--map` can name."""
_READERS: dict[object, Reader] = {}
_MOST_READERS = 256


def read_row(row: Mapping[str, object], mapping: Mapping[str, str] | None = None) -> DataRow:
    """Read one row that has responses.

    Args:
        row: the row as it came.
        mapping: `--map`: a field (see `FIELDS`) to a dotted path in the row.

    Raises:
        BadRow: no layout fits, or a value has the wrong form.
    """
    return with_responses(reader_for(row, mapping).read(row), row)


def read_prompt(row: Mapping[str, object], mapping: Mapping[str, str] | None = None) -> DataRow:
    """Read a row of which only the prompt is wanted; its responses, if any, are left out.

    Raises:
        BadRow: there is no prompt, or a value has the wrong form.
    """
    return reader_for(row, mapping).read_prompt(row)


def with_responses(found: DataRow, row: Mapping[str, object]) -> DataRow:
    """The row, which must have responses.

    Raises:
        BadRow: it has none.
    """
    if not found.completions:
        raise BadRow(
            "no responses: expected responses, chosen + rejected, or response_a + response_b; "
            f"found the columns {shown_names(row)}"
        )
    return found


def reader_for(row: Mapping[str, object], mapping: Mapping[str, str] | None = None) -> Reader:
    """The reader of rows with the columns of this one.

    Raises:
        BadRow: the row lacks a column that `mapping` names.
    """
    # Text may be a transcript or hold a list: such rows are looked at one by one.
    shapes = tuple(
        (path, shape_of(value), _looks_written_out(value)) for path, value in leaves(row)
    )
    key = (shapes, tuple(sorted((mapping or {}).items())))
    found = _READERS.get(key)
    if found is None or any(marked for _, _, marked in shapes):
        given = {}
        for name, path in _given(mapping or {}).items():
            for own in (path,) if isinstance(path, str) else path:
                if find_value(row, own) is None:
                    raise BadRow(f"--map path {own!r} was not found in the row")
            given[name] = path
        layout = infer_layout([row], given).layout
        found = Reader(layout)
        # Verdicts depend on values, and entries on their keys: neither is told by shapes alone.
        if (layout.responses or layout.chosen) and not layout.label:
            if len(_READERS) >= _MOST_READERS:
                _READERS.clear()
            _READERS[key] = found
    return found


def _looks_written_out(value: object) -> bool:
    if not isinstance(value, str):
        return False
    return value.lstrip()[:1] in ("[", "{") or any(
        mark in value
        for mark in ("Human:", "USER:", "User:", "### ", "<|", "<start_of", "<extra_id")
    )


def _given(mapping: Mapping[str, str]) -> dict[str, str | tuple[str, ...]]:
    """`--map` as fields of a layout."""
    found: dict[str, str | tuple[str, ...]] = {}
    for name, path in mapping.items():
        if name not in ("response_a", "response_b"):
            found[name] = path
    if "response_a" in mapping or "response_b" in mapping:
        found["responses"] = (
            mapping.get("response_a", "response_a"),
            mapping.get("response_b", "response_b"),
        )
    return found


def shown_names(row: Mapping[str, object]) -> str:
    """The names of a row's columns, for an error."""
    names = list(row)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def need_value(row: Mapping[str, object], path: str) -> object:
    """The value at a dotted path.

    Raises:
        BadRow: there is none.
    """
    value = find_value(row, path)
    if value is None and path not in row:
        raise BadRow(f"--map path {path!r} was not found in the row")
    return value


def read_id(row: Mapping[str, object]) -> str:
    """The id that a row states, or ""."""
    try:
        return reader_for(row).read_id(row)
    except BadRow:
        return ""


def label_probability(row: Mapping[str, object]) -> float | None:
    """The probability of the better completion that a row states beside a label; None for none."""
    p = _p_a(row) if "label" in row else None
    return None if p is None else max(p, 1.0 - p)


def read_p_chosen(row: Mapping[str, object]) -> float | None:
    """The `p_chosen` that a row states, as it is to be learned; None where it states none.

    A row of a judge that reasons says at most how sure a policy may become of its label
    (`target_clamp`): what people said of it is taken as they said it.

    Raises:
        BadRow: it is no number between 0.5 and 1.
    """
    value = row.get("p_chosen")
    if value in (None, ""):
        return None
    try:
        p = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadRow(f"p_chosen is {value!r}, not a number") from None
    if not 0.5 <= p <= 1.0:
        raise BadRow(f"p_chosen is {p!r}, not between 0.5 and 1")
    evidence = row.get("provenance")
    if isinstance(evidence, Mapping) and evidence.get("status") != "human":
        clamp = evidence.get("target_clamp")
        if isinstance(clamp, float) and 0.5 < clamp < 1.0:
            return min(p, clamp)
    return p


def _p_a(row: Mapping[str, object]) -> float | None:
    try:
        p = float(row["p_a"])  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError):
        return None
    return p if 0.0 <= p <= 1.0 else None


_OWN_MARKS = {"provenance", "prompt_origin"}
"""Columns of rows that a command of this project wrote: all their completions may be learned."""


def taught(found: DataRow, row: Mapping[str, object]) -> DataRow:
    """What of a row may be learned: of a pair both sides, the better one first; of several
    responses with scores the best one; no response that people called bad.

    Of several votes a label is one, drawn by chance, and may be the rarer: `p_a`, where it is
    there, says which completion people prefer.

    Raises:
        BadRow: nothing may be: the pair is a tie, people contradict each other, or all are bad.
    """
    good = [c for c in found.completions if c.good is not False]
    if found.completions and not good:
        raise BadRow("labeled as bad")
    if found.unrated:
        if found.completions[0].score is None:
            raise BadRow("nothing says whether it is good, unlike in other rows")
        raise BadRow("has a score, and nothing says from which score on it is good (`good_from`)")
    winner = found.winner
    if isinstance(winner, int) and found.completions[winner].good is False:
        raise BadRow("the better response is labeled as bad")
    if len(good) < len(found.completions) and winner is None:
        return replace(found, completions=good)
    count = len(found.completions)
    if count == 2:
        return _ranked(found, row)
    if isinstance(found.winner, int) and count > 2:
        return replace(found, completions=[found.completions[found.winner]], winner=None)
    if count > 2 and found.rivals and not row.keys() & _OWN_MARKS:
        raise BadRow(f"has {count} responses, and nothing says which is best")
    return replace(found, completions=good) if len(good) < count else found


def _ranked(found: DataRow, row: Mapping[str, object]) -> DataRow:
    p = _p_a(row) if "label" in row else None
    if p == 0.5:
        raise BadRow("human labels of this pair contradict each other")
    if found.winner == "tie" and p is None:
        raise BadRow("the pair is a tie: neither response is better")
    if found.winner is None and p is None:
        if "label" in row:
            raise BadRow(f"the pair has no winner (label: {row.get('label') or 'none'})")
        if found.rivals and not row.keys() & _OWN_MARKS:
            raise BadRow("has 2 responses, and nothing says which is better")
        return found
    second = p < 0.5 if p is not None else found.winner == 1
    return found.with_winner(1 if second else 0)
