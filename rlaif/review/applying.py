"""Human labels flow back: a run like the reviewed one, with what people said in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlaif.data.origins import origin_columns
from rlaif.data.single_rows import read_row
from rlaif.records import DIGITS, Origin
from rlaif.review.votes import CERTAINTY, HumanLabel
from rlaif.runs.directory import (
    CONSTITUTION,
    PREFERENCES,
    REVIEW,
    UNDECIDED,
    RunDirectory,
    check_config,
    read_manifest,
    read_rows,
)
from rlaif.runs.labels import LabelRow, parse_label, read_labels
from rlaif.runs.rows import principle_row, turn_label, turn_probability
from rlaif.runs.tally import MARGIN_BINS, Tally, dump_tally, load_tally
from rlaif.util.clock import utc
from rlaif.util.files import write_atomically
from rlaif.util.hashing import digest


@dataclass
class AppliedLabels:
    """What became of the pairs.

    Attributes:
        confirmed, corrected: labels of the judge that people share, and that they reversed.
        settled: pairs without a label that people gave one.
        untied: labels of the judge that people call a tie: they have none now.
        disputed: pairs on which people contradict each other: they have no label either.
        edits: new pairs of a completion that somebody wrote.
    """

    path: Path
    confirmed: int = 0
    corrected: int = 0
    settled: int = 0
    untied: int = 0
    disputed: int = 0
    edits: int = 0


def apply_labels(
    run: Path,
    labels: Sequence[HumanLabel],
    out: Path,
    *,
    certainty: float | None,
    facts: Mapping[str, Any],
) -> AppliedLabels:
    """Write the run `out`: the rows of `run`, those that people labeled with status `human`.

    The evidence of the judge stays in every row; `human` says who reviewed it, how many, what the
    judge gave to the side that is chosen now, and with what chance the row came into the queue.

    Args:
        facts: what the review found of the judge's labels, for reports and data cards.

    Raises:
        RlaifError: `out` is another run, or `run` is damaged.

    Long because it writes one run from another, file by file, between two checks of resumption.
    """
    manifest = read_manifest(run)
    said = [
        [f.task.number, f.votes, f.winner, f.notes, [[e.reviewer, e.side, e.text] for e in f.edits]]
        for f in labels
    ]
    review = {
        "run": str(run.resolve()),
        "labels": len(labels),
        "certainty": certainty,
        "hash": digest(said),
    }
    config = {**manifest["config"], "review": review}
    check_config(out, config)
    by_number = {found.task.number: found for found in labels}
    tally = load_tally(manifest["counts"])
    applied = AppliedLabels(out)
    with closing(RunDirectory(out, config)) as target:
        if (run / CONSTITUTION).exists():
            shutil.copyfile(run / CONSTITUTION, out / CONSTITUTION)
        write_atomically(out / REVIEW, json.dumps(facts) + "\n")
        if target.journal["rows"]:  # made before: the configuration says that it is the same
            counts = target.journal["applied"]
            _finish(
                target=target,
                manifest=manifest,
                config=config,
                tally=target.journal["tally"],
                counts=counts,
            )
            return AppliedLabels(out, **counts)
        tally.decided = tally.tie = tally.abstained = 0
        tally.margins = [0] * MARGIN_BINS
        tally.reasons = {}
        tally.numbers = {}
        for name in ("verdicts.jsonl", "rejected.jsonl"):
            for _, row in read_rows(run / name):
                target.append(name, row)
        for number, label in enumerate(read_labels(run)):
            for row in _rows(label, by_number.get(number), applied, certainty):
                target.append(PREFERENCES if "chosen" in row else UNDECIDED, row)
                _count(tally, parse_label(row))
        tally.pairs += applied.edits
        counts = {k: v for k, v in vars(applied).items() if k != "path"}
        target.checkpoint(rows=tally.rows, tally=dump_tally(tally), applied=counts)
        _finish(
            target=target, manifest=manifest, config=config, tally=dump_tally(tally), counts=counts
        )
    return applied


def _finish(
    target: RunDirectory,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    tally: Mapping[str, Any],
    counts: Mapping[str, int],
) -> None:
    """Say that the run is complete."""
    review = {**config["review"], **counts}
    target.write_manifest({**manifest, "config": config, "counts": tally, "review": review})


def _count(tally: Tally, label: LabelRow) -> None:
    if label.winner:
        tally.decided += 1
        tally.margins[min(MARGIN_BINS - 1, int(label.margin * MARGIN_BINS))] += 1
    else:
        tally.tie += label.status == "tie"
        tally.abstained += label.status == "abstained"
        tally.add_reason(label.reason)
    if "/edit-" in label.id and label.origin_columns is not None:
        read = read_row(label.data)
        tally.add_origins((read.prompt_origin, *(c.source for c in read.completions)), label.row)


def _rows(
    label: LabelRow, found: HumanLabel | None, applied: AppliedLabels, certainty: float | None
) -> list[dict[str, Any]]:
    """What a row becomes, and the pairs that edits add."""
    row = label.data
    if found is None:
        unseen = {
            "reviewers": "",
            "votes": 0,
            "judge_p_chosen": turn_probability(label.p_a, label.winner),
            "inclusion": 0.0,
            "note": "",
        }
        return [{**row, "provenance": {**row["provenance"], "human": unseen}}]
    _account(found, applied)
    sure = CERTAINTY if certainty is None else certainty
    edited = [_edited(label, found, i, sure) for i in range(len(found.edits))]
    return [_relabeled(label, found), *edited]


def _account(found: HumanLabel, applied: AppliedLabels) -> None:
    before = found.task.item.winner
    if found.split:
        applied.disputed += 1
    elif found.winner == "tie":
        applied.untied += bool(before)
    elif not before:
        applied.settled += 1
    elif before == found.winner:
        applied.confirmed += 1
    else:
        applied.corrected += 1
    applied.edits += len(found.edits)


def _relabeled(label: LabelRow, found: HumanLabel) -> dict[str, Any]:
    """The row with the winner that people found; the judge's evidence is turned to that side."""
    winner = "" if found.winner == "tie" else found.winner
    reason = "" if winner else "humans labeled it a tie"
    old = _evidence(label)
    evidence = {
        **old,
        "status": "human" if winner else "tie",
        "reason": "human labels disagree" if found.split else reason,
        "winner": winner,
        "margin": round(abs(2.0 * found.p_a - 1.0), DIGITS),
        "deciding_tier": 0,
        "principles": [principle_row(**asdict(o), winner=winner) for o in label.principles],
        "human": {
            "reviewers": ", ".join(sorted(found.votes)),
            "votes": len(found.votes),
            "judge_p_chosen": turn_probability(label.p_a, winner),
            "inclusion": round(found.task.inclusion, 6),
            "note": " / ".join(found.notes.values()),
        },
    }
    if "judges" in old:
        evidence["judges"] = [
            {**row, "p_chosen": turn_probability(p_a, winner)}
            for row, (_, p_a) in zip(old["judges"], label.judges, strict=True)
        ]
    return turn_label(
        prompt=label.prompt,
        extras=label.extras,
        a=label.a,
        b=label.b,
        winner=winner,
        p_a=found.p_a,
        evidence=evidence,
        writers=label.origins,
        origins=label.named_origins,
    )


