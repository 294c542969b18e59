"""`rlaif constitution`: lint, show, diff, schema; what asks a judge is in files of its own."""

from __future__ import annotations

import sys

import click

from rlaif.cli.common.command import Group
from rlaif.cli.common.output import echo, print_json, quiet_libraries, table
from rlaif.cli.constitution.examples import test_command
from rlaif.cli.constitution.induce import induce_command
from rlaif.cli.constitution.use import ablate_command, coverage_command
from rlaif.constitution.load import load_constitution
from rlaif.constitution.review import diff, lint
from rlaif.constitution.schema import Check, Constitution, RewardModelCheck, json_schema

_UNLIKELY = 0.05
"""Below this probability of English, a question is taken to be in another language."""


@click.group(cls=Group, name="constitution")
def command() -> None:
    """Check, show, compare and test constitutions, and print their schema.

    C is a YAML file or the name of a shipped constitution.
    """


@command.command(name="lint")
@click.argument("constitution", metavar="C")
@click.option(
    "--template", help="Also check what the layout of this judge template costs in tokens."
)
@click.option("-j", "--judge", default="demo", help="Model for counting tokens with --template.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if there are warnings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def lint_command(
    constitution: str, template: str | None, judge: str, strict: bool, as_json: bool
) -> None:
    """Check a constitution: stop on errors, print warnings."""
    loaded = load_constitution(constitution)
    c = loaded.constitution
    unread = _other_languages(c)
    warnings: list[object] = list(lint(loaded, unread))
    shots: dict[int, float] = {}
    if template is not None:
        quiet_libraries()
        from rlaif.engines.base import EngineSettings
        from rlaif.engines.registry import codec_for
        from rlaif.evaluation.constitutions.layout_cost import layout_advice, measure_shots

        codec = codec_for(EngineSettings(engine="transformers", model=judge))
        asked = [p.preference for p in c.principles if p.preference]
        warnings += layout_advice(template, codec, asked)
        shots = measure_shots(codec, c.principles)
    if as_json:
        print_json(
            {
                "name": c.name,
                "version": c.version,
                "hash": c.hash,
                "principles": len(c.principles),
                "warnings": [str(w) for w in warnings],
                "wording_not_read": unread,
                **({"tokens_of_shots": shots} if shots else {}),
            }
        )
    else:
        for warning in warnings:
            echo(str(warning))
        for number, tokens in shots.items():
            echo(f"--shots {number} adds {tokens:g} tokens to a verdict, on average")
        if unread:
            which = ", ".join(f"{name} ({code})" for name, code in unread.items())
            echo(f"advice on wording reads English only; not read: {which}")
        count = f"{len(warnings)} warning{'' if len(warnings) == 1 else 's'}"
        echo(f"{c.name} {c.version}: {len(c.principles)} principles, {count}")
    if strict and warnings:
        sys.exit(1)


@command.command(name="show")
@click.argument("constitution", metavar="C")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print the merged constitution as YAML.")
@click.option("--json", "as_json", is_flag=True, help="Print the merged constitution as JSON.")
def show_command(constitution: str, as_yaml: bool, as_json: bool) -> None:
    """Show a constitution with everything it extends merged in."""
    c = load_constitution(constitution).constitution
    if as_json:
        print_json({**c.plain(), "hash": c.hash})
    elif as_yaml:
        echo(c.merged_yaml().rstrip(), raw=True)
    else:
        echo(f"{c.name} {c.version} ({c.license or 'no license'}), hash {c.hash}")
        rows = [
            (
                p.id,
                p.tier,
                f"{p.weight:g}",
                p.polarity,
                len(p.examples),
                p.preference or _describe_check(p.check),
            )
            for p in sorted(c.principles, key=lambda p: p.tier)
        ]
        echo(table(["principle", "tier", "weight", "polarity", "examples", "asks"], rows))


def _other_languages(constitution: Constitution) -> dict[str, str]:
    """The language of each principle whose question is not in English."""
    from rlaif.data.languages import language_of, language_probability

    asked = {p.id: p.preference for p in constitution.principles if p.preference}
    found = {name: language_of(text) for name, text in asked.items()}
    return {
        name: code
        for name, code in found.items()
        if code != "en" and language_probability(asked[name], "en") < _UNLIKELY
    }


def _describe_check(check: Check | None) -> str:
    kind = check.kind if check else ""
    return f"check: {kind} {check.model if isinstance(check, RewardModelCheck) else ''}".strip()


@command.command(name="diff")
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def diff_command(old: str, new: str, as_json: bool) -> None:
    """Show what changed, and what the next run must judge again.

    Exits with code 1 if the two differ, like diff.
    """
    changes = diff(load_constitution(old).constitution, load_constitution(new).constitution)
    if as_json:
        print_json([vars(change) for change in changes])
    else:
        for change in changes:
            again = "  (needs new verdicts)" if change.asks_judge_again else ""
            echo(f"{change.principle or 'constitution'}: {change.what}{again}")
        if not changes:
            echo("no differences")
    sys.exit(1 if changes else 0)


@command.command(name="schema")
def schema_command() -> None:
    """Print the JSON Schema of a constitution, for completion and validation in an editor.

    Save the output, then put this line into a constitution:

    \b
    # yaml-language-server: $schema=constitution.schema.json
    """
    print_json(json_schema())


for _judged in (test_command, coverage_command, ablate_command, induce_command):
    command.add_command(_judged)
