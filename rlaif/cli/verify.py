"""`rlaif verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.label_screen import LabelScreen
from rlaif.cli.common.model_flags import cache_dir_flag
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries
from rlaif.errors import RlaifError

_EXAMPLES = """
\b
Examples:
  rlaif verify runs/first
  rlaif verify runs/first --ask 2000 --seed 7
  rlaif verify received/run --data pairs.jsonl --json

Exits with 1 if anything does not follow. With n questions asked again, altered answers are found
with 95% confidence if they are at least 1 - 0.05^(1/n) of all: 0.6% for n = 500.
"""
_SHOWN = 20


@click.command(cls=Command, name="verify", epilog=_EXAMPLES)
@click.argument("run")
@click.option(
    "--ask",
    default=500,
    show_default=True,
    type=click.IntRange(0),
    help="Number of questions, drawn at random, to ask the judge again.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the draw.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    help="Nats that the judge's log-odds may differ by when it is asked again. "
    "[default: 0.001 for a judge in float32, else 0.3]",
)
@click.option("--data", help="The run's data, if it is not where run.yaml says.")
@click.option("--template", help="The run's judge template, if it is not where run.yaml says.")
@click.option("--judge", "-j", help="The run's judge, if it is not where run.yaml says.")
@cache_dir_flag
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    run: str,
    ask: int,
    seed: int,
    tolerance: float | None,
    data: str | None,
    template: str | None,
    judge: str | None,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Check a labeling run against its data, its verdicts, the cache and its judge.

    Every prompt is built again and must be the one that the verdict names. Verdicts must be
    those in the cache, and each row must be what its verdicts come to. Then a random sample of
    the questions is put to the judge again. Each row that does not follow is named.
    """
    quiet_libraries()
    from rlaif.cli.common.label_flags import label_settings
    from rlaif.labeling.job import prepare
    from rlaif.labeling.verifying import verify_run
    from rlaif.runs.directory import CONFIG, CONSTITUTION, read_run_config

    folder = Path(run)
    config = read_run_config(folder)
    if "members" in config and "panel" in config:
        raise RlaifError(
            f"{run!r} is a panel's run", hint=f"Verify its judges: the folders in {run}/members."
        )
    if "command" in config or "template" not in config:
        raise RlaifError(f"{run!r} is not a labeling run", hint="Use one of `rlaif label`.")
    if isinstance(review := config.get("review"), dict):
        raise RlaifError(
            f"{run!r} holds labels of people (`rlaif labels apply`)",
            hint=f"Verify what its judge said: {review.get('run', 'the run that was reviewed')}.",
        )
    constitution = folder / CONSTITUTION
    if not constitution.exists():
        raise RlaifError(
            f"{run!r} has no {CONSTITUTION}", hint="Use a run that this version has written."
        )
    settings = label_settings(str(folder / CONFIG), {"judge": judge, "template": template})
    path, split = str(config["input"]["path"]), str(config["input"]["split"])
    job = prepare(data or path, str(constitution), settings, split=split)
    found = verify_run(
        folder,
        job,
        LabelScreen(None).context(cache_dir),
        ask=ask,
        seed=seed,
        tolerance=tolerance,
    )
    if as_json:
        print_json({"run": run, **asdict(found), "detectable_share": found.detectable()})
    else:
        _print(found, ask)
    raise SystemExit(1 if found.findings else 0)


def _print(found: Any, ask: int) -> None:
    """What was found, then what was checked."""
    for finding in found.findings[:_SHOWN]:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        echo(f"{place}: {finding.what}")
    left = len(found.findings) + found.more - _SHOWN
    if left > 0:
        echo(f"and {left} more")
    echo(
        f"checked {found.pairs} pairs and {found.verdicts} verdicts of {found.rows} rows; "
        f"{found.uncached} verdicts are not in the cache"
    )
    if found.asked:
        echo(
            f"asked the judge {found.asked} questions again (tolerance {found.tolerance:g}, "
            f"largest difference {found.largest:.2g}): altered answers would be found with 95% "
            f"confidence if they were {found.detectable():.1%} of all or more"
        )
        if found.answered_now:
            echo(
                f"{found.answered_now} of the questions that failed in the run are answered now: "
                "the judge may have been away"
            )
    elif ask:
        note("a judge that reasons, votes or gives scores is not asked again")
    count = len(found.findings) + found.more
    echo(f"{count} findings" if count else "no findings: the run is consistent")
