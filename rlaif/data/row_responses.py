"""Reads the responses of a row, who wrote them, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlaif.data.columns import LIST_WORDS, decode, dig, named_entries, shape_of, tokens_of
from rlaif.data.layout import code_of
from rlaif.data.messages import (
    ROLES,
    BadRow,
    Chat,
    are_rivals,
    check_text,
    is_chat,
    is_turn,
    is_unwanted,
    read_chat,
    read_texts,
    role_of,
)
from rlaif.data.origins import completion_origin, read_origin
from rlaif.data.row_cells import (
    ASKING,
    ORIGIN_KEYS,
    TEXT_KEYS,
    CellReader,
    entry_text,
    number_of,
    read_fault,
    read_flag,
    values_at,
)
from rlaif.data.row_model import Completion
from rlaif.data.tool_calls import is_call, is_calls, read_calls
from rlaif.data.transcripts import read_transcript, strip_ends
from rlaif.data.verdict_codes import read_order, sides_of, split_order
from rlaif.records import Message, Origin

_SIGNED = {"provenance", "origin"}
"""Columns that say where texts come from, beside those of a layout."""


_NO_SCORE = {"", "none", "nan", "null", "n/a", "na", "-"}
"""How tables write that there is no score."""


class ResponseReader(CellReader):
    """Reads what was answered."""

    def _candidates(
        self, row: Mapping[str, Any], own: list[Message], media: list[str], tools: list[Any]
    ) -> list[Completion]:
        layout = self.layout
        entries: list[Any] = []
        sides: tuple[str, ...]
        if layout.chosen:
            sides = (layout.chosen, layout.rejected)
            values = [self._cell(row, path) for path in sides]
            if all(shape_of(v) == "texts" for v in values):
                found = [
                    replace(
                        self._candidate(v, p, own, media=media, tools=tools), score=float(1 - k)
                    )
                    for k, (p, several) in enumerate(zip(sides, values, strict=True))
                    for v in several
                ]
                columns = [p for p, several in zip(sides, values, strict=True) for _ in several]
                return self._written_by(row, columns, [], found)
        elif len(layout.responses) == 1:
            sides, values, entries = self._listed(row, layout.responses[0])
        elif not layout.responses:
            return []
        else:
            sides = layout.responses
            values = [self._cell(row, path) for path in sides]
        called: list[list[dict[str, Any]]] = []
        if self.layout.calls:
            called = self._called(row, entries, len(values))
            values = [v or "" if calls else v for v, calls in zip(values, called, strict=True)]
        values = [v if isinstance(v, str) or shape_of(v) != "empty" else None for v in values]
        if None in values:
            empty = [p for p, v in zip(sides, values, strict=True) if v is None]
            if len(empty) == len(values):
                raise BadRow(f"no responses: {', '.join(map(repr, dict.fromkeys(sides)))} is empty")
            raise BadRow(f"column {empty[0]!r} is empty")
        if layout.turn:
            values = [_until_turn(v, dig(row, layout.turn)) for v in values]
        found = [
            self._candidate(v, p, own, media=media, tools=tools)
            for v, p in zip(values, sides, strict=True)
        ]
        if called:
            found = [_with_calls(c, calls) for c, calls in zip(found, called, strict=True)]
        if self._are_turns(own, values):
            found = _interleaved(own, values)
        elif all(c.prompt for c in found) and len({tuple(map(str, c.prompt)) for c in found}) > 1:
            if any(map(self._form, sides)):
                # In a transcript, a mark inside an answer looks like a turn.
                raise BadRow("the responses do not continue the same conversation")
            found = _after_common(found)
        written = self._named(row, self._written_by(row, sides, entries, found))
        return self._rated(row, self._scored(row, written))

    def _called(
        self, row: Mapping[str, Any], entries: Sequence[Any], count: int
    ) -> list[list[dict[str, Any]]]:
        """The tool calls that stand beside each response."""
        paths = self.layout.calls
        if len(paths) == 1 and "[]." in paths[0]:
            key = paths[0].rsplit("[].", 1)[1]
            cells = [e.get(key) if isinstance(e, Mapping) else None for e in entries]
        else:
            cells = [self._cell(row, path) if path else None for path in paths]
        if len(cells) == 1 and count > 1 and isinstance(cells[0], list):
            cells = cells[0]  # a list with the calls of each response
        if len(cells) != count:
            raise BadRow(f"{count} responses have tool calls in {len(cells)} places")
        return [read_calls(cell, paths[k % len(paths)]) for k, cell in enumerate(cells)]

    def _call_beside(self, row: Mapping[str, Any], found: list[Completion]) -> list[Completion]:
        """The last answer of a conversation with the calls that stand in a column beside it."""
        if not self.layout.calls:
            return found
        called = self._called(row, [], len(found))
        return [_with_calls(c, calls) for c, calls in zip(found, called, strict=True)]

    def _listed(
        self, row: Mapping[str, Any], path: str
    ) -> tuple[tuple[str, ...], list[Any], list[Any]]:
        """The one response of a column, or those that its list holds, with the list's entries."""
        value = self._cell(row, path) if "[]" not in path else values_at(row, path)
        value = named_entries(path.rsplit(".", 1)[-1], value) or value
        listed = LIST_WORDS & set(tokens_of(path)[-2:]) and are_rivals(value)
        if isinstance(value, list) and value and (listed or not is_chat(value)):
            texts = [entry_text(item) for item in value]
            if any(text is None for text in texts):
                raise BadRow(f"an entry of {path!r} has none of the fields {', '.join(TEXT_KEYS)}")
            return (path,) * len(texts), texts, value
        return (path,), [value], []

    def _are_turns(self, own: list[Message], values: Sequence[Any]) -> bool:
        """Whether responses are lists of answers, one for each turn of the prompt."""
        asked = sum(m["role"] == "user" for m in own)
        return (
            len(self.layout.responses) > 1
            and isinstance(values[0], list)
            and all(shape_of(v) == "texts" for v in values)
            and all(len(v) == len(values[0]) for v in values)
            and len(values[0]) == len(own)
            and asked > 0
        )

    def _candidate(
        self, value: Any, path: str, own: list[Message], media: list[str], tools: list[Any]
    ) -> Completion:
        form = self._form(path)
        if isinstance(value, str):
            if value[:1] in "[{" and '"role"' in value and is_chat(decode(value)):
                raise BadRow(
                    f"column {path!r} holds messages written out as text, unlike the first rows"
                )
            if form is not None:
                turns = read_transcript(value, form)
                if turns and turns[-1]["role"] == "assistant" and _continues(turns[:-1], own):
                    return Completion(turns[-1:], turns[:-1])
                value = strip_ends(value, form)
            else:
                for prompt_form in map(self._form, self.layout.prompt):
                    value = strip_ends(value, prompt_form) if prompt_form else value
            return Completion([{"role": "assistant", "content": check_text(value)}])
        if shape_of(value) == "texts":
            return Completion(read_texts(value, path, first="assistant"))
        if isinstance(value, Mapping) and is_turn(value):
            # One message is the answer, whoever it calls its speaker.
            known = ROLES.get(role_of(value).strip().lower())
            value = value if known else {**value, "role": "assistant"}
        value = [value] if is_call(value) else value
        if is_calls(value):
            calls = read_calls(value, path)
            return Completion([{"role": "assistant", "content": "", "tool_calls": calls}])
        chat = read_chat(value, path, self._ignored)
        media += chat.media
        tools += [tool for tool in chat.tools if tool not in tools]
        found = _cut(chat, path)
        return replace(found, good=False) if is_unwanted(value) else found

    def _written_by(
        self,
        row: Mapping[str, Any],
        sides: Sequence[str],
        entries: Sequence[Any],
        found: list[Completion],
    ) -> list[Completion]:
        """The responses with where they come from: their own columns, or their list's entries."""
        paths = self.layout.origins
        told = paths or entries or _SIGNED & row.keys()
        if not told and not any(f"{side}_origin" in row for side in sides):
            return found
        names: list[Any] = [None] * len(found)
        if paths:
            stated = (
                [dig(row, path) for path in paths] if len(paths) > 1 else values_at(row, paths[0])
            )
            names = stated if len(stated) == len(found) else names
        written = []
        for k, candidate in enumerate(found):
            entry = entries[k] if entries else None
            if isinstance(entry, Mapping):
                name = names[k] or next(
                    (entry[key] for key in ORIGIN_KEYS if isinstance(entry.get(key), str)), ""
                )
                source = read_origin(entry.get("origin"), name)
            elif entries:
                name = names[k] or ""
                source = read_origin(None, name)
            else:
                name = names[k] if isinstance(names[k], str) else ""
                source = completion_origin(row, sides[k], name)
            written.append(
                replace(candidate, origin=str(name or "") or _writer(source), source=source)
            )
        return written

    def _named(self, row: Mapping[str, Any], found: list[Completion]) -> list[Completion]:
        """The responses with what a verdict calls them."""
        paths = self.layout.names
        if not paths:
            return found
        names = [code_of(v) for path in paths for v in values_at(row, path) if v is not None]
        if len(set(names)) != len(found) or len(names) != len(found):
            raise BadRow(f"{len(found)} responses have {len(set(names))} names ({paths[0]})")
        return [replace(c, name=name) for c, name in zip(found, names, strict=True)]

    def _scored(self, row: Mapping[str, Any], found: list[Completion]) -> list[Completion]:
        paths = self.layout.scores
        if self.layout.order and len(found) > 1:
            return self._ordered(row, found)
        if not paths or self.layout.group_by:
            return found
        values = [dig(row, p) for p in paths] if len(paths) > 1 else values_at(row, paths[0])
        if len(paths) == 1 and isinstance(by_model := dig(row, paths[0]), Mapping):
            values = [by_model.get(c.origin) for c in found]
        if len(values) != len(found):
            raise BadRow(f"{len(found)} responses have {len(values)} scores ({', '.join(paths)})")
        for value in values:
            if isinstance(value, int | float):
                continue  # one beyond any float is no score
            if number_of(value) is None and str(value).strip().lower() not in _NO_SCORE:
                raise BadRow(f"the score {str(value)[:40]!r} ({', '.join(paths)}) is no number")
        return [replace(c, score=number_of(value)) for c, value in zip(found, values, strict=True)]

    def _ordered(self, row: Mapping[str, Any], found: list[Completion]) -> list[Completion]:
        """The responses with their places in a list that names all of them, the best first."""
        path, value = self.layout.order, self._cell(row, self.layout.order)
        if shape_of(value) == "empty":
            return found
        codes = [
            code_of(v) for v in (value if isinstance(value, list) else split_order(str(value)))
        ]
        places = read_order(
            codes,
            len(found),
            sides=sides_of(self.layout.responses),
            columns=self.layout.responses,
            names=[c.name or code_of(c.origin) for c in found],
        )
        if places is None:
            raise BadRow(
                f"column {path!r} is {str(value)[:40]!r}, which does not name each of "
                f"{len(found)} responses once"
            )
        return [replace(c, score=float(k)) for c, k in zip(found, places, strict=True)]

    def _rated(self, row: Mapping[str, Any], found: list[Completion]) -> list[Completion]:
        """The responses with what the flags say of them."""
        paths, least = self.layout.good, self.layout.good_from
        if len(found) == 1 and (paths or self.layout.bad):
            flags = [read_flag(v) for path in paths for v in _cells(row, path)]
            flags += [read_fault(v) for path in self.layout.bad for v in _cells(row, path)]
            # Several flags of one response: one that is bad is enough.
            known = [flag for flag in flags if flag is not None]
            return [replace(found[0], good=all(known) if known else None)]
        if not paths and least is not None and len(found) == 1 and found[0].score is not None:
            return [replace(found[0], good=found[0].score >= least)]
        if not paths:
            return found
        cells = [v for path in paths for v in _cells(row, path)]
        if len(paths) == 1 and len(cells) == 1 and isinstance(cells[0], list):
            cells = cells[0]
        values = [read_flag(cell) for cell in cells]
        if len(values) != len(found):
            return found
        return [replace(c, good=value) for c, value in zip(found, values, strict=True)]


