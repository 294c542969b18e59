"""`rlaif labels`: what people said of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlaif.cli.common.command import Group
from rlaif.cli.common.output import note, print_json, quiet_libraries, table
from rlaif.errors import RlaifError
from rlaif.util.output import explain_failure

if TYPE_CHECKING:
    from rlaif.review.labels import HumanLabel

FORMATS = click.Choice(["jsonl", "csv", "argilla", "label-studio"])
_certainty = click.option(
    "--certainty",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    help="How likely one person's vote is right: becomes the label's probability.",
)


@click.group(cls=Group, name="labels")
def command() -> None:
    """Report, apply, export and import what people said of a run (`rlaif review`)."""


_EXPORT_EXAMPLES = """
\b
Examples:
  rlaif labels export runs/first -o human.jsonl
  rlaif calibrate runs/first --human human.jsonl     takes the pairs drawn at random
  rlaif labels export runs/first -o queue.json --format label-studio

jsonl and csv hold the labels (with --queue the whole queue: fill in `label` and `reviewer`, then
`rlaif labels import`). argilla and label-studio hold the whole queue, to be labeled there, with
what was said so far; Label Studio's interface for it is written beside the file. Of a pair on which
people contradict each other the label is one of their votes, drawn by chance, and of a reviewer who
changed an answer the first one: what `calibrate`, `eval` and `win-rate` estimate rests on them.
"""


@command.command(name="export", epilog=_EXPORT_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", required=True, metavar="FILE", help="File to write.")
@click.option("--format", "form", type=FORMATS, default="jsonl", show_default=True, help="Of it.")
@click.option(
    "--audit-only",
    is_flag=True,
    help="Only pairs that were drawn at random.",
)
@click.option(
    "--queue",
    is_flag=True,
    help="With jsonl and csv: also the pairs without a label, to be filled in.",
)
@click.option("--with-judge", is_flag=True, help="Show the judge's verdicts as suggestions there.")
@_certainty
def export_command(
    run: str,
    out: str,
    form: str,
    audit_only: bool,
    queue: bool,
    with_judge: bool,
    certainty: float,
) -> None:
    """Write labels, or the queue, for other tools."""
    from rlaif.review.exchange import LABEL_STUDIO_CONFIG, render
    from rlaif.review.labels import combine, first_said
    from rlaif.runs.directory import write_atomically

    with closing(_store(run)) as store:
        tasks = [t for t in store.tasks() if t.audit or not audit_only]
        said = first_said(store.decisions(undone=True))
        labels = combine(tasks, said, certainty=certainty, expert=store.fact("expert"))
    if form in ("jsonl", "csv") and not labels and not queue:
        raise RlaifError(
            f"nobody has labeled a pair of {run!r} yet",
            hint="See `rlaif review`; --queue writes the pairs to be labeled.",
        )
    path = Path(out)
    _write(
        path,
        render(form, tasks, labels, with_judge=with_judge, queue=queue),  # type: ignore[arg-type]
    )
    if form == "label-studio":
        config = path.with_suffix(".xml")
        write_atomically(config, LABEL_STUDIO_CONFIG)
        note(f"labeling interface: {config}")
    click.echo(f"{len(labels)} labels, {len(tasks)} pairs -> {out}")


def _write(path: Path, text: str) -> None:
    from rlaif.runs.directory import write_atomically

    with explain_failure(path, "Name another file with -o."):
        write_atomically(path, text)


@command.command(name="import")
@click.argument("run")
@click.argument("file")
@click.option("--format", "form", type=FORMATS, default="jsonl", show_default=True, help="Of it.")
@click.option("--reviewer", default="", help="Who gave labels that name nobody.")
@click.option(
    "--blind", is_flag=True, help="They were given without a look at what the judge said."
)
def import_command(run: str, file: str, form: str, reviewer: str, blind: bool) -> None:
    """Add labels that people gave elsewhere.

    FILE is one that `rlaif labels export` wrote, filled in or corrected: jsonl or csv with id, row
    and label (a, b or tie) and perhaps reviewer; Argilla's `records.to_json`; Label Studio's JSON
    export. A label that is there already is not added again; one that was changed needs `reviewer`,
    in the file or as --reviewer.
    """
    from rlaif.review.exchange import name_of, read_labels, same_as
    from rlaif.review.store import first_shown

    with closing(_store(run)) as store:
        known = {d.reviewer for d in store.decisions()}
        found = read_labels(Path(file), form, reviewer=reviewer, known=known)  # type: ignore[arg-type]
        tasks = {name_of(task): task for task in store.tasks()}
        ours = form in ("jsonl", "csv")  # other tools show `a` first
        added = same = 0
        unknown = []
        for said in found:
            task = tasks.get(said.name)
            if task is None:
                unknown.append(said.name)
                continue
            before = store.decision(task.number, said.reviewer)
            if before is not None and same_as(before, said):
                same += 1
                continue
            store.decide(
                task.number,
                said.reviewer,
                said.verdict,
                first=first_shown(task, said.reviewer) if ours else "",
                note=said.note,
                edited=said.edited,
                seconds=said.seconds,
                blind=blind,
            )
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

    labels, facts = _found(run, certainty)
    if not labels:
        raise RlaifError(f"nobody has labeled a pair of {run!r} yet", hint="See `rlaif review`.")
    applied = apply_labels(Path(run), labels, Path(out), certainty=certainty, facts=facts)
    counts: dict[str, Any] = {k: v for k, v in vars(applied).items() if k != "path"}
    if as_json:
        print_json({**counts, "labels": len(labels), "out": out})
        return
    rows = [
        ("labels of the judge that people share", applied.confirmed),
        ("that they reversed", applied.corrected),
        ("that they call a tie", applied.untied),
        ("pairs on which they contradict each other", applied.disputed),
        ("pairs without a label that they gave one", applied.settled),
        ("new pairs of edited completions", applied.edits),
    ]
    click.echo(table(["applied", out], rows))


@command.command(name="report")
@click.argument("run")
@_certainty
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def report_command(run: str, certainty: float, as_json: bool) -> None:
    """Say how far people agree with the judge, what they corrected, and how long it took.

    Also kept in RUN/review.json, for `rlaif report`.
    """
    quiet_libraries()
    from rlaif.evaluation.stats.intervals import Share
    from rlaif.runs.directory import REVIEW, write_atomically

    _, facts = _found(run, certainty)
    write_atomically(Path(run) / REVIEW, json.dumps(facts) + "\n")
    if as_json:
        print_json(facts)
        return
    counted = "most doubtful pairs counted, the rest estimated"
    how = counted if facts["counted"] else "by the audit alone"
    agreement, wrong = Share(**facts["agreement"]), Share(**facts["wrong"])
    rows = [
        ("pairs labeled", f"{facts['labels']} of {facts['of']} in the queue"),
        ("labels of the judge that people reversed or call a tie", facts["corrected"]),
        ("minutes", f"{facts['minutes']:.0f}"),
        ("agreement with the judge, random pairs", f"{agreement}, {agreement.total} pairs"),
        (f"wrong labels in the whole run ({how})", f"{wrong} of {facts['pairs']} pairs"),
    ]
    click.echo(table(["review", run], rows))


_REVIEWERS_EXAMPLES = """
\b
Examples:
  rlaif review runs/first --gold-by anna           anna's decisions are planted among the others'
  rlaif labels reviewers runs/first
  rlaif labels reviewers runs/first --detector my_detector:score --human-texts essays.txt

