"""Finds the pairs of a run in a file of human labels: by their texts, or by their id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.data.dataset import check_use, open_dataset
from rlaif.data.labeled_pairs import (
    exported,
    picked_for_doubt,
    read_bare_verdicts,
    read_labeled,
)
from rlaif.data.messages import BadRow
from rlaif.data.sources import Source
from rlaif.errors import RlaifError
from rlaif.evaluation.labeled import SIGN
from rlaif.evaluation.outcomes import Outcomes, talk_key
from rlaif.records import Message, Rejected
from rlaif.runs.labels import read_labels
from rlaif.util.hashing import digest


@dataclass(frozen=True)
class MatchedLabels:
    """Human labels of a run's pairs.

    Attributes:
        known: where a pair has a label.
        label: 1 for `a`, -1 for `b`, 0 for a tie or for none.
        group: pairs of one prompt share it.
        unmatched: labels that belong to no pair of the run.
        unread: rows without a label that can be understood.
        picked: labels of pairs that a review picked for doubt: left out, as they stand for
            themselves only.
        conflicting: pairs on which people disagree; one of their votes, drawn by chance, is the
            label, so that the share of agreement is that of votes.
    """

    known: NDArray[np.bool_]
    label: NDArray[np.int64]
    group: list[str]
    unmatched: int
    conflicting: int
    unread: int = 0
    picked: int = 0


def match_labels(
    run: Path, outcomes: Outcomes, source: Source, *, given: Mapping[str, Any] | None = None
) -> MatchedLabels:
    """The labels of `source` for the pairs of a run, in the order of its outcomes.

    A row with texts is matched by its prompt and both responses, whichever stands first; a row
    with an id and a verdict alone (`{"id": ..., "label": "a"}`) by the pair's id.

    Raises:
        RlaifError: no label belongs to any pair.
    """
    labels = _collect(source, given)
    n = len(outcomes.ids)
    known, label = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.int64)
    group = [""] * n
    used: set[str] = set()
    times = Counter(outcomes.ids)
    conflicting = 0
    where = {
        (int(r), i): k for k, (r, i) in enumerate(zip(outcomes.rows, outcomes.ids, strict=True))
    }
    for labeled in read_labels(run):
        at = where[labeled.key]
        group[at] = talk_key(labeled.prompt)
        texts = (talk_key(labeled.a), talk_key(labeled.b))
        key = _pair_key(labeled.prompt, texts)
        found = labels.by_text.get(key)
        if found is not None:
            used.add(key)
            sides = {texts[0]: "a", texts[1]: "b", "tie": "tie"}
            found = [sides[text] for text in found]
        elif outcomes.ids[at] in labels.by_id:
            if times[outcomes.ids[at]] > 1:
                raise RlaifError(
                    f"ID {outcomes.ids[at]!r} belongs to {times[outcomes.ids[at]]} pairs",
                    hint="Use label rows with the prompt and both responses instead of IDs.",
                )
            found = labels.by_id[outcomes.ids[at]]
            used.add(outcomes.ids[at])
        if not found:
            continue
        conflicting += len(set(found)) > 1
        vote = found[int(digest(["vote", key])[:8], 16) % len(found)]
        known[at], label[at] = True, SIGN[vote]
    if not known.any():
        raise RlaifError(
            f"none of the {labels.read} labels in {source.name!r} matches a pair of {str(run)!r}",
            hint="Use labels for pairs of this run: rows with its prompts and responses, or "
            "its pair IDs.",
        )
    unmatched = len((labels.by_text.keys() | labels.by_id.keys()) - used)
    return MatchedLabels(
        known=known,
        label=label,
        group=group,
        unmatched=unmatched,
        conflicting=conflicting,
        unread=labels.unread,
        picked=labels.picked,
    )


@dataclass
class _GivenLabels:
    """The labels of a file: votes by the texts of a pair, and by its id."""

    by_text: dict[str, list[str]] = field(default_factory=dict)
    by_id: dict[str, list[str]] = field(default_factory=dict)
    read: int = 0
    unread: int = 0
    picked: int = 0


def _collect(source: Source, given: Mapping[str, Any] | None) -> _GivenLabels:
    """Read every row of a file of labels.

    Raises:
        RlaifError: its verdicts can be read in more than one way.
    """
    labels = _GivenLabels()
    data = open_dataset(source, given=given)
    has_texts = data.layout.prompt or data.layout.responses or data.layout.chosen
    if has_texts:
        check_use(source.name, data.found, "verdict")
    bare: list[tuple[int, Mapping[str, object]]] = []
    for number, (_, row) in enumerate(data.source.rows()):
        if isinstance(row, Rejected):
            labels.unread += 1
            continue
        if picked_for_doubt(row):
            labels.picked += 1
            continue
        try:
            if not has_texts:
                raise BadRow("no texts")
            for pair in read_labeled(exported(row), f"row-{number + 1}", data.reader):
                texts = (talk_key(pair.a.messages), talk_key(pair.b.messages))
                best = {"a": texts[0], "b": texts[1]}.get(pair.label, "tie")
                labels.by_text.setdefault(_pair_key(pair.prompt, texts), []).append(best)
                labels.read += 1
        except BadRow:
            bare.append((number, row))
    verdicts = read_bare_verdicts(bare, source.name)
    labels.unread += len(bare) - len(verdicts)
    for name, verdict in verdicts.values():
        labels.by_id.setdefault(name, []).append(verdict)
        labels.read += 1
    return labels


def _pair_key(prompt: Sequence[Message], texts: tuple[str, str]) -> str:
    return digest([talk_key(prompt), *sorted(texts)])
