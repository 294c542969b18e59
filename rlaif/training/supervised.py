"""Gathers rows for supervised training, and accounts for every one that is not trained on whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.dataset import open_dataset
from rlaif.data.row_model import DataRow, refuse_media
from rlaif.data.single_rows import (
    BadRow,
    taught,
    with_responses,
)
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.generation.candidates import CANDIDATES
from rlaif.generation.verified import SFT
from rlaif.records import UNKNOWN_ORIGIN, Message, Origin, Rejected
from rlaif.runs.directory import run_file
from rlaif.templates.messages import message_text
from rlaif.training.lengths import LengthAccount, LengthFilter
from rlaif.training.policy_text import PolicyText, shown


@dataclass(frozen=True)
class SupervisedRow:
    """One completion to learn.

    Attributes:
        depth: how many synthetic generations deep the completion is.
        origin, prompt_origin: where completion and prompt are from.
        tools: definitions of the tools that could be called.
    """

    id: str
    prompt: list[Message]
    completion: list[Message]
    depth: int
    weight: float = 1.0
    origin: Origin = UNKNOWN_ORIGIN
    prompt_origin: Origin = UNKNOWN_ORIGIN
    tags: frozenset[str] = frozenset()
    tools: Sequence[Any] = ()


@dataclass
class SupervisedAccount(LengthAccount):
    """Where the rows went; every count that is not zero is told before training starts."""

    read: int = 0
    unreadable: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One sentence for each thing that happened to rows."""
        named = ((self.unreadable, "could not be read"), *self.length_facts())
        lines = [f"{self.read} completions"]
        lines += self.text_lines()
        lines += [f"{len(ids)} {what} ({shown(ids)})" for ids, what in named if ids]
        if self.repeated_by_weight:
            lines.append(f"{self.repeated_by_weight} rows after repeating them by weight")
        return [*lines, f"{self.trained} completions to train on"]


def data_file(data: str) -> str:
    """The file to read: of a critique run its verified revisions.

    Raises:
        RlaifError: it is a run without completions to learn, or not complete.
    """
    return run_file(data, (SFT, CANDIDATES))


def read_supervised(
    data: str, account: SupervisedAccount, given: Mapping[str, Any] | None = None
) -> list[SupervisedRow]:
    """The completions of a data set, in its order.

    Args:
        given: fields of the data's layout that the user set.

    Raises:
        RlaifError: there are none.
    """
    rows: list[SupervisedRow] = []
    found = open_dataset(data, given=given, need="targets")
    for place, row in found.source.rows():
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            read = with_responses(refuse_media(found.reader.read(row)), row)
            rows += _completions(place, taught(read, row))
        except BadRow as error:
            account.unreadable.append(f"{place}: {error}")
    account.read = len(rows)
    if not rows:
        last = f" (last: {account.unreadable[-1]})" if account.unreadable else ""
        raise RlaifError(
            f"no completion in {data!r} could be read{last}",
            hint="Each row needs a prompt and a completion, or messages that end with one.",
        )
    return rows


def _completions(place: str, read: DataRow) -> Iterator[SupervisedRow]:
    # Of a ranked pair nobody wants to learn the worse one.
    completions = read.completions[: 1 if read.labeled else None]
    for i, completion in enumerate(completions):
        yield SupervisedRow(
            id=f"{read.id or place}/{i + 1}" if len(completions) > 1 else read.id or place,
            prompt=list(read.prompt),
            completion=list(completion.messages),
            depth=completion.depth,
            weight=read.weight,
            origin=completion.source,
            prompt_origin=read.prompt_origin,
            tags=read.tags,
            tools=read.tools,
        )


def check_supervised_lengths(
    rows: Sequence[SupervisedRow],
    text: PolicyText,
    *,
    max_length: int,
    overlong: str,
    account: SupervisedAccount,
) -> list[SupervisedRow]:
    """Leave out what can't be trained on.

    Raises:
        RlaifError: nothing is left, or a row is too long and `overlong` is "error".
    """
    kept = []
    fits = LengthFilter("row", text, max_length=max_length, overlong=overlong, account=account)
    for row in rows:
        try:
            prompt, whole, common = text.lengths(row.prompt, row.completion, row.tools)
        except ConversationRefused:
            account.refused.append(row.id)
            continue
        if not message_text(row.completion[-1]).strip():
            account.empty.append(row.id)
        elif fits.keeps(row.id, prompt=prompt, common=common, least=whole, most=whole):
            kept.append(row)
    if not kept:
        raise RlaifError(
            "no completion is left to train on: " + "; ".join(account.lines()[1:-1]),
            hint=f"Raise --max-length (now {max_length}).",
        )
    account.trained = len(kept)
    return kept
