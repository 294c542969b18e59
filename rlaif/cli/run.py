"""`rlaif run`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.command import Command
from rlaif.cli.common.model_flags import assignments, plain_value
from rlaif.cli.common.output import echo, note, print_json, quiet_libraries, table
from rlaif.errors import RlaifError
from rlaif.util.addresses import NAMED, hide_secrets
from rlaif.util.child_process import call_rlaif
from rlaif.util.user_functions import IN_RECIPE

_EXAMPLES = """
\b
Examples:
  rlaif run rlaif --set prompts=prompts.jsonl -o work --dry-run
  rlaif run rlaif --set prompts=prompts.jsonl --set policy=Qwen/Qwen3-4B --set judge=J -o work
  rlaif run my-recipe.yaml -o work

RECIPE is a YAML file or a shipped name: constitutional-ai, rlaif, distillation,
self-instruct, on-policy. After an interruption or a change, rerun the same command to resume.
Completed steps are skipped; a changed step runs again, with all steps that depend on it.
"""


@click.command(cls=Command, name="run", epilog=_EXAMPLES)
@click.argument("recipe")
@click.option("-o", "--out", required=True, help="Output folder of all steps; created if missing.")
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a value of the recipe; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Show the steps and their state, then exit.")
@click.option("--json", "as_json", is_flag=True, help="Print steps and folders as JSON.")
def command(recipe: str, out: str, values: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Run a recipe: prompts, candidates, critiques, labels and training.

    Each step is an rlaif command; its results are written to OUT/STEP/HASH.
    """
    quiet_libraries()
    from rlaif.recipes.load import load_recipe
    from rlaif.recipes.plan import graph, note_done, plan_steps

    given = {
        name: str(Path(text).resolve()) if _exists(text) else plain_value(text)
        for name, text in assignments("--set", values).items()
    }
    loaded = load_recipe(recipe, given)
    named = " ".join(str(value) for value in given.values() if "://" in str(value))
    work = Path(out).resolve()
    steps = plan_steps(loaded, work, _commands())
    note(f"{loaded.name}: {loaded.description}" if loaded.description else loaded.name)
    note(table(["step", "runs", "needs", "state"], graph(steps)))
    for planned in [] if dry_run else steps:
        if planned.done:
            continue
        note(f"\n[{planned.step.name}]\n$ rlaif {shlex.join(_shown(planned.argv))}")
        began = time.monotonic()
        # A step's own table is progress here; stdout is for the result.
        code = call_rlaif(planned.argv, {IN_RECIPE: "1", NAMED: named})
        if code:
            raise RlaifError(
                f"step {planned.step.name!r} failed (exit code {code})",
                hint="Fix the error shown above, then rerun the same command to resume.",
                place=planned.step.place,
            )
        planned.folder.mkdir(parents=True, exist_ok=True)
        seconds = round(time.monotonic() - began, 1)
        note_done(planned.folder, {"argv": _shown(planned.argv), "seconds": seconds})
    steps = plan_steps(loaded, work, _commands())
    if as_json:
        print_json(
            {
                p.step.name: {"folder": str(p.folder), "done": p.done, "argv": _shown(p.argv)}
                for p in steps
            }
        )
    elif not dry_run:
        echo(table(["step", "results"], [(p.step.name, str(p.folder)) for p in steps]))


def _shown(argv: Sequence[str]) -> list[str]:
    """A command line as it may be kept and printed."""
    return [hide_secrets(part) for part in argv]


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # too long for a file name, or no name at all
        return False


def _commands() -> dict[str, Any]:
    """What each command that a step can run takes, by its own declaration."""
    from rlaif.cli.main import cli
    from rlaif.recipes.load import OUTPUTS
    from rlaif.recipes.plan import CommandOptions

    found = {}
    context = click.Context(cli, info_name="rlaif")
    for name in OUTPUTS:
        declared = cli.get_command(context, name)
        assert declared is not None
        flags: dict[str, str] = {}
        switches: dict[str, tuple[str, str]] = {}
        has_out = False
        for parameter in declared.params:
            if not isinstance(parameter, click.Option):
                continue
            long = max(parameter.opts, key=len)
            key = long.lstrip("-").replace("-", "_")
            if key == "out":
                has_out = True
            elif key in ("help", "json", "dry_run", "allow_functions"):  # no file may allow code
                continue
            elif parameter.is_flag:
                off = parameter.secondary_opts
                switches[key] = (long, off[0] if off else "")
            else:
                flags[key] = long
        found[name] = CommandOptions(flags, switches, has_out)
    return found
