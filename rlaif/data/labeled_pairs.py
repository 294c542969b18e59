"""Reads pairs that somebody has labeled: which response people preferred, however a file says so.

What says so is decided for the whole file (`infer`): a better and a worse response, a verdict with
its codes, votes, or scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

from rlaif.data.columns import dig
from rlaif.data.grouping import GROUP
from rlaif.data.layout import code_of
from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.data.row_model import Completion, DataRow, refuse_media
from rlaif.data.verdict_codes import Doubtful, read_codes
from rlaif.errors import RlaifError
from rlaif.records import Message

Label = Literal["a", "b", "tie"]
VERDICT_KEYS = (
    "label",
    "winner",
    "preference",
    "preferred",
    "human_label",
    "human_preference",
    "overall_preference",
    "choice",
)
SUBSET_KEYS = ("subset", "source", "category", "domain", "task")


@dataclass(frozen=True)
class LabeledPair:
    """A pair and the response that people preferred.

    Attributes:
        group: pairs with the same one come from the same row: they are not independent.
        subset: the part of the data that it belongs to, or "".
    """

    id: str
    group: str
    prompt: list[Message]
    a: Completion
    b: Completion
    label: Label
    subset: str = ""
    tags: frozenset[str] = frozenset()

    def row(self) -> dict[str, Any]:
        """As a row that `rlaif label` reads."""
        return {
            "id": self.id,
            "prompt": self.prompt,
            "response_a": self.a.messages,
            "response_b": self.b.messages,
            "response_a_model": self.a.origin,
            "response_b_model": self.b.origin,
            "tags": sorted(self.tags),
            "label": self.label,
            "subset": self.subset,
            "group": self.group,
        }


def read_labeled(row: Mapping[str, object], name: str, reader: Reader) -> Iterator[LabeledPair]:
    """The labeled pairs of one row.

    The preferred response is not always `a`: the side is drawn from the pair's name.

    Args:
        name: of the row where it has no id of its own.

    Raises:
        BadRow: it can't be read, or nothing says which response is preferred.
    """
    read = refuse_media(reader.read(row))
    first = row[GROUP][0] if GROUP in row else row  # type: ignore[index]
    names = (reader.layout.subset,) if reader.layout.subset else SUBSET_KEYS
    subset = next((str(v) for v in (dig(first, k) for k in names) if isinstance(v, str | int)), "")
    group, count = read.id or name, len(read.completions)
    if count == 2 and read.winner is not None:
        label: Label = "tie" if read.winner == "tie" else "ab"[read.winner]  # type: ignore[assignment]
        place = _pair if reader.layout.chosen else _placed
        yield place(read=read, name=group, group=group, i=0, j=1, label=label, subset=subset)
        return
    scores = [c.score for c in read.completions]
    sign = -1.0 if reader.layout.less_is_better else 1.0
    if count < 2 or (None in scores and not isinstance(read.winner, int)):
        raise BadRow(
            "no preference found: expected chosen + rejected, a score for each response, or a "
            "column that says which is better"
        )
    for i, j in combinations(range(count), 2):
        if None in scores:  # only the best one is known
            if read.winner not in (i, j):
                continue
            label = "a" if read.winner == i else "b"
        else:
            one, two = sign * scores[i], sign * scores[j]  # type: ignore[operator]
            if one == two and reader.layout.chosen:
                continue  # two that people accepted, or two that they did not
            label = "tie" if one == two else "a" if one > two else "b"
        own_name = group if count == 2 else f"{group}/{i}-{j}"
        yield _pair(read=read, name=own_name, group=group, i=i, j=j, label=label, subset=subset)


def read_bare_verdicts(
    rows: Iterable[tuple[int, Mapping[str, object]]], name: str
) -> dict[int, tuple[str, Label]]:
    """The ids and verdicts of rows that have no texts, by the number of the row.

    Raises:
        RlaifError: the verdicts can be read in more than one way.
    """
    held = list(rows)
    found: dict[int, tuple[str, Label]] = {}
    for key in VERDICT_KEYS:
        values = [row[key] for _, row in held if row.get(key) not in (None, "")]
        try:
            codes = read_codes(values, name=key, sides=()) if values else None
        except Doubtful as error:
            raise RlaifError(
                f"{name}: column {key!r} says which response is better, but {error}",
                hint="Write a and b, or 1 and 2.",
            ) from None
        for number, row in held:
            if codes is None or row.get(key) in (None, "") or row.get("id") in (None, ""):
                continue
            side = codes.values.get(code_of(row[key]))
            if side in ("a", "b", "tie"):
                found.setdefault(number, (str(row["id"]), side))  # type: ignore[arg-type]
    return found


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the start of a cell."""


def to_cell(value: object) -> object:
    """Text that a spreadsheet leaves alone: an apostrophe stands before what may be a formula."""
    if isinstance(value, str) and value.lstrip("'").startswith(FORMULA):
        return f"'{value}"
    return value


def from_cell(value: str) -> str:
    """The text that `to_cell` was given."""
    return value[1:] if value[:1] == "'" and value.lstrip("'").startswith(FORMULA) else value


def exported(row: Mapping[str, object]) -> dict[str, object]:
    """A row, with the cells decoded if `rlaif labels export` wrote it as CSV."""
    found = dict(row)
    if "inclusion" not in row:
        return found
    for key in ("id", "prompt", "response_a", "response_b"):
        value = found.get(key)
        if isinstance(value, str):
            found[key] = value = from_cell(value)
            if value.startswith('[{"'):
                with suppress(ValueError):
                    found[key] = json.loads(value)
    return found


def picked_for_doubt(row: Mapping[str, object]) -> bool:
    """Whether a row of `rlaif labels export` is one that the queue picked: where the judge is
    unsure, people agree with it less than elsewhere, so such rows stand for themselves only.
    """
    return "inclusion" in row and str(row.get("audit", "")).lower() == "false"


def _pair(
    read: DataRow, name: str, group: str, i: int, j: int, label: Label, subset: str
) -> LabeledPair:
    """With the sides drawn from the name."""
    if label != "tie" and (hashlib.blake2b(name.encode(), digest_size=1).digest()[0] & 1):
        i, j, label = j, i, "b" if label == "a" else "a"
    return _placed(read=read, name=name, group=group, i=i, j=j, label=label, subset=subset)


def _placed(
    read: DataRow, name: str, group: str, i: int, j: int, label: Label, subset: str
) -> LabeledPair:
    one, two = (replace(read.completions[k]) for k in (i, j))
    return LabeledPair(
        id=name,
        group=group,
        prompt=read.prompt,
        a=one,
        b=two,
        label=label,
        subset=subset,
        tags=read.tags,
    )
