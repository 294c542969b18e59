"""`rlaif demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.output import echo, note, percent, print_json, quiet_libraries, table


@click.command(cls=Command, name="demo")
@click.option(
    "-o", "--out", default="demo-run", show_default=True, help="Output folder; created if missing."
)
@click.option("--engine", default="vllm", show_default=True, help="Engine that runs the judge.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(out: str, engine: str, as_json: bool) -> None:
    """Label, train and compare with the embedded models.

    Needs no GPU, data or model download. Takes a few minutes on two cores. Rerun the same
    command to resume, or to show the result again.
    """
    quiet_libraries()
    from rlaif.demo.run import run_demo

    result = run_demo(Path(out), judge_engine=engine, say=note)
    if as_json:
        print_json(_plain(result))
        return
    echo("\n" + render_demo(result, out))


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


def render_demo(result: Any, out: str) -> str:
    """The closing page: what happened, in words that need no background."""
    right, said = result.label_agreement
    rows = [
        (who, w.wins, w.losses, w.ties, str(w.rate))
        for who, w in (
            ("oracle (ground truth)", result.oracle),
            ("judge (trained model)", result.judge),
        )
    ]
    header = [
        "new policy vs. old, by",
        "better",
        "worse",
        "same",
        "better (ties excluded)",
    ]
    lines = [
        (
            f"The judge labeled {result.labeled} pairs. It agrees with the oracle on "
            f"{100 * right / max(1, said):.1f}% of the {said} pairs that the oracle decides."
        ),
        "",
        table(header, rows),
        "(95% intervals in brackets; 50% means that training changed nothing.)",
        "",
        (
            "Training can lose behavior that no principle rewards: "
            f"{percent(result.answered[0])} of the old policy's answers address the question, "
            f"{percent(result.answered[1])} of the new policy's."
        ),
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
        f"Labels and evidence: {out}/labels (open report.html there).",
        "Next: run `rlaif init my-project`, edit its constitution.yaml, and label again.",
    ]
    return "\n".join(lines)
