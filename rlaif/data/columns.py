"""Looks at the columns of a sample of rows: their paths, their shapes, and what cells hold."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from rlaif.data.messages import is_chat, is_turn
from rlaif.data.row_common import tokens_of as tokens_of
from rlaif.data.tool_calls import is_call
from rlaif.util.doubled_keys import DoubledKey, refuse_doubles

ColumnShape = Literal[
    "empty",  # nothing, in any form
    "flag",
    "number",
    "text",
    "media",  # bytes, or a mapping with bytes or a path of a picture or sound
    "chat",  # one message or a list of them
    "chats",  # a list of lists of messages
    "texts",
    "numbers",
    "flags",
    "exchanges",  # a list of [question, answer]
    "entries",  # a list of mappings
    "mapping",
    "other",
]
DEPTH = 4
"""How deep nested mappings are looked into."""
MOST = 500
"""The most columns that are looked at; with more, mappings stay whole: their keys are data."""
_ADJACENT = re.compile(r"['\"]\s+['\"]")
_NUMPY_ROWS = re.compile(r"\}[ \t\r]{0,100}\n[ \t]{0,100}\{")


def shape_of(value: object) -> ColumnShape:
    """What kind of value a cell holds."""
    if value is None or value == "" or value == [] or value == {}:
        return "empty"
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "text" if value.strip() else "empty"
    if _is_media(value):
        return "media"
    if isinstance(value, Mapping):
        return "chat" if is_turn(value) else "mapping"
    if not isinstance(value, list):
        return "other"
    return _list_shape(value)


def _list_shape(value: list[Any]) -> ColumnShape:
    held = [item for item in value if item is not None]
    if not held:
        return "empty"
    if is_chat(held):
        return "chat"
    kinds: tuple[tuple[ColumnShape, Any], ...] = (
        ("flags", lambda v: isinstance(v, bool)),
        ("numbers", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
        ("texts", lambda v: isinstance(v, str)),
        ("media", _is_media),
        ("entries", lambda v: isinstance(v, Mapping)),
        ("chats", is_chat),
        ("exchanges", _is_exchange),
        ("entries", lambda v: isinstance(v, str | Mapping)),
        ("chats", lambda v: isinstance(v, str) or is_chat(v)),
    )
    return next((shape for shape, fits in kinds if all(map(fits, held))), "other")


_MEDIA_FILE = re.compile(
    r"(?:\S{1,400}|[\w./-]{1,300}/[\w ()-]{1,100})\."
    r"(?:png|jpe?g|gif|webp|bmp|tiff?|svg|heic|pdf|wav|mp3|flac|ogg|m4a|mp4|avi|mov|mkv|webm"
    r"|docx?|odt|pptx?|xlsx?)"
    r"(?:\?\S*)?|data:(?:image|audio|video|application)/\S+",
    re.IGNORECASE,
)


_PICTURE_BYTES = ("iVBORw0KGgo", "/9j/4", "R0lGOD", "UklGR")
"""How PNG, JPEG, GIF and WebP begin in base 64."""


def names_media(value: object) -> bool:
    """Whether a cell is nothing but the path or the address of a picture, a sound or a film; or a
    list of these, or of mappings with one.
    """
    if isinstance(value, list):
        return bool(value) and all(not isinstance(v, list) and names_media(v) for v in value)
    if isinstance(value, Mapping):
        kind = str(value.get("type", value.get("mime", value.get("mimeType", ""))))
        return kind.startswith(("image", "audio", "video")) or any(
            isinstance(v, str) and names_media(v) for v in value.values()
        )
    if not isinstance(value, str):
        return False
    text = value.strip()
    return text.startswith(_PICTURE_BYTES) or bool(_MEDIA_FILE.fullmatch(text))


def _is_media(value: object) -> bool:
    if isinstance(value, Mapping):
        return value.keys() <= {"bytes", "path"} and "bytes" in value
    return isinstance(value, bytes)


def _is_exchange(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


_LONGEST_LITERAL = 1 << 20


def decode(value: object) -> object:
    """A list or an object that was written out as JSON or as Python, as itself; else the value."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text or text[0] + text[-1] not in ("[]", "{}"):
        return value
    try:
        return json.loads(text, object_pairs_hook=refuse_doubles)
    except DoubledKey:
        return value  # which of the two is meant is not known
    except (ValueError, RecursionError):
        pass
    # `DataFrame.to_csv` writes an array of objects without commas between them.
    for literal in (text, _NUMPY_ROWS.sub("},\n{", text)):
        try:
            if len(literal) > _LONGEST_LITERAL:
                continue  # its tree would take hundreds of times as much memory
            return _separated(literal) or ast.literal_eval(literal)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return value


