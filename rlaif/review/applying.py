"""Human labels flow back: a run like the reviewed one, with what people said in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.data.layouts import read_row
from rlaif.data.origins import origin_columns
from rlaif.records import Origin
from rlaif.review.labels import HumanLabel
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
    certainty: float,
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
    label: LabelRow, found: HumanLabel | None, applied: AppliedLabels, certainty: float
) -> list[dict[str, Any]]:
    """What a row becomes, and the pairs that edits add."""
    row = label.data
    if found is None:
        return [{**row, "provenance": {**row["provenance"], "human": _human(row, None, 1.0)}}]
    rows = [_relabeled(label, found, applied)]
    rows += [_edited(rows[0], found, i, certainty) for i in range(len(found.edits))]
    applied.edits += len(found.edits)
    return rows


def _human(row: Mapping[str, Any], found: HumanLabel | None, p_judge: float) -> dict[str, Any]:
    """The same keys in every row."""
    if found is None:
        p = row.get("p_chosen", row.get("p_a"))
        return {"reviewers": "", "votes": 0, "judge_p_chosen": p, "inclusion": 0.0, "note": ""}
    return {
        "reviewers": ", ".join(sorted(found.votes)),
        "votes": len(found.votes),
        "judge_p_chosen": round(p_judge, 5),
        "inclusion": round(found.task.inclusion, 6),
        "note": " / ".join(found.notes.values()),
    }


def _relabeled(label: LabelRow, found: HumanLabel, applied: AppliedLabels) -> dict[str, Any]:
    """Long because it turns one row around: every field that depends on the side is here."""
    item = found.task.item
    before, now = item.winner, found.winner
    if found.split:
        applied.disputed += 1
    elif now == "tie":
        applied.untied += bool(before)
    elif not before:
        applied.settled += 1
    elif before == now:
        applied.confirmed += 1
    else:
        applied.corrected += 1
    row = label.data
    old = row["provenance"]
    # The old row's probabilities are of its winner's side (of `a` where there was none).
    turned = (before == "b") != (now == "b")
    p_side = found.p_a if now != "b" else 1.0 - found.p_a
    p_judge = item.p_a if now != "b" else 1.0 - item.p_a
    evidence = {k: v for k, v in old.items() if not k.startswith("origin_")}
    evidence |= {
        "status": "tie" if now == "tie" else "human",
        "reason": "human labels disagree"
        if found.split
        else "humans labeled it a tie"
        if now == "tie"
        else "",
        "winner": "" if now == "tie" else now,
        "margin": round(abs(2.0 * p_side - 1.0), 5),
        "deciding_tier": 0,
        "principles": [
            {**o, "p_chosen": round(1.0 - o["p_chosen"], 5) if turned else o["p_chosen"]}
            for o in old["principles"]
        ],
        "human": _human(row, found, p_judge),
    }
    if "judges" in old:
        evidence["judges"] = [
            {**j, "p_chosen": round(1.0 - j["p_chosen"], 5) if turned else j["p_chosen"]}
            for j in old["judges"]
        ]
    if label.origin_columns:
        prompt, a, b = label.origin_columns
        named = (
            {"a": a, "b": b}
            if now == "tie"
            else ({"chosen": a, "rejected": b} if now == "a" else {"chosen": b, "rejected": a})
        )
        evidence["origins"] = {"prompt": prompt, **named}
    if now == "tie":
        names = {"origin_a": item.origins[0], "origin_b": item.origins[1]}
        return {
            "prompt": row["prompt"],
            "a": item.a,
            "b": item.b,
            "p_a": round(p_side, 5),
            "provenance": {**evidence, **names},
        }
    chosen, rejected = (item.a, item.b) if now == "a" else (item.b, item.a)
    names_ = item.origins if now == "a" else item.origins[::-1]
    evidence |= {"origin_chosen": names_[0], "origin_rejected": names_[1]}
    return {
        "prompt": row["prompt"],
        "chosen": chosen,
        "rejected": rejected,
        "p_chosen": round(p_side, 5),
        "provenance": evidence,
    }


def _edited(relabeled: dict[str, Any], found: HumanLabel, k: int, p: float) -> dict[str, Any]:
    """The new pair: what somebody wrote, against what it was written from."""
    edit, item = found.edits[k], found.task.item
    source = item.a if edit.side != "b" else item.b
    origin = item.origins[0] if edit.side != "b" else item.origins[1]
    own = json.loads(json.dumps(relabeled["provenance"]))
    own.pop("origin_a", None)
    own.pop("origin_b", None)
    own |= {
        "id": f"{item.id}/edit-{k + 1}",
        "status": "human",
        "reason": "",
        "winner": "a",
        "principles": [],
        "origin_chosen": "human",
        "origin_rejected": origin,
    }
    if "judges" in own:
        own["judges"] = []
    if columns := parse_label(relabeled).origin_columns:
        prompt, a, b = columns
        # Edited by a person: human, but no less synthetic than what it was written from.
        source_origin = a if edit.side != "b" else b
        written = Origin("human", depth=int(source_origin["depth"]), time=utc(edit.at))
        own["origins"] = {
            "prompt": prompt,
            "chosen": origin_columns(written),
            "rejected": source_origin,
        }
    votes = {"reviewers": edit.reviewer, "votes": 1, "judge_p_chosen": 0.5}
    own["human"] = {**own["human"], **votes}
    own["margin"] = round(2.0 * p - 1.0, 5)
    chosen = [*source[:-1], {**source[-1], "content": edit.text}]
    return {
        "prompt": relabeled["prompt"],
        "chosen": chosen,
        "rejected": source,
        "p_chosen": round(p, 5),
        "provenance": own,
    }
