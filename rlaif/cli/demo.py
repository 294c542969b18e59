"""`rlaif demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import note, percent, print_json, quiet_libraries, table


@click.command(cls=Command, name="demo")
@click.option("-o", "--out", default="demo-run", show_default=True, help="Folder for all of it.")
@click.option("--engine", default="vllm", show_default=True, help="Engine that runs the judge.")
@click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")
def command(out: str, engine: str, as_json: bool) -> None:
    """Label, train and compare with the embedded models; needs nothing.

    Takes some minutes on two cores. Run again, it goes on where it stopped, or shows the
    result at once.
    """
    quiet_libraries()
    from rlaif.demo.run import run_demo

    result = run_demo(Path(out), judge_engine=engine, say=note)
    if as_json:
        print_json(_plain(result))
        return
    click.echo("\n" + render(result, out))


def _plain(result: Any) -> dict[str, Any]:
    return {
        who: {
            "wins": w.wins,
            "losses": w.losses,
            "ties": w.ties,
            "rate": w.rate.rate,
            "low": w.rate.low,
            "high": w.rate.high,
        }
        for who, w in (("oracle", result.oracle), ("judge", result.judge))
    } | {
        "labeled": result.labeled,
        "label_agreement": result.label_agreement,
        "answered": result.answered,
    }


def render(result: Any, out: str) -> str:
    """The closing page: what happened, in words that need no background."""
    right, said = result.label_agreement
    rows = [
        (who, w.wins, w.losses, w.ties, str(w.rate))
        for who, w in (
            ("the oracle (knows by construction)", result.oracle),
            ("the judge (a model that learned)", result.judge),
        )
    ]
    header = [
        "new policy against old one, by",
        "better",
        "worse",
        "same",
        "better, of those that differ",
    ]
    lines = [
        f"The judge labeled {result.labeled} pairs; on the {said} that the oracle has a say on, "
        f"they agree on {100 * right / max(1, said):.1f}%.",
        "",
        table(header, rows),
        "(95% intervals in brackets; 50% would mean that training changed nothing.)",
        "",
        "What no principle asked for can get lost: "
        f"{percent(result.answered[0])} of the old policy's answers speak of what was asked, "
        f"{percent(result.answered[1])} of the new one's.",
    ]
    for row in result.examples:
        lines += [
            "",
            f"Prompt: {row['prompt']}",
            f"  old: {row['response_a']}",
            f"  new: {row['response_b']}",
        ]
    lines += [
        "",
        f"The labels and their evidence: {out}/labels (open report.html there).",
        "Next: `rlaif init my-project`, edit its constitution.yaml, and label again.",
    ]
    return "\n".join(lines)
