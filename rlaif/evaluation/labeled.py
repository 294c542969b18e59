"""Labeled data on its way into a judge: normalized into one file, and joined with what came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.data.dataset import open_dataset
from rlaif.data.file_formats import Row
from rlaif.data.labeled_pairs import (
    LabeledPair,
    exported,
    picked_for_doubt,
    read_labeled,
)
from rlaif.data.messages import BadRow
from rlaif.data.reading import Reader
from rlaif.data.sources import Source
from rlaif.errors import RlaifError
from rlaif.evaluation.outcomes import Outcomes, talk_key
from rlaif.records import Rejected
from rlaif.runs.directory import read_rows
from rlaif.util.files import write_atomically
from rlaif.util.output import NEW_FOLDER, check_folder

PAIRS = "pairs.jsonl"
SIGN = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True)
class LabeledData:
    """Labels in the order of the pairs of a file, and what could not be read.

    Attributes:
        label: 1 for response `a`, -1 for `b`, 0 for a tie.
        group: pairs of one prompt share it: they are not independent.
        row: pairs of one row share it.
        rejected: places with reasons, the first hundred; `dropped` counts them all.
    """

    label: NDArray[np.int64]
    group: list[str]
    row: list[str]
    subset: list[str]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    dropped: int = 0


def write_pairs(
    source: Source,
    folder: Path,
    *,
    given: Mapping[str, Any] | None = None,
    limit: int | None = None,
) -> LabeledData:
    """Write the labeled pairs of `source` to `folder/pairs.jsonl`, as `rlaif label` reads them.

    Args:
        given: fields of the data's layout that the user set.
        limit: the most rows to read.

    Raises:
        RlaifError: no row says which response is preferred, 0 and 1 stand for them, or `folder` is
            not one that an evaluation may write to.

    Long because it fills parallel lists, a row at a time.
    """
    data = open_dataset(source, given=given, need="verdict")
    _claim(folder, source)
    lines: list[str] = []
    rejected: list[tuple[str, str]] = []
    dropped = 0
    label: list[int] = []
    group: list[str] = []
    rows: list[str] = []
    subset: list[str] = []
    seen: Counter[str] = Counter()
    for number, (place, row) in enumerate(data.source.rows()):
        if limit is not None and number >= limit:
            break
        try:
            pairs = _read_pairs(row, number, data.reader)
        except BadRow as error:
            dropped += 1
            if len(rejected) < 100:
                rejected.append((place, str(error)))
            continue
        # Names that occur twice (RewardBench numbers each subset) are told apart by their row.
        seen[pairs[0].group] += 1
        again = f"#{number + 1}" if seen[pairs[0].group] > 1 else ""
        for pair in pairs:
            # Pairs of one prompt hang together, in whatever rows they stand.
            prompt = talk_key(pair.prompt)
            name = " ".join(pair.subset.split())
            own = {
                **pair.row(),
                "id": f"{pair.id}{again}",
                "group": prompt,
                "subset": name,
                "row": f"{pair.group}{again}",
            }
            lines.append(json.dumps(own, ensure_ascii=False))
            label.append(SIGN[pair.label])
            group.append(prompt)
            rows.append(own["row"])
            subset.append(name)
    if not lines:
        last = f" (last: {rejected[-1][0]}: {rejected[-1][1]})" if rejected else ""
        raise RlaifError(
            f"none of the {dropped} rows of {source.name!r} is a labeled pair{last}",
            hint="Use --map label=COLUMN to name the column that holds the preference.",
        )
    write_atomically(folder / PAIRS, "\n".join(lines) + "\n")
    return LabeledData(
        label=np.array(label, dtype=np.int64),
        group=group,
        row=rows,
        subset=subset,
        rejected=rejected,
        dropped=dropped,
    )


MARKER = ".rlaif-evaluation"


def _read_pairs(row: Row | Rejected, number: int, reader: Reader) -> list[LabeledPair]:
    """The labeled pairs of a row.

    Args:
        number: of the row, from 0.

    Raises:
        BadRow: it has none.
    """
    if isinstance(row, Rejected):
        raise BadRow(row.reason)
    if picked_for_doubt(row):
        raise BadRow(
            "selected by the review queue because the judge was unsure, so not a random sample"
        )
    pairs = list(read_labeled(exported(row), f"row-{number + 1}", reader))
    if not pairs:
        raise BadRow("no two responses of which one is better")
    return pairs


def _claim(folder: Path, source: Source) -> None:
    """Make the folder, or refuse one that holds other things."""
    check_folder(folder, "evaluation", held=(folder / MARKER).exists())
    if Path(source.name).exists() and Path(source.name).resolve() == (folder / PAIRS).resolve():
        raise RlaifError(
            f"the input {source.name!r} would be overwritten by this evaluation", hint=NEW_FOLDER
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def read_written_labels(folder: Path) -> LabeledData:
    """The labels of a `pairs.jsonl` written before.

    Raises:
        RlaifError: the file is missing or damaged.
    """
    rows = [row for _, row in read_rows(folder / PAIRS)]
    return LabeledData(
        np.array([SIGN[row["label"]] for row in rows], dtype=np.int64),
        [row["group"] for row in rows],
        [row["row"] for row in rows],
        [row["subset"] for row in rows],
    )


def aligned(data: LabeledData, outcomes: Outcomes) -> LabeledData:
    """The labels of the pairs that a run judged, in its order (one pair a row)."""
    at = outcomes.rows - 1
    return LabeledData(
        label=data.label[at],
        group=[data.group[i] for i in at],
        row=[data.row[i] for i in at],
        subset=[data.subset[i] for i in at],
        rejected=data.rejected,
        dropped=data.dropped,
    )
