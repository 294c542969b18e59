"""Who wrote the responses, which texts are transcripts, and what only repeats other columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rlaif.data.columns import LIST_WORDS, Column
from rlaif.data.inference.evidence import (
    all_in_chat,
    are_parallel,
    find_twins,
    said_in,
)
from rlaif.data.inference.metadata import reads_as_prose
from rlaif.data.inference.names import (
    ANSWER_WORDS,
    CHAT_NAMES,
    CHOICE_WORDS,
    ORIGIN_WORDS,
    SCORE_WORDS,
)
from rlaif.data.inference.state import TEXTUAL, Inference, form_of
from rlaif.data.row_cells import entry_text
from rlaif.data.transcripts import Transcript, doubt_form, find_form, strip_ends


def origin_paths(state: Inference) -> tuple[str, ...]:
    """The columns that say who wrote each response; empty where there are none."""
    if "origins" in state.given:
        return tuple(state.fields["origins"])
    columns = [c for c in state.free({"text"}) if _names_writer(c)]
    if state.fields.get("chosen"):
        for better, worse in find_twins(columns):
            return (better.path, worse.path)
        for side, other in (("chosen", False), ("rejected", True)):
            lone = next((c.path for c in columns if side in c.tokens), "")
            if lone:
                return ("", lone) if other else (lone, "")
        return ()
    families = state.families(columns)
    own = [f for f in families if f.sides == state.sides]
    # `model_a` beside `response_1`: the order of the sides is all that can be meant.
    own = own or [f for f in families if len(f.sides) == len(state.sides)]
    if own:
        return tuple(own[0].paths)
    # Of one side alone it may be known.
    known = {
        side: c.path
        for c in columns
        for side in state.sides
        if side in c.tokens and c.path.count(".") == 0
    }
    return tuple(known.get(side, "") for side in state.sides) if known else ()


def _names_writer(column: Column) -> bool:
    """Whether a column names what wrote something: `response_model`, not `model_output`."""
    words = set(column.tokens)
    if not ORIGIN_WORDS & words:
        return False
    return not ((ANSWER_WORDS | {"text"}) & words and reads_as_prose(column))


def find_origins(state: Inference) -> None:
    """Find the columns that say who wrote the responses."""
    if "origins" in state.given:
        return
    paths = origin_paths(state)
    if paths:
        state.set("origins", paths, "origin")
        return
    if listed := listed_origins(state):
        state.set("origins", (listed,), "origins")
        return
    responses = state.fields.get("responses", ())
    own = state.columns.get(responses[0]) if len(responses) == 1 else None
    if own is not None and own.shape in ("texts", "chats"):
        return
    if not state.fields.get("chosen") and (
        not responses or (own is not None and own.shape in TEXTUAL)
    ):
        # `source` beside one answer names the data set, not the writer.
        writers = ORIGIN_WORDS - {"source", "origin"}
        for column in state.free({"text"}):
            if (
                writers & set(column.tokens)
                and _names_writer(column)
                and column.path.count(".") == 0
            ):
                state.set("origins", (column.path,), "origin")
                return


def listed_origins(state: Inference) -> str:
    """The column with a writer for each response of a list; "" where there is none."""
    responses = state.fields.get("responses", ())
    own = state.columns.get(responses[0]) if len(responses) == 1 else None
    if own is None or own.shape not in ("texts", "chats"):
        return ""
    for column in state.free({"texts"}):
        if _WRITERS & set(column.tokens) and are_parallel(column, own):
            return column.path
    return ""


_WRITERS = {*ORIGIN_WORDS, "models", "policies", "names"}


def find_transcripts(state: Inference) -> None:
    """Find columns that hold conversations written out as one text."""
    found = dict(state.fields.get("transcripts", {}))
    paths = [
        *state.fields.get("prompt", ()),
        state.fields.get("chosen", ""),
        state.fields.get("rejected", ""),
        *state.fields.get("responses", ()),
    ]
    answered = bool(state.fields.get("chosen") or state.fields.get("responses"))
    for path in paths:
        column = state.columns.get(path)
        if column is None or path in found:
            continue
        form = form_of(column, prompt=answered and path in state.fields.get("prompt", ()))
        if form:
            found[path] = form
        elif column.shape == "text":
            # Marks that end a turn stand behind a response, too.
            forms = [form for form in map(find_form, found.values()) if form]
            texts = [_strip_all(str(v), forms) for v in column.cells if v]
            if why := doubt_form([_PICTURE.sub("", text) for text in texts]):
                state.unread[path] = why
    if found:
        state.fields["transcripts"] = found
    if not state.fields.get("prompt") and not state.pair_has_prompt():
        _find_transcript_alone(state)


_PICTURE = re.compile(r"<\|?image[^>\n]{0,20}>")


def _strip_all(text: str, forms: Sequence[Transcript]) -> str:
    for form in forms:
        text = strip_ends(text, form)
    return text


def _find_transcript_alone(state: Inference) -> None:
    if state.fields.get("thread_by") or state.fields.get("responses") or state.fields.get("chosen"):
        return
    for column in state.free({"text"}):
        form = form_of(column)
        if form and (column.name in CHAT_NAMES or column.name in ("chat", "text")):
            state.set("prompt", (column.path,), "prompt")
            state.fields["transcripts"] = {column.path: form}
            return


def find_repeats(state: Inference) -> None:
    """Columns that say again what another one says, and responses beside a pair."""
    used = [
        *state.fields.get("prompt", ()),
        state.fields.get("chosen", ""),
        state.fields.get("rejected", ""),
        *state.fields.get("responses", ()),
    ]
    columns = [state.columns[p] for p in used if p in state.columns]
    for column in state.free({"text"}) if len(columns) > 1 else ():
        if all(all_in_chat(other, column) for other in columns):
            state.claim(column.path, "repeats the whole row")
            for output in state.free({"text"}):
                if output.name in ("output", "response", "completion"):
                    state.claim(output.path, "a judge's answer")
    for column in state.free({"text", "chat"}):
        held = [(k, v) for k, v in enumerate(column.values) if v is not None]
        for other in columns:
            if all(
                v == other.values[k] or v in _listed(other.values[k]) or _begins(other.values[k], v)
                for k, v in held
            ):
                state.claim(column.path, f"repeats {other.path}")
    if state.fields.get("chosen"):
        for column in state.free({"texts", "entries", "chats"}):
            if LIST_WORDS & set(column.tokens) and not (
                CHOICE_WORDS & set(column.tokens) and not _holds_answer(column, columns)
            ):
                state.claim(column.path, "other responses")
        for column in state.free({"number"}):
            if SCORE_WORDS.keys() & set(column.tokens):
                state.claim(column.path, "another score")
    if state.fields.get("scores") or state.fields.get("label"):
        for column in state.free({"number", "flag"}):
            if "tie" in column.tokens:
                state.claim(column.path, "tie flag")
    if state.count() == 2 and "good" not in state.fields and not state.fields.get("chosen"):
        flags = [c for c in state.free({"flag"}) if {"safe", "good"} & set(c.tokens)]
        family = next((f for f in state.families(flags) if f.sides == state.sides), None)
        if family is not None:
            state.set("good", tuple(family.paths), "good")


def _begins(value: object, start: object) -> bool:
    """Whether a conversation begins with the messages of another one."""
    if not isinstance(value, list) or not isinstance(start, list) or not start:
        return False
    return value[: len(start)] == start


def _holds_answer(column: Column, answers: Sequence[Column]) -> bool:
    """Whether what was answered is among the entries of a list, in some row."""
    return any(
        answer.values[k] is not None and answer.values[k] in _listed(value)
        for k, value in enumerate(column.values)
        for answer in answers
    )


def _listed(value: object) -> list[object]:
    """The texts of a list of responses."""
    found: list[object] = []
    for entry in value if isinstance(value, list) else []:
        said = entry_text(entry)
        found.append(said_in(said) if isinstance(said, Mapping | list) else said)
    return found