def _separated(literal: str) -> list[str] | None:
    """The texts of an array that numpy wrote, with no commas between them; None for others.

    Python would read `['a' 'b']` as one text.
    """
    if not _ADJACENT.search(literal):
        return None
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(literal).readline))
    except (tokenize.TokenError, SyntaxError):
        return None
    kept = [t for t in tokens if t.type in (tokenize.STRING, tokenize.OP, tokenize.NUMBER)]
    texts = [t.string for t in kept[1:-1]]
    if len(texts) < 2 or any(t.type != tokenize.STRING for t in kept[1:-1]):
        return None
    return [str(ast.literal_eval(text)) for text in texts]


def leaves(
    row: Mapping[str, object], prefix: str = "", depth: int = DEPTH
) -> Iterator[tuple[str, object]]:
    """The values of a row by dotted path; messages and media are not looked into.

    A mapping from models to their responses is one value, a list of entries; so are the scores by
    model beside it.
    """
    models = [
        frozenset(value)
        for name, value in row.items()
        if isinstance(value, Mapping) and named_entries(name, value) is not None
    ]
    for name, value in row.items():
        path = f"{prefix}{name}"
        entries = named_entries(name, value)
        if entries is not None:
            yield path, entries
        elif isinstance(value, Mapping) and frozenset(value) in models and _all_numbers(value):
            yield path, list(value.values())
        elif is_call(value):
            yield path, [value]
        elif depth > 1 and shape_of(value) == "mapping":
            yield from leaves(value, f"{path}.", depth - 1)  # type: ignore[arg-type]
        else:
            yield path, value


LIST_WORDS = {
    "responses",
    "completions",
    "candidates",
    "generations",
    "outputs",
    "answers",
    "choices",
    "replies",
    "summaries",
    "continuations",
    "solutions",
    "options",
    "samples",
    "sampled",
    "rollouts",
    "branches",
    "drafts",
    "attempts",
    "hypotheses",
    "beams",
}
"""Words of columns that hold several responses."""
_SIDES = {"chosen", "rejected", "left", "right", "first", "second", "one", "two", "better", "worse"}


def named_entries(name: str, value: object) -> list[dict[str, Any]] | None:
    """Responses by the model that wrote them, as a list of entries; None for other values."""
    words = tokens_of(name)
    if not isinstance(value, Mapping) or not words or words[-1] not in LIST_WORDS:
        return None
    if len(value) < 2 or is_turn(value) or not all(isinstance(key, str) for key in value):
        return None
    if not all(isinstance(v, str) or is_chat(v) or is_turn(v) for v in value.values()):
        return None
    ends = [tokens_of(key)[-1:] for key in value]
    sided = all(end and (len(end[0]) == 1 or end[0] in _SIDES) for end in ends)
    if sided and len({tokens_of(key)[:-1] for key in value}) == 1:
        return None  # `a` and `b`: columns of their own
    return [{"model": key, "response": text} for key, text in value.items()]


def _all_numbers(value: Mapping[str, object]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in value.values())


def dig(row: Mapping[str, object], path: str) -> object:
    """The value at a dotted path; None where there is none.

    A whole column name wins over a path; a step may be the number of a list's entry.
    """
    if path in row:
        return row[path]
    if not path:
        return None
    value: object = row
    rest = path
    while rest:
        if isinstance(value, str):
            value = decode(value)  # an object that was written out as text
        if isinstance(value, Mapping):
            if rest in value:
                return value[rest]
            # The longest name of a column that the path begins with: names may hold dots.
            step = next(
                (
                    n
                    for n in sorted(map(str, value), key=len, reverse=True)
                    if rest.startswith(f"{n}.")
                ),
                None,
            )
            if step is None:
                return None
            value, rest = value[step], rest[len(step) + 1 :]
        elif isinstance(value, list):
            step, _, rest = rest.partition(".")
            if not (step.isascii() and step.isdigit() and int(step) < len(value)):
                return None
            value = value[int(step)]
        else:
            return None
    return value


def reaches(row: Mapping[str, object], path: str) -> bool:
    """Whether a row has the column that a path begins with, and the parts that it names in it."""
    head = path.split("[")[0]
    if head in row:
        return True
    parents = [head[:k] for k, letter in enumerate(head) if letter == "."]
    first = next((p for p in reversed(parents) if p in row), None)
    if first is None:
        return False
    found = decode(row[first])
    for step in head[len(first) + 1 :].split("."):
        if isinstance(found, Mapping) and step in found:
            found = found[step]
        elif (
            isinstance(found, list) and step.isascii() and step.isdigit() and int(step) < len(found)
        ):
            found = found[int(step)]
        else:
            return isinstance(found, Mapping) and any(str(k).startswith(f"{step}.") for k in found)
    return True


