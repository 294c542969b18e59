"""Reads the data sets of a mix into rows of one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlaif.data.dataset import explained_without_flags, open_dataset
from rlaif.data.languages import language_of
from rlaif.data.layout import set_fields
from rlaif.data.origins import origin_columns
from rlaif.data.reading import Reader
from rlaif.data.row_model import refuse_calls, refuse_media
from rlaif.data.single_rows import (
    BadRow,
    DataRow,
    label_probability,
    read_p_chosen,
    row_weight,
    taught,
)
from rlaif.data.slices import slice_values
from rlaif.errors import RlaifError
from rlaif.mixing.settings import MixKind, MixPart
from rlaif.records import Message, Origin, Rejected
from rlaif.runs.directory import run_file
from rlaif.templates.messages import completion_text, message_text
from rlaif.text.near_duplicates import TextFields

MIXED_FILES = ("preferences.jsonl", "sft.jsonl", "candidates.jsonl", "prompts.jsonl")


@dataclass
class MixRow:
    """A row of a mix.

    Attributes:
        completions: the chosen and the rejected one, one alone, or none.
        origins: of the prompt, then of each completion.
        labeled_by: "human", a judge's name, or "" where nobody labeled it.
        raw: the row as it came, for slices by column.
    """

    part: int
    id: str
    prompt: list[Message]
    completions: list[list[Message]]
    origins: list[Origin]
    p_chosen: float = 1.0
    labeled_by: str = ""
    weight: float = 1.0
    tags: frozenset[str] = frozenset()
    constitution: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def human_written(self) -> bool:
        """Whether people wrote what is learned: the chosen completion, the only one, or the prompt,
        where there is nothing else.
        """
        return self.origins[1 if self.completions else 0].kind == "human"

    @property
    def human_labeled(self) -> bool:
        """Whether people said which completion of the pair is better."""
        return self.labeled_by == "human"

    @property
    def known(self) -> bool:
        """Whether anything says who wrote what is learned."""
        return bool(self.origins[1 if self.completions else 0].kind)

    @property
    def depth(self) -> int:
        """The deepest of its texts, in synthetic generations."""
        return max(origin.depth for origin in self.origins)

    @property
    def texts(self) -> list[str]:
        """What is said in it: each turn and completion, since a short one is found as a whole
        only, and all of it.
        """
        turns = [message_text(m) for m in self.prompt]
        said = [completion_text(c) for c in self.completions]
        return [*turns, *said, "\n".join([*turns, *said])]

    @property
    def fields(self) -> TextFields:
        """For finding duplicates; a pair is the same whichever completion is chosen."""
        return TextFields(
            _text(self.prompt),
            "\n".join(sorted(map(completion_text, self.completions))),
            parts=tuple(map(completion_text, self.completions)),
        )

    def columns(self, kind: MixKind, source: str) -> dict[str, Any]:
        """The row as the mix holds it; every row of a kind has the same columns."""
        names = {"preferences": ("chosen", "rejected"), "sft": ("completion",), "prompts": ()}[kind]
        evidence: dict[str, Any] = {
            "id": self.id,
            "source": source,
            "status": "human" if self.human_labeled else "judge" if self.labeled_by else "",
            "judge": "" if self.human_labeled else self.labeled_by,
            "human_written": self.human_written,
            "human_labeled": self.human_labeled,
            "depth": self.depth,
            "weight": self.weight,
            "tags": ",".join(sorted(self.tags)),
            "constitution": self.constitution,
            "origins": {
                name: origin_columns(origin)
                for name, origin in zip(("prompt", *names), self.origins, strict=True)
            },
        }
        own: dict[str, Any] = {"prompt": self.prompt}
        own |= dict(zip(names, self.completions, strict=True))
        if kind == "preferences":
            own["p_chosen"] = self.p_chosen
        return {**own, "weight": self.weight, "provenance": evidence}


def file_of(data: str) -> str:
    """The file that is mixed.

    Raises:
        RlaifError: it is a run that is not complete, or that holds nothing to mix.
    """
    return run_file(data, MIXED_FILES)


def read_part(number: int, part: MixPart) -> tuple[list[MixRow], list[str]]:
    """The rows of one data set, and the places of those that can't be read.

    Raises:
        RlaifError: its pairs were said to be labeled by people, and it has none.
    """
    rows, bad = [], []
    with explained_without_flags(part.data):
        data = open_dataset(
            file_of(part.data), split=part.split, given=set_fields(part.layout), need="targets"
        )
    for count, (place, row) in enumerate(data.source.rows(), 1):
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            rows += [_declared(r, part) for r in _read(number, count, row, data.reader)]
        except BadRow as error:
            bad.append(f"{place}: {error}")
    if part.human_labeled and rows and not any(len(row.completions) == 2 for row in rows):
        raise RlaifError(
            f"{part.data!r} is said to be labeled by humans, but has no pairs",
            hint="If humans wrote its texts, use --human-written.",
        )
    return rows, bad


def _read(part: int, count: int, row: Mapping[str, Any], reader: Reader) -> Iterator[MixRow]:
    read = taught(refuse_calls(refuse_media(reader.read(row))), row)
    evidence = row.get("provenance")
    evidence = evidence if isinstance(evidence, Mapping) else {}
    name = str(evidence.get("id") or "") or read.id or f"row-{count}"
    stated = evidence.get("weight")
    weight = row_weight({"weight": stated}) if stated is not None else read.weight
    base = MixRow(
        part=part,
        id=name,
        prompt=list(read.prompt),
        completions=[],
        origins=[read.prompt_origin],
        weight=weight,
        tags=read.tags,
        constitution=str(evidence.get("constitution") or ""),
        raw=row,
    )
    if not read.completions:
        yield base
    elif read.labeled:
        yield _pair(base, read, row, evidence)
    else:
        several = len(read.completions) > 1
        for i, completion in enumerate(read.completions, 1):
            yield replace(
                base,
                id=f"{name}/{i}" if several else name,
                completions=[list(completion.messages)],
                origins=[read.prompt_origin, completion.source],
            )


def _pair(
    base: MixRow, read: DataRow, row: Mapping[str, Any], evidence: Mapping[str, Any]
) -> MixRow:
    chosen, rejected = read.completions
    if chosen.messages == rejected.messages:
        raise BadRow("chosen equals rejected")
    p = read_p_chosen(row)
    if p is None:
        p = label_probability(row)
    by = str(evidence.get("judge") or "")
    if evidence.get("status") == "human":
        by = "human"
    return replace(
        base,
        completions=[list(chosen.messages), list(rejected.messages)],
        origins=[read.prompt_origin, chosen.source, rejected.source],
        p_chosen=1.0 if p is None else p,
        labeled_by=by,
    )


def _declared(row: MixRow, part: MixPart) -> MixRow:
    """The row with what is said of its whole data set: a row's own word stands."""
    origins = row.origins
    if part.human_labeled and len(row.completions) == 2 and not row.labeled_by:
        row.labeled_by = "human"
    if part.human_written:
        origins = [o if o.kind else replace(o, kind="human") for o in origins]
    if part.license:
        origins = [o if o.license else replace(o, license=part.license) for o in origins]
    return replace(row, origins=origins, weight=row.weight * part.weight)


def as_kind(row: MixRow, kind: MixKind) -> MixRow:
    """The row made into another kind, which must need no more than it has.

    Raises:
        BadRow: it has no completion, or no two.
    """
    needed = {"preferences": 2, "sft": 1, "prompts": 0}[kind]
    if len(row.completions) < needed:
        raise BadRow("no chosen and rejected" if needed == 2 else "no completion")
    if len(row.completions) == needed:
        return row
    return replace(
        row,
        completions=row.completions[:needed],
        origins=row.origins[: 1 + needed],
        # Whoever chose it: what is learned is a text, and somebody wrote that.
        labeled_by="",
        p_chosen=1.0,
    )


def slice_holds(row: MixRow, name: str) -> bool:
    """Whether a row is in the slice `tag:NAME`, `language:CODE` or `COLUMN:VALUE`."""
    column, _, value = name.partition(":")
    if column == "tag":
        return value in row.tags
    if column == "language" and "language" not in row.raw:
        said = row.completions[0] if row.completions else row.prompt
        return language_of(completion_text(said)) == value
    return value in slice_values(row.raw, column)


def _text(messages: list[Message]) -> str:
    return "\n".join(map(message_text, messages))
