"""Reads a recipe: steps that are commands of this package, and how they hang together.

    name: distillation
    needs: {prompts: A file of prompts.}
    values: {teacher: demo-policy, student: demo}
    steps:
      candidates: {run: generate, input: $prompts, model: $teacher, n: 4}
      student: {run: train-sft, input: "@candidates", model: $student}

`$name` is a value (`needs` have no default); `@step` is what a step writes.  `rounds` repeats
steps: `@step` is then of the same round, and `@previous.step` of the one before, in the first
round what `start` says.  `after` holds steps that run once after the rounds; there `@last.step` is
that of the last round.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlaif.constitution.yaml_source import read_yaml
from rlaif.errors import Place, RlaifError
from rlaif.util.resources import find

_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_VALUE = re.compile(r"\$([a-z_]+)")
_REFERENCE = re.compile(r"@([a-z][a-z0-9.-]*)((?:/[A-Za-z0-9._-]+)*)([=,].*)?")
_PARTS = re.compile(r"([a-z][a-z0-9-]*)([/=,].*)?")
"""A step's name, and what is behind it: a path, a share or settings."""
OUTPUTS = {
    "synth-prompts": "prompts.jsonl",
    "generate": "candidates.jsonl",
    "critique": "",
    "label": "",
    "mix": "",
    "import-feedback": "preferences.jsonl",
    "win-rate": "",
    "train-sft": "",
    "train-dpo": "",
    "audit": "",
    "guard": "",
}
"""Commands that a step can run, and what `@step` means: a file in the step's folder, or itself."""
_KEYS = ("name", "description", "needs", "values", "steps", "rounds", "after")
Scalar = str | int | float | bool


@dataclass(frozen=True)
class Step:
    """One command with its arguments.

    Attributes:
        arguments: option names (with underscores; "input" is the positional one) to values;
            texts may be references to other steps.
        place: where it stands.
        places: where its arguments stand.
    """

    name: str
    command: str
    arguments: Mapping[str, Scalar | Sequence[Scalar]]
    place: Place
    places: Mapping[str, Place]

    @property
    def needs(self) -> list[str]:
        """Names of the steps that it refers to."""
        found = []
        for value in self.arguments.values():
            for part in value if isinstance(value, list) else [value]:
                match = reference(part)
                if match and match[0] not in found:
                    found.append(match[0])
        return found


@dataclass(frozen=True)
class Recipe:
    """Steps in the order in which they run."""

    name: str
    description: str
    path: Path
    steps: Sequence[Step]


def reference(value: object) -> tuple[str, str, str] | None:
    """The step and the path in its folder that a value refers to, and what is behind it: a share
    (`=0.2`) or settings (`,n=2`).

    None if it is no reference.
    """
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return (match.group(1), match.group(2).lstrip("/"), match.group(3) or "") if match else None


def load_recipe(name: str, given: Mapping[str, Scalar]) -> Recipe:
    """Read a recipe by path or shipped name, with values put in.

    Args:
        given: values that win over the recipe's own.

    Raises:
        RlaifError: it is no recipe, lacks a value, or refers to what is not there; with the place.
    """
    path = find(name, folder="recipes", suffix=".yaml", what="Recipe")
    return _RecipeParser(path, given).recipe()


