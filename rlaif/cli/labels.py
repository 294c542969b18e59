"""`rlaif labels`: what people said of a run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.output import note, percent, print_json, quiet_libraries, table
from rlaif.errors import RlaifError

FORMATS = click.Choice(["jsonl", "csv", "argilla", "label-studio"])
_certainty = click.option(
    "--certainty", default=0.95, show_default=True,
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    help="How likely one person's vote is right: becomes the label's probability.",
)  # fmt: skip


@click.group(name="labels")
def command() -> None:
    """Report, apply, export and import what people said of a run (`rlaif review`)."""


_EXPORT_EXAMPLES = """
\b
Examples:
  rlaif labels export runs/first -o human.jsonl
  rlaif calibrate runs/first --human human.jsonl
  rlaif labels export runs/first -o queue.json --format label-studio

jsonl and csv hold the labels. argilla and label-studio hold the whole queue, to be labeled there,
with what was said so far; Label Studio's interface for it is written beside the file.
"""


@command.command(name="export", epilog=_EXPORT_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", required=True, metavar="FILE", help="File to write.")
@click.option("--format", "form", type=FORMATS, default="jsonl", show_default=True, help="Of it.")
@click.option(
    "--audit-only", is_flag=True,
    help="Only pairs that were drawn at random: what an unbiased calibration needs.",
)  # fmt: skip
@click.option("--with-judge", is_flag=True, help="Show the judge's verdicts as suggestions there.")
@_certainty
def export_command(
    run: str, out: str, form: str, audit_only: bool, with_judge: bool, certainty: float
) -> None:
    """Write labels, or the queue, for other tools."""
    from rlaif.review.exchange import LABEL_STUDIO_CONFIG, render
    from rlaif.review.labels import combine
    from rlaif.store.run_directory import write_atomically

    with closing(_desk(run)) as desk:
        tasks = [t for t in desk.tasks() if t.audit or not audit_only]
        labels = combine(tasks, desk.decisions(), certainty=certainty)
    if form in ("jsonl", "csv") and not labels:
        raise RlaifError(f"nobody has labeled a pair of {run!r} yet", hint="See `rlaif review`.")
    path = Path(out)
    _write(path, render(form, tasks, labels, with_judge=with_judge))  # type: ignore[arg-type]
    if form == "label-studio":
        config = path.with_suffix(".xml")
        write_atomically(config, LABEL_STUDIO_CONFIG)
        note(f"labeling interface: {config}")
    click.echo(f"{len(labels)} labels, {len(tasks)} pairs -> {out}")


def _write(path: Path, text: str) -> None:
    from rlaif.store.run_directory import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        raise RlaifError(
            f"{str(path)!r} can't be written ({error.strerror})", hint="Name another file with -o."
        ) from None


@command.command(name="import")
@click.argument("run")
@click.argument("file")
@click.option("--format", "form", type=FORMATS, default="jsonl", show_default=True, help="Of it.")
@click.option("--reviewer", default="", help="Who gave labels that name nobody.")
def import_command(run: str, file: str, form: str, reviewer: str) -> None:
    """Add labels that people gave elsewhere.

    FILE is one that `rlaif labels export` wrote, filled in: jsonl or csv with id, row and label
    (a, b or tie) and perhaps reviewer; Argilla's `records.to_json`; Label Studio's JSON export.
    A label that is there already is not added again.
    """
    from rlaif.review.desk import first_shown
    from rlaif.review.exchange import name_of, read_labels

    found = read_labels(Path(file), form, reviewer=reviewer)  # type: ignore[arg-type]
    with closing(_desk(run)) as desk:
        tasks = {name_of(task): task for task in desk.tasks()}
        added = same = 0
        unknown = []
        for said in found:
            task = tasks.get(said.name)
            if task is None:
                unknown.append(said.name)
                continue
            before = desk.decision(task.number, said.reviewer)
            if before is not None and (before.verdict, before.edited) == (
                said.verdict,
                said.edited,
            ):
                same += 1
                continue
            desk.decide(
                task.number, said.reviewer, said.verdict, first=first_shown(task, said.reviewer),
                note=said.note, edited=said.edited, seconds=said.seconds,
            )  # fmt: skip
            added += 1
    click.echo(f"{added} labels added, {same} were there already")
    if unknown:
        note(f"{len(unknown)} are of pairs that are not in the queue (the first: {unknown[0]})")


_APPLY_EXAMPLES = """
\b
Examples:
  rlaif labels apply runs/first -o runs/reviewed
  rlaif train-dpo runs/reviewed --model Qwen/Qwen3-0.6B -o policy

