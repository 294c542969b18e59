"""Several judges over the same data, one after the other, aggregated into one run.

Each judge labels into a run of its own, in `members/` of the panel's run; its engine is released
before the next one starts.  In a cascade a later judge sees only pairs of which the one before
was unsure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from rlaif.data.layout import OWN_PAIRS
from rlaif.data.messages import BadRow
from rlaif.data.origins import origin_columns
from rlaif.data.pairing import make_pairs
from rlaif.data.pictures import load_pictures
from rlaif.data.reading import Reader
from rlaif.data.row_rubrics import write_rubric
from rlaif.engines.model_origin import text_origins
from rlaif.errors import RlaifError
from rlaif.judging.calibration import Calibration, calibrated
from rlaif.judging.panel import JudgeVote, PanelMode, aggregate_panel
from rlaif.labeling.job import LabelJob, LabelSummary, prepare, run_label, run_manifest, summary_of
from rlaif.labeling.load_calibration import check_fits, load_calibration
from rlaif.labeling.planner import pairs_of
from rlaif.labeling.settings import LabelSettings
from rlaif.records import CUT, Pair, Preference, PrincipleScore
from rlaif.runs.context import RunContext
from rlaif.runs.cost import Prices, TokenUsage
from rlaif.runs.directory import (
    CONSTITUTION,
    PREFERENCES,
    REJECTED,
    UNDECIDED,
    VERDICTS,
    RunDirectory,
    check_config,
    is_complete,
    read_rows,
)
from rlaif.runs.labels import (
    LabelRow,
    PrincipleLabel,
    read_label_groups,
    read_labels,
    read_verdicts,
)
from rlaif.runs.rows import label_row, turn_probability
from rlaif.runs.tally import Tally, dump_tally, load_tally
from rlaif.util.files import write_atomically
from rlaif.util.hashing import digest

MEMBERS = "members"


@dataclass(frozen=True)
class PanelMember:
    """A judge of a panel."""

    settings: LabelSettings
    weight: float = 1.0


@dataclass(frozen=True)
class Panel:
    """Judges and how they are aggregated.

    Attributes:
        escalate_below: in a cascade, the margin below which the next judge is asked, for judges
            without an agreement target of their own; pairs that a judge does not decide always go
            on.
        calibration: file from `rlaif calibrate` of an earlier run of this panel; None for none.
    """

    members: Sequence[PanelMember]
    mode: PanelMode = "mean"
    escalate_below: float = 0.5
    calibration: str | None = None


def run_panel(
    data: str,
    constitution: str,
    panel: Panel,
    out: Path,
    context: RunContext = RunContext(),
    *,
    split: str = "train",
    prices: Prices | None = None,
) -> LabelSummary:
    """Label with every judge, fold, and write one run; run again, it goes on where it stopped.

    Raises:
        RlaifError: a judge can't be used, or `out` is another run.

    Long because it goes from the judges' runs to the manifest, step by step.
    """
    jobs = [prepare(data, constitution, m.settings, split=split) for m in panel.members]
    names = _names([job.settings.judge.model for job in jobs])
    config = _config(panel, jobs)
    calibration = _calibration(panel, config)
    check_config(out, config)
    if is_complete(out):
        return summary_of(out, prices)
    with closing(RunDirectory(out, config)) as run:
        write_atomically(out / CONSTITUTION, jobs[0].constitution.merged_yaml())
        (out / MEMBERS).mkdir(exist_ok=True)
        summaries = list(
            _label_members(
                constitution=constitution,
                panel=panel,
                jobs=jobs,
                names=names,
                out=out,
                context=context,
            )
        )
        used = names[: len(summaries)]
        tally = _aggregate(
            run=run,
            config=config,
            jobs=jobs,
            panel=panel,
            names=used,
            calibration=calibration,
        )
        tokens = [TokenUsage(**s.manifest.get("tokens", {})) for s in summaries]
        manifest = run_manifest(
            config=config,
            tally=tally,
            seconds=sum(s.manifest["seconds"] for s in summaries),
            tokens=reduce(TokenUsage.plus, tokens),
            prices=prices,
        )
        manifest["judges"] = [o for job in jobs for o in text_origins(job.settings.judge)]
        manifest["members"] = [
            {
                "name": name,
                "pairs": s.tally.pairs,
                "verdicts": s.tally.verdicts,
                "seconds": s.manifest["seconds"],
            }
            for name, s in zip(used, summaries, strict=True)
        ]
        run.write_manifest(manifest)
    return LabelSummary(out, tally, manifest, fresh=True)


def _label_members(
    constitution: str,
    panel: Panel,
    jobs: Sequence[LabelJob],
    names: Sequence[str],
    out: Path,
    context: RunContext,
) -> Iterator[LabelSummary]:
    """Each judge's own run; in a cascade of what the judge before is unsure of, if anything."""
    for number, (job, name) in enumerate(zip(jobs, names, strict=True)):
        own = job
        if panel.mode == "cascade" and number:
            if not _write_unsure(panel=panel, jobs=jobs, names=names, number=number, out=out):
                return
            mapped = {
                name: name if getattr(job.settings.layout, name) else ""
                for name in ("reference", "rubric", "language")
            }
            layout = OWN_PAIRS.model_copy(update=mapped)
            plain = job.settings.model_copy(
                update={"layout": layout, "limit": None, "pairs": "all"}
            )
            own = prepare(str(_input(out, name)), constitution, plain)
        yield run_label(own, out / MEMBERS / name, context)


