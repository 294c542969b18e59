"""`rlaif calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.model_flags import assignments
from rlaif.cli.common.output import note, print_json, quiet_libraries, table, write_result
from rlaif.data.layouts import FIELDS
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif calibrate runs/qwen --human labels.jsonl
  rlaif label new.jsonl -c my.yaml --judge Qwen/Qwen3-8B -o runs/new \
    --calibration runs/qwen/calibration.json --agreement-target 0.85

LABELS is labeled data as `rlaif eval` takes it, of pairs of RUN, or rows with the id of a pair
and `label` a or b. Label pairs drawn at random: those that are contested alone would teach a
judge to be less sure than it should be.
"""


@click.command(cls=Command, name="calibrate", epilog=_EXAMPLES)
@click.argument("run")
@click.option("--human", "labels", required=True, metavar="LABELS", help="What people prefer.")
@click.option(
    "--method",
    type=click.Choice(["temperature", "platt", "isotonic"]),
    default="temperature",
    show_default=True,
    help="One number, two, or a curve; for 50, 100 and 300 labels or more.",
)
@click.option(
    "--per-principle/--no-per-principle",
    default=False,
    help="Also temper single principles with 200 labels or more, where that holds on held-out "
    "pairs. This changes decisions. [default: off]",
)
@click.option(
    "-o", "--out", metavar="FILE", help="The calibration. [default: RUN/calibration.json]"
)
@click.option("--split", default="train", show_default=True, help="Split of a data set.")
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="NAME=COLUMN",
    help=f"Where a field is; NAME is label or one of {', '.join(FIELDS)}.",
)
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def command(
    run: str,
    labels: str,
    method: str,
    per_principle: bool,
    out: str | None,
    split: str,
    maps: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fit how sure a judge may be to labels of people.

    Probabilities come to mean how often people agree; decisions stay as they are, except with
    --per-principle. What is reported was measured on labels held out (five-fold cross-validation,
    prompts kept whole).
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.calibration import TooFewLabels, calibrate
    from rlaif.evaluation.human_labels import match_labels
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.labeling.calibration import made_for
    from rlaif.runs.directory import read_manifest

    folder = Path(run)
    config = read_manifest(folder)["config"]
    if "panel" in config:
        raise RlaifError(
            f"run {run!r} is a panel's", hint="Calibrate its judges' runs, in its folder members/."
        )
    if config.get("review"):
        raise RlaifError(
            f"run {run!r} holds what people said already",
            hint=f"Name the run that it was made of: {config['review']['run']}.",
        )
    if config.get("calibration"):
        raise RlaifError(
            f"run {run!r} is calibrated already", hint="Name a run without --calibration."
        )
    outcomes = read_outcomes(folder)
    mapping = assignments("--map", maps, (*FIELDS, "label"))
    matched = match_labels(folder, outcomes, open_source(labels, split), mapping=mapping)
    if matched.unmatched or matched.conflicting or matched.unread:
        note(
            f"{matched.unread} rows hold no label that can be read; {matched.unmatched} labels "
            "belong to no pair of this run and are not used; on "
            f"{matched.conflicting} pairs people disagree: of each one vote counts, drawn by chance"
        )
    if matched.picked:
        note(
            f"{matched.picked} labels are of pairs that a review picked for doubt and are not "
            f"used; {int(matched.known.sum())} are"
        )
    try:
        found = calibrate(
            outcomes,
            matched.label,
            matched.group,
            method=method,  # type: ignore[arg-type]
            per_principle=per_principle,
        )
    except TooFewLabels as error:
        raise RlaifError(
            f"can't calibrate: {error}", hint="Label more pairs of this run."
        ) from None
    found = found.model_copy(update={"made_for": made_for(config)})
    path = Path(out) if out else folder / "calibration.json"
    data = found.model_dump(mode="json")
    write_result(path, data)
    if as_json:
        print_json(data)
        return
    rows = [
        (name, f"{m['ece']:.4f}", f"{m['brier']:.4f}", f"{m['log_loss']:.4f}")
        for name, m in found.measured.items()
    ]
    click.echo(table([f"{found.labels} labeled decisions", "ECE", "Brier", "log loss"], rows))
    if found.method == "temperature" and not found.principles:
        word = "overconfident" if found.temperature > 1 else "underconfident"
        click.echo(f"temperature {found.temperature:.3f}: the judge is {word}")
    if found.principles:
        tempered = ", ".join(f"{k} {v:.2f}" for k, v in found.principles.items())
        click.echo(f"principles' own temperatures: {tempered}")
    click.echo(str(path))
