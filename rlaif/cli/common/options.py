"""Makes command-line options out of settings models, and settings out of options and YAML.

A flag wins over the YAML file, which wins over the default.  Names, types, defaults and help
all come from the model's fields, so that they are written once.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rlaif.cli.common.command import EVERYDAY, SettingOption
from rlaif.cli.common.renamed import new_names
from rlaif.constitution.yaml_source import read_yaml
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
    if not (default is None or default is PydanticUndefined or info.default_factory):
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
            if (value := getattr(limit, name, None)) is not None:
                low = f"{value:g}{sign}"
        for name, sign in (("le", "<="), ("lt", "<")):
            if (value := getattr(limit, name, None)) is not None:
                high = f"{sign}{value:g}"
    if low and not high:
        return f"x{'>=' if low.endswith('=') else '>'}{low.rstrip('<=')}"
    return f"{low}x{high}" if low or high else ""


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
                extra["metavar"] = {int: "N", float: "X"}.get(kind, "TEXT")
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
    values.update(given)
    for key in given:
        places.pop(key, None)
    if names_judge_file(values.get("model")):
        own, own_places = read_judge_file(Path(values["model"]))
        kept = {key for key in own if key in known and (key not in given or key == "model")}
        values.update({key: own[key] for key in kept})
        places.update({key: own_places[key] for key in kept})
    return values, places


def read_config(
    path: Path,
    known: Sequence[str],
    at: tuple[str | int, ...] = (),
    *,
    also: tuple[str, ...] = (),
) -> tuple[dict[str, Any], dict[str, Place]]:
    """The settings of a YAML file by name, with their places.

    `judge` and `aggregation` may be mappings of settings.  A run's `run.yaml` is taken as it is:
    what it says of the run's data, and hashes, is left out.

    Args:
        known: the names that a setting may have.
        at: where in the file the settings stand, such as `("members", 0)` of a panel's run.
        also: further names, whose values are kept as they are written.

    Raises:
        RlaifError: the file is unreadable or has a key that is not known.
    """
    tree = read_yaml(path)
    settings: Any = tree.value
    for key in at:
        settings = settings[key]
    if not isinstance(settings, dict):
        raise RlaifError(
            "the settings file must be a YAML mapping",
            hint="Write `name: value` lines.",
            place=tree.places[at],
        )
    if "format" in settings and settings.get("command", _command_name()) != _command_name():
        raise RlaifError(
            f"{str(path)!r} is the configuration of a `rlaif {settings['command']}` run, "
            "which --config can't reproduce",
            hint="Repeat the flags of that run, or write its settings to a file of their own.",
            place=tree.keys[("command",)],
        )
    values: dict[str, Any] = {}
    places: dict[str, Place] = {}
    if "command" in settings:
        settings = _as_settings(settings)
    for where, value in _flatten({k: v for k, v in settings.items() if k not in also}):
        name = "model" if where == ("judge",) else str(where[-1])
        if where == ("judge",) and not isinstance(value, str):
            raise RlaifError(
                "`judge` is neither a model nor a mapping of settings",
                hint="Write `judge: MODEL`, or `judge: {model: MODEL, engine: vllm}`.",
                place=tree.places[(*at, *where)],
            )
        if name == "model" and name in values:
            raise RlaifError(
                f"setting {name!r} is given twice",
                hint="Keep one of the two.",
                place=tree.keys[(*at, *where)],
            )
        if name not in known:
            key = tree.keys.get((*at, *where), tree.places[at])
            raise _unknown_setting(str(where[-1]), (*known, *also), key)
        at_home = isinstance(value, str) and value.startswith("~/")
        values[name] = os.path.expanduser(value) if at_home else value
        places[name] = tree.places.get((*at, *where), tree.places[at])
    for name in also:
        if name in settings:
            values[name] = settings[name]
            places[name] = tree.places.get((*at, name), tree.places[at])
    return values, places


NOT_IN_A_FILE = (
    "judge",
    "writer",
    "split",
    "cache_dir",
    "licenses",
    "reasoning",
    "panel",
    "shard_rows",
    "dry_run",
)
"""Flags that are no settings: of where data and caches are, and of what is done."""

_OF_A_RUN = (
    *("format", "command", "input", "constitution", "checks", "agreement"),
    *("system_prompts", "fingerprint"),
)
"""What `run.yaml` holds beside settings: data, principles and results."""
_NAMED = ("template", "judge_template", "writer_templates", "topics", "personas", "evaluations")
"""What `run.yaml` names together with its hash."""


def _flatten(found: Mapping[Any, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Settings with their paths; those of a run's configuration as they were given."""
    of_a_run = "format" in found and "input" in found
    for key, value in found.items():
        if of_a_run and key in _OF_A_RUN:
            continue
        if key in ("judge", "aggregation", "model") and isinstance(value, Mapping):
            for name, own in value.items():
                if name != "fingerprint":
                    yield (key, name), own
        elif of_a_run and key in ("template", "calibration") and isinstance(value, Mapping):
            yield (key,), value["name" if key == "template" else "path"]
        else:
            yield (key,), value


def _as_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.yaml` of `generate`, `critique` or `synth-prompts` says, as a user would."""

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(one) for one in value]
        return value["name"] if isinstance(value, Mapping) and "name" in value else value

    def model(value: Any) -> Any:
        kept = isinstance(value, Mapping)
        return {k: v for k, v in value.items() if k != "fingerprint"} if kept else value

    settings = {k: v for k, v in found.items() if v is not None or k == "limit"}
    if "writer" in settings:
        settings["model"] = settings.pop("writer")
    for key, value in settings.items():
        if key in (*_NAMED, "templates"):
            settings[key] = named(value)
        elif key == "models":
            settings[key] = [model(one) for one in value]
        elif key in ("model", "judge"):
            settings[key] = model(value)
    return settings


def _command_name() -> str:
    """The command that runs, as `run.yaml` has it."""
    context = click.get_current_context(silent=True)
    return str(context.info_name) if context is not None else ""


def _unknown_setting(name: str, known: Sequence[str], place: Place) -> RlaifError:
    names_now = [new for new in new_names(name) if new in known]
    if name == "fold" and "pooling" in known:
        names_now = ["aggregation"]
    if names_now:
        return RlaifError(
            f"setting {name!r} has another name now", hint=f"Write {names_now[0]!r}.", place=place
        )
    if name == "aggregation" and "pooling" in known:
        return RlaifError(
            "`aggregation` must be a mapping of settings",
            hint="Write it as `aggregation: {pooling: mean}`.",
            place=place,
        )
    if name in NOT_IN_A_FILE or name in _flags_of_command():
        flag = f"--{name.replace('_', '-')}"
        return RlaifError(f"{name!r} is not a setting", hint=f"Use the flag {flag}.", place=place)
    close = get_close_matches(name, (*known, "judge", "aggregation"), n=1)
    names = ", ".join(
        dict.fromkeys((*known, *(("judge", "aggregation") if "pooling" in known else ())))
    )
    hint = f"Did you mean {close[0]!r}?" if close else f"Use one of {names}."
    return RlaifError(f"unknown setting {name!r}", hint=hint, place=place)


def _flags_of_command() -> set[str]:
    """The flags of the command that runs, by their names as settings would have them."""
    context = click.get_current_context(silent=True)
    options = context.command.params if context else []
    longest = (max(o.opts, key=len) for o in options if isinstance(o, click.Option))
    return {name.lstrip("-").replace("-", "_") for name in longest}


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