def _write_unsure(
    panel: Panel, jobs: Sequence[LabelJob], names: Sequence[str], number: int, out: Path
) -> bool:
    """Write what a later judge of a cascade is given; whether that is anything."""
    before = names[number - 1]
    given = (
        ((pair.row, pair) for pair in _pairs(jobs[0]))
        if number == 1
        else _listed(_input(out, before))
    )
    # A judge with a certified threshold says itself what it is unsure of.
    certified = jobs[number - 1].settings.agreement_target is not None
    below = 0.0 if certified else panel.escalate_below
    unsure = _unsure(given, out / MEMBERS / before, below)
    lines = "".join(json.dumps(_row(pair), ensure_ascii=False) + "\n" for pair in unsure)
    if lines:
        _input(out, names[number]).write_text(lines, encoding="utf-8")
    return bool(lines)


def _names(models: Sequence[str]) -> list[str]:
    """Folder names: number and model."""
    return [
        f"{i}-{re.sub(r'[^A-Za-z0-9.]+', '-', model).strip('-.')[-60:]}"
        for i, model in enumerate(models, 1)
    ]


def _config(panel: Panel, jobs: Sequence[LabelJob]) -> dict[str, Any]:
    first = jobs[0].config
    judges = [job.config["judge"] for job in jobs]
    mode: dict[str, Any] = {"mode": panel.mode, "weights": [m.weight for m in panel.members]}
    if panel.mode == "cascade":
        mode["escalate_below"] = panel.escalate_below
    model = f"{panel.mode} of " + ", ".join(str(j["model"]) for j in judges)
    judge = {"model": model, "engine": "panel", "fingerprint": digest([judges, mode])}
    # What was certified, or calibrated, of one judge alone says nothing of the panel.
    own = {k: v for k, v in first.items() if k not in ("agreement", "calibration")}
    return {**own, "judge": judge, "panel": mode, "members": [job.config for job in jobs]}


def _calibration(panel: Panel, config: dict[str, Any]) -> Calibration | None:
    """The panel's own calibration, which goes into its configuration.

    Raises:
        RlaifError: it can't be read, or was fitted for something else.
    """
    if panel.calibration is None:
        return None
    found = load_calibration(panel.calibration)
    check_fits(found, config, panel.calibration)
    known = digest(found.model_dump(mode="json"))
    config["panel"]["calibration"] = {"path": panel.calibration, "hash": known}
    return found


def _input(out: Path, name: str) -> Path:
    """What a later judge of a cascade is given."""
    return out / MEMBERS / f"{name}.jsonl"


def _unsure(pairs: Iterable[tuple[int, Pair]], before: Path, below: float) -> Iterator[Pair]:
    """The pairs on which the judge before decided nothing, or with a margin below `below`.

    Args:
        pairs: with their rows in what that judge was given.
    """
    sure = {
        label.key
        for label in read_labels(before)
        if (label.margin >= below if label.winner else not label.principles)
    }
    for place, pair in pairs:
        if (place, pair.id) not in sure:
            yield pair


