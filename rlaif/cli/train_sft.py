"""`rlaif train-sft`."""

from __future__ import annotations

from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.layout_flags import layout_fields, layout_flags
from rlaif.cli.common.options import build, config_flag, merge_settings, settings_options
from rlaif.cli.common.output import quiet_libraries
from rlaif.cli.common.training_screen import train_or_preview
from rlaif.training.settings import GateSettings, SFTSettings

_EXAMPLES = """
\b
Examples:
  rlaif train-sft runs/revised --model demo -o policies/revised --learning-rate 1e-4
  rlaif train-sft runs/revised --model Qwen/Qwen3-4B --lora-r 16 -o policies/qwen
  rlaif train-sft chats.jsonl --config sft.yaml -o policies/chats

DATA is the output folder of `rlaif critique` or `rlaif generate`, or a data file. Each row
has a prompt and a completion, or messages that end with one. If training is interrupted,
rerun the same command to resume from the last checkpoint.
"""


@click.command(cls=Command, name="train-sft", epilog=_EXAMPLES)
@click.argument("data")
@click.option("-o", "--out", required=True, help="Output folder of the trained policy.")
@config_flag
@click.option("--dry-run", is_flag=True, help="Show which rows would be trained on, then exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@layout_flags
@settings_options(SFTSettings)
@settings_options(GateSettings)
def command(
    data: str, out: str, config: str | None, dry_run: bool, as_json: bool, **flags: Any
) -> None:
    """Train a policy on completions: verified revisions, or a teacher's outputs.

    A guard runs first: nothing is trained if the data has collapsed or a license forbids it.
    """
    quiet_libraries()
    given = layout_fields(flags)
    values, places = merge_settings(flags, config, (SFTSettings, GateSettings))
    if given:
        values["layout"] = {**(values.get("layout") or {}), **given}
    settings = build(SFTSettings, values, places)
    gates = build(GateSettings, values, places)
    from rlaif.data.sources import open_source
    from rlaif.training.supervised import data_file

    open_source(data_file(data))  # a wrong name is known before the libraries are loaded
    from rlaif.training.sft import prepare_sft

    job = prepare_sft(data, settings)
    train_or_preview(
        job,
        out,
        gates,
        unit="completions",
        hashed="data",
        dry_run=dry_run,
        as_json=as_json,
    )
