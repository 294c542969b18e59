"""`rlaif labels`: what people said of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Group
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table
from rlaif.errors import RlaifError
from rlaif.util.output import explain_failure

FORMATS = click.Choice(["jsonl", "csv", "argilla", "label-studio"])
_certainty = click.option(
    "--certainty",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    help="Probability that one human vote is correct; determines label probabilities. [default: "
    "each reviewer's, estimated from pairs with several votes; 0.95 without those]",
)


@click.group(cls=Group, name="labels")
def command() -> None:
    """Report, apply, export and import the human labels of a run (`rlaif review`)."""


_EXPORT_EXAMPLES = """
\b
Examples:
  rlaif labels export runs/first -o human.jsonl
  rlaif calibrate runs/first --human-labels human.jsonl     # uses only the pairs drawn at random
  rlaif labels export runs/first -o queue.json --format label-studio

jsonl and csv contain the labels. With --queue they contain the whole queue: fill in `label`
and `reviewer`, then run `rlaif labels import`. argilla and label-studio contain the whole
queue with the labels so far, for labeling in those tools; Label Studio's labeling interface
is written next to the file. If annotators disagree on a pair, its label is one of their
votes, drawn at random. If a reviewer changed an answer, the first one counts. Estimates of
`calibrate`, `eval` and `win-rate` rely on this.
"""


@command.command(name="export", epilog=_EXPORT_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", required=True, metavar="FILE", help="Output file.")
@click.option(
    "--format", "form", type=FORMATS, default="jsonl", show_default=True, help="File format."
)
@click.option(
    "--audit-only",
    is_flag=True,
    help="Export only pairs drawn at random.",
)
@click.option(
    "--queue",
    is_flag=True,
    help="With jsonl and csv: also export unlabeled pairs, to be filled in.",
)
@click.option("--with-judge", is_flag=True, help="Include the judge's verdicts as suggestions.")
@_certainty
def export_command(
    run: str,
    out: str,
    form: str,
    audit_only: bool,
    queue: bool,
    with_judge: bool,
    certainty: float | None,
) -> None:
    """Export human labels, or the review queue, for other tools."""
    from rlaif.review.exchange import LABEL_STUDIO_CONFIG, render_labels
    from rlaif.review.results import open_existing_store
    from rlaif.review.votes import combine, first_said
    from rlaif.util.files import write_atomically

    with closing(open_existing_store(run)) as store:
        tasks = [t for t in store.tasks() if t.audit or not audit_only]
        said = first_said(store.decisions(undone=True))
        labels = combine(tasks, said, certainty=certainty, expert=store.fact("expert"))
    if form in ("jsonl", "csv") and not labels and not queue:
        raise RlaifError(
            f"run {run!r} has no human labels yet",
            hint="Run `rlaif review` first, or add --queue to export unlabeled pairs.",
        )
    path = Path(out)
    _write(
        path,
        render_labels(form, tasks, labels, with_judge=with_judge, queue=queue),  # type: ignore[arg-type]
    )
    if form == "label-studio":
        config = path.with_suffix(".xml")
        write_atomically(config, LABEL_STUDIO_CONFIG)
        note(f"labeling interface: {config}")
    echo(f"{len(labels)} labels, {len(tasks)} pairs -> {out}")


def _write(path: Path, text: str) -> None:
    from rlaif.util.files import write_atomically

    with explain_failure(path, "Use another path with -o."):
        write_atomically(path, text)


@command.command(name="import")
@click.argument("run")
@click.argument("file")
@click.option(
    "--format", "form", type=FORMATS, default="jsonl", show_default=True, help="File format."
)
@click.option("--reviewer", default="", help="Reviewer of labels that name none.")
@click.option(
    "--blind", is_flag=True, help="The labels were given without seeing the judge's verdicts."
)
def import_command(run: str, file: str, form: str, reviewer: str, blind: bool) -> None:
    """Import human labels from other tools.

    FILE is an export of `rlaif labels export`, filled in or corrected. It is jsonl or csv with
    id, row, label (a, b or tie) and optionally reviewer. Argilla's `records.to_json` and Label
    Studio's JSON export are read, too. Labels that already exist are skipped. Changed labels need
    `reviewer`, in the file or as --reviewer.
    """
    from rlaif.review.exchange import (
        name_of,
        read_human_labels,
        same_as,
        shortened_names,
    )
    from rlaif.review.results import open_existing_store
    from rlaif.review.store import first_shown

    with closing(open_existing_store(run)) as store:
        known = {d.reviewer for d in store.decisions()}
        found = read_human_labels(Path(file), form, reviewer=reviewer, known=known)  # type: ignore[arg-type]
        tasks = {name_of(task): task for task in store.tasks()}
        ours = form in ("jsonl", "csv")  # other tools show `a` first
        added = same = 0
        unknown = []
        shortened = shortened_names(tasks)
        restored = 0
        for said in found:
            task = tasks.get(said.name)
            if task is None and (whole := shortened.get(said.name)):
                task = tasks[whole]
                restored += 1
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
    echo(f"{added} labels added, {same} already present")
    if restored:
        note(
            f"{restored} ids had lost leading zeros or decimals, as spreadsheets do; matched by row"
        )
    if unknown:
        note(
            f"skipped {len(unknown)} labels of pairs that are not in the queue (first: "
            f"{unknown[0]})"
        )


_APPLY_EXAMPLES = """
\b
Examples:
  rlaif labels apply runs/first -o runs/reviewed
  rlaif train-dpo runs/reviewed --model Qwen/Qwen3-0.6B -o policy