def _listed(path: Path) -> Iterator[tuple[int, Pair]]:
    """The pairs of a file written for a later judge, with their rows there."""
    for number, row in read_rows(path):
        read = Reader(OWN_PAIRS).read(row)
        (pair,) = make_pairs(
            row=read,
            row_id=row["id"],
            number=row["source_row"],
            pictures=load_pictures(read, str(path.parent)),
        )
        yield number, pair


def _pairs(job: LabelJob) -> Iterator[Pair]:
    """The pairs of a job's input, as the labeler makes them."""
    reader = Reader(job.settings.layout)
    for number, (_, row) in enumerate(job.source.rows()):
        if job.settings.limit is not None and number >= job.settings.limit:
            return
        with suppress(BadRow):
            yield from pairs_of(row, number, job.settings, reader)


def _row(pair: Pair) -> dict[str, Any]:
    prompt, a, b = map(origin_columns, pair.origins)
    return {
        "id": pair.id,
        "source_row": pair.row,
        "prompt": list(pair.prompt),
        "response_a": list(pair.a),
        "response_b": list(pair.b),
        "response_a_model": pair.origin_a,
        "response_b_model": pair.origin_b,
        "prompt_origin": prompt,
        "response_a_origin": a,
        "response_b_origin": b,
        "tags": sorted(pair.tags),
        "weight": pair.weight,
        "reference": pair.reference,
        "rubric": write_rubric(pair.criteria),
        "language": pair.language,
        "tools": list(pair.tools),
        "images": [picture.source for picture in pair.pictures],
    }


def _aggregate(
    run: RunDirectory,
    config: dict[str, Any],
    jobs: Sequence[LabelJob],
    panel: Panel,
    names: Sequence[str],
    calibration: Calibration | None,
) -> Tally:
    """Write the panel's rows in input order, unless that was done before a stop."""
    if run.journal["rows"]:
        return load_tally(run.journal["tally"])
    tally, out = Tally(), run.path
    first = out / MEMBERS / names[0]
    for _, row in read_rows(first / REJECTED):
        run.append(REJECTED, row)
        tally.add_rejected()
    _copy_verdicts(run, panel, names, tally)
    clamps = [job.task.stamp.get("target_clamp", 1.0) for job in jobs]
    stamp = {
        **{k: v for k, v in jobs[0].task.stamp.items() if k != "target_clamp"},
        # A panel is as sure of itself as its least certain way of asking, where all reason.
        **({"target_clamp": max(clamps)} if max(clamps) < 1.0 else {}),
        "judge": str(config["judge"]["model"]),
        "judge_fingerprint": str(config["judge"]["fingerprint"]),
        "calibration": str(config["panel"].get("calibration", {}).get("hash", "")),
    }
    later = [
        _MemberRows(out / MEMBERS / name, _input(out, name) if panel.mode == "cascade" else None)
        for name in names[1:]
    ]
    tie_margin = jobs[0].settings.aggregation.tie_margin
    for pair, found in _merged(first, jobs[0], later):
        votes = _votes(panel, names, found)
        preference = calibrated(_preference(panel, votes, found, tie_margin), calibration)
        decided = preference.status == "decided"
        injection = found[0].prompt_injection if found[0] is not None else ""
        row = label_row(pair, preference, stamp, injection)
        row["provenance"]["judges"] = [
            {
                "judge": vote.judge,
                "p_chosen": turn_probability(vote.p_a, preference.winner or ""),
                "status": vote.status,
                "weight": vote.weight,
            }
            for vote in votes
        ]
        run.append(PREFERENCES if decided else UNDECIDED, row)
        tally.prompt_injection += bool(injection)
        tally.add(preference, [])
        tally.add_origins(pair.origins, pair.row)
    tally.rows = tally.rejected + len({label.row for label in read_labels(first)})
    run.checkpoint(rows=tally.rows, tally=dump_tally(tally))
    return tally