@dataclass
class Column:
    """One column of a sample, by its dotted path.

    Attributes:
        shape: what most of its cells hold, after decoding.
        encoded: whether its cells are text that holds a list or an object.
        filled: in how many rows it holds something.
        values: what it holds, decoded, row by row; None for nothing.
        cells: the same as it stands in the file.
    """

    path: str
    shape: ColumnShape = "empty"
    encoded: bool = False
    filled: int = 0
    values: list[Any] = field(default_factory=list)
    cells: list[Any] = field(default_factory=list)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The words of its name, lower case."""
        return tokens_of(self.path)

    @property
    def name(self) -> str:
        """The last part of its path in snake case; of `prompt.text` it is `prompt`."""
        *parents, last = self.path.split(".")
        if parents and last.lower() in ("text", "content", "value"):
            last = parents[-1]
        return "_".join(tokens_of(last))


def look_at(rows: Sequence[Mapping[str, object]]) -> dict[str, Column]:
    """The columns of a sample, in the order in which they come up."""
    rows = _written_out(rows)
    for depth in range(DEPTH, 0, -1):
        if depth == 1 or len({path for row in rows for path, _ in leaves(row, "", depth)}) <= MOST:
            break
    columns: dict[str, Column] = {}
    raw: dict[str, list[Any]] = {}
    blank: set[str] = set()
    for number, row in enumerate(rows):
        for path, value in leaves(row, "", depth):
            cells = raw.setdefault(path, [])
            cells.extend([None] * (number - len(cells)))
            cells.append(None if shape_of(value) == "empty" else value)
            if isinstance(value, str):
                blank.add(path)
    for path, cells in raw.items():
        cells.extend([None] * (len(rows) - len(cells)))
        columns[path] = column_of(path, cells)
        if path in blank and not columns[path].filled:
            # Texts that are all empty are texts: an empty answer is one.
            held = [dig(row, path) for row in rows]
            columns[path] = Column(path, "text", filled=len(held), values=held, cells=held)
    return columns


_ASKED = {"prompt", "question", "instruction", "query", "problem", "input"}
_ANSWERED = {"chosen", "rejected", "response", "responses", "answer", "answers", "completion"}


def _written_out(rows: Sequence[Mapping[str, object]]) -> Sequence[Mapping[str, object]]:
    """The rows with objects that stand in one cell, as text, taken apart."""
    held: dict[str, list[object]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and value != "":
                held.setdefault(name, []).append(value)
    # Beside columns with questions or answers, what else looks like a row is an answer in JSON.
    alone = not held.keys() & (_ASKED | _ANSWERED)
    opened = set()
    for name, cells in held.items():
        if not all(isinstance(cell, str) and cell.lstrip()[:1] == "{" for cell in cells):
            continue
        keys = [set(d) if isinstance(d := decode(cell), Mapping) else set() for cell in cells]
        whole = alone and all(_ASKED & own and _ANSWERED & own for own in keys)
        if _may_be_text(name) and not whole and not all(map(_logged, keys)):
            continue  # an answer or a question in JSON is a text
        if all(keys):
            opened.add(name)
    if not opened:
        return rows
    return [{k: decode(v) if k in opened else v for k, v in row.items()} for row in rows]


_LOGGED = {"candidates", "choices", "contents", "messages"}
"""Keys of what was sent to a model's server, and of what it answered."""
_WRITTEN = {"answers", "arguments", "code", "completions", "content", "generated", "generation"}
_WRITTEN |= {"generations", "output", "outputs", "prediction", "prompts", "query", "reply"}
_WRITTEN |= {"schema", "solution", "summary", "target", "text", "texts", "candidate", "output"}


def _logged(keys: set[str]) -> bool:
    return bool(_LOGGED & keys)


def _may_be_text(name: str) -> bool:
    """Whether texts in JSON under a name may be what was asked or answered, and no part of it."""
    return bool(set(tokens_of(name)) & (_ASKED | _ANSWERED | _WRITTEN))


def column_of(path: str, cells: list[Any]) -> Column:
    """A column with its cells, row by row; None for nothing."""
    plain = Counter(shape_of(v) for v in cells if v is not None)
    filled = sum(plain.values())
    if not filled:
        return Column(path, cells=cells, values=cells)
    if plain["text"] == filled:
        decoded = [decode(v) for v in cells]
        shapes = Counter(shape_of(v) for v in decoded if v is not None)
        if not shapes["text"] and set(shapes) != {"empty"}:
            shape = next(s for s, _ in shapes.most_common() if s != "empty")
            # A cell `{}` or `[]` among lists is an empty one.
            values = [None if shape_of(v) == "empty" else v for v in decoded]
            values = [[v] if is_call(v) else v for v in values]
            shape = "entries" if any(is_call(v) for v in decoded) else shape
            return Column(path, shape, encoded=True, filled=filled, values=values, cells=cells)
    return Column(
        path, plain.most_common(1)[0][0], encoded=False, filled=filled, values=cells, cells=cells
    )
