"""Reads the labels and verdicts of a run: the one reader of what `runs.rows` writes.

A decided pair's row is told from the chosen side, an undecided one's from `a`.  Here both are
told from `a`, as the input had the pair, so that no reader turns probabilities by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rlaif.errors import Place, RlaifError
from rlaif.records import Message
from rlaif.runs.directory import PREFERENCES, UNDECIDED, VERDICTS, read_rows

T = TypeVar("T")


PROMPT_COLUMNS = ("tools", "images")

STATUSES = ("decided", "tie", "abstained", "human")


@dataclass(frozen=True)
class PrincipleLabel:
    """What one principle said of a pair.

    Attributes:
        p_a: probability that `a` is better.
        source: "judge" or "check".
        invalid: why it said nothing, or "".
    """

    principle: str
    tier: int
    weight: float
    p_a: float
    source: str
    invalid: str


@dataclass(frozen=True)
class LabelRow:
    """The label of one pair, told from `a`.

    Attributes:
        row: number of the pair's input row, from 1; with `id` it names the pair.
        status: "decided", "tie", "abstained" or, once humans labeled it, "human".
        winner: "a", "b", or "" for none.
        reason: why there is no winner, or "".
        p_a: probability that `a` is better.
        margin: |2p - 1|.
        order_consistency: share of clear principles that both orders agree on.
        prompt_injection: what in the completions looks like prompt injection, or "".
        principles: empty if the pair was settled before any judge was asked.
        judges: of a panel: each judge's name and its `p_a`.
        origins: the models that wrote `a` and `b`, or "".
        origin_columns: whole origins of prompt, `a` and `b`; None in runs from before they were
            kept.
        criteria: the row's own rubric: texts by the id of their principle.
        human: what a review kept with the row; empty for none.
        data: the row as it stands in the file.
    """

    id: str
    row: int
    prompt: list[Message]
    a: list[Message]
    b: list[Message]
    status: str
    winner: str
    reason: str
    p_a: float
    margin: float
    order_consistency: float
    prompt_injection: str
    tags: tuple[str, ...]
    principles: tuple[PrincipleLabel, ...]
    judges: tuple[tuple[str, float], ...]
    origins: tuple[str, str]
    origin_columns: tuple[Any, Any, Any] | None
    human: Mapping[str, Any]
    data: Mapping[str, Any] = field(repr=False)
    criteria: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[int, str]:
        """What names the pair in its run."""
        return self.row, self.id

    @property
    def sides(self) -> tuple[list[Message], list[Message]]:
        """The winner, then the other; `a`, then `b` where there is no winner."""
        return (self.b, self.a) if self.winner == "b" else (self.a, self.b)

    @property
    def side_origins(self) -> tuple[str, str]:
        """Who wrote them, in the order of `sides`."""
        return self.origins[::-1] if self.winner == "b" else self.origins

    @property
    def extras(self) -> dict[str, Any]:
        """The columns of the prompt beside its messages: `tools` and `images`, where it has any."""
        return {name: self.data[name] for name in PROMPT_COLUMNS if name in self.data}

    @property
    def named_origins(self) -> dict[str, Any] | None:
        """Whole origins of prompt, `a` and `b` by name; None if they were not kept."""
        if self.origin_columns is None:
            return None
        return dict(zip(("prompt", "a", "b"), self.origin_columns, strict=True))

    @property
    def is_human_edit(self) -> bool:
        """Whether the pair holds a completion that a reviewer wrote: no judge saw it."""
        return "/edit-" in self.id and "human" in self.data["provenance"]

    def of_first_side(self, p_a: float) -> float:
        """A probability of `a` as that of the first of `sides`."""
        return 1.0 - p_a if self.winner == "b" else p_a


def read_labels(run: Path) -> Iterator[LabelRow]:
    """The labels of a run, the decided ones first, each file in input order.

    Raises:
        RlaifError: a file is missing, or a row is damaged or from an older version.
    """
    yield from read_label_file(run / PREFERENCES)
    yield from read_label_file(run / UNDECIDED)


def read_label_file(file: Path) -> Iterator[LabelRow]:
    """The labels of one of a run's two files.

    Raises:
        RlaifError: it is missing, or a row is damaged or from an older version.
    """
    return _read_as(parse_label, file)


@dataclass(frozen=True)
class VerdictRow:
    """One answer of a judge: one principle, one order.

    Attributes:
        row: number of the pair's input row, from 1.
        pair: the pair's id in that row.
        order: "ab" if `a` was shown first, else "ba".
        logit: log-odds that the response shown first is better.
        invalid: why the answer does not count, or "".
        reasoning: what the judge wrote before it answered, or "".
        judge: its name in a panel; "" in a run of one judge.
        data: the row as it stands in the file.
    """

    row: int
    pair: str
    principle: str
    order: str
    logit: float
    invalid: str
    reasoning: str
    judge: str
    data: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> tuple[int, str]:
        """What names the pair in its run."""
        return self.row, self.pair


def read_verdicts(run: Path) -> Iterator[VerdictRow]:
    """All answers of a run's judges, in input order.

    Raises:
        RlaifError: the file is missing, or a row is damaged or from an older version.
    """
    return _read_as(_parse_verdict, run / VERDICTS)


def _parse_verdict(row: Mapping[str, Any]) -> VerdictRow:
    if row["order"] not in ("ab", "ba"):
        raise ValueError(f"order is {row['order']!r}")
    for name in ("p_first", "label_mass"):
        if name in row:
            _number(row[name])
    return VerdictRow(
        row=int(row["row"]),
        pair=str(row["pair"]),
        principle=str(row["principle"]),
        order=row["order"],
        logit=_number(row["logit"]),
        invalid=str(row["invalid"]),
        reasoning=str(row.get("reasoning", "")),
        judge=str(row.get("judge", "")),
        data=row,
    )


def damaged_row(file: Path, number: int, error: Exception | str) -> RlaifError:
    """The error about a row of a run that can't be read."""
    what = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return RlaifError(
        f"row is damaged or from an older version ({what})",
        hint="Label again into a new folder; cached verdicts are reused.",
        place=Place(file, number, 1),
    )


