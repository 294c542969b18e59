"""The flags that commands with a model share, and how a model with its own settings is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from rlaif.cli.common.options import build, config_flag, settings_options
from rlaif.engines.base import EngineSettings, Option
from rlaif.errors import Place, RlaifError

Own = TypeVar("Own", bound=BaseModel)
Function = TypeVar("Function", bound=Callable[..., Any])


def assignments(option: str, given: tuple[str, ...], names: tuple[str, ...] = ()) -> dict[str, str]:
    """`NAME=VALUE` texts by name.

    Raises:
        RlaifError: one has another form, or a name that is not among `names`.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value or (names and name not in names):
            allowed = f" NAME is one of {', '.join(names)}." if names else ""
            raise RlaifError(
                f"{option} {text!r} is not a valid NAME=VALUE",
                hint=f"Use the form NAME=VALUE.{allowed}",
            )
        found[name] = value
    return found


def option_value(name: str, text: str) -> Any:
    """A plain value, or a list or mapping in JSON.

    Raises:
        RlaifError: it begins like one and is none.
    """
    if text[:1] not in "[{":
        return plain_value(text)
    try:
        return json.loads(text)
    except ValueError as error:
        raise RlaifError(
            f"--option {name} is no valid JSON: {text!r} ({error})",
            hint='Quote it for the shell: --option \'hf_overrides={"head_dtype": "model"}\'.',
        ) from None


def plain_value(text: str) -> Option:
    """A number, a truth value, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def text_list(values: Mapping[str, Any], places: Mapping[str, Place], name: str) -> tuple[str, ...]:
    """A list of texts under a name of a settings file; empty if it has none.

    Raises:
        RlaifError: it is something else.
    """
    found = values.get(name, [])
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise RlaifError(
            f"`{name}` is no list of texts", hint="Write one a line.", place=places.get(name)
        )
    return tuple(found)


cache_dir_flag = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the verdict and text caches. [default: $RLAIF_CACHE_DIR, or ~/.cache/rlaif]",
)


def generation_flags(command: Function) -> Function:
    """What every command that lets models write takes beside its own: input, cache, output."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option(
            "--dry-run", is_flag=True, help="Estimate the number of requests and tokens, then exit."
        ),
        cache_dir_flag,
        click.option("--split", default="train", show_default=True, help="Dataset split."),
        config_flag,
    ):
        command = option(command)
    return command


def engine_flags(command: Function, *, but: frozenset[str] = frozenset()) -> Function:
    """`--option`, `--chat-option`, and one flag for each setting of an engine but its model.

    Args:
        but: settings that the command has flags of its own for.
    """
    command = settings_options(EngineSettings, skip=frozenset({"model", "seed"}) | but)(command)
    command = click.option(
        "--chat-option",
        "chat_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Chat template variable; repeatable. [default: enable_thinking=false]",
    )(command)
    return click.option(
        "--option",
        "engine_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="Extra engine argument, passed through unchanged (vLLM: any LLM argument, lists and "
        "mappings as JSON); repeatable.",
    )(command)


def spread(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags with those of `engine_flags` under the names of the settings."""
    flags = dict(flags)
    options = assignments("--option", flags.pop("engine_options", ()))
    flags["options"] = {name: option_value(name, text) for name, text in options.items()} or None
    chat = assignments("--chat-option", flags.pop("chat_options", ()))
    if chat:
        given = {name: plain_value(text) for name, text in chat.items()}
        flags["chat_template_options"] = {"enable_thinking": False, **given}
    return flags


def models_of_file(
    values: Mapping[str, Any],
    places: Mapping[str, Place],
    own: type[Own],
    flags: Mapping[str, Any],
) -> list[tuple[EngineSettings, Own]]:
    """The models that a settings file lists under `models`: names, or mappings of settings.

    Args:
        values: what holds for every model, and `models`.
        flags: those that were given win over what the file says of a model.
        own: settings of one model beside its engine's: in its mapping, or there under `sampling`.

    Raises:
        RlaifError: the list or a setting in it is wrong.
    """
    place = places.get("models")
    entries = values.get("models")
    rest = {k: v for k, v in values.items() if k != "models"}
    found = []
    given = {k: v for k, v in flags.items() if v is not None and v != ()}
    for number, entry in enumerate(entries if isinstance(entries, list) and entries else [None]):
        named = {"model": entry} if isinstance(entry, str) else entry
        if not isinstance(named, Mapping) or not isinstance(named.get("model"), str):
            raise RlaifError(
                "`models` is no list of models",
                hint="List names, or mappings such as `{model: NAME, n: 2}`.",
                place=place,
            )
        sampling = named.get("sampling", {})
        mixed = {**named, **(sampling if isinstance(sampling, Mapping) else {"sampling": sampling})}
        mixed.pop("sampling", None)
        if mixed["model"] == "demo":  # the one that writes
            mixed["model"] = "demo-policy"
        known = (*EngineSettings.model_fields, *own.model_fields)
        for key in mixed:
            if key not in known:
                raise RlaifError(
                    f"unknown setting {key!r} of model {named['model']!r}",
                    hint=f"Use one of {', '.join(known)}.",
                    place=places.get(
                        f"models.{number}.{key}",
                        places.get(f"models.{number}.sampling.{key}", place),
                    ),
                )
        both = {**rest, **mixed, **given}
        inside = {k: p for k, p in places.items() if k not in mixed}
        for key in mixed:
            for path in (f"models.{number}.{key}", f"models.{number}.sampling.{key}"):
                if path in places and key not in given:
                    inside[key] = places[path]
        found.append((build(EngineSettings, both, inside), build(own, both, inside)))
    return found


def model_with_settings(
    text: str, values: Mapping[str, Any], own: type[Own]
) -> tuple[EngineSettings, Own]:
    """A model as `NAME,setting=value,...`: its engine's settings, and those of the kind `own`.

    Args:
        values: what holds for every model.

    Raises:
        RlaifError: a setting is unknown or wrong.
    """
    name, *rest = text.split(",")
    given = assignments(f"--model {name}", tuple(rest))
    known = (*own.model_fields, "revision", "dtype", "engine", "base_url")
    for key in given:
        if key not in known:
            raise RlaifError(
                f"unknown setting {key!r} in --model {name!r}",
                hint=f"Use one of {', '.join(known)}.",
            )
    mixed = {**values, **{k: plain_value(v) for k, v in given.items()}, "model": name}
    if "base_url" in given:
        mixed["options"] = {**(values.get("options") or {}), "base_url": mixed.pop("base_url")}
    if "revision" in given:
        mixed["revision"] = given["revision"]
    return build(EngineSettings, mixed), build(own, mixed)
