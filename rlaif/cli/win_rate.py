"""`rlaif win-rate`."""

from __future__ import annotations

from pathlib import Path

import click

from rlaif.cli.output import print_json, quiet_libraries, table, write_result

_EXAMPLES = """
\b
Example, whether training helped by the judge's lights:
  rlaif generate heldout.jsonl -m before -m after -n 1 -o runs/answers
  rlaif label runs/answers/candidates.jsonl -c my.yaml --judge J -o runs/compared
  rlaif win-rate runs/compared
"""


@click.command(name="win-rate", epilog=_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", metavar="DIR", help="Also write the result to DIR/win-rate.json.")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def command(run: str, out: str | None, as_json: bool) -> None:
    """Say which model's completions the judge preferred in a labeling run.

    A judge's preference is not quality: it shares the judge's biases with the labels that the
    model was trained on.
    """
    quiet_libraries()
    from rlaif.evaluation.win_rates import win_rates

    found = win_rates(Path(run))
    shown = [
        {
            "model": w.model, "wins": w.wins, "losses": w.losses, "undecided": w.undecided,
            "rate": w.rate.rate, "low": w.rate.low, "high": w.rate.high,
        }
        for w in found
    ]  # fmt: skip
    if out:
        write_result(Path(out) / "win-rate.json", shown)
    if as_json:
        print_json(shown)
        return
    rows = [(w.model, w.wins, w.losses, w.undecided, str(w.rate)) for w in found]
    click.echo(table(["model", "won", "lost", "undecided", "won, of decided"], rows))
