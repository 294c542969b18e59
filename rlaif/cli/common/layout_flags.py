"""Flags of commands that read data: which column plays which role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from rlaif.cli.common.model_flags import assignments
from rlaif.data.layout import FIELDS, Layout, load_layout, make_layout, set_fields
from rlaif.errors import Place, RlaifError

Command = TypeVar("Command", bound=Callable[..., Any])
MAPPED = ("response_a", "response_b")


def layout_flags(command: Command) -> Command:
    """Add `--map` (as `maps`), `--value` (as `value_map`), `--transcript` (as `forms`), `--layout`
    (as `layout_file`) and `--ignore`.
    """
    for option in (
        click.option(
            "--ignore",
            multiple=True,
            metavar="COLUMN",
            help="Leave COLUMN out, though it may matter; repeatable.",
        ),
        click.option(
            "--layout",
            "layout_file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="YAML file that says which column plays which role, as `rlaif inspect` writes it.",
        ),
        click.option(
            "--transcript",
            "forms",
            multiple=True,
            metavar="COLUMN=FORM",
            help="COLUMN holds conversations as one text. FORM is a name (chatml, hh, ...), how a "
            "turn begins ('<{role}>:'), or `text` for plain text.",
        ),
        click.option(
            "--value",
            "value_map",
            multiple=True,
            metavar="VALUE=SIDE",
            help="What a value of the label column means: a, b, ... (the responses), tie or none.",
        ),
        click.option(
            "--map",
            "maps",
            multiple=True,
            metavar="NAME=COLUMN",
            help="Read field NAME from COLUMN (a dotted path); repeatable. See `rlaif inspect`.",
        ),
    ):
        command = option(command)
    return command


def with_file_layout(
    given: Mapping[str, Any], values: Mapping[str, Any], places: Mapping[str, Place]
) -> dict[str, Any]:
    """The fields of a layout that a settings file sets under `layout`; flags take precedence.

    Raises:
        RlaifError: it is no layout.
    """
    if "layout" not in values:
        return dict(given)
    layout, place = values["layout"], places.get("layout")
    if not isinstance(layout, dict):
        raise RlaifError("`layout` is no mapping", hint="See `rlaif inspect`.", place=place)
    return {**set_fields(make_layout(layout, place)), **given}


def layout_fields(flags: dict[str, Any], *, own: bool = False) -> dict[str, Any]:
    """The fields of a layout that the flags of `layout_flags` set; takes them out of `flags`.

    Args:
        own: whether the command reads what rows bring for the judge: references, rubrics
            and languages.

    Raises:
        RlaifError: the layout file is wrong, an assignment names no field, or one names what the
            command does not read.
    """
    path, ignored = flags.pop("layout_file", None), flags.pop("ignore", ())
    maps = assignments("--map", flags.pop("maps", ()), (*FIELDS, *MAPPED))
    values = assignments("--value", flags.pop("value_map", ()))
    forms = assignments("--transcript", flags.pop("forms", ()))
    found = load_layout(path) if path is not None else {}
    pair = tuple(found.get("responses", ()))
    sides = pair if len(pair) == 2 else MAPPED
    if maps.keys() & set(MAPPED):
        found["responses"] = tuple(maps.pop(n, sides[k]) for k, n in enumerate(MAPPED))
    for name, path in maps.items():
        several = Layout.model_fields[name].annotation == tuple[str, ...] and "{" not in path
        found[name] = tuple(path.split("+")) if several else path
    if values:
        found["values"] = {**found.get("values", {}), **values}
    if forms:
        found["transcripts"] = {**found.get("transcripts", {}), **forms}
    if ignored:
        both = sorted(set(ignored) & set(maps.values()))
        if both:
            raise RlaifError(
                f"column {both[0]!r} is named by --map and by --ignore", hint="Use one of the two."
            )
        found["ignore"] = (*found.get("ignore", ()), *ignored)
    unread = next((name for name in ("reference", "rubric", "language") if found.get(name)), None)
    if unread and not own:
        raise RlaifError(
            f"--map {unread}: this command does not read a row's {unread}",
            hint="Only `rlaif label` and `rlaif inspect` do. Remove it.",
        )
    make_layout(found)
    return found
