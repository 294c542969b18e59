"""Finds rows that hold something where the sample, which says how data is read, holds nothing.

A path names a column, a part of one (`meta.context`), or what the entries of a list have
(`completions[].image`).  Parts whose names are data, such as models, are not told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlaif.data.columns import (
    LIST_WORDS,
    column_of,
    named_entries,
    names_media,
    shape_of,
    tokens_of,
)
from rlaif.data.flags import write_ignore
from rlaif.data.inference.metadata import known_metadata
from rlaif.data.inference.names import (
    CONTEXT_NAMES,
    MEDIA_WORDS,
    OWN_COLUMNS,
    QUALITY_WORDS,
    SWAPPED,
    SYSTEM_NAMES,
)
from rlaif.data.layout import code_of
from rlaif.data.messages import BadRow, is_turn

DEPTH = 3
"""How deep mappings and lists of them are looked into."""
MOST_PATHS = 400
"""With more paths in a sample than this, names in mappings are data: only columns are told."""
_WEIGHTY = (
    QUALITY_WORDS
    | MEDIA_WORDS
    | CONTEXT_NAMES
    | SWAPPED
    | {"annotator", "bad", "good", "label", "retracted", "tie", "winner"}
)
_TIES = {"tie", "tied"}
_RATING = QUALITY_WORDS | {"discarded", "state", "status", "withdrawn"}
_THROWN = {"discarded", "discard", "dropped", "failed", "reject", "rejected", "removed"}
"""What marks a row that somebody threw away; in the first rows it would have been asked about."""
_TURN_KEYS = {
    "role",
    "from",
    "content",
    "value",
    "text",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "reasoning_content",
    "reasoning",
    "thinking",
    "tools",
    "type",
    "parts",
    "id",
    "index",
    "refusal",
    "timestamp",
    "images",
    "image",
    "weight",
    "train",
}
"""Parts of a message that are read, or said to be unreadable, wherever they come up."""


def find_filled(rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """The paths that hold something in some row, in the order in which they come up."""
    found: dict[str, None] = {}
    for row in rows:
        for path, _ in _paths(row):
            found.setdefault(path)
    if len(found) > MOST_PATHS:
        return tuple(dict.fromkeys(str(k) for row in rows for k, v in row.items() if _is_filled(v)))
    return tuple(found)


def _is_filled(value: object) -> bool:
    return not (value is None or value == "" or value == [] or value == {}) and (
        not isinstance(value, float) or value == value
    )


def _paths(
    value: Mapping[Any, object], prefix: str = "", depth: int = DEPTH
) -> Iterator[tuple[str, object]]:
    """What a mapping holds, by path; a message's own parts are left out."""
    turn = bool(prefix) and is_turn(value)
    for name, held in value.items():
        if not _is_filled(held) or (turn and name in _TURN_KEYS):
            continue
        path = f"{prefix}{name}"
        yield path, held
        yield from _inner_paths(str(name), held, path, depth)


