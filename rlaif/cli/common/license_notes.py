"""Says what licenses have to say about models, on stderr; nothing is stopped here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from rlaif.cli.common.output import note
from rlaif.data.licensing import ModelUse, check, load_licenses
from rlaif.engines.base import EngineSettings
from rlaif.engines.model_origin import text_origin
from rlaif.runs.tally import OriginTally

Command = TypeVar("Command", bound=Callable[..., Any])


def licenses_flag(command: Command) -> Command:
    """Adds `--licenses`."""
    return click.option(
        "--licenses",
        default="models",
        show_default=True,
        metavar="FILE",
        help="Which models' outputs may be used to train other models: a YAML file, or the "
        "shipped `models`.",
    )(command)


def note_models(licenses: str, models: Iterable[tuple[str, EngineSettings]]) -> None:
    """What is known of models that are about to write, or to judge.

    Args:
        models: what each makes ("completions", "prompts", "labels"), and the model.
    """
    used = []
    for what, settings in models:
        if settings.engine == "scripted":  # no model, and nobody's
            continue
        license_ = str(text_origin(settings)["license"])
        use = ModelUse(what, settings.model, license_)
        if use not in used:
            used.append(use)
    _say(licenses, used)


def note_origins(licenses: str, origins: Mapping[str, OriginTally]) -> None:
    """What is known of the models whose text was read."""
    used = []
    for found in origins.values():
        if found.kind != "model":
            continue
        rows = tuple(str(row) for row in found.rows)
        for what, count in (("prompts", found.prompts), ("completions", found.completions)):
            if count:
                used.append(
                    ModelUse(
                        what=what, model=found.model, license=found.license, count=count, rows=rows
                    )
                )
    _say(licenses, used)


def _say(licenses: str, used: list[ModelUse]) -> None:
    for finding in check(load_licenses(licenses), used):
        note(f"license: {finding.sentence}")
