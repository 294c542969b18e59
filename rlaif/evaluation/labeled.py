"""Labeled data on its way into a judge: normalised into one file, and joined with what came out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import RlaifError
from rlaif.evaluation.outcomes import Outcomes
from rlaif.records import Rejected
from rlaif.stages.labels import read_labeled
from rlaif.stages.layouts import BadRow
from rlaif.store.run_directory import read_rows, write_atomically
from rlaif.store.sources import Source

PAIRS = "pairs.jsonl"
SIGN = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True)
class LabeledData:
    """Labels in the order of the pairs of a file, and what could not be read.

    Attributes:
        label: 1 for response `a`, -1 for `b`, 0 for a tie.
        group: pairs of one row share it.
        rejected: places with reasons, the first hundred; `dropped` counts them all.
    """

    label: NDArray[np.int64]
    group: list[str]
    subset: list[str]
    rejected: list[tuple[str, str]] = field(default_factory=list)
    dropped: int = 0


def write_pairs(
    source: Source,
    folder: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> LabeledData:
    """Write the labeled pairs of `source` to `folder/pairs.jsonl`, as `rlaif label` reads them.

    Args:
        limit: the most rows to read.

    Raises:
        RlaifError: no row says which response is preferred.
    """
    lines: list[str] = []
    rejected: list[tuple[str, str]] = []
    dropped = 0
    label: list[int] = []
    group: list[str] = []
    subset: list[str] = []
    seen: Counter[str] = Counter()
    for number, (place, row) in enumerate(source.rows()):
        if limit is not None and number >= limit:
            break
        try:
            if isinstance(row, Rejected):
                raise BadRow(row.reason)
            pairs = list(read_labeled(row, f"row-{number + 1}", mapping))
        except BadRow as error:
            dropped += 1
            if len(rejected) < 100:
                rejected.append((place, str(error)))
            continue
        # Names that occur twice (RewardBench numbers each subset) are told apart by their row.
        seen[pairs[0].group] += 1
        again = f"#{number + 1}" if seen[pairs[0].group] > 1 else ""
        for pair in pairs:
            own = {**pair.row(), "id": f"{pair.id}{again}", "group": f"{pair.group}{again}"}
            lines.append(json.dumps(own, ensure_ascii=False))
            label.append(SIGN[pair.label])
            group.append(own["group"])
            subset.append(pair.subset)
    if not lines:
        last = f" (the last: {rejected[-1][0]}: {rejected[-1][1]})" if rejected else ""
        raise RlaifError(
            f"none of the {dropped} rows of {source.name!r} is a labeled pair{last}",
            hint="--map label=COLUMN names the column that says who won.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / PAIRS, "\n".join(lines) + "\n")
    return LabeledData(np.array(label, dtype=np.int64), group, subset, rejected, dropped)


def read_labels(folder: Path) -> LabeledData:
    """The labels of a `pairs.jsonl` written before.

    Raises:
        RlaifError: the file is missing or damaged.
    """
    rows = [row for _, row in read_rows(folder / PAIRS)]
    return LabeledData(
        np.array([SIGN[row["label"]] for row in rows], dtype=np.int64),
        [row["group"] for row in rows],
        [row["subset"] for row in rows],
    )


def aligned(data: LabeledData, outcomes: Outcomes) -> LabeledData:
    """The labels of the pairs that a run judged, in its order (one pair a row)."""
    at = outcomes.rows - 1
    return LabeledData(
        data.label[at], [data.group[i] for i in at], [data.subset[i] for i in at],
        data.rejected, data.dropped,
    )  # fmt: skip
