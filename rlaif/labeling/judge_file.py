"""A judge as a file: which model, on which engine, and the template that it is asked with.

`rlaif judge check --write` makes one, and `--judge FILE` takes it wherever a judge is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rlaif.constitution.yaml_source import read_yaml
from rlaif.engines.base import EngineSettings
from rlaif.errors import Place, RlaifError
from rlaif.templates.judge import JudgeTemplate
from rlaif.util.files import write_atomically

SUFFIXES = (".yaml", ".yml")
OWN = ("template", "label_mass_floor", "calibration")
"""What a judge file may hold beside the settings of the engine."""
CHECKED = "checked"
"""The figures that a template was chosen by: for people to read."""
_FILES = ("template", "calibration")


def names_judge_file(name: object) -> bool:
    """Whether a judge is named by such a file."""
    return isinstance(name, str) and name.lower().endswith(SUFFIXES)


def read_judge_file(path: Path) -> tuple[dict[str, Any], dict[str, Place]]:
    """The settings by name, with their places; paths in it start at its folder.

    Raises:
        RlaifError: it is unreadable, names no model, or has a key that is not known.
    """
    tree = read_yaml(path)
    known = (*EngineSettings.model_fields, *OWN)
    if not isinstance(tree.value, dict) or not isinstance(tree.value.get("model"), str):
        raise RlaifError(
            "a judge file names the judge's `model`",
            hint="Write one with `rlaif judge check MODEL -c C --write judge.yaml`.",
            place=tree.places[()],
        )
    found = {key: value for key, value in tree.value.items() if key != CHECKED}
    for key in found:
        if key not in known:
            raise RlaifError(
                f"unknown key {key!r}", hint=f"Use {', '.join(known)}.", place=tree.keys[(key,)]
            )
    for key in ("model", *_FILES):
        if isinstance(found.get(key), str) and (path.parent / found[key]).exists():
            found[key] = str(path.parent / found[key])
    return found, {key: tree.places[(key,)] for key in found}


def write_judge_file(
    path: Path,
    judge: EngineSettings,
    template: JudgeTemplate,
    *,
    shipped: bool,
    checked: dict[str, Any],
) -> list[Path]:
    """Write a judge, and its template beside it if it is none that exists already.

    Args:
        shipped: whether the template's name is one that is found by it.
        checked: the figures that it was chosen by.

    Returns:
        The files that were written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path]
    name = template.name
    if not shipped:
        own = path.with_suffix(".txt")
        write_atomically(own, template.to_text())
        written.append(own)
        name = own.name
    settings = judge.model_dump(mode="json", exclude_defaults=True)
    held = {name: value for name, value in settings.items() if value != {}}
    held = {"model": judge.model, "engine": judge.engine, **held, "template": name}
    text = yaml.safe_dump({**held, CHECKED: checked}, sort_keys=False, allow_unicode=True)
    write_atomically(path, text)
    return written
