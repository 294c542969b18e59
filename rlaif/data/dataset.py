"""A data set as rows that are understood: its source, the layout found in it, and one reader."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from rlaif.data.advice import ASKING, suggest_use
from rlaif.data.columns import reaches
from rlaif.data.file_formats import Row
from rlaif.data.flags import write_flag, write_ignore
from rlaif.data.infer import Inferred, infer_layout
from rlaif.data.layout import Layout, set_fields
from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.data.row_model import DataRow
from rlaif.data.sources import Source, open_source
from rlaif.errors import RlaifError
from rlaif.records import Rejected

SAMPLE = 1000
"""Rows that decide which column plays which role."""
Need = Literal["rows", "prompt", "targets", "responses", "verdict"]
"""What a command needs of a row: nothing, the prompt, completions to learn, responses to compare,
or which one is better."""
_UNSHOWN = {"values", "decode", "transcripts", "ranks", "good_from", "columns"}
"""Fields of a layout that name no column, or many."""


@dataclass(frozen=True)
class DataSet:
    """Rows that are understood.

    Attributes:
        found: the layout, and what each column is used as.
    """

    source: Source
    found: Inferred

    @property
    def layout(self) -> Layout:
        """Which column plays which role."""
        return self.found.layout

    @cached_property
    def reader(self) -> Reader:
        """Reads its rows."""
        return Reader(self.layout)

    @property
    def summary(self) -> str:
        """Which columns are read as what, and which are not used, on one line."""
        parts = [
            f"{name} = {', '.join(value) if isinstance(value, tuple) else value}"
            for name, value in set_fields(self.layout).items()
            if value and name not in _UNSHOWN
        ]
        if self.found.unused:
            parts.append(f"unused: {', '.join(self.found.unused)}")
        return "; ".join(parts)

    def whole_layout(self) -> Layout:
        """The layout for a file of its own: read by it, no column is left in doubt.

        What was found to say again what other columns say is left out by name.
        """
        alone = replace(self.source, layout=None)  # rows that are not joined yet
        rows = [r for _, r in islice(alone.rows(), SAMPLE) if not isinstance(r, Rejected)]
        layout = self.layout
        given = {k: v for k, v in set_fields(layout).items() if k != "columns"}
        known = {path for path in self.found.doubts if path not in layout.ignore}
        again = infer_layout(rows, given)
        extra = [path for path in again.doubts if path not in known]
        return layout.model_copy(update={"ignore": (*layout.ignore, *extra)})

    def read(self) -> Iterator[tuple[str, DataRow | Rejected]]:
        """The rows as they are understood; those that can't be are rejected with the reason."""
        for place, row in self.source.rows():
            if isinstance(row, Rejected):
                yield place, row
                continue
            try:
                yield place, self.reader.read(row)
            except BadRow as error:
                yield place, Rejected(place, str(error))


def open_dataset(
    data: str | Source,
    *,
    split: str = "train",
    given: Mapping[str, Any] | None = None,
    need: Need = "rows",
) -> DataSet:
    """Find out how a data set is laid out, from its first thousand rows.

    Args:
        given: fields of `Layout` that the user set (`--map`, `--layout`, `--ignore`).
        need: what the command needs of each row.

    Raises:
        RlaifError: there is no such data, a column that may matter is not used, or what the
            command needs can't be found out.
    """
    source = open_source(data, split) if isinstance(data, str) else replace(data, layout=None)
    given = {**source.given, **(given or {})}
    rows = [row for _, row in islice(source.rows(), SAMPLE) if not isinstance(row, Rejected)]
    if given:
        check_fields(rows, given)
    found = infer_layout(rows, given)
    if rows and need != "rows":
        check_use(source.name, found, need)
    joins = found.layout.group_by or found.layout.thread_by
    return DataSet(replace(source, layout=found.layout) if joins else source, found)


@contextmanager
def explained_without_flags(name: str) -> Iterator[None]:
    """Within it, errors about a data set say how its layout is given to a command that has no
    `--map`.

    Raises:
        RlaifError: as within, with the hint.
    """
    try:
        yield
    except RlaifError as error:
        if "--map" in f"{error} {error.hint}" or "--ignore" in f"{error} {error.hint}":
            raise RlaifError(
                error.message,
                hint=f"Find out with `rlaif inspect {shlex.quote(name)}` which flags its layout "
                "takes, write it with --write-layout FILE, and name the data "
                f"`{shlex.quote(name)},layout=FILE`. Of the flags: {error.hint}",
                place=error.place,
            ) from None
        raise


def check_fields(rows: Sequence[Row], given: Mapping[str, Any]) -> None:
    """Refuse paths that no row of the sample has.

    Raises:
        RlaifError: there is one.
    """
    for name, value in given.items():
        if name in (*_UNSHOWN, "ignore") or not rows:  # what is left out may come later
            continue
        for path in (value,) if isinstance(value, str) else value:
            pieces = path.replace("}", "{").split("{")[1::2] if "{" in path else [path]
            for piece in filter(None, pieces):
                if not any(reaches(row, piece) for row in rows):
                    known = ", ".join(list(rows[0])[:12])
                    raise RlaifError(
                        f"--map {name}={piece}: no row has that column",
                        hint=f"Columns are {known}.",
                    )


