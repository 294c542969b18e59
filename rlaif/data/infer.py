"""Finds out from a sample which column of a file plays which role, and accounts for every column.

Shapes decide, names are hints.  What is not sure becomes a question to the user, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.columns import LIST_WORDS, look_at
from rlaif.data.deviations import find_filled
from rlaif.data.inference.doubts import account, find_number_inside
from rlaif.data.inference.prompt import find_extras, find_prompt
from rlaif.data.inference.responses import find_responses
from rlaif.data.inference.rest import find_origins, find_repeats, find_transcripts
from rlaif.data.inference.scores import find_scores
from rlaif.data.inference.state import Inference, are_calls
from rlaif.data.inference.verdict import find_label
from rlaif.data.layout import Layout, make_layout, set_fields
from rlaif.data.row_cells import values_at


@dataclass
class Inferred:
    """What a sample says.

    Attributes:
        roles: what each column is used as, by dotted path.
        unused: columns that nothing uses.
        doubts: columns that nothing uses though they may matter: what they look like.
        questions: what can't be decided: the verdicts of a column.
        refusal: why its responses can't be compared, or "".
        unread: columns that are read as plain text, and what they seem to hold instead.
        names: all columns, by dotted path, in the order of the file.
        unrated: a score of single responses of which nothing says from which on they are good.
        prompted: whether anything says what was asked.
        own: whether the file is one that a command of this project wrote.
        given: fields of the layout that the user set.
        inside: columns of objects with scores, and the path of the first of these scores.
    """

    layout: Layout
    roles: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    refusal: str = ""
    unrated: str = ""
    prompted: bool = True
    own: bool = False
    given: frozenset[str] = frozenset()
    inside: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def infer_layout(
    rows: Sequence[Mapping[str, object]], given: Mapping[str, Any] | None = None
) -> Inferred:
    """The layout of a sample.

    Args:
        given: fields of `Layout` that the user set: they hold, and the rest is found around them.
    """
    own = make_layout(given or {})
    fields = set_fields(own)
    state = Inference(look_at(rows), fields, list(rows))
    state.given = frozenset(state.fields)
    state.claim_given()
    state.claim_own()
    for step in (
        find_responses,
        find_prompt,
        find_extras,
        find_scores,
        find_label,
        find_origins,
        find_transcripts,
        find_repeats,
    ):
        step(state)
    state.fields.setdefault("decode", _decoded(state))
    state.fields.setdefault("columns", find_filled(rows))
    unused, doubts = account(state)
    return Inferred(
        layout=Layout.model_validate(state.fields),
        roles=state.roles,
        unused=unused,
        doubts=doubts,
        questions=state.questions,
        refusal=state.refusal,
        unrated=_unrated(state),
        prompted=bool(
            state.fields.get("prompt") or state.fields.get("thread_by") or state.pair_has_prompt()
        ),
        unread=state.unread,
        names=list(state.columns),
        given=state.given,
        inside={
            path: _first_inside(state, path)
            for path, looks in doubts.items()
            if looks == "objects with scores"
        },
        own=any(path.split(".")[0] == "provenance" for path in state.columns),
    )


def _first_inside(state: Inference, path: str) -> str:
    """The path of the first score in the objects of a column, or of a key of entries."""
    column = state.columns.get(path)
    if column is not None:
        return find_number_inside(path, column.values)
    return find_number_inside(path, [v for row in state.rows for v in values_at(row, path)])


def _unrated(state: Inference) -> str:
    fields = state.fields
    alone = len(fields.get("responses", ())) == 1 and not state.is_list()
    if not alone or fields.get("group_by") or not fields.get("scores"):
        return ""
    return "" if fields.get("good_from") is not None else str(fields["scores"][0])


def _decoded(state: Inference) -> tuple[str, ...]:
    """Columns whose cells are decoded.  An answer that is a list is an answer: texts of responses
    are taken apart only if they are messages or calls, or if the prompt is a list of turns too.
    """
    answers = {
        *state.fields.get("responses", ()),
        state.fields.get("chosen"),
        state.fields.get("rejected"),
    }
    prompts = [state.columns[p] for p in state.fields.get("prompt", ()) if p in state.columns]
    by_turns = any(c.encoded and c.shape == "texts" for c in prompts)
    found = []
    for path in state.roles:
        column = state.columns.get(path)
        if column is None or not column.encoded:
            continue
        # `responses` holds a list by its name, `response` does not.
        listed = path in state.fields.get("responses", ()) and state.is_list()
        listed = listed and bool(LIST_WORDS & set(column.tokens[-2:]))
        whole = column.shape == "chat" or by_turns or listed or are_calls(column)
        if path in answers and not whole:
            continue
        found.append(path)
    return tuple(found)
