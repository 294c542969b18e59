"""Makes command-line options out of settings models, and settings out of options and YAML.

A flag wins over the YAML file, which wins over the default.  Names, types, defaults and help
all come from the model's fields, so that they are written once.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rlaif.cli.common.command import EVERYDAY, SettingOption
from rlaif.cli.common.config_file import read_config
from rlaif.errors import Place, RlaifError
from rlaif.labeling.judge_file import names_judge_file, read_judge_file
from rlaif.util.validation import first_problem

Function = TypeVar("Function", bound=Callable[..., Any])
Settings = TypeVar("Settings", bound=BaseModel)


GROUP_OF_MODEL = {
    "LabelSettings": "Judging",
    "JudgeSettings": "Judging",
    "AggregationSettings": "Aggregation",
    "EngineSettings": "Engine",
    "GenerateSettings": "Generation",
    "CritiqueSettings": "Generation",
    "SynthesisSettings": "Generation",
    "SamplingSettings": "Sampling",
    "SFTSettings": "Training",
    "DPOSettings": "Training",
    "GateSettings": "Limits",
    "Thresholds": "Limits",
    "MixSettings": "Data",
    "FeedbackSettings": "Data",
}
"""The help group of a settings model's options."""


def _plain(annotation: Any) -> Any:
    """The type inside `X | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(a for a in get_args(annotation) if a is not type(None))
    return annotation


def _help(info: FieldInfo) -> str:
    text = (info.description or "").strip()
    default, facts = info.default, []
    unset = default is None or default is PydanticUndefined or info.default_factory
    if not unset and "[default:" not in text:
        shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else f"{default}"
        facts = [f"default: {shown}"]
    facts += [allowed] if (allowed := _range(info)) else []
    if not facts:
        return text
    told = "; ".join(facts)
    # A default in words, such as "the model's", is written in the description.
    return f"{text[:-1]}; {told}]" if text.endswith("]") else f"{text} [{told}]".strip()


def _range(info: FieldInfo) -> str:
    """The values that a number may have, as click writes a range; "" for all."""
    low = high = ""
    for limit in info.metadata:
        for name, sign in (("ge", "<="), ("gt", "<")):
            if _is_told(value := getattr(limit, name, None)):
                low = f"{value:g}{sign}"
        for name, sign in (("le", "<="), ("lt", "<")):
            if _is_told(value := getattr(limit, name, None)):
                high = f"{sign}{value:g}"
    if low and not high:
        return f"x{'>=' if low.endswith('=') else '>'}{low.rstrip('<=')}"
    return f"{low}x{high}" if low or high else ""


def _is_told(limit: float | None) -> bool:
    """Whether a limit is there and may matter: some only keep numbers finite."""
    return limit is not None and abs(limit) < 1e9


config_flag = click.option(
    "--config",
    metavar="FILE",
    help="YAML file with settings, named as the flags that tune the command; flags take "
    "precedence.",
)


def settings_options(
    model: type[BaseModel], *, skip: frozenset[str] = frozenset()
) -> Callable[[Function], Function]:
    """A decorator that adds one option per field of `model`, all unset by default."""

    def add(command: Function) -> Function:
        for name, info in reversed(model.model_fields.items()):
            kind = _plain(info.annotation)
            if name in skip or get_origin(kind) is dict or name == "layout":
                continue
            flag = f"--{name.replace('_', '-')}"
            extra: dict[str, Any] = {}
            if kind is bool:
                flag = f"{flag}/--no-{name.replace('_', '-')}"
            elif get_origin(kind) is Literal:
                extra["type"] = click.Choice([str(v) for v in get_args(kind)])
            else:
                extra["type"] = kind if kind in (int, float, str) else str
                extra["metavar"] = {int: "N", float: "X"}.get(kind)
            command = click.option(
                flag,
                name,
                cls=SettingOption,
                group_title=GROUP_OF_MODEL.get(model.__name__, EVERYDAY),
                default=None,
                help=_help(info),
                **extra,
            )(command)
        return command

    return add


def merge_settings(
    flags: Mapping[str, Any],
    config: str | None,
    models: tuple[type[BaseModel], ...],
    *,
    hidden: frozenset[str] = frozenset(),
    at: tuple[str | int, ...] = (),
    also: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Place]]:
    """Values given by YAML file and flags (flags win), with the places of the file's.

    Args:
        at: where in the file the settings stand.
        also: names that the file may have beside the models' fields, and whose values are kept
            as they are written.

    Raises:
        RlaifError: the file is unreadable or has a key that no model knows.
    """
    values: dict[str, Any] = {}
    places: dict[str, Place] = {}
    known = [name for m in models for name in m.model_fields if name not in hidden]
    if config is not None:
        values, places = read_config(Path(config), known, at, also=also)
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    if "model" in given and values.get("model", given["model"]) != given["model"]:
        for name in ("revision", "quantization"):  # of the file's model
            values.pop(name, None)
    said = {*given, *values}
    values.update(given)
    for key in given:
        places.pop(key, None)
    if names_judge_file(values.get("model")):
        own, own_places = read_judge_file(Path(values["model"]))
        kept = {key for key in own if key in known and (key not in said or key == "model")}
        values.update({key: own[key] for key in kept})
        places.update({key: own_places[key] for key in kept})
    return values, places


def build(
    model: type[Settings], values: Mapping[str, Any], places: Mapping[str, Place] | None = None
) -> Settings:
    """The settings, with a wrong value as one clear sentence.

    Raises:
        RlaifError: naming the option or the place in the YAML file.
    """
    own = {key: value for key, value in values.items() if key in model.model_fields}
    try:
        return model(**own)
    except ValidationError as error:
        problem = first_problem(error)
        name = str(problem.where[0]) if problem.where else ""
        place = (places or {}).get(name)
        flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
        shown = name if place or not name else flag
        text = f"{shown}: {problem.message}{problem.shown}".removeprefix(": ")
        if problem.kind == "missing" and not place:
            raise RlaifError(f"{flag} is missing", hint=f"Add {flag} with its value.") from None
        raise RlaifError(
            text, hint="Run the command with --help to see allowed values.", place=place
        ) from None