def check_use(name: str, found: Inferred, need: Need) -> None:
    """Refuse data of which something that may matter would be left out.

    Raises:
        RlaifError: it is so; with the column and what to do.
    """
    columns = ", ".join(map(repr, found.names[:12]))
    for one, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if getattr(found.layout, one) and not getattr(found.layout, other):
            raise RlaifError(
                f"{name}: {one!r} is column {getattr(found.layout, one)!r}, and no column is "
                f"{other!r}",
                hint=f"Name it with --map {other}=COLUMN.",
            )
    if found.layout.values and not found.layout.label and need != "prompt":
        raise RlaifError(
            f"{name}: no column holds the values that --value names",
            hint="Name the column with --map label=COLUMN.",
        )
    compared = need in ("responses", "verdict")
    if found.refusal and compared:
        raise RlaifError(f"{name}: {found.refusal}", hint="Use data with several responses a row.")
    if not found.own:
        _check_doubts(name, found, need)
    if need in ("verdict", "targets") and found.questions:
        raise RlaifError(f"{name}: {found.questions[0]}", hint="See `rlaif inspect`.")
    if need == "targets" and found.unrated:
        raise RlaifError(
            f"{name}: column {found.unrated!r} scores the completions, and nothing says from which "
            "score on they are good to learn",
            hint=f"Name that score, such as `--map good_from=4`, or leave the column out with "
            f"`{write_ignore(found.unrated)}`.",
        )
    if not found.prompted and any(path.startswith("response.body.") for path in found.names):
        raise RlaifError(
            f"{name}: results of a batch hold no prompts",
            hint="Write batch:REQUESTS.jsonl,RESULTS.jsonl with the file that was sent.",
        )
    if not found.prompted:
        raise RlaifError(
            f"{name}: no column looks like a prompt; columns are {columns}",
            hint="Name it with --map prompt=COLUMN. See `rlaif inspect`.",
        )
    layout = found.layout
    told = layout.chosen or layout.label or layout.scores or layout.order or layout.thread_by
    if need == "verdict" and not told and not found.own:
        raise RlaifError(
            f"{name}: no column says which response is better; columns are {columns}",
            hint="Name it with --map label=COLUMN, or scores with --map scores=COLUMN.",
        )


def _check_doubts(name: str, found: Inferred, need: Need) -> None:
    """Refuse data with columns that may matter and are not used, or not read as what they are.

    Raises:
        RlaifError: there is one; with what to do.
    """
    for path, looks in found.doubts.items():
        verdicts = (
            "scores",
            "scores that are no numbers",
            "objects with scores",
            "a verdict",
            "a mark of verdicts that do not count",
            "the order in which responses were shown",
        )
        if looks in verdicts and need not in ("verdict", "targets"):
            continue
        if looks.endswith("of the response") and need != "targets":
            continue
        shown = looks
        if not found.prompted and looks in ASKING:
            shown = "a prompt"
        raise RlaifError(
            f"{name}: column {path!r} is not used, and looks like {shown}",
            hint=suggest_use(found, path),
        )
    for path, why in found.unread.items():
        if need == "prompt" and path not in found.layout.prompt:
            continue
        form = write_flag("--transcript", path + "={role}:")
        raise RlaifError(
            f"{name}: column {path!r} is read as plain text, and seems to hold {why}",
            hint=f"Say how its turns begin, such as `{form}`, or take it as it is with "
            f"`{write_flag('--transcript', f'{path}=text')}`.",
        )


def describe(data: DataSet, limit: int) -> dict[str, Any]:
    """What `rlaif inspect` shows, as plain data.

    Args:
        limit: the most rows to read.
    """
    rows, rejected = [], []
    for number, (_, row) in enumerate(islice(data.read(), limit), 1):
        if isinstance(row, Rejected):
            rejected.append({"row": number, "reason": row.reason})
            continue
        rows.append(
            {
                "row": number,
                "prompt": row.prompt,
                "tools": row.tools,
                "candidates": [
                    {"messages": c.messages, "origin": c.origin, "score": c.score}
                    for c in row.completions
                ],
                "winner": row.winner,
                "strength": row.strength,
                "votes": row.votes,
                "tags": sorted(row.tags),
            }
            | ({"media": list(row.media)} if row.media else {})
        )
    found = data.found
    doubts = [
        f"column {c!r} is not used, and looks like {what}" for c, what in found.doubts.items()
    ]
    doubts += [
        f"column {c!r} is read as plain text, and seems to hold {why}"
        for c, why in found.unread.items()
    ]
    return {
        "layout": found.layout.to_data(),
        "columns": {name: found.roles.get(name, "unused") for name in found.names},
        "unused": found.unused,
        "problems": [*filter(None, [found.refusal]), *found.questions, *doubts],
        "rows": rows,
        "rejected": rejected,
    }
