"""`rlaif calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.layout_flags import layout_fields, layout_flags
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table, write_result
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif calibrate runs/qwen --human-labels labels.jsonl
  rlaif label new.jsonl -c my.yaml --judge Qwen/Qwen3-8B -o runs/new \\
    --calibration runs/qwen/calibration.json --agreement-target 0.85

LABELS is labeled data for pairs of RUN, in any format of `rlaif eval`, or rows with a pair's
id and `label` a or b. Label pairs drawn at random: if you label only contested pairs, the
calibrated judge becomes underconfident.
"""


@click.command(cls=Command, name="calibrate", epilog=_EXAMPLES)
@click.argument("run")
@click.option(
    "--human-labels",
    "labels",
    required=True,
    metavar="LABELS",
    help="Human labels of pairs of RUN.",
)
@click.option(
    "--method",
    type=click.Choice(["temperature", "platt", "features", "isotonic"]),
    default="temperature",
    show_default=True,
    help="Calibration curve: temperature (1 parameter, 50+ labels), platt (2, 100+), isotonic "
    "(300+), or features (5, 200+). Features add whether the two orders contradict each other, "
    "whether a tier is clear, and how many judges of a panel disagree.",
)
@click.option(
    "--per-principle/--no-per-principle",
    default=False,
    help="Also fit a temperature for each principle with at least 200 labels, if it helps on "
    "held-out pairs. This changes decisions. [default: off]",
)
@click.option("-o", "--out", metavar="FILE", help="Output file. [default: RUN/calibration.json]")
@click.option("--split", default="train", show_default=True, help="Dataset split.")
@layout_flags
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    run: str,
    labels: str,
    method: str,
    per_principle: bool,
    out: str | None,
    split: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Calibrate a judge's probabilities on human labels.

    Calibrated probabilities match how often human annotators agree with the judge. Decisions
    do not change, except with --per-principle. Reported metrics are measured on held-out
    labels (five-fold cross-validation, split by prompt).

    \f
    Long because it has a parameter for each flag.
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.fit_calibration import TooFewLabels, calibrate
    from rlaif.evaluation.human_labels import match_labels
    from rlaif.evaluation.outcomes import read_outcomes
    from rlaif.labeling.load_calibration import made_for
    from rlaif.runs.directory import read_manifest

    folder = Path(run)
    config = read_manifest(folder)["config"]
    _check_run(run, config, per_principle=per_principle)
    outcomes = read_outcomes(folder)
    matched = match_labels(folder, outcomes, open_source(labels, split), given=layout_fields(flags))
    if matched.unmatched or matched.conflicting or matched.unread:
        note(
            f"skipped {matched.unread} rows without a readable label and "
            f"{matched.unmatched} labels that match no pair of this run; annotators "
            f"disagree on {matched.conflicting} pairs (one random vote counts for each)"
        )
    if matched.picked:
        note(
            f"skipped {matched.picked} labels of pairs that a review selected as "
            f"uncertain (not a random sample); {int(matched.known.sum())} labels are used"
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
            f"cannot calibrate: {error}", hint="Label more pairs of this run."
        ) from None
    found = found.model_copy(update={"made_for": made_for(config)})
    path = Path(out) if out else folder / "calibration.json"
    data = found.model_dump(mode="json")
    write_result(path, data)
    if as_json:
        print_json(data)
        return
    _print(found)
    echo(str(path))


def _check_run(run: str, config: Mapping[str, Any], *, per_principle: bool) -> None:
    """Refuse a run whose probabilities are not a judge's or a panel's own.

    Raises:
        RlaifError: it was labeled by humans too, or with a calibration; or what was asked for needs
            a judge's own principles, and it is a panel's.
    """
    if "panel" in config and per_principle:
        raise RlaifError(
            f"--per-principle is for one judge, and run {run!r} was labeled by a panel",
            hint="Leave it out; --method features uses how far the judges agree.",
        )
    if config.get("review"):
        raise RlaifError(
            f"run {run!r} already contains human labels",
            hint=f"Use the run it was created from: {config['review']['run']}.",
        )
    if config.get("calibration") or (config.get("panel") or {}).get("calibration"):
        raise RlaifError(
            f"run {run!r} already uses a calibration",
            hint="Use a run from `rlaif label` without `--calibration`.",
        )


def _print(found: Any) -> None:
    rows = [
        (
            name,
            f"{m['decided']:.0f}",
            *(f"{m[key]:.4f}" for key in ("ece", "brier", "log_loss", "log_loss_of_all")),
        )
        for name, m in found.measured.items()
    ]
    head = ["", "decided", "ECE", "Brier", "log loss", "with ties"]
    echo(table([f"{found.labels} labeled decisions", *head[1:]], rows))
    cool, hot = found.intervals["temperature"]
    best = min(m["log_loss_of_all"] for name, m in found.measured.items() if name != "before")
    if best > found.measured["before"]["log_loss_of_all"]:
        echo(
            "no calibration helps: on held-out labels it makes the log loss larger, so "
            "probabilities stay as they are"
        )
    elif found.method == "temperature" and not found.principles:
        word = "overconfident" if cool > 1 else "underconfident" if hot < 1 else "well calibrated"
        unsure = "may be " if cool <= 1 <= hot else "is "
        echo(
            f"temperature {found.temperature:.3f} [{cool:.3f}, {hot:.3f}]: the judge {unsure}{word}"
        )
    for name, added in found.features.items():
        if abs(added) > 1e-6:
            echo(f"{name.replace('_', ' ')}: {added:+.2f} nats")
    low, high = found.intervals["ece"]
    least, most = found.intervals["ece of a perfect judge"]
    echo(
        f"ECE before: 95% interval {low:.4f} to {high:.4f}; a perfect judge of this many labels "
        f"would show {least:.4f} to {most:.4f}"
    )
    if found.principles:
        tempered = ", ".join(f"{k} {v:.2f}" for k, v in found.principles.items())
        echo(f"temperature per principle: {tempered}")
