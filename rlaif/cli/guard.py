"""`rlaif guard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.options import build, merge_settings, settings_options
from rlaif.cli.output import percent, print_json, quiet_libraries, table, write_result
from rlaif.errors import RlaifError
from rlaif.pipeline.guard import GuardSettings, guard

_EXAMPLES = """
\b
Examples:
  rlaif guard runs/round2/candidates.jsonl --reference runs/round1/candidates.jsonl
  rlaif guard runs/prompts/prompts.jsonl --min-human 0.1 --max-depth 2

Exit code 3 if the guard trips, so that a script or `rlaif run` stops there.
"""


@click.command(name="guard", epilog=_EXAMPLES)
@click.argument("data")
@click.option("--reference", metavar="DATA", help="What the diversity is compared with.")
@click.option("-o", "--out", metavar="DIR", help="Also write the result to DIR/guard.json.")
@click.option("--config", metavar="FILE", help="YAML file with any of the settings below.")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
@settings_options(GuardSettings)
def command(
    data: str,
    reference: str | None,
    out: str | None,
    config: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say whether data has lost diversity or human origin, and stop if it has.

    Measures completions (or prompts, where there are none) by compression ratio, long repeated
    runs of words and self-BLEU, at equal length.
    """
    quiet_libraries()
    values, places = merge_settings(flags, config, (GuardSettings,))
    report = guard(data, reference, build(GuardSettings, values, places))
    if out:
        write_result(Path(out) / "guard.json", vars(report))
    if as_json:
        print_json(vars(report))
    else:
        header = ["measure", "data", *(["reference", "diversity kept"] if reference else [])]
        rows = [
            (
                name.replace("_", " "),
                f"{m['data']:.3f}",
                *([f"{m['reference']:.3f}", percent(m["share"])] if reference else []),
            )
            for name, m in report.measures.items()
        ]
        click.echo(table(header, rows))
        share = "unknown" if report.human_share is None else percent(report.human_share)
        click.echo(f"\n{report.rows} rows, human share {share}, deepest generation {report.depth}")
    if report.tripped:
        raise GuardTripped("; ".join(report.tripped))


class GuardTripped(RlaifError):
    """The data is not fit to be trained on."""

    exit_code = 3

    def __init__(self, reasons: str) -> None:
        super().__init__(
            f"the guard tripped: {reasons}",
            hint="Mix in human data, sample from an earlier model, or change the setting.",
        )