OUT is a labeling run like RUN. Rows with human labels get the status `human` and a
probability computed from the votes. An edit becomes a new pair: the edit is chosen, its
original rejected.
"""


@command.command(name="apply", epilog=_APPLY_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", required=True, help="Output folder of the new run.")
@_certainty
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def apply_command(run: str, out: str, certainty: float | None, as_json: bool) -> None:
    """Create a copy of a run with human labels applied."""
    quiet_libraries()
    from rlaif.review.applying import apply_labels
    from rlaif.review.results import read_review_results

    labels, facts = read_review_results(run, certainty)
    if not labels:
        raise RlaifError(f"run {run!r} has no human labels yet", hint="Run `rlaif review` first.")
    applied = apply_labels(Path(run), labels, Path(out), certainty=certainty, facts=facts)
    counts: dict[str, Any] = {k: v for k, v in vars(applied).items() if k != "path"}
    if as_json:
        print_json({**counts, "labels": len(labels), "out": out})
        return
    rows = [
        ("judge labels confirmed", applied.confirmed),
        ("judge labels reversed", applied.corrected),
        ("judge labels changed to tie", applied.untied),
        ("pairs with split human votes", applied.disputed),
        ("undecided pairs labeled", applied.settled),
        ("new pairs from edits", applied.edits),
    ]
    echo(table(["applied", out], rows))


@command.command(name="report")
@click.argument("run")
@_certainty
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def report_command(run: str, certainty: float | None, as_json: bool) -> None:
    """Report human agreement with the judge, overturned labels and review time.

    Also saved in RUN/review.json, for `rlaif report`.
    """
    quiet_libraries()
    from rlaif.evaluation.stats.intervals import Share
    from rlaif.review.results import read_review_results
    from rlaif.runs.directory import REVIEW
    from rlaif.util.files import write_atomically

    _, facts = read_review_results(run, certainty)
    write_atomically(Path(run) / REVIEW, json.dumps(facts) + "\n")
    if as_json:
        print_json(facts)
        return
    counted = "uncertain pairs counted, rest estimated"
    how = counted if facts["counted"] else "estimated from the random audit"
    agreement, wrong = Share(**facts["agreement"]), Share(**facts["wrong"])
    rows = [
        ("pairs labeled", f"{facts['labels']} of {facts['of']} in the queue"),
        ("judge labels overturned", facts["corrected"]),
        ("minutes", f"{facts['minutes']:.0f}"),
        ("human agreement", f"{agreement} of {agreement.total} random pairs"),
        *_about_people(facts["human_error"]),
        (f"wrong labels in the run ({how})", f"{wrong} of {facts['pairs']} pairs"),
    ]
    if facts["wrong_without_human_error"]:
        rest = Share(**facts["wrong_without_human_error"])
        rows.append(("wrong labels, human errors taken out", f"{rest} of {facts['pairs']} pairs"))
    echo(table(["review", run], rows))


def _about_people(error: Mapping[str, Any] | None) -> list[tuple[str, object]]:
    """How good people are: the ceiling of any agreement with them."""
    if error is None:
        return [
            (
                "agreement between people",
                "unknown: few pairs have two votes (see `rlaif review --overlap`)",
            ),
        ]
    what = "votes on gold pairs" if error["planted"] else "pairs with two votes"
    return [
        ("agreement between people", f"{100 * error['ceiling']:.1f}%, the most to ask of a judge"),
        (
            "a person's error",
            f"{100 * error['rate']:.1f}% [{100 * error['low']:.1f}, {100 * error['high']:.1f}] "
            f"from {error['pairs']} {what}",
        ),
    ]


_REVIEWERS_EXAMPLES = """
\b
Examples:
  rlaif review runs/first --gold-by anna           # use anna's labels as gold pairs
  rlaif labels reviewers runs/first
  rlaif labels reviewers runs/first --detector my_detector:score --human-texts essays.txt

