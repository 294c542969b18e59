"""`rlaif train-dpo`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.options import build, config_flag, merge_settings, settings_options
from rlaif.cli.common.output import note, quiet_libraries
from rlaif.cli.common.training_screen import train_or_preview
from rlaif.training.settings import DPOSettings, GateSettings, advise

_EXAMPLES = """
\b
Examples:
  rlaif train-dpo runs/first --model demo -o policies/first --learning-rate 1e-4
  rlaif train-dpo runs/qwen --model Qwen/Qwen3-4B --lora-r 16 -o policies/qwen
  rlaif train-dpo runs/qwen --config train.yaml -o policies/qwen
  accelerate launch --num_processes 8 -m rlaif train-dpo runs/qwen --config train.yaml -o p/q

If training is interrupted, rerun the same command to resume from the last checkpoint.
"""


@click.command(cls=Command, name="train-dpo", epilog=_EXAMPLES)
@click.argument("run")
@click.option("-o", "--out", required=True, help="Output folder of the trained policy.")
@config_flag
@click.option("--dry-run", is_flag=True, help="Show which rows would be trained on, then exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@settings_options(DPOSettings)
@settings_options(GateSettings)
def command(
    run: str, out: str, config: str | None, dry_run: bool, as_json: bool, **flags: Any
) -> None:
    """Train a policy on a labeling run with DPO.

    RUN is the output folder of `rlaif label` or `rlaif mix`. A guard runs first: nothing is
    trained if the data has collapsed or a license forbids it. Labels are probabilities; by
    default, DPO uses them as soft targets (--loss-type soft).
    """
    quiet_libraries()
    values, places = merge_settings(flags, config, (DPOSettings, GateSettings))
    settings = build(DPOSettings, values, places)
    gates = build(GateSettings, values, places)
    for line in advise(settings):
        note(f"note: {line}")
    from rlaif.training.data import find_labels

    find_labels(Path(run))  # a wrong name is known before the libraries are loaded
    from rlaif.training.dpo import prepare_dpo

    job = prepare_dpo(Path(run), settings)
    train_or_preview(
        job,
        out,
        gates,
        unit="pairs",
        hashed="run manifest hash",
        dry_run=dry_run,
        as_json=as_json,
    )
