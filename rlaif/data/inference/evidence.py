"""Questions about the cells of columns that several steps ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlaif.data.columns import Column
from rlaif.data.inference.names import (
    LABEL_NAMES,
    NO_LABEL_WORDS,
    PAIR_WORDS,
    SCORE_WORDS,
    WORSE_WORDS,
)
from rlaif.data.inference.state import asks
from rlaif.data.messages import said_of
from rlaif.data.row_cells import entry_text


def index_of(tokens: Sequence[str], words: Sequence[str]) -> int | None:
    """Where `words` stand in `tokens`, one after the other."""
    size = len(words)
    return next(
        (k for k in range(len(tokens) - size + 1) if tuple(tokens[k : k + size]) == tuple(words)),
        None,
    )


def asked_in(value: object, held: object) -> bool:
    """Whether all that the users of a conversation say stands in another one."""
    if value is None:
        return True
    said = " ".join(said_in(held).split())
    turns = value if isinstance(value, list) else [value]
    asked = [
        str(turn.get("input") or said_of(turn) or "")
        for turn in turns
        if isinstance(turn, Mapping) and (asks([turn]) or "input" in turn)
    ]
    return all(" ".join(text.split()) in said for text in asked)


def equal_chats(one: Column, two: Column | None) -> bool:
    """Whether two columns hold the same conversations wherever the first holds one."""
    if two is None:
        return False
    pairs = [(a, b) for a, b in zip(one.values, two.values, strict=True) if a is not None]
    return bool(pairs) and all(a == b for a, b in pairs)


def all_in_chat(column: Column, chat: Column) -> bool:
    """Whether a text stands in the conversation of its row, in every row of the sample."""
    pairs = [
        (str(a), b)
        for a, b in zip(column.cells, chat.values, strict=True)
        if a is not None and b is not None
    ]
    return bool(pairs) and all(
        " ".join(part.split()) in " ".join(said_in(b).split())
        for a, b in pairs
        for part in a.split("\n")
    )


def said_in(chat: object) -> str:
    """All that is said in a conversation, as one text."""
    if isinstance(chat, str):
        return chat
    turns = chat if isinstance(chat, list) else [chat]
    texts = []
    for turn in turns:
        if isinstance(turn, Mapping):
            content = turn["input"] if "input" in turn else said_of(turn)
            if isinstance(content, list):
                content = "\n".join(
                    str(p.get("text", "")) for p in content if isinstance(p, Mapping)
                )
            texts.append(str(content))
    return "\n".join(texts)


def as_number(value: object) -> float | None:
    """The number that a value is or spells; None for none."""
    try:
        return float(str(value))
    except ValueError:
        return None


def all_numbers(values: Iterable[object]) -> bool:
    """Whether all values that are there are numbers or spell them."""
    held = [v for v in values if v is not None]
    return bool(held) and all(as_number(v) is not None for v in held)


def is_numeric(column: Column) -> bool:
    """Whether a column holds numbers, or texts that spell them."""
    return column.shape == "number" or (column.shape == "text" and all_numbers(column.cells))


def _all_numeric_texts(column: Column) -> bool:
    return column.shape == "texts" and all(
        all_numbers(v) for v in column.values if isinstance(v, list)
    )


def entries_of(column: Column) -> list[Mapping[str, Any]]:
    """The mappings in a column's lists."""
    return [
        entry
        for value in column.values
        if isinstance(value, list)
        for entry in value
        if isinstance(entry, Mapping)
    ]


def entry_keys(column: Column) -> list[str]:
    """The keys of a column's entries, in the order in which they come up."""
    return list(dict.fromkeys(str(k) for entry in entries_of(column) for k in entry))


def _entries_numeric(column: Column, key: str) -> bool:
    held = [e[key] for e in entries_of(column) if e.get(key) is not None]
    return bool(held) and all(
        isinstance(v, int | float) or (isinstance(v, str) and as_number(v) is not None)
        for v in held
    )


def _has_texts(column: Column) -> bool:
    return all(entry_text(entry) is not None for entry in entries_of(column))


def are_parallel(column: Column, own: Column) -> bool:
    """Whether two columns hold lists of equal length in every row."""
    pairs = [
        (a, b)
        for a, b in zip(column.values, own.values, strict=True)
        if isinstance(a, list) and isinstance(b, list)
    ]
    return column is not own and bool(pairs) and all(len(a) == len(b) for a, b in pairs)


def _nested(column: Column) -> list[str]:
    """Paths of the leaves in the entries of a list, with `[]` where a list is gone through."""
    found: dict[str, None] = {}

    def walk(value: object, path: str, depth: int) -> None:
        if depth > 6:
            return
        if isinstance(value, list):
            for item in value:
                walk(item, f"{path}[]", depth + 1)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                walk(item, f"{path}.{key}", depth + 1)
        elif value is not None:
            found[path] = None

    for value in column.values:
        walk(value, column.path, 0)
    return list(found)


def label_rank(tokens: Sequence[str], name: str) -> int | None:
    """How likely a column with this name says who won, 0 the likeliest; None: not."""
    if (NO_LABEL_WORDS | WORSE_WORDS) & set(tokens):
        return None
    ranks = [LABEL_NAMES[n] for n in (name, *tokens) if n in LABEL_NAMES]
    return min(ranks, default=None)


def score_rank(tokens: Iterable[str]) -> int:
    """Which score of several a column with this name is, 0 the most general."""
    return min((SCORE_WORDS.get(t, 99) for t in tokens), default=99)


def find_twins(columns: Iterable[Column]) -> Iterator[tuple[Column, Column]]:
    """Columns about the better and the worse of two: `score_chosen` and `score_rejected`."""
    by_tokens = {column.tokens: column for column in columns}
    for tokens, column in by_tokens.items():
        for good, bad in PAIR_WORDS:
            at = index_of(tokens, good)
            if at is None:
                continue
            twin = by_tokens.get((*tokens[:at], *bad, *tokens[at + len(good) :]))
            if twin is not None:
                yield column, twin
