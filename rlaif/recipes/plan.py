"""Which steps of a recipe are done, and where each one's results lie.

A step's folder is named by a hash of everything that it depends on: its arguments, the content
of the files that they name, and the hashes of the steps before it.  So a changed step, and every
step that depends on it, gets a new folder; the others are found done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.constitution.load import load_constitution
from rlaif.constitution.schema import PythonCheck
from rlaif.constitution.yaml_source import read_yaml
from rlaif.errors import RlaifError
from rlaif.recipes.load import OUTPUTS, Recipe, Step, reference
from rlaif.util.file_sizes import check_sizes, measure_sizes
from rlaif.util.files import write_atomically
from rlaif.util.hashing import digest, file_digest, folder_digest
from rlaif.util.user_functions import function_source

DONE = ".step-done.json"
_SAME_RESULT = {"override"}
"""Arguments that let a step run, and change nothing in what it makes."""
_MADE = (".jsonl", ".parquet", ".safetensors")
"""Files of results, whose sizes are kept."""
_DATA = (".jsonl", ".json", ".parquet", ".csv")
_SUFFIXED = re.compile(r"(.+?)([=,].*)")
"""A file or folder with a share (`=0.2`) or settings (`,n=2`) behind it."""


@dataclass(frozen=True)
class PlannedStep:
    """A step with its place.

    Attributes:
        folder: where its results lie.
        argv: the command line, without the program.
        done: whether the results are there.
        changed: whether results of other settings or inputs are there.
    """

    step: Step
    hash: str
    folder: Path
    argv: list[str]
    done: bool
    changed: bool


@dataclass(frozen=True)
class CommandOptions:
    """What a command takes: flags by name (with underscores), and which of them are switches."""

    flags: Mapping[str, str]
    switches: Mapping[str, tuple[str, str]]
    has_out: bool


def plan_steps(
    recipe: Recipe, work: Path, commands: Mapping[str, CommandOptions]
) -> list[PlannedStep]:
    """Hash and place every step.

    Args:
        work: the folder of all steps.
        commands: what each command takes.

    Raises:
        RlaifError: a step has an option that its command lacks; with the place.
    """
    found: dict[str, PlannedStep] = {}
    for step in recipe.steps:
        options = commands[step.command]
        _check_options(step, options)
        address = digest(
            {
                "command": step.command,
                "arguments": {
                    key: _content(key, value, recipe.path.parent, found)
                    for key, value in sorted(step.arguments.items())
                    if key not in _SAME_RESULT
                },
            }
        )[:12]
        folder = work / step.name / address
        others = [p for p in folder.parent.glob("*") if p.is_dir() and p != folder]
        found[step.name] = PlannedStep(
            step=step,
            hash=address,
            folder=folder,
            argv=_argv(
                step=step, options=options, folder=folder, base=recipe.path.parent, before=found
            ),
            done=_is_done(folder, OUTPUTS[step.command]),
            changed=bool(others),
        )
    check_inputs(recipe)
    return list(found.values())


def note_done(folder: Path, facts: Mapping[str, Any]) -> None:
    """Keep that a step is done, with the sizes of what it made."""
    rows = [p for p in sorted(folder.rglob("*")) if p.suffix in _MADE]
    sizes = measure_sizes(folder, (str(p.relative_to(folder)) for p in rows))
    write_atomically(folder / DONE, json.dumps({**facts, "bytes": sizes}, indent=2) + "\n")


def _is_done(folder: Path, output: str) -> bool:
    """Whether a step is done and what it made is there.

    Raises:
        RlaifError: a file that it made was cut or edited since.
    """
    if not (folder / DONE).exists() or not (folder / output).exists():
        return False
    try:
        told = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    sizes = told.get("bytes") if isinstance(told, dict) else None
    check_sizes(folder, sizes, f"Remove {str(folder)!r} to run the step again.")
    return True


def _check_options(step: Step, options: CommandOptions) -> None:
    for key in step.arguments:
        if key != "input" and key not in options.flags and key not in options.switches:
            known = ", ".join(sorted([*options.flags, *options.switches]))
            raise RlaifError(
                f"step {step.name!r}: {step.command} has no option {key!r}",
                hint=f"Valid options: {known}.",
                place=step.places[key],
            )
    if "input" not in step.arguments:
        raise RlaifError(
            f"step {step.name!r} has no input",
            hint="Add `input:` with a file or `@step`.",
            place=step.place,
        )


def check_inputs(recipe: Recipe) -> None:
    """Find inputs that are not there before hours go by.

    Raises:
        RlaifError: a step's input looks like a file and does not exist; with the place.
    """
    for step in recipe.steps:
        for key, value in step.arguments.items():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, str) and part.startswith("-"):
                    raise RlaifError(
                        f"step {step.name!r}: {key} is {part[:60]!r}, which a command would take "
                        "for a flag",
                        hint="Write flags as keys of the step, and paths as ./NAME.",
                        place=step.places[key],
                    )
        inputs = step.arguments["input"]
        for value in inputs if isinstance(inputs, list) else [inputs]:
            if not isinstance(value, str) or reference(value):
                continue
            name = _SUFFIXED.fullmatch(value)
            file = name.group(1) if name and step.command == "mix" else value
            if Path(file).suffix in _DATA and _on_disk(value, recipe.path.parent) is None:
                raise RlaifError(
                    f"step {step.name!r}: {file!r} does not exist",
                    hint=f"Paths are relative to {recipe.path.parent}; paths in --set are "
                    "relative to the working directory.",
                    place=step.places["input"],
                )


def _content(key: str, value: Any, base: Path, before: Mapping[str, PlannedStep]) -> Any:
    """What an argument amounts to, for the hash."""
    if isinstance(value, list):
        return [_content(key, part, base, before) for part in value]
    refers = reference(value)
    if refers:
        return {"step": before[refers[0]].hash, "path": refers[1], "behind": refers[2]}
    if not isinstance(value, str):
        return value
    if key == "config":
        return _content_of_config(value, base)
    if key == "constitution":
        path = base / value
        loaded = load_constitution(str(path) if path.exists() else value).constitution
        checks = [p.check.function for p in loaded.principles if isinstance(p.check, PythonCheck)]
        return [loaded.hash, [function_source(name, "check") for name in checks]]
    found = _on_disk(value, base)
    if found is None:
        return value
    path, behind = found
    if path.is_file():
        return [file_digest(path), behind]
    return [folder_digest(path, ("*", "*/*"), sampled=True), behind]


def _content_of_config(value: str, base: Path) -> Any:
    """A settings file with what the files amount to that it names."""
    found = _on_disk(value, base)
    if found is None:
        return value
    settings = read_yaml(found[0]).value

    def amount(part: Any) -> Any:
        if isinstance(part, dict):
            return {str(key): amount(item) for key, item in part.items()}
        if isinstance(part, list):
            return [amount(item) for item in part]
        # Paths in a settings file are relative to where the command runs, not to the recipe.
        return _content("", part, Path.cwd(), {}) if isinstance(part, str) else part

    return amount(settings)


def _on_disk(value: str, base: Path) -> tuple[Path, str] | None:
    """The file or folder that a value names, and what is behind its name."""
    if _exists(base / value) and value:
        return base / value, ""
    match = _SUFFIXED.fullmatch(value)
    if match and _exists(base / match.group(1)):
        return base / match.group(1), match.group(2)
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a file name, or no name at all
        return False


def resolve(value: Any, base: Path, before: Mapping[str, PlannedStep]) -> str:
    """An argument as the command line takes it."""
    refers = reference(value)
    if refers:
        planned = before[refers[0]]
        inside = refers[1] or OUTPUTS[planned.step.command]
        return str(planned.folder / inside if inside else planned.folder) + refers[2]
    found = _on_disk(value, base) if isinstance(value, str) else None
    return str(found[0].resolve()) + found[1] if found else str(value)


def _argv(
    step: Step, options: CommandOptions, folder: Path, base: Path, before: Mapping[str, PlannedStep]
) -> list[str]:
    inputs = step.arguments["input"]
    argv = [
        step.command,
        *(resolve(i, base, before) for i in (inputs if isinstance(inputs, list) else [inputs])),
    ]
    for key, value in step.arguments.items():
        if key == "input":
            continue
        if key in options.switches:
            on, off = options.switches[key]
            argv.append(on if value else off)
            continue
        for part in value if isinstance(value, list) else [value]:
            argv += [options.flags[key], resolve(part, base, before)]
    return [*argv, "-o", str(folder)] if options.has_out else argv


def graph(steps: Sequence[PlannedStep]) -> list[tuple[str, str, str, str]]:
    """A line for each step: name, command, what it needs, and how it stands."""
    lines = []
    stale: set[str] = set()
    for planned in steps:
        if planned.done:
            state = "done"
        else:
            stale.add(planned.step.name)
            behind = [n for n in planned.step.needs if n in stale]
            state = "will run" + (" again (changed)" if planned.changed else "")
            if planned.changed and behind:
                state = f"will run again (after {', '.join(behind)})"
        needs = ", ".join(planned.step.needs) or "-"
        lines.append((planned.step.name, planned.step.command, needs, state))
    return lines
