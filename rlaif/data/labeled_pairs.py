"""Reads pairs that somebody has labeled: which response people preferred, however a file says so.

Recognized by their columns: `chosen` with `rejected` (RewardBench, HH-RLHF, UltraFeedback), lists
of several in both (RewardBench 2), two responses with a verdict (JudgeBench's `response_A`,
`response_B`, `label: A>B`; MT-bench's human judgments with `conversation_a`, `winner: model_a`;
HelpSteer3's `overall_preference` from -3 to 3), and responses with scores.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Literal

from rlaif.data.layouts import BadRow, Completion, PromptCompletions, read_row
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
_SIDE = re.compile(r"(?:model|response|answer|output|assistant|completion)?[ _]?([ab12])")
_SIGN = re.compile(r"([ab12])\s*([<>]{1,2})\s*([ab12])")
_TIES = {"a=b", "b=a", "c", "equal", "both", "neither", "draw", "same", "1=2", "2=1"}


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


def read_labeled(
    row: Mapping[str, object], name: str, mapping: Mapping[str, str] | None = None
) -> Iterator[LabeledPair]:
    """The labeled pairs of one row.

    The preferred response is not always `a`: the side is drawn from the pair's name.

    Args:
        name: of the row where it has no id of its own.
        mapping: see `read_row`; `label` and `subset` may be named too.

    Raises:
        BadRow: no layout fits, or nothing says which response is preferred.
    """
    mapping = dict(mapping or {})
    own = dict(row)
    for key in ("label", "subset"):
        if key in mapping:
            path = mapping.pop(key)
            if path not in row:
                raise BadRow(f"--map {key}={path}: no such column")
            own = {k: v for k, v in own.items() if k not in VERDICT_KEYS} if key == "label" else own
            own[key] = row[path]
    subset = next((str(own[k]) for k in SUBSET_KEYS if isinstance(own.get(k), str | int)), "")
    if _is_lists(own) and not mapping:
        yield from _from_lists(own, name, subset)
        return
    own = {**_renamed(own), **{k: v for k, v in own.items() if k in mapping.values()}}
    read = read_row(own, mapping)
    group = read.id or name
    if read.labeled:
        yield _pair(read=read, name=group, group=group, i=0, j=1, label="a", subset=subset)
        return
    verdict = _verdict(own)
    if verdict is not None and len(read.completions) == 2:
        yield _placed(read=read, name=group, group=group, i=0, j=1, label=verdict, subset=subset)
        return
    scores = [c.score for c in read.completions]
    if len(scores) < 2 or any(score is None for score in scores):
        raise BadRow(
            "no preference found: expected chosen + rejected, a score for each response, "
            f"or one of the columns {', '.join(VERDICT_KEYS)}"
        )
    for i, j in combinations(range(len(scores)), 2):
        one, two = scores[i], scores[j]
        assert one is not None
        assert two is not None
        label: Label = "tie" if one == two else "a" if one > two else "b"
        own_name = group if len(scores) == 2 else f"{group}/{i}-{j}"
        yield _pair(read=read, name=own_name, group=group, i=i, j=j, label=label, subset=subset)


def _is_lists(row: dict[str, object]) -> bool:
    """RewardBench 2: lists of texts (a list of messages is one response); in a cell, as JSON."""
    for key in ("chosen", "rejected"):
        value = row.get(key)
        if isinstance(value, str) and value.lstrip().startswith('["'):
            with suppress(ValueError):
                row[key] = json.loads(value)
    sides = [row.get("chosen"), row.get("rejected")]
    return all(
        isinstance(side, list) and side and all(isinstance(text, str) for text in side)
        for side in sides
    )


def _from_lists(row: dict[str, object], name: str, subset: str) -> Iterator[LabeledPair]:
    chosen, rejected = row["chosen"], row["rejected"]
    assert isinstance(chosen, list)
    assert isinstance(rejected, list)
    several = len(chosen) * len(rejected) > 1
    for i, j in product(range(len(chosen)), range(len(rejected))):
        read = read_row({**row, "chosen": chosen[i], "rejected": rejected[j]})
        group = read.id or name
        own = f"{group}/{i}-{j}" if several else group
        yield _pair(read=read, name=own, group=group, i=0, j=1, label="a", subset=subset)


def _renamed(row: dict[str, object]) -> dict[str, object]:
    """Columns by the names that `read_row` knows."""
    found = {}
    for key, value in row.items():
        match = re.fullmatch(r"(response|conversation|answer|output|completion)_?([abAB12])", key)
        if match:
            word, side = match.groups()
            word = "response" if word == "conversation" else word
            key = f"{word}_{side.lower()}"
        elif match := re.fullmatch(r"model_([abAB12])", key):
            key = f"model_{match.group(1).lower()}"
        found[key] = value
    return found


def _verdict(row: Mapping[str, object]) -> Label | None:
    """What a column says about responses a and b; None where there is none.

    Raises:
        BadRow: a column is there and can't be understood.
    """
    arena = [row.get(f"winner_{x}") for x in ("model_a", "model_b", "tie")]
    if all(isinstance(value, int | float) for value in arena):
        a, b, _ = arena
        return "a" if a else "b" if b else "tie"
    for key in VERDICT_KEYS:
        value = row.get(key)
        if value is None or value == "":
            continue
        if key == "overall_preference" and (number := _number(value)) is not None:
            return "tie" if number == 0 else "a" if number < 0 else "b"
        text = str(value).strip().lower().strip("[]")
        if match := _SIDE.fullmatch(text):
            return "a" if match.group(1) in "a1" else "b"
        if match := _SIGN.fullmatch(text):
            left, sign, right = match.groups()
            if (left in "ab") == (right in "ab") and left != right:
                best = left if sign[0] == ">" else right
                return "a" if best in "a1" else "b"
        if text in _TIES or text.startswith("tie"):
            return "tie"
        raise BadRow(
            f"column {key!r} is {str(value)[:40]!r}, which is not a verdict: expected a, "
            "b, 1, 2, A>B, model_a or tie"
        )
    return None


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(str(value))
    except ValueError:
        return None


def bare_number(row: Mapping[str, object], mapping: Mapping[str, str] | None = None) -> str:
    """The digit 0, 1 or 2 where a row's verdict is nothing else; else ""."""
    column = (mapping or {}).get("label")
    keys = (column,) if column else VERDICT_KEYS
    for key in keys:
        value = row.get(key)
        if value not in (None, "") and key != "overall_preference":
            text = str(value).strip()
            return text if text in ("0", "1", "2") else ""
    return ""


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


def plain_verdict(
    row: Mapping[str, object], mapping: Mapping[str, str] | None = None
) -> Label | None:
    """The verdict of a row that may have no texts; None where there is none that names a side."""
    column = (mapping or {}).get("label")
    try:
        return _verdict({"label": row.get(column)} if column else row)
    except BadRow:
        return None


def _pair(
    read: PromptCompletions, name: str, group: str, i: int, j: int, label: Label, subset: str
) -> LabeledPair:
    """With the sides drawn from the name."""
    if label != "tie" and (hashlib.blake2b(name.encode(), digest_size=1).digest()[0] & 1):
        i, j, label = j, i, "b" if label == "a" else "a"
    return _placed(read=read, name=name, group=group, i=i, j=j, label=label, subset=subset)


def _placed(
    read: PromptCompletions, name: str, group: str, i: int, j: int, label: Label, subset: str
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