def _inner_paths(name: str, held: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    if depth < 2:
        return
    if isinstance(held, Mapping) and named_entries(name, held) is None:
        yield from _paths(held, f"{path}.", depth - 1)
    elif isinstance(held, list):
        for item in held:
            if isinstance(item, Mapping):
                yield from _paths(item, f"{path}[].", depth - 1)


class DeviationFinder:
    """Checks rows against what the sample held.

    Args:
        known: the sample's paths.
        named: paths that a layout names: what is there is read as it says.
        ignored: paths that it leaves out, with all that lies in them.
    """

    def __init__(self, known: Iterable[str], named: Iterable[str], ignored: Iterable[str]) -> None:
        self._known = frozenset(known)
        self._nested = any("." in path or "[" in path for path in self._known)
        self._named, self._ignored = frozenset(named), frozenset(ignored)
        self._turning = [
            path
            for path in self._known - self._named - self._ignored
            if (SWAPPED | _TIES) & set(tokens_of(path)) and "." not in path and "[" not in path
        ]
        self._rating = [
            path
            for path in self._known - self._named - self._ignored
            if _RATING & set(tokens_of(path)) and "." not in path and "[" not in path
        ]
        # Rows that are filled alike are looked at once.
        self._seen: set[tuple[str, ...]] = set()
        self._lists: dict[str, bool] = {}

    def check(self, row: Mapping[str, Any]) -> None:
        """Refuse a row with something that the sample did not have, and that may matter.

        Raises:
            BadRow: it has.
        """
        if not self._known:
            return
        # Zero and false are something.
        filled = tuple([k for k, v in row.items() if v or v == 0])
        if filled not in self._seen:
            for name in filled:
                if name not in self._known:
                    self._judge(name, row[name])
            self._remember(filled)
        for name in self._turning:
            if code_of(row.get(name)) in ("true", "1", "yes"):
                raise BadRow(
                    f"column {name!r} is set, unlike in the first rows, and may change the "
                    f"verdict; leave it out with {write_ignore(name)}"
                )
        for name in self._rating:
            if code_of(row.get(name)) in _THROWN:
                raise BadRow(
                    f"column {name!r} is {str(row[name])[:40]!r}, unlike in the first rows; leave "
                    f"it out with {write_ignore(name)}"
                )
        if self._nested:
            for name, value in row.items():
                kind = type(value)
                if (kind is dict or kind is list) and name in self._known:
                    self._check_inside(name, name, value, DEPTH)

    def _check_inside(self, name: str, path: str, value: Any, depth: int) -> None:
        """Check what a mapping, or the mappings of a list, hold."""
        if depth < 2:
            return
        if type(value) is list:
            prefix, items = f"{path}[].", value
        elif self._holds_list(name) and named_entries(name, value) is not None:
            return  # responses by model: their names are data
        else:
            prefix, items = f"{path}.", [value]
        for item in items:
            if type(item) is not dict:
                continue
            filled = (prefix, *[k for k, v in item.items() if v or v == 0])
            if filled not in self._seen:
                for inner, held in _paths(item, prefix, 1):
                    if inner not in self._known:
                        self._judge(inner, held)
                self._remember(filled)
            for key, held in item.items():
                kind = type(held)
                if (kind is dict or kind is list) and f"{prefix}{key}" in self._known:
                    self._check_inside(key, f"{prefix}{key}", held, depth - 1)

    def _holds_list(self, name: str) -> bool:
        if name not in self._lists:
            self._lists[name] = bool(LIST_WORDS & set(tokens_of(name)))
        return self._lists[name]

    def _remember(self, filled: tuple[str, ...]) -> None:
        if len(self._seen) < 10_000:
            self._seen.add(filled)

    def _judge(self, path: str, value: object) -> None:
        """Whether a part that the sample did not have may matter.

        Raises:
            BadRow: it may.
        """
        if not _is_filled(value) or path in OWN_COLUMNS or shape_of(value) == "empty":
            return
        heads = {path[:k] for k, letter in enumerate(path) if letter in ".["} | {path}
        if path in self._named or heads & self._ignored:
            return
        if any(head.split(".")[0] in OWN_COLUMNS for head in heads):
            return
        if isinstance(value, Mapping) and named_entries(path, value) is None:
            for inner, held in _paths(value, f"{path}.", 1):
                self._judge(inner, held)
            return
        column = column_of(path, [value])
        told = column.shape in ("text", "number", "mapping", "flag") and known_metadata(column)
        matters = (
            _WEIGHTY & set(column.tokens)
            or column.name in SYSTEM_NAMES
            or {"system", "prompt"} <= set(column.tokens)
            or names_media(value)
        )
        inside = "." in path or "[" in path
        if inside and column.shape in ("number", "mapping") and not matters:
            return
        if not told or matters:
            raise BadRow(
                f"column {path!r} is not in the first rows, which say how data is read, or is "
                f"empty in them; leave it out with {write_ignore(path)}"
            )