def _copy_verdicts(run: RunDirectory, panel: Panel, names: Sequence[str], tally: Tally) -> None:
    """All judges' verdicts, by the rows of the input."""
    for number, name in enumerate(names):
        given = _input(run.path, name) if panel.mode == "cascade" and number else None
        source = [row["source_row"] for _, row in read_rows(given)] if given else []
        for verdict in read_verdicts(run.path / MEMBERS / name):
            place = source[verdict.row - 1] if source else verdict.row
            run.append(VERDICTS, {**verdict.data, "row": place, "judge": name})
            tally.verdicts += 1
            tally.invalid_verdicts += bool(verdict.invalid)
            tally.cut_reasonings += CUT in verdict.reasoning


def _votes(panel: Panel, names: Sequence[str], found: Sequence[LabelRow | None]) -> list[JudgeVote]:
    """What each judge that was asked says of a pair."""
    return [
        JudgeVote(
            judge=names[k],
            p_a=label.p_a,
            winner=label.winner or None,  # type: ignore[arg-type]
            status=label.status,  # type: ignore[arg-type]
            weight=panel.members[k].weight,
        )
        for k, label in enumerate(found)
        if label is not None
    ]


def _preference(
    panel: Panel,
    votes: Sequence[JudgeVote],
    found: Sequence[LabelRow | None],
    tie_margin: float,
) -> Preference:
    first = found[0]
    if first is not None and not first.principles:  # settled before any judge was asked
        return Preference(
            status=first.status,  # type: ignore[arg-type]
            winner=first.winner or None,  # type: ignore[arg-type]
            p_a=first.p_a,
            margin=first.margin,
            scores=(),
            reason=first.reason,
        )
    scores = _scores([label for label in found if label is not None])
    return aggregate_panel(votes, panel.mode, tie_margin=tie_margin, scores=scores)


class _MemberRows:
    """What one judge said, by source row and pair; rows are asked for in rising order."""

    def __init__(self, folder: Path, given: Path | None) -> None:
        self._source = [row["source_row"] for _, row in read_rows(given)] if given else []
        self._rows = read_label_groups(folder)
        self._next = next(self._rows, None)

    def at(self, row: int) -> dict[str, LabelRow]:
        """Everything that it said about the pairs of a source row, by pair."""
        found: dict[str, LabelRow] = {}
        while self._next is not None and self._place(self._next[0]) <= row:
            if self._place(self._next[0]) == row:
                found |= self._next[1]
            self._next = next(self._rows, None)
        return found

    def _place(self, row: int) -> int:
        return self._source[row - 1] if self._source else row


def _merged(
    first: Path, job: LabelJob, later: Sequence[_MemberRows]
) -> Iterator[tuple[Pair, list[LabelRow | None]]]:
    """Every pair in input order with what each judge said; None where it was not asked."""
    rows = read_label_groups(first)
    row, group = next(rows, (0, {}))
    others: list[dict[str, LabelRow]] = []
    at = 0
    for pair in _pairs(job):
        while row and row < pair.row:
            row, group = next(rows, (0, {}))
        if pair.row != row or pair.id not in group:
            raise RlaifError(
                f"pair {pair.id!r} of row {pair.row} is missing from {str(first)!r}",
                hint="The data has changed; use a new folder with -o.",
            )
        if at != pair.row:
            at, others = pair.row, [member.at(pair.row) for member in later]
        yield pair, [group[pair.id], *(found.get(pair.id) for found in others)]


def _scores(found: Sequence[LabelRow]) -> list[PrincipleScore]:
    """Each principle's opinion, averaged over the judges that have one."""
    by_name: dict[str, list[PrincipleLabel]] = {}
    for f in found:
        for o in f.principles:
            by_name.setdefault(o.principle, []).append(o)
    scores = []
    for name, opinions in by_name.items():
        valid = [o.p_a for o in opinions if not o.invalid]
        p = sum(valid) / len(valid) if valid else 0.5
        p = min(max(p, 1e-15), 1.0 - 1e-15)
        scores.append(
            PrincipleScore(
                name,
                opinions[0].tier,
                opinions[0].weight,
                math.log(p) - math.log1p(-p),
                source=opinions[0].source,  # type: ignore[arg-type]
                invalid="" if valid else opinions[0].invalid,
            )
        )
    return scores
