"""Reads what an audit looks at: texts to be learned, and where they are from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rlaif.data.dataset import open_dataset
from rlaif.data.origins import KINDS
from rlaif.data.reading import Reader
from rlaif.data.single_rows import (
    BadRow,
    DataRow,
    row_weight,
    taught,
)
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.runs.directory import run_file
from rlaif.templates.messages import completion_text, conversation_text, message_text

Which = Literal["auto", "chosen", "rejected", "prompts"]
AUDITED_FILES = (
    "preferences.jsonl",
    "sft.jsonl",
    "candidates.jsonl",
    "prompts.jsonl",
    "pairs.jsonl",
)


@dataclass(frozen=True)
class AuditRow:
    """What is looked at of one row.

    Attributes:
        texts: completions to be learned, or the prompt where there are none; one that stands for
            near-duplicates of its prompt (`copies`) is there as often: a model that says one thing
            to each prompt has lost diversity too.
        kind: "human" if people wrote all of its texts, "model", or "" for unknown.
        labeled_by: "human", "judge", or "" where nobody chose between completions.
        human_labels: the share of the row's weight whose label is of people.
        depth: of the deepest text, in synthetic generations.
        raw: the row as it came, for slices.
    """

    prompt: str
    texts: list[str]
    kind: str
    depth: int
    weight: float = 1.0
    tags: frozenset[str] = frozenset()
    raw: Mapping[str, Any] = field(default_factory=dict)
    labeled_by: str = ""
    human_labels: float = 0.0


def read_audited(
    data: str,
    which: Which = "auto",
    split: str = "train",
    given: Mapping[str, Any] | None = None,
) -> list[AuditRow]:
    """The rows of a run, a mix or a data set.

    Args:
        which: of pairs the chosen completions (auto and chosen) or the rejected ones; prompts.
        given: fields of the data's layout that the user set.

    Raises:
        RlaifError: it can't be read, or no row has what is asked for.
    """
    rows = merged(list(_rows(data, which, split, given)))
    if not rows:
        what = {"auto": "a prompt or a completion", "prompts": "a prompt"}.get(which, which)
        raise RlaifError(f"{data!r} has no row with {what}", hint="Check the column names.")
    return rows


def merged(rows: Sequence[tuple[AuditRow, str | None]]) -> list[AuditRow]:
    """Rows without what pairs repeat: a completion that was chosen over several others of its
    prompt was written once, and is there as often as it was chosen over the same one.

    Args:
        rows: each with the other completion of its pair; None where it is no pair.
    """
    times: Counter[tuple[str, ...]] = Counter(
        (row.prompt, *row.texts, other) for row, other in rows if other is not None
    )
    most: dict[tuple[str, ...], int] = {}
    for pair, count in times.items():
        most[pair[:-1]] = max(most.get(pair[:-1], 0), count)
    found: list[AuditRow] = []
    weights: dict[tuple[str, ...], float] = {}
    human: dict[tuple[str, ...], float] = {}
    pairs: dict[tuple[str, ...], AuditRow] = {}
    for row, other in rows:
        if other is None:
            found.append(row)
            continue
        key = (row.prompt, *row.texts)
        weights[key] = weights.get(key, 0.0) + row.weight
        if row.labeled_by == "human":
            human[key] = human.get(key, 0.0) + row.weight
        before = pairs.get(key)
        # What people said of any of the pairs stands for the completion.
        if before is None or (row.labeled_by == "human" and before.labeled_by != "human"):
            pairs[key] = row
    for key, row in pairs.items():
        share = human.get(key, 0.0) / weights[key] if weights[key] else 0.0
        own = replace(row, weight=weights[key] / most[key], human_labels=share)
        found += [own] * most[key]
    return found


def _rows(
    data: str, which: Which, split: str, given: Mapping[str, Any] | None
) -> Iterator[tuple[AuditRow, str | None]]:
    found = open_dataset(run_file(data, AUDITED_FILES, finished=False), split=split, given=given)
    for _, row in found.source.rows():
        if isinstance(row, Rejected):
            continue
        read = _read(row, which, found.reader)
        if read is not None:
            yield read


def _read(
    row: Mapping[str, Any], which: Which, reader: Reader
) -> tuple[AuditRow, str | None] | None:
    try:
        read = reader.read_prompt(row) if which == "prompts" else reader.read(row)
        if not read.completions and which not in ("auto", "prompts"):
            return None
        read = taught(read, row)
    except BadRow:  # a pair without a winner teaches nothing
        return None
    if which in ("chosen", "rejected") and not read.labeled:
        return None
    prompt = conversation_text(read.prompt)
    said, other = read.completions, None
    if read.labeled:
        said, others = (said[1:], said[:1]) if which == "rejected" else (said[:1], said[1:])
        other = completion_text(others[0].messages)
    texts = [completion_text(c.messages) for c in said]
    copies = _copies(row, len(texts)) if not read.labeled else [1] * len(texts)
    repeated = [text for text, n in zip(texts, copies, strict=True) for _ in range(n)]
    evidence = row.get("provenance")
    evidence = evidence if isinstance(evidence, Mapping) else {}
    kind, depth = _origin(read, evidence, [c.source for c in said] or [read.prompt_origin])
    weight = evidence.get("weight")
    found = AuditRow(
        prompt=prompt,
        texts=repeated or [" ".join(map(message_text, read.prompt))],
        kind=kind,
        depth=depth,
        weight=read.weight if weight is None else row_weight(evidence),
        tags=read.tags,
        raw=row,
        labeled_by=_labeler(evidence) if read.labeled else "",
    )
    return found, other


def _labeler(evidence: Mapping[str, Any]) -> str:
    if evidence.get("status") == "human":
        return "human"
    return "judge" if evidence.get("judge") else ""


def _origin(read: DataRow, evidence: Mapping[str, Any], origins: list[Any]) -> tuple[str, int]:
    depths = [o.depth for o in (*origins, read.prompt_origin)]
    stated = evidence.get("depth")
    depths += [stated] if isinstance(stated, int) else []
    kinds = {o.kind for o in origins}
    kind = "human" if kinds == {"human"} else "model" if "model" in kinds else ""
    assert kind in (*KINDS, "")
    return kind, max(depths)


def _copies(row: Mapping[str, Any], count: int) -> list[int]:
    """How many near-duplicates each completion stands for."""
    listed = row.get("completions")
    if not isinstance(listed, list) or len(listed) != count:
        return [1] * count
    found = [item.get("copies") if isinstance(item, Mapping) else None for item in listed]
    return [n if isinstance(n, int) and 0 < n < 10_000 else 1 for n in found]


def human_written(rows: Sequence[AuditRow]) -> float | None:
    """The share of rows whose texts people wrote, by weight; None where no row says who did."""
    if not any(row.kind for row in rows):
        return None
    return _share(rows, [float(row.kind == "human") for row in rows])


def human_labeled(rows: Sequence[AuditRow]) -> float | None:
    """The share of rows whose label is of people, by weight; None where no row says whose it is."""
    if not any(row.labeled_by for row in rows):
        return None
    return _share(rows, [row.human_labels for row in rows])


def _share(rows: Sequence[AuditRow], human: Sequence[float]) -> float:
    total = sum(row.weight for row in rows)
    own = sum(row.weight * part for row, part in zip(rows, human, strict=True))
    return own / total if total else 0.0