The tests detect reviewers who repeat the judge's errors, favor one side or repeat one answer.
With --detector, they also detect edits that look generated by a model. The first test needs
about two dozen gold pairs per reviewer, with the judge wrong on a third of them: include both
kinds and raise `rlaif review --gold-share`. A flag is a reason to talk, not proof. One in twenty
attentive reviewers is flagged by chance, and more if pairs that the judge has wrong are also
harder for humans. The tests have not been validated on real reviewers.
"""


@command.command(name="reviewers", epilog=_REVIEWERS_EXAMPLES)
@click.argument("run")
@click.option(
    "--detector",
    metavar="MODULE:FUNCTION",
    help="Function that scores a list of texts; higher means more likely generated by a model.",
)
@click.option(
    "--human-texts",
    metavar="FILE",
    help="File of texts known to be written by humans, one per line; baseline for --detector.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def reviewers_command(
    run: str, detector: str | None, human_texts: str | None, as_json: bool
) -> None:
    """Report on reviewers: agreement, gold pairs, pace, side bias, pasted edits."""
    quiet_libraries()
    from rlaif.review.integrity import agreements, prevalence, report_reviewers
    from rlaif.review.results import open_existing_store

    if (detector is None) != (human_texts is None):
        raise RlaifError(
            "--detector and --human-texts must be used together",
            hint="Give both: edit scores are compared with the scores of human texts.",
        )
    texts = _lines(human_texts) if human_texts else []
    with closing(open_existing_store(run)) as store:
        tasks, expert = list(store.tasks()), store.fact("expert")
        decisions = store.decisions(undone=True)
    score = _checked_detector(detector) if detector else None
    found = report_reviewers(tasks, decisions, expert=expert, detector=score, human_texts=texts)
    if not found:
        raise RlaifError(f"run {run!r} has no human labels yet", hint="Run `rlaif review` first.")
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
    _print_reviewers(found, (alpha, pairs), (tested, share), expert)


def _print_reviewers(
    found: Any, agreement: tuple[float, Any], prevalence: tuple[int, Any], expert: str
) -> None:
    (alpha, pairs), (tested, share) = agreement, prevalence
    rows = [
        (r.name, r.decisions, f"{r.seconds:.0f}", r.gold, r.judge, r.too_fast, r.left, r.pasted)
        for r in found
    ]
    head = [
        "reviewer",
        "pairs",
        "seconds",
        "gold accuracy",
        "agrees with judge",
        "too fast",
        "chose left",
        "pasted edits",
    ]
    echo(table(head, rows))
    for r in found:
        for flag in r.flags:
            echo(f"{r.name}: {flag.reason} (p = {flag.p:.2g})")
        for remark in r.remarks:
            echo(f"{r.name}: {remark}")
    if pairs:
        said = "undefined" if alpha != alpha else f"{alpha:.2f}"
        echo(f"\nKrippendorff's alpha on pairs with several reviewers: {said}")
        echo(
            table(
                ["reviewers", "Cohen's kappa", "pairs"],
                [(f"{a}, {b}", "–" if k != k else f"{k:.2f}", n) for a, b, k, n in pairs],
            )
        )
    if tested >= 20:
        echo(f"about {share} of {tested} reviewers do not appear to decide by themselves")
    elif expert:
        echo(
            f"{tested} reviewers saw enough gold pairs to test whether they decide by "
            "themselves; see --help"
        )


_SHARES = ("gold", "judge", "too_fast", "left", "pasted", "changed")


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RlaifError(f"cannot read {path!r} ({error})", hint="Use a UTF-8 text file.") from None
    found = [line.strip() for line in lines if line.strip()]
    if len(found) < 8:
        raise RlaifError(
            f"{path!r} contains too few texts ({len(found)})", hint="Give at least 8, one per line."
        )
    return found


def _checked_detector(name: str) -> Callable[[Sequence[str]], list[float]]:
    """The function, held to a finite number for every text."""
    from rlaif.util.user_functions import allow_typed, load_function

    allow_typed(name)
    function = load_function(name, "detector")

    def score(texts: Sequence[str]) -> list[float]:
        try:
            found = [float(value) for value in function(list(texts))]
        except Exception as error:  # a user's function may raise anything
            raise RlaifError(
                f"detector {name!r} failed ({type(error).__name__}: {error})",
                hint="The function must take a list of texts and return one number per text.",
            ) from None
        if len(found) != len(texts) or not all(math.isfinite(value) for value in found):
            raise RlaifError(
                f"detector {name!r} returned {len(found)} scores for {len(texts)} texts, "
                "or a score that is not a finite number",
                hint="The function must take a list of texts and return one number per text.",
            )
        return found

    return score
