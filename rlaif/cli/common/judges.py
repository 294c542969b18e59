"""How the command line names judges: one or several, each with settings of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rlaif.cli.common.label_flags import label_settings
from rlaif.cli.common.model_flags import assignments
from rlaif.cli.common.options import build
from rlaif.constitution.yaml_source import read_yaml
from rlaif.data.layout import Layout, set_fields
from rlaif.engines.base import EngineSettings
from rlaif.errors import Place, RlaifError
from rlaif.judging.panel import PanelMode
from rlaif.labeling.judge_file import OWN as JUDGE_FILE_KEYS
from rlaif.labeling.judge_file import names_judge_file, read_judge_file
from rlaif.labeling.panel import Panel, PanelMember
from rlaif.labeling.settings import LabelSettings
from rlaif.templates.judge import default_template
from rlaif.util.user_cache import user_cache_dir

OWN = ("engine", "revision", "dtype", "base_url", "template", "calibration", "agreement_target")
"""What each of several judges may have of its own."""


def judge_settings(
    judge: str | None, config: str | None, flags: dict[str, Any], also: tuple[str, ...] = ()
) -> tuple[LabelSettings, dict[str, str]]:
    """Settings of a judge named as NAME or NAME,setting=value,...; and what `also` was given.

    Args:
        judge: None: the one that the file names, else the demo judge.

    Raises:
        RlaifError: a setting is unknown or wrong.
    """
    if judge is None:
        return label_settings(config, {**flags, "judge": None}), {}
    name, *rest = judge.split(",")
    given = assignments(f"--judge {name}", tuple(rest), (*OWN, *also))
    options = tuple(flags.get("engine_options") or ())
    if "base_url" in given:
        options = (*options, f"base_url={given.pop('base_url')}")
    extra = {key: given.pop(key) for key in also if key in given}
    own: dict[str, Any] = {**flags, "judge": name, "engine_options": options, **given}
    return label_settings(config, own), extra


OF_A_SIDE_JUDGE = ("judge", "judge_engine", "judge_template")
"""What a settings file may say of the judge of `generate` and `critique`, as the flags do."""


def split_layout(
    settings: LabelSettings, given: Mapping[str, Any]
) -> tuple[LabelSettings, dict[str, Any]]:
    """Settings without a layout, and the layout of the labeled data: that of the settings file,
    with the flags before it.  The judge sees pairs that were made of the data, in one form.
    """
    named = {k: v for k, v in set_fields(settings.layout).items() if k != "columns"}
    return settings.model_copy(update={"layout": Layout()}), {**named, **given}


def expand_judge(judge: str) -> dict[str, Any]:
    """A judge's settings by name: its model, or all that a judge file says.

    Raises:
        RlaifError: the file can't be read.
    """
    return read_judge_file(Path(judge))[0] if names_judge_file(judge) else {"model": judge}


def judge_beside(
    judge: str | None,
    engine: str | None,
    template: str | None,
    *,
    default: str,
    values: Mapping[str, Any],
    places: Mapping[str, Place],
) -> LabelSettings:
    """The judge of a command whose engine flags are those of other models, with its template.

    What flags do not say, a settings file may: `judge` (a name, a judge file, or a mapping of
    the judge's own settings), `judge_engine` and `judge_template`.

    Args:
        judge: a model or a judge file.
        engine: of the judge; None: that of its file, else that of the other models.
        default: the judge if nobody names one.
        values: settings that hold for every model (but a revision and a quantization are those of
            `default` alone), and those of `OF_A_SIDE_JUDGE`.

    Raises:
        RlaifError: a setting is wrong.
    """
    named = _named_judge(judge, values, places, default)
    engine = engine or given_text(values, places, "judge_engine")
    shared = {k: v for k, v in values.items() if k not in OF_A_SIDE_JUDGE}
    if named["model"] != default:  # these are of one model's files
        shared = {k: v for k, v in shared.items() if k not in ("revision", "quantization")}
    settings = shared | named
    settings["engine"] = engine or settings.get("engine", "vllm")
    chosen = template or given_text(values, places, "judge_template") or named.get("template")
    chosen = chosen or default_template(settings["model"], settings["engine"])
    own = {k: v for k, v in places.items() if k not in named}
    own |= {key: places[f"judge.{key}"] for key in named if f"judge.{key}" in places}
    engine_settings = build(EngineSettings, settings, own)
    kept = ("label_mass_floor", "calibration")
    rest: dict[str, Any] = {key: named[key] for key in kept if key in named}
    return build(LabelSettings, {"judge": engine_settings, "template": str(chosen), **rest}, own)


def _named_judge(
    judge: str | None, values: Mapping[str, Any], places: Mapping[str, Place], default: str
) -> dict[str, Any]:
    found = judge or values.get("judge", default)
    if isinstance(found, str) and found:
        return expand_judge(found)
    place = places.get("judge")
    if not isinstance(found, dict) or not isinstance(found.get("model"), str):
        raise RlaifError(
            "`judge` names no model",
            hint="Write `judge: MODEL`, or `judge: {model: MODEL, engine: vllm}`.",
            place=place,
        )
    known = (*EngineSettings.model_fields, *JUDGE_FILE_KEYS)
    for key in found:
        if key not in known:
            raise RlaifError(
                f"unknown setting {key!r} of `judge`", hint=f"Use {', '.join(known)}.", place=place
            )
    return {**found, **expand_judge(found["model"])} if names_judge_file(found["model"]) else found


def given_text(values: Mapping[str, Any], places: Mapping[str, Place], name: str) -> str | None:
    """A text under a name of a settings file; None if it has none.

    Raises:
        RlaifError: it is something else.
    """
    found = values.get(name)
    if found is not None and not (isinstance(found, str) and found):
        raise RlaifError(
            f"{name} is {found!r}, which is no name", hint="Write a name.", place=places.get(name)
        )
    return found


def with_batches(settings: LabelSettings, cache_dir: Path | None) -> LabelSettings:
    """The same judge, asked by batch files that are kept beside the caches.

    Raises:
        RlaifError: its engine sends none.
    """
    if settings.judge.engine != "openai":
        raise RlaifError(
            f"--batch needs --engine openai, and judge {settings.judge.model!r} runs on "
            f"{settings.judge.engine!r}",
            hint="Remove --batch, or add --engine openai with the provider's address.",
        )
    folder = (cache_dir or user_cache_dir()) / "batches"
    options = {**settings.judge.options, "batch": str(folder)}
    judge = settings.judge.model_copy(update={"options": options})
    return settings.model_copy(update={"judge": judge})


def change_judges(panel: Panel, change: Callable[[LabelSettings], LabelSettings]) -> Panel:
    """The same panel with other settings of its judges."""
    members = [replace(member, settings=change(member.settings)) for member in panel.members]
    return replace(panel, members=members)


def panel_of_run(config: str | None, flags: dict[str, Any]) -> Panel | None:
    """The panel that a panel run's `run.yaml` describes; None if the file is anything else.

    Raises:
        RlaifError: the file is unreadable, or a setting in it or among the flags is wrong.
    """
    found = read_yaml(Path(config)).value if config is not None else None
    if config is None or not isinstance(found, dict) or "panel" not in found:
        return None
    mode, members = found["panel"], found.get("members")
    if "format" not in found or not isinstance(mode, dict) or not isinstance(members, list):
        return None
    judges = [
        PanelMember(
            label_settings(config, {**flags, "judge": None, "calibration": None}, ("members", k)),
            float(weight),
        )
        for k, weight in zip(range(len(members)), mode["weights"], strict=True)
    ]
    own = flags.get("calibration") or (mode.get("calibration") or {}).get("path")
    return Panel(judges, mode["mode"], mode.get("escalate_below", 0.5), own)


def panel_of(
    panel: str | None, judges: tuple[str, ...], config: str | None, flags: dict[str, Any]
) -> Panel:
    """The panel that `--panel` and several `--judge` describe.

    Args:
        panel: a way of aggregation, or a YAML file.

    Raises:
        RlaifError: the file is none, or there are fewer than two judges.
    """
    mode, below = panel or "mean", 0.5
    flags = dict(flags)
    calibration = flags.pop("calibration", None)  # of the panel; judges name their own
    if panel is not None and panel not in get_args(PanelMode):
        if judges:
            raise RlaifError(
                "judges are given both in the panel file and with --judge",
                hint="Use one or the other.",
            )
        mode, below, judges = _read(Path(panel))
    members = []
    for judge in judges:
        settings, extra = judge_settings(judge, config, flags, ("weight",))
        try:
            weight = float(extra.get("weight", 1.0))
        except ValueError:
            weight = -1.0
        if not 0 < weight < 1e6:
            raise RlaifError(
                f"judge {judge!r} has an invalid weight: {extra['weight']!r}",
                hint="Use a weight above 0.",
            )
        if "weight" in extra and mode != "weighted":
            raise RlaifError(
                f"judge {judge!r} has a weight, but a {mode} panel does not use weights",
                hint="Use --panel weighted, or remove the weight.",
            )
        members.append(PanelMember(settings, weight))
    if len(members) < 2:
        raise RlaifError(
            f"a panel needs at least two judges, got {len(members)}",
            hint="Repeat -j for each judge, or list two or more in the panel file.",
        )
    return Panel(members, mode, below, calibration)  # type: ignore[arg-type]


def _read(path: Path) -> tuple[str, float, tuple[str, ...]]:
    tree = read_yaml(path)
    place = tree.places[()]
    if not isinstance(tree.value, dict):
        raise RlaifError(
            "a panel file must be a YAML mapping",
            hint="Write the keys mode and judges.",
            place=place,
        )
    for key in tree.value:
        if key not in ("mode", "escalate_below", "judges"):
            raise RlaifError(
                f"unknown key {key!r}",
                hint="Use mode, escalate_below or judges.",
                place=tree.keys[(key,)],
            )
    mode = tree.value.get("mode", "mean")
    if mode not in get_args(PanelMode):
        raise RlaifError(
            f"unknown panel mode {mode!r}",
            hint=f"Use one of {', '.join(get_args(PanelMode))}.",
            place=tree.places[("mode",)],
        )
    below = tree.value.get("escalate_below", 0.5)
    if isinstance(below, bool) or not isinstance(below, int | float) or not 0 <= below <= 1:
        raise RlaifError(
            f"invalid escalate_below: {below!r}",
            hint="Use a margin from 0 to 1.",
            place=tree.places[("escalate_below",)],
        )
    judges = tree.value.get("judges")
    if not isinstance(judges, list) or not judges:
        raise RlaifError(
            "`judges` is not a list of judges",
            hint="List model names, or mappings with the key model.",
            place=tree.places.get(("judges",), place),
        )
    found = []
    for i, judge in enumerate(judges):
        if isinstance(judge, str):
            found.append(judge)
        elif isinstance(judge, dict) and isinstance(judge.get("model"), str):
            rest = [f"{key}={value}" for key, value in judge.items() if key != "model"]
            found.append(",".join([judge["model"], *rest]))
        else:
            raise RlaifError(
                "each judge must be a name, or a mapping with the key model",
                hint="Write `- model: NAME`.",
                place=tree.places[("judges", i)],
            )
    return str(mode), float(below), tuple(found)