def _cells(row: Mapping[str, Any], path: str) -> list[Any]:
    """What stands at a path, or at all places that it goes to in a list."""
    return values_at(row, path) if "[]" in path else [dig(row, path)]


def _with_calls(found: Completion, calls: list[dict[str, Any]]) -> Completion:
    """A response that ends by making calls."""
    if not calls:
        return found
    last = found.messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls"):
        raise BadRow("a response has tool calls of its own and others beside it")
    return replace(found, messages=[*found.messages[:-1], {**last, "tool_calls": calls}])


def _continues(turns: list[Message], own: list[Message]) -> bool:
    """Whether a transcript repeats the row's own prompt, where there is one: what a model wrote
    must not choose the question that it is judged on.
    """
    if not own:
        return True
    said, asked = ([m["content"].strip() for m in part] for part in (turns, own))
    return said[-len(asked) :] == asked


def _cut(chat: Chat, where: str) -> Completion:
    """A conversation as a response and what stands before it: all after the last who asks."""
    messages = chat.messages
    cut = max((i + 1 for i, m in enumerate(messages) if m["role"] in ASKING), default=0)
    if cut == len(messages):
        raise BadRow(f"column {where!r} does not end with an assistant message")
    return Completion(messages[cut:], messages[:cut])


def _interleaved(own: list[Message], values: Sequence[Sequence[str]]) -> list[Completion]:
    """Answers by turns between the questions: the last is the response, if those before agree;
    else each side keeps its own conversation after the first question.
    """
    asked = [m["content"] for m in own]
    chats = []
    for answers in values:
        turns: list[Message] = []
        for question, answer in zip(asked, answers, strict=True):
            turns.append({"role": "user", "content": question})
            turns.append({"role": "assistant", "content": check_text(answer)})
        chats.append(turns)
    return _after_common([Completion(chat[-1:], chat[:-1]) for chat in chats])


