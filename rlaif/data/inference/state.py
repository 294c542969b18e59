"""What an inference knows so far: columns that are taken, and fields of the layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.columns import LIST_WORDS, Column
from rlaif.data.inference.names import OWN_COLUMNS
from rlaif.data.messages import ROLES, are_rivals, role_of
from rlaif.data.tool_calls import is_calls
from rlaif.data.transcripts import infer_form
from rlaif.data.verdict_codes import SIDE_WORDS

TEXTUAL = {"text", "chat"}
_OF_LISTS = {
    "prompt",
    "responses",
    "chosen",
    "rejected",
    "history",
    "order",
    "label",
    "good",
    "bad",
    "thread_by",
}
"""Fields whose paths into a list take the list."""


@dataclass
class Family:
    """Columns that are the same thing for each side: `response_a`, `response_b`."""

    base: tuple[str, ...]
    sides: list[str]
    paths: list[str]


@dataclass
class Inference:
    """What is known so far: each step claims columns and sets fields of the layout.

    Attributes:
        unread: columns that are read as plain text, and what they seem to hold instead.
        claimed: all paths that were taken, with those into the entries of lists.
        least: in how many rows of the sample a column must hold something to be looked at.
    """

    columns: dict[str, Column]
    fields: dict[str, Any]
    rows: list[Mapping[str, object]]
    roles: dict[str, str] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    given: frozenset[str] = frozenset()
    refusal: str = ""
    unread: dict[str, str] = field(default_factory=dict)
    least: float = 0
    claimed: set[str] = field(default_factory=set)

    def claim(self, path: str, role: str, *, whole: bool = True) -> None:
        """Take a column, or what it holds, for a role; the first claim stands.

        Args:
            whole: whether the column that the path begins with is taken, too.
        """
        self.claimed.add(path)
        for column in self.columns:
            inside = whole and path.startswith((f"{column}.", f"{column}["))
            if column == path or inside:
                self.roles.setdefault(column, role)
        if path not in self.columns:  # a mapping that was looked into
            for column in self.columns:
                if column.startswith(f"{path}."):
                    self.roles.setdefault(column, role)

    def set(self, name: str, value: Any, role: str = "") -> None:
        """Set a field of the layout that the user did not set, and claim its columns."""
        if name in self.given:
            return
        self.fields[name] = value
        for path in (value,) if isinstance(value, str) else value:
            self.claim(path, role or name)

    def claim_given(self) -> None:
        """Claim the columns that the user named."""
        for name in self.given & {
            "prompt",
            "context",
            "history",
            "system",
            "tools",
            "responses",
            "calls",
            "chosen",
            "rejected",
            "scores",
            "order",
            "label",
            "good",
            "bad",
            "names",
            "origins",
            "media",
            "id",
            "tags",
            "reference",
            "rubric",
            "group_by",
            "thread_by",
            "turn",
        }:
            value = self.fields[name]
            for path in (value,) if isinstance(value, str) else value:
                for own in re.findall(r"\{([^{}]+)\}", path) or [path]:
                    # Something beside the texts of a list leaves the list to its texts.
                    self.claim(own, name, whole="[]" not in own or name in _OF_LISTS)
        for path in self.fields.get("ignore", ()):
            self.claim(path, "ignored", whole=False)

    def claim_own(self) -> None:
        """Claim columns that this project's own files have."""
        for path in self.columns:
            head = path.split(".")[0]
            if head in OWN_COLUMNS:
                self.roles.setdefault(path, OWN_COLUMNS[head])

    def free(self, shapes: Iterable[str] | None = None) -> list[Column]:
        """Columns that are not taken, with something in them, of some shapes."""
        kept = set(shapes) if shapes is not None else None
        return [
            c
            for c in self.columns.values()
            if c.path not in self.roles
            and c.filled
            and c.filled >= self.least
            and (kept is None or c.shape in kept)
        ]

    def texts(self) -> list[Column]:
        """Columns that can hold a response: text, text that only looks like something else, or
        tool calls.
        """
        return [c for c in self.free() if c.shape in TEXTUAL or c.encoded or are_calls(c)]

    def families(self, columns: Iterable[Column]) -> list[Family]:
        """Columns whose names differ in one word that names a side."""
        groups: dict[tuple[tuple[str, ...], int, int], dict[str, str]] = {}
        for column in columns:
            tokens = column.tokens
            for at, word in enumerate(tokens):
                for kind, words in enumerate(SIDE_WORDS):
                    if word in words and len(tokens) > 1:
                        base = (*tokens[:at], "*", *tokens[at + 1 :])
                        groups.setdefault((base, at, kind), {})[word] = column.path
        found = []
        for (base, _, kind), members in groups.items():
            names = [w for w in SIDE_WORDS[kind] if w in members]
            starts = {("a", "b"), ("0", "1"), ("1", "2"), ("left", "right"), ("first", "second")}
            if len(names) >= 2 and (names[0], names[1]) in starts:
                found.append(Family(base, names, [members[w] for w in names]))
        return found

    def count(self) -> int:
        """How many columns hold a response each."""
        if self.fields.get("chosen"):
            return 2
        paths = self.fields.get("responses", ())
        return len(paths)

    def is_list(self) -> bool:
        """Whether one column holds a list of responses."""
        paths = self.fields.get("responses", ())
        own = self.columns.get(paths[0]) if len(paths) == 1 else None
        return own is not None and (own.shape in ("texts", "entries", "chats") or holds_rivals(own))

    def pair_has_prompt(self) -> bool:
        """Whether the responses are whole conversations that begin with what was asked."""
        paths = [self.fields.get("chosen"), *self.fields.get("responses", ())]
        columns = [self.columns[p] for p in paths if p in self.columns]
        return any(
            c.shape == "chat" and any(asks(v) for v in c.values if v is not None) for c in columns
        ) or any(form_of(c) is not None for c in columns)


def holds_rivals(column: Column) -> bool:
    """Whether a column's lists of messages are answers of an assistant alone, several in a row."""
    lists = [v for v in column.values if isinstance(v, list)]
    return (
        column.shape == "chat"
        and bool(LIST_WORDS & set(column.tokens[-2:]))
        and any(len(v) > 1 for v in lists)
        and all(map(are_rivals, lists))
    )


def are_calls(column: Column) -> bool:
    """Whether all lists of a column hold nothing but tool calls."""
    lists = [v for v in column.values if isinstance(v, list) and v]
    return column.shape == "entries" and bool(lists) and all(map(is_calls, lists))


def asks(value: object) -> bool:
    """Whether a user or a system prompt speaks in a conversation."""
    turns = value if isinstance(value, list) else [value]
    return any(
        isinstance(t, Mapping) and ROLES.get(role_of(t).lower()) in ("user", "system", "developer")
        for t in turns
    )


def form_of(column: Column, *, prompt: bool = False) -> str | None:
    """The form in which a column's texts are conversations; most of them must be.

    Args:
        prompt: the column is a prompt beside responses in columns of their own.
    """
    cells = [v for v in column.cells if isinstance(v, str)]
    form = infer_form(cells, prompt=prompt) if cells and not column.encoded else None
    return form.name if form else None
