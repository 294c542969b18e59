"""What a training shows while it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rlaif.cli.common.output import echo, note, print_json, progress_bar, table
from rlaif.training.settings import GateSettings


class TrainingScreen:
    """The account of rows, then progress, on stderr."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._bar: Any = None

    def account(self, account: Any) -> None:
        """Where the rows went."""
        for line in [] if self._silent else account.lines():
            note(line)

    def note(self, text: str) -> None:
        """Something to know before training starts."""
        if not self._silent:
            note(text)

    def log(self, line: Any) -> None:
        """A line of metrics came."""
        if self._bar is None:
            self._bar = progress_bar(int(line["max_steps"]), "step", int(line["step"]))
        if "loss" in line:
            margin = line.get("rewards/margins")
            shown = "" if margin is None else f", margin {margin:.3f}"
            self._bar.set_postfix_str(f"loss {line['loss']:.4f}{shown}")
        self._bar.update(int(line["step"]) - self._bar.n)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def print_training(result: Any, out: str, rows: str, evidence: str, *, as_json: bool) -> None:
    """What a training came to.

    Args:
        rows, evidence: what to call the rows trained on, and what they came from.
    """
    if as_json:
        print_json(
            {
                "policy": out,
                "steps": result.steps,
                "fresh": result.fresh,
                "manifest_hash": result.manifest_hash,
                "metrics": result.metrics,
            }
        )
        return
    if not result.fresh:
        note(f"{out} is already complete")
    lines = [
        (rows, result.account.trained),
        ("steps", result.steps),
        ("mean loss", f"{result.metrics.get('train_loss', float('nan')):.4f}"),
        ("seconds", f"{result.metrics.get('train_runtime', 0.0):.1f}"),
        (evidence, result.manifest_hash),
    ]
    echo(table(["trained", out], lines))


def train_or_preview(
    job: Any,
    out: str,
    gates: GateSettings,
    *,
    unit: str,
    hashed: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train, or with `dry_run` say which rows would be trained on; and print what came of it.

    Args:
        job: from `prepare_dpo` or `prepare_sft`.
        unit: what a row is called, such as "pairs".
        hashed: what the result's hash is of, as it is printed.
    """
    from rlaif.training.frame import preview_training, run_training

    if dry_run:
        account = preview_training(job, gates)
        print_json(vars(account)) if as_json else echo("\n".join(account.lines()))
        return
    first = os.environ.get("RANK", "0") == "0"  # set by accelerate launch and torchrun
    screen = TrainingScreen(silent=not first)
    result = run_training(
        job,
        Path(out),
        gates=gates,
        on_account=screen.account,
        on_note=screen.note,
        on_log=screen.log,
    )
    screen.close()
    if first:
        print_training(result, out, unit, hashed, as_json=as_json)