def _after_common(found: Sequence[Completion]) -> list[Completion]:
    """Conversations that part ways: what they share is the prompt, the rest is the response."""
    chats = [[*c.prompt, *c.messages] for c in found]
    shared = 0
    for turns in zip(*chats, strict=False):
        if any(turn != turns[0] for turn in turns):
            break
        shared += 1
    # What is shared must end where an answer begins.
    while shared and chats[0][shared - 1]["role"] not in (*ASKING, "tool", "function"):
        shared -= 1
    if not shared:
        raise BadRow("the responses do not continue the same conversation")
    return [
        replace(c, messages=chat[shared:], prompt=chat[:shared])
        for c, chat in zip(found, chats, strict=True)
    ]


def _until_turn(value: Any, turn: object) -> Any:
    """A conversation up to the exchange that a verdict is about."""
    number = number_of(turn)
    if number is None or not isinstance(value, list):
        return value
    asked, kept = 0, []
    for message in value:
        role = role_of(message) if isinstance(message, Mapping) else ""
        asked += ROLES.get(role.lower()) == "user"
        if asked > number:
            break
        kept.append(message)
    return kept


def _writer(source: Origin) -> str:
    return source.model or ("human" if source.kind == "human" else "")


def media_kind(path: str) -> str:
    """What a column's name says that it holds: image, video or audio."""
    last = path.rsplit(".", 1)[-1].lower()
    return next((kind for kind in ("video", "audio") if kind in last), "image")
