"""Registers the commands.  Each is imported only when it runs, so that `--help` is instant."""

from __future__ import annotations

import importlib
import io
import os
import sqlite3
import sys
from contextlib import suppress
from difflib import get_close_matches

import click
import cloup

from rlaif import __version__
from rlaif.cli.common.command import Group, verbosity_options
from rlaif.cli.common.output import echo
from rlaif.cli.common.renamed import new_flag
from rlaif.errors import RlaifError

SECTIONS: dict[str, dict[str, str]] = {
    "Start": {
        "init": "Create a starter project: a constitution to edit and pairs to label.",
        "demo": "Label, train and compare with the embedded models.",
        "engines": "List the engines that can run a judge.",
        "bench": "Measure judge throughput on this machine, and how close it is to the limit.",
    },
    "Label": {
        "constitution": "Check, show, compare and test constitutions, and print their schema.",
        "label": "Judge pairs by a constitution and write preference labels.",
        "report": "Write an HTML report of a labeling run.",
        "win-rate": "Report which model's completions the judge preferred.",
    },
    "Evaluate": {
        "eval": "Measure how well judges agree with humans, and their biases.",
        "judge": "Check how well a judge can be read, and find a template that suits it.",
        "calibrate": "Calibrate a judge's probabilities on human labels.",
        "import-verdicts": "Make a labeling run of verdicts that were recorded elsewhere.",
        "verify": "Check a run against its data, its verdicts, the cache and its judge.",
        "review": "Open a web page where humans review the judge's uncertain labels.",
        "labels": "Report, apply, export and import human labels.",
    },
    "Generate": {
        "synth-prompts": "Generate new prompts from a few human-written ones.",
        "generate": "Generate candidate completions for prompts, with one or more models.",
        "critique": "Criticize and revise responses by a constitution; a judge verifies.",
        "run": "Run a recipe: prompts, candidates, critiques, labels and training.",
    },
    "Data": {
        "inspect": "Show how the rows of a file are understood: roles, prompts and responses.",
        "import-feedback": "Convert product logs to human preferences.",
        "export": "Write preferences in the format of another trainer.",
        "push": "Upload a labeling run or a mix to the Hub, with its card.",
        "mix": "Mix datasets by share, weight and quota, with a data card.",
        "lineage": "Show where a file comes from, back to its human seeds.",
        "audit": "Measure whether data has lost diversity, tails, slices or human origin.",
        "guard": "Stop with an error if data has lost diversity or human origin.",
    },
    "Train": {
        "train-sft": "Train a policy on completions: revisions, or a teacher's outputs.",
        "train-dpo": "Train a policy on a labeling run with DPO.",
    },
    "Serve": {
        "serve": "Serve the judge over HTTP, for eval harnesses and other clients.",
        "harness": "Use the judge in eval harnesses: write their config files.",
    },
}
COMMANDS = {name: text for section in SECTIONS.values() for name, text in section.items()}


class _LazyGroup(Group):
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
        assert isinstance(formatter, cloup.HelpFormatter)
        sections = [
            cloup.formatting.HelpSection(heading=title, definitions=list(commands.items()))
            for title, commands in SECTIONS.items()
        ]
        formatter.write_many_sections(sections)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            close = get_close_matches(args[0], COMMANDS, n=1)
            guess = f"Did you mean {close[0]!r}?" if close else "`rlaif --help` lists commands."
            raise RlaifError(f"there is no command {args[0]!r}", hint=guess)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="To start, run `rlaif init my-project`. Every command has --help; most show examples.",
)
@click.version_option(__version__, "-V", "--version", prog_name="rlaif")
def cli() -> None:
    """Label preferences with a constitution, and train policies on the labels."""


cli.params.extend(verbosity_options())


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
    open_standard_streams()
    if type(sys.stderr) is io.TextIOWrapper:
        sys.stderr = _Messages(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        # A terminal may lack a letter, or a sign of a tree: it is written as an escape.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(prog_name="rlaif", standalone_mode=False)
    except RlaifError as error:
        echo(f"error: {error}", err=True)
        code = error.exit_code
    except SystemExit as error:
        # click ends with 1 where nobody reads its help any more (`--help | head`).
        code = 0 if type(sys.stdout).__name__ == "_PacifyFlushWrapper" else error.code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        code = 0
    except click.ClickException as error:
        echo(f"error: {_explain(error)}", err=True)
        code = 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        # Where it was the output that could not be written, its rest can't be either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        place = f" ({error.filename})" if error.filename else ""
        text = f"{error.strerror or error}{place}"[:300]
        echo(f"error: {text}. Check the path, its permissions and free disk space.", err=True)
        code = 2
    except UnicodeEncodeError as error:
        echo(f"error: {error.object[:60]!a} is not UTF-8. Rename it.", err=True)
        code = 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        echo("\nInterrupted; rerun the same command to resume.", err=True)
        code = 130
    except (RecursionError, MemoryError, sqlite3.Error, RuntimeError) as error:
        told = _explain_exhaustion(error)
        if told is None:
            raise
        echo(f"error: {told}", err=True)
        code = 2
    except Exception as error:
        if not _was_interrupted(error):
            raise
        echo("\nInterrupted; rerun the same command to resume.", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


class _Messages(io.TextIOWrapper):
    """Standard error of which nobody dies: a full disk behind it loses messages, not a run."""

    def __init__(self, whole: io.TextIOWrapper) -> None:
        super().__init__(
            whole.buffer, encoding=whole.encoding, errors=whole.errors, line_buffering=True
        )

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """As far as it goes."""
        with suppress(OSError):
            super().flush()


def open_standard_streams() -> None:
    """Have descriptors 0 to 2 open: where a parent closed them, the next file that is opened gets
    their numbers, and what is printed would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether a library met the interrupt first, and made an error of its own of it."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or "KeyboardInterrupt" in str(error)[-40:]:
            return True
        error = error.__cause__ or error.__context__
    return False


def _explain_exhaustion(error: BaseException) -> str | None:
    """What ran out, or broke below us; None for a fault of ours."""
    if isinstance(error, RecursionError):
        return "a file that was read is nested too deeply. Check its JSON or YAML."
    if isinstance(error, MemoryError):
        return "not enough memory. Use smaller files, or a machine with more."
    if isinstance(error, sqlite3.Error):
        return (
            f"a database of the cache or the run failed ({error}). Check the free disk space, or "
            "use another folder."
        )
    if "can't start new thread" in str(error):
        return "no more threads can be started. Raise the limit of processes (`ulimit -u`)."
    return None


def _explain(error: click.ClickException) -> str:
    """What is wrong with the command line, and the next step."""
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and ctx is not None:
        known = {flag for param in ctx.command.params for flag in param.opts}
        new = new_flag(error.option_name, known)
        if new is not None:
            return f"{error.option_name} has another name now. Use {new}."
    text = " ".join(error.format_message().split())
    hint = f" See `{ctx.command_path} --help`." if ctx is not None else ""
    return f"{text}{hint}"
