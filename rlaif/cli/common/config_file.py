"""Reads `--config`: a YAML file of settings, or the `run.yaml` of an earlier run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from rlaif.cli.common.output import note
from rlaif.cli.common.renamed import new_names
from rlaif.constitution.yaml_source import YamlTree, read_yaml
from rlaif.errors import Place, RlaifError


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
    settings = _settings_at(path, tree, at, known)
    values: dict[str, Any] = {}
    places: dict[str, Place] = {}
    for where, value in _flatten({k: v for k, v in settings.items() if k not in also}):
        name = "model" if where == ("judge",) and _OF_JUDGES in known else str(where[-1])
        if where == ("judge",) and name == "model" and not isinstance(value, str):
            raise RlaifError(
                "`judge` is neither a model nor a mapping of settings",
                hint="Write `judge: MODEL`, or `judge: {model: MODEL, engine: vllm}`.",
                place=tree.places[(*at, *where)],
            )
        if name in values and (name == "model" or "format" not in settings):
            raise RlaifError(
                f"setting {name!r} is given twice",
                hint="Keep one of the two.",
                place=tree.keys.get((*at, *where), tree.places[at]),
            )
        if name not in known:
            at_key = tree.keys.get((*at, *where), tree.places[at])
            raise _unknown_setting(str(where[-1]), (*known, *also), at_key)
        at_home = isinstance(value, str) and value.startswith("~/")
        values[name] = os.path.expanduser(value) if at_home else value
        places[name] = tree.places.get((*at, *where), tree.places[at])
    for name in also:
        if name in settings:
            values[name] = settings[name]
            places[name] = tree.places.get((*at, name), tree.places[at])
            for spot, place in tree.places.items():
                if len(spot) > len(at) + 1 and spot[: len(at) + 1] == (*at, name):
                    places[".".join(map(str, spot[len(at) :]))] = place
    return values, places


def _settings_at(
    path: Path, tree: YamlTree, at: tuple[str | int, ...], known: Sequence[str]
) -> Mapping[str, Any]:
    """The mapping that stands there, as a user would write it."""
    settings: Any = tree.value
    for key in at:
        settings = settings[key]
    if not isinstance(settings, dict):
        raise RlaifError(
            "the settings file must be a YAML mapping",
            hint="Write `name: value` lines.",
            place=tree.places[at],
        )
    made_by = str(settings.get("command", "label"))
    reads = known if made_by == "label" else [_command_name()]
    if "format" in settings and (_OF_JUDGES if made_by == "label" else made_by) not in reads:
        raise RlaifError(
            f"{str(path)!r} is the configuration of a `rlaif {made_by}` run, "
            "which --config can't reproduce",
            hint="Repeat the flags of that run, or write its settings to a file of their own.",
            place=tree.keys.get((*at, "format"), tree.places[at]),
        )
    return _as_settings(settings) if "command" in settings else settings


def changes_since(config: str | None, now: Mapping[str, Any]) -> list[str]:
    """What a run that is to be reproduced was made with and that has changed since.

    Args:
        config: the settings file; None, or one that is no run's, for nothing.
        now: the configuration of the run that is made now.

    Returns:
        Names of templates and lists whose content differs though they are called the same.
    """
    found = read_yaml(Path(config)).value if config is not None else None
    if not isinstance(found, dict) or "format" not in found:
        return []

    def parts(value: Any) -> dict[str, Any]:
        values = value if isinstance(value, list) else [value]
        named = [one for one in values if isinstance(one, Mapping) and "name" in one]
        return {str(one["name"]): {k: v for k, v in one.items() if k != "name"} for one in named}

    changed = []
    for key in (*_NAMED, "templates"):
        before, after = parts(found.get(key)), parts(now.get(key))
        changed += [name for name in before if name in after and before[name] != after[name]]
    if found.get("system", 0) == now.get("system", 1) and (
        found.get("system_prompts") != now.get("system_prompts")
    ):
        changed.append(str(found["system"]))
    return changed


def note_changes(config: str | None, now: Mapping[str, Any]) -> None:
    """Say on the terminal what `changes_since` found."""
    if names := changes_since(config, now):
        note(f"{', '.join(names)} changed since {config}: this is not the same run")


_OF_JUDGES = "label_mass_floor"
"""A setting that every command has whose `judge` is the model that it runs."""

_OF_A_RUN = (
    *("format", "command", "input", "constitution", "checks", "agreement"),
    *("system_prompts", "fingerprint", "review", "verify"),
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
    if name in _flags_of_command():
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