def _evidence(label: LabelRow) -> dict[str, Any]:
    """The provenance of a row without what `turn_label` puts there."""
    old = label.data["provenance"].items()
    return {k: v for k, v in old if k != "origins" and not k.startswith("origin_")}


def _edited(label: LabelRow, found: HumanLabel, k: int, p: float) -> dict[str, Any]:
    """The new pair: what somebody wrote, against what it was written from."""
    edit = found.edits[k]
    side = 1 if edit.side == "b" else 0
    source = (label.a, label.b)[side]
    evidence = {
        **_evidence(label),
        "id": f"{label.id}/edit-{k + 1}",
        "status": "human",
        "reason": "",
        "winner": "a",
        "margin": round(2.0 * p - 1.0, DIGITS),
        "deciding_tier": 0,
        "principles": [],
        "human": {
            "reviewers": edit.reviewer,
            "votes": 1,
            "judge_p_chosen": 0.5,
            "inclusion": round(found.task.inclusion, 6),
            "note": " / ".join(found.notes.values()),
        },
    }
    if "judges" in evidence:
        evidence["judges"] = []
    origins = label.named_origins
    if origins is not None:
        # Edited by a person: human, but no less synthetic than what it was written from.
        written_from = origins["ab"[side]]
        written = Origin("human", depth=int(written_from["depth"]), time=utc(edit.at))
        origins = {**origins, "a": origin_columns(written), "b": written_from}
    return turn_label(
        prompt=label.prompt,
        extras=label.extras,
        a=[*source[:-1], {**source[-1], "content": edit.text}],
        b=source,
        winner="a",
        p_a=p,
        evidence=evidence,
        writers=("human", label.origins[side]),
        origins=origins,
    )
