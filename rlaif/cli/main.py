"""Registers the commands.  Each is imported only when it runs, so that `--help` is instant."""

from __future__ import annotations

import importlib
import os
import sys

import click

from rlaif import __version__
from rlaif.errors import RlaifError

COMMANDS: dict[str, str] = {
    "init": "Write a starter project: a constitution to edit and pairs to label.",
    "constitution": "Check, show, compare and test constitutions, and print their schema.",
    "synth-prompts": "Write new prompts from a few human ones.",
    "generate": "Write candidate completions for prompts, with one or several models.",
    "critique": "Criticize and revise responses by a constitution; the judge verifies.",
    "label": "Judge pairs by a constitution and write preferences.",
    "eval": "Measure how far judges agree with people, and what biases them.",
    "calibrate": "Fit how sure a judge may be to labels of people.",
    "review": "Open a page on which people review what the judge is unsure of.",
    "labels": "Report, apply, export and import what people said.",
    "report": "Write a page about a labeling run.",
    "run": "Run a recipe: prompts, candidates, critiques, labels and trainings in one go.",
    "import-feedback": "Turn product logs into human preferences.",
    "mix": "Mix data sets by share, weight and quota, with a data card.",
    "lineage": "Draw where a file comes from, back to its human seeds.",
    "win-rate": "Say which model's completions the judge preferred.",
    "audit": "Measure whether data has lost diversity, tails, slices or human origin.",
    "guard": "Stop where data has lost diversity or human origin.",
    "train-sft": "Train a policy on completions: revisions, or a teacher's answers.",
    "train-dpo": "Train a policy on a labeling run with DPO.",
    "serve": "Serve the judge over HTTP, to eval harnesses and anything else.",
    "harness": "Plug the judge into eval harnesses: write their files, print their commands.",
    "engines": "List the engines that can run a judge.",
    "bench": "Measure how fast a judge labels here, and how close that is to the limit.",
    "demo": "Label, train and compare with the embedded models; needs nothing.",
}


class _LazyGroup(click.Group):
    """Knows its commands by name and imports a command's module on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"rlaif.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            guess = f"Did you mean {close[0]!r}?" if close else "`rlaif --help` lists commands."
            raise RlaifError(f"there is no command {args[0]!r}", hint=guess)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="First time: `rlaif init my-project`. Every command has --help with examples.",
)
@click.version_option(__version__, prog_name="rlaif")
def cli() -> None:
    """Preference labels from a constitution, and policies trained on them."""


def all_commands() -> dict[str, click.Command]:
    """Every command and subcommand by its words, imported: for docs and tests."""
    found: dict[str, click.Command] = {}
    context = click.Context(cli, info_name="rlaif")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {sub}": inner for sub, inner in command.commands.items()}
    return found


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        code = cli.main(standalone_mode=False)
    except RlaifError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        text = " ".join(error.format_message().split())
        ctx = getattr(error, "ctx", None)
        hint = f" See `{ctx.command_path} --help`." if ctx is not None else ""
        click.echo(f"error: {text}{hint}", err=True)
        code = 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{place}"[:300]
        click.echo(f"error: {text}. Check the path, its permissions and the space left.", err=True)
        code = 2
    except UnicodeEncodeError as error:
        click.echo(f"error: {error.object[:60]!a} is not UTF-8. Rename it.", err=True)
        code = 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("\nstopped; run the same command again to go on where it stopped", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