class _RecipeParser:
    def __init__(self, path: Path, given: Mapping[str, Scalar]) -> None:
        self._path = path
        self._tree = read_yaml(path)
        self._given = given
        self._values: dict[str, Scalar] = {}

    def _fail(self, message: str, hint: str, *at: Any, key: bool = False) -> RlaifError:
        table = self._tree.keys if key else self._tree.places
        place = table.get(at) or self._tree.places.get(at) or Place(self._path)
        return RlaifError(message, hint=hint, place=place)

    def _mapping(self, *at: Any) -> dict[str, Any]:
        value: Any = self._tree.value
        for step in at:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._fail(
                f"{at[-1] if at else 'a recipe'} must be a mapping",
                "Write `name: value` lines.",
                *at,
            )
        return value

    def recipe(self) -> Recipe:
        whole = self._mapping()
        for key in whole:
            if key not in _KEYS:
                close = get_close_matches(str(key), _KEYS, n=1)
                hint = (
                    f"Did you mean {close[0]!r}?" if close else f"Valid keys: {', '.join(_KEYS)}."
                )
                raise self._fail(f"unknown key {key!r}", hint, key, key=True)
        self._read_values()
        steps = [self._step(name, "", ("steps", name)) for name in self._mapping("steps")]
        rounds, last = self._rounds()
        steps += rounds
        steps += [
            self._step(name=name, prefix="", at=("after", name), previous=last, earlier="@last.")
            for name in self._mapping("after")
        ]
        names = [step.name for step in steps]
        for name in names:
            if names.count(name) > 1:
                raise self._fail(
                    f"step {name!r} is defined twice",
                    "Rename one of them.",
                    "after",
                    name,
                    key=True,
                )
        if not steps:
            raise self._fail("the recipe has no steps", "Add `steps:` with at least one step.")
        self._check_references(steps)
        return Recipe(
            str(whole.get("name") or self._path.stem),
            str(whole.get("description") or ""),
            self._path,
            steps,
        )

    def _read_values(self) -> None:
        needs, own = self._mapping("needs"), self._mapping("values")
        for name in self._given:
            if name not in (*needs, *own):
                known = ", ".join([*needs, *own]) or "none"
                raise RlaifError(
                    f"recipe {str(self._path)!r} has no value {name!r}",
                    hint=f"It has these values: {known}.",
                )
        for name, value in own.items():
            if not isinstance(value, Scalar):
                raise self._fail(
                    f"value {name!r} is not a string or number",
                    "Use a string or a number.",
                    "values",
                    name,
                )
        self._values = {**own, **self._given}
        for name, why in needs.items():
            if name not in self._values:
                raise self._fail(
                    f"the recipe needs {name!r}: {why}", f"Add --set {name}=...", "needs", name
                )

    def _step(
        self,
        name: str,
        prefix: str,
        at: tuple[Any, ...],
        previous: Mapping[str, Any] | None = None,
        earlier: str = "@previous.",
    ) -> Step:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self._fail(
                f"step name {name!r} must be lowercase words with dashes",
                "Rename the step.",
                *at,
                key=True,
            )
        fields = dict(self._mapping(*at))
        command = fields.pop("run", None)
        if not isinstance(command, str) or command not in OUTPUTS:
            close = get_close_matches(str(command), OUTPUTS, n=1)
            guess = f"Did you mean {close[0]!r}? " if close else ""
            raise self._fail(
                f"step {name!r} runs {command!r}, which is not a valid step command",
                f"{guess}Set `run:` to one of {', '.join(OUTPUTS)}.",
                *at,
                *(["run"] if "run" in self._mapping(*at) else []),
            )
        arguments: dict[str, Any] = {}
        places: dict[str, Place] = {}
        for key, value in fields.items():
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, Scalar) for part in parts):
                raise self._fail(
                    f"{key!r} of step {name!r} is not a string, a number or a list of them",
                    "Use a string or a number.",
                    *at,
                    key,
                )
            filled = [
                self._fill(
                    part=part, prefix=prefix, previous=previous, at=(*at, key), earlier=earlier
                )
                for part in parts
            ]
            if filled == [""]:  # a value that was left empty: as if it were not there
                continue
            arguments[key] = filled if isinstance(value, list) else filled[0]
            places[key] = self._tree.places.get((*at, key), Place(self._path))
        place = self._tree.keys.get(at) or Place(self._path)
        return Step(
            name=prefix + name,
            command=str(command),
            arguments=arguments,
            place=place,
            places=places,
        )

    def _fill(
        self,
        part: Scalar,
        prefix: str,
        previous: Mapping[str, Any] | None,
        at: tuple[Any, ...],
        earlier: str = "@previous.",
    ) -> Scalar:
        """A value with `$names` put in, and its reference made absolute.

        Args:
            previous: what references that begin with `earlier` mean.
        """
        if not isinstance(part, str):
            return part
        whole = _VALUE.fullmatch(part)

        def put_in(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in self._values:
                raise self._fail(f"unknown value ${name}", "Add it to `values` or `needs`.", *at)
            return str(self._values[name])

        text = _VALUE.sub(put_in, part)
        if whole:
            return self._values[whole.group(1)]
        if text.startswith(("@previous.", "@last.")):
            if previous is None or not text.startswith(earlier):
                raise self._fail(
                    f"{text!r} has no earlier round",
                    "Use @previous in steps of `rounds`, and @last in those of `after`.",
                    *at,
                )
            match = _PARTS.fullmatch(text.removeprefix(earlier))
            name, rest = (match.group(1), match.group(2)) if match else (text, None)
            if name not in previous:
                raise self._fail(
                    f"{text!r} has no value for the first round",
                    f"Add `{name}: ...` to `start` in `rounds`; the first round uses it.",
                    *at,
                )
            return f"{previous[name]}{rest}" if rest else str(previous[name])
        if text.startswith("@") and prefix:
            match = _PARTS.fullmatch(text[1:])
            if match and match.group(1) in self._mapping("rounds", "steps"):
                return f"@{prefix}{text[1:]}"
        return text

    def _rounds(self) -> tuple[list[Step], dict[str, Any]]:
        """The steps of all rounds, and what the names of steps mean after them."""
        rounds = self._mapping("rounds")
        if not rounds:
            return [], {}
        for key in rounds:
            if key not in ("count", "start", "steps"):
                raise self._fail(
                    f"unknown key {key!r} in rounds",
                    "Valid keys: count, start, steps.",
                    "rounds",
                    key,
                    key=True,
                )
        count = rounds.get("count")
        if isinstance(count, str):
            filled = self._fill(count, "", None, ("rounds", "count"))
            count = int(filled) if re.fullmatch(r"[0-9]{1,6}", str(filled)) else filled
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1000:
            raise self._fail(
                f"count is {count!r}, not a number from 1 to 1000",
                "Use a number from 1 to 1000.",
                "rounds",
                "count",
            )
        names = list(self._mapping("rounds", "steps"))
        start = {
            name: self._fill(value, "", None, ("rounds", "start", name))
            for name, value in self._mapping("rounds", "start").items()
        }
        previous: dict[str, Any] = dict(start)
        steps = []
        for number in range(1, count + 1):
            prefix = f"round-{number}."
            for name in names:
                steps.append(self._step(name, prefix, ("rounds", "steps", name), previous))
            previous = {**previous, **{name: f"@{prefix}{name}" for name in names}}
        return steps, previous

    def _check_references(self, steps: Sequence[Step]) -> None:
        seen: list[str] = []
        for step in steps:
            for name in step.needs:
                if name not in seen:
                    later = any(name == other.name for other in steps)
                    hint = (
                        "Move that step up."
                        if later
                        else f"Steps before this one: {', '.join(seen) or 'none'}."
                    )
                    raise RlaifError(
                        f"step {step.name!r} refers to @{name}, which is "
                        + ("not before this step" if later else "not a step"),
                        hint=hint,
                        place=step.place,
                    )
            seen.append(step.name)