def _read_as(parse: Callable[[Mapping[str, Any]], T], file: Path) -> Iterator[T]:
    for number, row in read_rows(file):
        try:
            found = parse(row)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged_row(file, number, error) from None
        yield found


def read_label_groups(run: Path) -> Iterator[tuple[int, dict[str, LabelRow]]]:
    """The labels by input row, in input order: the row's number and its pairs by id.

    Raises:
        RlaifError: see `read_labels`.
    """
    files = [read_label_file(run / name) for name in (PREFERENCES, UNDECIDED)]
    heads = [next(file, None) for file in files]
    while any(head is not None for head in heads):
        row = min(head.row for head in heads if head is not None)
        group: dict[str, LabelRow] = {}
        for k, file in enumerate(files):
            while (head := heads[k]) is not None and head.row == row:
                group[head.id] = head
                heads[k] = next(file, None)
        yield row, group


def parse_label(row: Mapping[str, Any]) -> LabelRow:
    """A row of `preferences.jsonl` or `undecided.jsonl`.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    evidence = _mapping(row["provenance"])
    if evidence["winner"] not in ("a", "b", "") or evidence["status"] not in STATUSES:
        raise ValueError(f"winner {evidence['winner']!r}, status {evidence['status']!r}")
    decided = "chosen" in row
    one, two, p = ("chosen", "rejected", "p_chosen") if decided else ("a", "b", "p_a")
    turned = evidence["winner"] == "b"

    def of_a(value: float) -> float:
        return 1.0 - value if turned else value

    sides = [_messages(row[one]), _messages(row[two])]
    origins = [str(evidence.get(f"origin_{side}", "")) for side in (one, two)]
    whole = evidence.get("origins")
    columns, prompt_column = None, None
    if isinstance(whole, Mapping):
        columns, prompt_column = [whole[one], whole[two]], whole["prompt"]
    if turned:
        sides, origins = sides[::-1], origins[::-1]
        columns = columns and columns[::-1]
    return LabelRow(
        id=str(evidence["id"]),
        row=int(evidence["row"]),
        prompt=_messages(row["prompt"]),
        a=sides[0],
        b=sides[1],
        status=str(evidence["status"]),
        winner=str(evidence["winner"]),
        reason=str(evidence["reason"]),
        p_a=of_a(_share(row[p])),
        margin=_share(evidence["margin"]),
        order_consistency=_share(evidence["order_consistency"]),
        prompt_injection=str(evidence.get("prompt_injection", "")),
        tags=tuple(tag for tag in str(evidence.get("tags", "")).split(",") if tag),
        principles=tuple(
            PrincipleLabel(
                principle=str(o["principle"]),
                tier=int(o["tier"]),
                weight=_number(o["weight"]),
                p_a=of_a(_share(o["p_chosen"])),
                source=str(o["source"]),
                invalid=str(o["invalid"]),
            )
            for o in evidence["principles"]
        ),
        judges=tuple(
            (str(j["judge"]), of_a(_share(j["p_chosen"]))) for j in evidence.get("judges", [])
        ),
        origins=(origins[0], origins[1]),
        origin_columns=None if columns is None else (prompt_column, columns[0], columns[1]),
        human=_mapping(evidence.get("human") or {}),
        data=row,
        criteria={str(c["id"]): str(c["text"]) for c in evidence.get("criteria") or []},
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{str(value)[:40]!r} is no object")
    return value


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:40]!r} is no list of messages")
    for message in value:
        if not isinstance(_mapping(message)["role"], str):
            raise TypeError("a role is no text")
        if not isinstance(message["content"], str):
            raise TypeError("the content of a message is no text")
        if not isinstance(message.get("tool_calls", []), list):
            raise TypeError("tool_calls is no list")
    return list(value)


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, str | bool) or not math.isfinite(number):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    return number


def _share(value: Any) -> float:
    """A probability or a margin, from 0 to 1."""
    number = _number(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{number} is not from 0 to 1")
    return number
