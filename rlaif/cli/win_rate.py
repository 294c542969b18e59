"""`rlaif win-rate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, print_json, quiet_libraries, table, write_result

_EXAMPLES = """
\b
Example: did training help, according to the judge?
  rlaif generate heldout.jsonl -m before -m after -n 1 -o runs/answers
  rlaif label runs/answers/candidates.jsonl -c my.yaml --judge J -o runs/compared
  rlaif win-rate runs/compared
  rlaif win-rate runs/compared --human-labels labels.jsonl     # human labels of some of the pairs
"""


@click.command(cls=Command, name="win-rate", epilog=_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", metavar="DIR", help="Also write the result to DIR/win-rate.json.")
@click.option(
    "--human-labels",
    "human",
    metavar="LABELS",
    help="Human labels of some pairs, drawn at random: adds human win rates.",
)
@click.option("--split", default="train", show_default=True, help="Dataset split of the labels.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(run: str, out: str | None, human: str | None, split: str, as_json: bool) -> None:
    """Report which model's completions the judge preferred in a labeling run.

    A judge's preference is not quality: it shares the judge's biases with the labels that the
    model was trained on. "At equal length" takes away what goes along with length, deserved or not
    (Dubois et al. 2024). With --human-labels, human labels of some pairs correct the judge on all
    of them (prediction-powered inference). The interval is valid however biased the judge is.
    """
    quiet_libraries()
    from rlaif.data.sources import open_source
    from rlaif.evaluation.win_rates import human_win_rates, win_rates

    found = win_rates(Path(run))
    people = human_win_rates(Path(run), open_source(human, split)) if human else {}
    shown: list[dict[str, Any]] = [
        {
            "model": w.model,
            "wins": w.wins,
            "losses": w.losses,
            "ties": w.ties,
            "abstained": w.abstained,
            "rate": w.rate.value,
            "low": w.rate.low,
            "high": w.rate.high,
            "length_controlled": vars(w.controlled) if w.controlled else None,
        }
        for w in found
    ]
    for row in shown:
        if row["model"] in people:
            row["by_people"] = vars(people[row["model"]])
    if out:
        write_result(Path(out) / "win-rate.json", shown)
    if as_json:
        print_json(shown)
        return
    rows = [
        (w.model, w.wins, w.losses, w.ties, w.abstained, str(w.rate), str(w.controlled or "-"))
        for w in found
    ]
    head = ["model", "won", "lost", "tied", "abstained", "win rate (ties 1/2)", "at equal length"]
    echo(table(head, rows))
    if people:
        more = [
            (
                name,
                f"{100 * p.value:.1f}% [{100 * p.low:.1f}, {100 * p.high:.1f}]",
                p.labels,
                f"{p.effective_labels:.0f}",
            )
            for name, p in people.items()
        ]
        head = ["model", "human win rate (ties 1/2)", "labeled pairs", "effective labels"]
        echo("\n" + table(head, more))
