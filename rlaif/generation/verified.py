"""Revisions as training data: which of them the judge found better than what they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlaif.generation.critique import PAIRS, TRACE
from rlaif.runs.directory import PREFERENCES, read_rows
from rlaif.runs.labels import read_label_file
from rlaif.util.files import replacing

SFT = "sft.jsonl"
LABELS = "labels"


@dataclass
class VerifiedRevisions:
    """How the judge took the revisions.

    Attributes:
        better: the revision won.
        worse: the original won.
        undecided: a tie, or an abstention.
        unchanged: responses in which nothing was found; they are no pairs.
    """

    better: int = 0
    worse: int = 0
    undecided: int = 0
    unchanged: int = 0


def write_sft(run: Path, *, verified: bool) -> VerifiedRevisions:
    """Write `sft.jsonl`: the final revisions, without those that the judge did not find better.

    Args:
        run: a complete critique run.
        verified: whether `run/labels` holds the judge's labels of `run/pairs.jsonl`; if not, all
            revisions are written, and none is called verified.

    Returns:
        What became of them; all are "undecided" where nothing was verified.
    """
    found = VerifiedRevisions()
    verdicts = _winners(run / LABELS, run) if verified else {}
    with replacing(run / SFT) as out:
        for number, row in _revised(run, found):
            won = verdicts.get(number)
            found.better += won is True
            found.worse += won is False
            found.undecided += won is None
            if verified and won is not True:
                continue
            line = {
                "prompt": row["prompt"],
                "completion": [{"role": "assistant", "content": row["final"]}],
                "weight": row["weight"],
                "prompt_origin": row["prompt_origin"],
                "tags": row["tags"],
                "provenance": {
                    "id": row["id"],
                    "origin": row["origin"],
                    "principles": [s["principle"] for s in row["steps"] if s["taken"]],
                    "verified": bool(won),
                },
            }
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    (run / "verified.json").write_text(json.dumps(asdict(found), indent=2) + "\n")
    return found


def _revised(run: Path, found: VerifiedRevisions) -> Iterator[tuple[int, dict[str, Any]]]:
    """Traces that ended in a revision, with the number of their pair."""
    number = 0
    for _, row in read_rows(run / TRACE):
        if row["status"] == "revised":
            number += 1
            yield number, row
        elif row["status"] == "unchanged":
            found.unchanged += 1


def _winners(labels: Path, run: Path) -> dict[int, bool]:
    """Whether the revision won, by the number of the pair; undecided pairs are left out."""
    finals = {
        number: row["response_b"] for number, (_, row) in enumerate(read_rows(run / PAIRS), 1)
    }
    return {
        label.row: label.sides[0][0]["content"] == finals[label.row]
        for label in read_label_file(labels / PREFERENCES)
    }
