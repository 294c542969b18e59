"""`rlaif export`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, note, print_json
from rlaif.exporting.formats import FORMATS

_EXAMPLES = """
\b
Examples:
  rlaif export runs/first --format trl -o exports/trl
  rlaif export runs/first --format llama-factory -o exports/llama-factory --min-margin 0.2

\b
Formats:
""" + "\n".join(f"  {form.name:14}{form.summary}" for form in FORMATS.values())


@click.command(cls=Command, name="export", epilog=_EXAMPLES)
@click.argument("run")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="Format of the trainer that reads the data.",
)
@click.option("-o", "--out", required=True, help="Output folder; created if missing.")
@click.option(
    "--min-margin",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Leave out pairs with a smaller margin |2p - 1|.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(run: str, form: str, out: str, min_margin: float, as_json: bool) -> None:
    """Write the preferences of a labeling run in the format of another trainer.

    Ties and abstentions are not written. A pair that the format cannot hold is left out and
    counted with the reason.
    """
    from rlaif.exporting.export import export_run

    report = export_run(Path(run), Path(out), form, min_margin=min_margin)
    if as_json:
        print_json(
            {
                "file": str(report.file),
                "format": form,
                "pairs": report.pairs,
                "rows": report.rows,
                "below_margin": report.below_margin,
                "left_out": dict(report.left_out),
            }
        )
        return
    for reason, count in report.left_out.items():
        note(f"left out {count} pairs: {reason}")
    if report.below_margin:
        note(f"left out {report.below_margin} pairs: margin below {min_margin:g}")
    echo(f"wrote {report.pairs} pairs ({report.rows} rows) to {report.file}")