What is tested: whether somebody errs with the judge (on planted pairs that it has wrong), takes
one side, gives one answer in a row, and writes edits that a detector of yours takes for a model's.
That takes two dozen planted pairs for each reviewer, of which the judge has a third wrong: plant
pairs of both kinds, and raise --gold-share. A flag is a reason to talk, not a verdict: one
attentive reviewer in twenty gets one, and more where pairs that the judge has wrong are harder for
people too. How well this works on real reviewers is not known.
"""


@command.command(name="reviewers", epilog=_REVIEWERS_EXAMPLES)
@click.argument("run")
@click.option(
    "--detector",
    metavar="MODULE:FUNCTION",
    help="Scores a list of texts: the higher, the likelier that a model wrote it.",
)
@click.option(
    "--human-texts",
    metavar="FILE",
    help="What people certainly wrote, a text a line: what the detector's scores are held against.",
)
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def reviewers_command(
    run: str, detector: str | None, human_texts: str | None, as_json: bool
) -> None:
    """Report how reviewers work: agreement, planted pairs, pace, sides, pasted edits."""
    quiet_libraries()
    from rlaif.review.integrity import agreements, prevalence, report_reviewers

    if (detector is None) != (human_texts is None):
        raise RlaifError(
            "--detector and --human-texts go together",
            hint="A score means something only beside those of texts that people wrote.",
        )
    texts = _lines(human_texts) if human_texts else []
    with closing(_store(run)) as store:
        tasks, expert = list(store.tasks()), store.fact("expert")
        decisions = store.decisions(undone=True)
    score = _checked_detector(detector) if detector else None
    found = report_reviewers(tasks, decisions, expert=expert, detector=score, human_texts=texts)
    if not found:
        raise RlaifError(f"nobody has labeled a pair of {run!r} yet", hint="See `rlaif review`.")
    alpha, pairs = agreements(decisions)
    tested, share = prevalence(found)
    if as_json:
        print_json(
            {
                "krippendorff_alpha": None if alpha != alpha else alpha,
                "cohen_kappa": [
                    {"reviewers": [a, b], "kappa": None if k != k else k, "pairs": n}
                    for a, b, k, n in pairs
                ],
                "prevalence": vars(share) if tested else None,
                "reviewers": [
                    {
                        **vars(r),
                        **{k: vars(v) for k, v in vars(r).items() if k in _SHARES},
                        "tests": [vars(t) for t in r.tests],
                        "flags": [t.name for t in r.flags],
                        "remarks": r.remarks,
                    }
                    for r in found
                ],
            }
        )
        return
    rows = [
        (r.name, r.decisions, f"{r.seconds:.0f}", r.gold, r.judge, r.too_fast, r.left, r.pasted)
        for r in found
    ]
    head = [
        "reviewer",
        "pairs",
        "seconds",
        "planted right",
        "agrees with judge",
        "too fast",
        "takes left",
        "edits pasted",
    ]
    click.echo(table(head, rows))
    for r in found:
        for flag in r.flags:
            click.echo(f"{r.name}: {flag.reason} (p = {flag.p:.2g})")
        for remark in r.remarks:
            click.echo(f"{r.name}: {remark}")
    if pairs:
        said = "undefined" if alpha != alpha else f"{alpha:.2f}"
        click.echo(f"\nKrippendorff's alpha of all who saw the same pairs: {said}")
        click.echo(
            table(
                ["reviewers", "Cohen's kappa", "pairs"],
                [(f"{a}, {b}", "–" if k != k else f"{k:.2f}", n) for a, b, k, n in pairs],
            )
        )
    if tested >= 20:
        click.echo(f"about {share} of {tested} reviewers do not decide by themselves")
    elif expert:
        click.echo(
            f"{tested} reviewers saw planted pairs enough to tell whether they decide by "
            "themselves; see --help"
        )


_SHARES = ("gold", "judge", "too_fast", "left", "pasted", "changed")


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RlaifError(
            f"{path!r} could not be read ({error})", hint="Name a text file."
        ) from None
    found = [line.strip() for line in lines if line.strip()]
    if len(found) < 8:
        raise RlaifError(f"{path!r} holds {len(found)} texts", hint="Give 8 at least.")
    return found


def _checked_detector(name: str) -> Callable[[Sequence[str]], list[float]]:
    """The function, held to a finite number for every text."""
    from rlaif.util.user_functions import load_function

    function = load_function(name, "detector")

    def score(texts: Sequence[str]) -> list[float]:
        try:
            found = [float(value) for value in function(list(texts))]
        except Exception as error:  # a user's function may raise anything
            raise RlaifError(
                f"detector {name!r} failed ({type(error).__name__}: {error})",
                hint="It takes a list of texts and returns as many numbers.",
            ) from None
        if len(found) != len(texts) or not all(math.isfinite(value) for value in found):
            raise RlaifError(
                f"detector {name!r} gave {len(found)} scores for {len(texts)} texts, or one that "
                "is no number",
                hint="It takes a list of texts and returns as many numbers.",
            )
        return found

    return score


def refresh_review(run: str) -> None:
    """Write what people said so far of a run beside it, where it was reviewed."""
    from rlaif.review.store import DESK
    from rlaif.runs.directory import REVIEW, write_atomically

    if (Path(run) / DESK).exists():
        with suppress(RlaifError):  # nobody has said anything yet
            write_atomically(Path(run) / REVIEW, json.dumps(_found(run, 0.95)[1]) + "\n")


def _found(run: str, certainty: float) -> tuple[list[HumanLabel], dict[str, Any]]:
    """What people said of each pair, and of the run."""
    from rlaif.review.labels import combine, review_facts

    with closing(_store(run)) as store:
        tasks, last, ever = list(store.tasks()), store.decisions(), store.decisions(undone=True)
        total = int(store.fact("total") or len(tasks))
        expert = store.fact("expert")
    labels = combine(tasks, last, certainty=certainty, expert=expert)
    facts = review_facts(tasks, ever, total, certainty=certainty, expert=expert)
    if not facts["labels"]:
        raise RlaifError(f"nobody has labeled a pair of {run!r} yet", hint="See `rlaif review`.")
    return labels, facts


def _store(run: str) -> Any:
    from rlaif.review.store import DESK, ReviewStore

    path = Path(run) / DESK
    if not path.exists():
        raise RlaifError(f"run {run!r} has no review", hint="Begin one with `rlaif review RUN`.")
    return ReviewStore(path)