OUT is a run like RUN: rows that people labeled have the status `human` and the probability that
their votes give; an edit becomes a new pair, preferred to what it was written from.
"""


@command.command(name="apply", epilog=_APPLY_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", required=True, help="Folder of the new run.")
@_certainty
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def apply_command(run: str, out: str, certainty: float, as_json: bool) -> None:
    """Write a run in which people's labels count."""
    quiet_libraries()
    from rlaif.review.applying import apply_labels
    from rlaif.review.labels import combine

    with closing(_desk(run)) as desk:
        labels = combine(desk.tasks(), desk.decisions(), certainty=certainty)
    if not labels:
        raise RlaifError(f"nobody has labeled a pair of {run!r} yet", hint="See `rlaif review`.")
    applied = apply_labels(Path(run), labels, Path(out), certainty=certainty)
    counts: dict[str, Any] = {k: v for k, v in vars(applied).items() if k != "path"}
    if as_json:
        print_json({**counts, "labels": len(labels), "out": out})
        return
    rows = [
        ("labels of the judge that people share", applied.confirmed),
        ("that they reversed", applied.corrected),
        ("that they call a tie", applied.untied),
        ("pairs without a label that they gave one", applied.settled),
        ("new pairs of edited completions", applied.edits),
    ]
    click.echo(table(["applied", out], rows))


@command.command(name="report")
@click.argument("run")
@_certainty
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def report_command(run: str, certainty: float, as_json: bool) -> None:
    """Say how far people agree with the judge, what they corrected, and how long it took."""
    quiet_libraries()
    from rlaif.review.labels import audit, combine

    with closing(_desk(run)) as desk:
        tasks = list(desk.tasks())
        decisions = desk.decisions()
        total = int(desk.fact("total") or len(tasks))
    labels = combine(tasks, decisions, certainty=certainty)
    if not labels:
        raise RlaifError(f"nobody has labeled a pair of {run!r} yet", hint="See `rlaif review`.")
    found = audit(labels, tasks, total)
    minutes = sum(min(label.seconds, 300.0) for label in labels) / 60
    corrected = sum(label.corrects for label in labels)
    if as_json:
        print_json({
            "labels": len(labels), "of": len(tasks), "corrected": corrected, "minutes": minutes,
            "agreement": vars(found.agreement), "wrong": vars(found.wrong),
            "counted": found.whole, "pairs": total,
        })  # fmt: skip
        return
    how = "most doubtful pairs counted, the rest estimated" if found.whole else "by the audit alone"
    rows = [
        ("pairs labeled", f"{len(labels)} of {len(tasks)} in the queue"),
        ("labels of the judge that people reversed", corrected),
        ("minutes", f"{minutes:.0f}"),
        ("agreement with the judge, random pairs", f"{found.agreement} of {found.agreement.total}"),
        (f"wrong labels in the whole run ({how})", f"{found.wrong} of {total}"),
    ]
    click.echo(table(["review", run], rows))
    people = sorted({d.reviewer for d in decisions})
    by = []
    for who in people:
        own = {d.item: d for d in decisions if d.reviewer == who and d.verdict != "skip"}
        judged = [(d.verdict, t.item.winner) for t in tasks if (d := own.get(t.number)) is not None
                  and t.item.winner and d.verdict != "tie"]  # fmt: skip
        agrees = percent(sum(a == b for a, b in judged) / len(judged)) if judged else "–"
        by.append((who, len(own), sum(bool(d.edited) for d in own.values()), agrees))
    click.echo("\n" + table(["reviewer", "pairs", "edits", "agrees with the judge"], by))


def _desk(run: str) -> Any:
    from rlaif.review.desk import DESK, Desk

    path = Path(run) / DESK
    if not path.exists():
        raise RlaifError(f"run {run!r} has no review", hint="Begin one with `rlaif review RUN`.")
    return Desk(path)
