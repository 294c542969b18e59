"""Loads a constitution: resolves `extends`, validates, and says where a mistake stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ValidationError

from rlaif.constitution import schema as schemas
from rlaif.constitution.schema import Constitution, Principle
from rlaif.constitution.yaml_source import YamlPath, YamlTree, read_yaml
from rlaif.errors import Place, RlaifError
from rlaif.util.resources import data_root, find
from rlaif.util.validation import find_place, parse_problem

_MAX_FILES = 32
_MOST_PRINCIPLES = 1000
_TYPE_NAMES = {str: "text", bool: "a boolean", int: "a number", float: "a number"}


@dataclass(frozen=True)
class LoadedConstitution:
    """A valid constitution with the place of each principle, for lint and diff."""

    constitution: Constitution
    path: Path
    places: dict[str, Place]


@dataclass
class _MergedDraft:
    """Merged but not yet validated: each principle's raw fields and where each stood.

    Attributes:
        places: of the head, by path.
        principle_places: by id, then by path within the principle.
    """

    head: dict[str, object] = field(default_factory=dict)
    principles: dict[str, dict[str, object]] = field(default_factory=dict)
    places: dict[YamlPath, Place] = field(default_factory=dict)
    principle_places: dict[str, dict[YamlPath, Place]] = field(default_factory=dict)


def load_constitution(name: str) -> LoadedConstitution:
    """Load a constitution by path, or a shipped one by name.

    Raises:
        RlaifError: with `file:line:column` for anything wrong in it or in what it extends.
    """
    path = find(name, folder="constitutions", suffix=".yaml", what="Constitution")
    loader = _Loader(path)
    draft = loader.merge(path)
    return _validate(draft, path)


class _Loader:
    """Reads a file and what it extends, depth first, each file once."""

    def __init__(self, path: Path) -> None:
        self._root = path.resolve().parent
        self._open: list[Path] = []
        self._done: dict[Path, _MergedDraft] = {}

    def merge(self, path: Path) -> _MergedDraft:
        key = path.resolve()
        if key in self._done:
            return self._done[key]
        self._open.append(key)
        tree = read_yaml(path)
        if not isinstance(tree.value, dict):
            raise RlaifError(
                "a constitution must be a mapping with `schema:`, `name:` and `principles:`",
                hint="Run `rlaif init` to create a starter constitution.",
                place=tree.places[()],
            )
        draft = _MergedDraft(head={k: v for k, v in tree.value.items() if k != "principles"})
        head = {p: at for p, at in tree.places.items() if p[:1] != ("principles",) or len(p) == 1}
        keys = {_key(p): at for p, at in tree.keys.items() if p[:1] != ("principles",)}
        draft.places |= head | keys
        for place, base in self._bases(tree, path):
            if len(self._done) >= _MAX_FILES:
                raise RlaifError(
                    f"extends more than {_MAX_FILES} files",
                    hint="Merge some of the files.",
                    place=place,
                )
            inherited = self.merge(base)
            _validate(inherited, base)
            for identity, raw in inherited.principles.items():
                draft.principles[identity] = dict(raw)
                draft.principle_places[identity] = dict(inherited.principle_places[identity])
        _drop(draft, tree)
        _add_own(draft, tree)
        self._open.pop()
        self._done[key] = draft
        return draft

    def _bases(self, tree: YamlTree, path: Path) -> Iterator[tuple[Place, Path]]:
        assert isinstance(tree.value, dict)
        names = tree.value.get("extends", [])
        if not isinstance(names, list):
            raise RlaifError(
                "`extends` must be a list",
                hint="Write `extends: [base.yaml]`.",
                place=tree.places[("extends",)],
            )
        for i, name in enumerate(names):
            place = tree.places[("extends", i)]
            if not isinstance(name, str) or not name.strip():
                raise RlaifError(
                    f"`extends` entry {name!r} is not a file name",
                    hint="Write file names as strings.",
                    place=place,
                )
            base = self._resolve(name, path, place)
            if base.resolve() in self._open:
                chain = " -> ".join(p.name for p in [*self._open, base.resolve()])
                raise RlaifError(
                    f"`extends` is circular: {chain}",
                    hint="Remove one of these `extends` entries.",
                    place=place,
                )
            yield place, base

    def _resolve(self, name: str, path: Path, place: Place) -> Path:
        shipped = data_root() / "constitutions" / f"{name}.yaml"
        if "/" not in name and "\\" not in name and "\0" not in name and shipped.is_file():
            return shipped
        target = (path.parent / name.replace("\0", "")).resolve()
        inside = target.is_relative_to(self._root) or target.is_relative_to(
            data_root() / "constitutions"
        )
        if not inside:
            raise RlaifError(
                f"`extends` lists {name!r}, which is outside {str(self._root)!r}",
                hint="Copy the file into that folder.",
                place=place,
            )
        try:
            exists = target.is_file()
        except OSError:
            exists = False
        if not exists:
            names = [p.stem for p in (data_root() / "constitutions").glob("*.yaml")]
            names += [p.name for p in path.parent.glob("*.yaml")]
            close = get_close_matches(name, names, n=1)
            guess = f"Did you mean {close[0]!r}? " if close else ""
            raise RlaifError(
                f"`extends` lists {name!r}, which does not exist",
                hint=f"{guess}Paths are relative to {str(path.parent)!r}.",
                place=place,
            )
        return target


def _key(path: YamlPath) -> YamlPath:
    """Where the place of a key is kept, beside that of its value."""
    return (*path[:-1], f"\0{path[-1]}") if path else path


def _drop(draft: _MergedDraft, tree: YamlTree) -> None:
    assert isinstance(tree.value, dict)
    names = tree.value.get("drop", [])
    for i, name in enumerate(names if isinstance(names, list) else []):
        if not isinstance(name, str):
            continue
        if name not in draft.principles:
            close = get_close_matches(name, draft.principles, n=1)
            raise RlaifError(
                f"`drop` lists {name!r}, which `extends` does not define",
                hint=f"Did you mean {close[0]!r}?" if close else "Remove it from `drop`.",
                place=tree.places[("drop", i)],
            )
        del draft.principles[name]
        del draft.principle_places[name]


def _add_own(draft: _MergedDraft, tree: YamlTree) -> None:
    assert isinstance(tree.value, dict)
    own = tree.value.get("principles", [] if draft.principles else None)
    here = tree.places.get(("principles",), tree.places[()])
    if not isinstance(own, list) or not (own or draft.principles):
        raise RlaifError(
            "`principles` must be a list with at least one principle",
            hint="Add `principles:` with a list of `- id: ...` entries below it.",
            place=here,
        )
    if len(own) > _MOST_PRINCIPLES:
        raise RlaifError(
            f"`principles` has {len(own)} entries, more than the limit of {_MOST_PRINCIPLES}",
            hint="Split them with `extends:`.",
            place=here,
        )
    marks = _by_principle(tree)
    seen: dict[str, Place] = {}
    for i, raw in enumerate(own):
        at = ("principles", i)
        if not isinstance(raw, dict):
            raise RlaifError(
                f"principle {i + 1} is not a mapping",
                hint="Write `- id: ...` with its other fields below.",
                place=tree.places[at],
            )
        identity = raw.get("id")
        if not isinstance(identity, str):
            what = (
                "has no `id`"
                if identity is None
                else f"has the id {identity!r}, which is not a string"
            )
            raise RlaifError(
                f"principle {i + 1} {what}",
                hint="Add `id: some-name`.",
                place=tree.places.get((*at, "id"), tree.places[at]),
            )
        if identity in seen:
            raise RlaifError(
                f"id {identity!r} is used twice (first on line {seen[identity].line})",
                hint="Rename or remove one of them.",
                place=tree.places[(*at, "id")],
            )
        seen[identity] = tree.places[(*at, "id")]
        merged = draft.principles.setdefault(identity, {})
        # An override that says how to ask replaces the other way of asking.
        for one, other in (("check", "preference"), ("preference", "check")):
            if one in raw and other in merged and other not in raw:
                del merged[other]
        _refuse_stale(merged, raw, tree.places[at])
        merged |= raw
        before = draft.principle_places.get(identity, {})
        kept = {p: place for p, place in before.items() if p and p[0] not in raw}
        draft.principle_places[identity] = kept | marks.get(i, {})


def _refuse_stale(inherited: dict[str, object], own: dict[object, object], place: Place) -> None:
    """Refuse new words beside inherited translations of the old ones.

    Raises:
        RlaifError: they are.
    """
    texts = [key for key in schemas.Translation.model_fields if key in own]
    if texts and inherited.get("translations") and "translations" not in own:
        raise RlaifError(
            f"principle {own['id']!r} changes `{texts[0]}`, and inherits translations",
            hint="Give `translations:` too; `translations: {}` drops them.",
            place=place,
        )


def _by_principle(tree: YamlTree) -> dict[int, dict[YamlPath, Place]]:
    """The places of values and keys inside each principle of a file, by its number."""
    found: dict[int, dict[YamlPath, Place]] = {}
    keys = {_key(path): place for path, place in tree.keys.items()}
    for path, place in (tree.places | keys).items():
        if len(path) > 1 and path[0] == "principles" and isinstance(path[1], int):
            found.setdefault(path[1], {})[path[2:]] = place
    return found


def _validate(draft: _MergedDraft, path: Path) -> LoadedConstitution:
    raw = {**draft.head, "principles": list(draft.principles.values())}
    places = dict(draft.places)
    for i, marks in enumerate(draft.principle_places[name] for name in draft.principles):
        places |= {("principles", i, *path): place for path, place in marks.items()}
    try:
        constitution = Constitution.model_validate(raw)
    except ValidationError as error:
        raise _explain(error, places, path, list(draft.principles)) from None
    except RecursionError:
        raise RlaifError("constitution is nested too deeply", place=Place(path, 1, 1)) from None
    where = {
        p.id: places.get(("principles", i), Place(path))
        for i, p in enumerate(constitution.principles)
    }
    return LoadedConstitution(constitution, path, where)


def _explain(
    error: ValidationError, places: dict[YamlPath, Place], path: Path, identities: list[str]
) -> RlaifError:
    """The first validation error as one sentence at the nearest known place."""
    details = error.errors(include_url=False)
    # The deepest error is the one about what was meant: a union reports its other members too.
    deepest = max(details, key=lambda d: len(d["loc"]))
    first = next((d for d in details if d["type"] == "extra_forbidden"), deepest)
    known: YamlPath = ()
    for step in first["loc"]:
        if (*known, step) in places:
            known = (*known, step)
    place = find_place(known, places) or Place(path, 1, 1)
    name = ".".join(str(step) for step in known if isinstance(step, str)) or "constitution"
    if known[:1] == ("principles",) and len(known) > 1 and isinstance(known[1], int):
        name = ".".join([identities[known[1]], *(s for s in known[2:] if isinstance(s, str))])
    if first["type"] == "missing":
        wanted = str(first["loc"][-1])
        hint = f"Add `{wanted}:`."
        return RlaifError(f"{name} is missing {wanted!r}", hint=hint, place=place)
    if first["type"] == "extra_forbidden":
        return _unknown_key(first["loc"], places.get(_key(known), place))
    if first["type"] == "union_tag_not_found":
        hint = "Use regex, max_length, json, forbidden_phrases, python or reward_model."
        return RlaifError("check is missing 'kind'", hint=hint, place=place)
    problem = parse_problem(first)
    message, value = problem.message.removeprefix("input "), problem.given
    hint = "Run `rlaif constitution schema` to see the valid fields."
    if first["type"] == "string_type" and not isinstance(value, dict | list) and value is not None:
        message = f"must be a string, not {_TYPE_NAMES.get(type(value), 'this')}"
        hint = f'Quote it: "{value}".'
    allowed = re.findall(r"'(\w+)'", str(first.get("ctx", {}).get("expected_tags", "")))
    allowed += re.findall(r"'(\w+)'", str(first.get("ctx", {}).get("expected", "")))
    given = value.get("kind") if isinstance(value, dict) else value
    close = get_close_matches(str(given), allowed, n=1)
    if close:
        hint = f"Did you mean {close[0]!r}?"
    shown = "" if isinstance(value, dict | list) else f" (got {_short(value)})"
    return RlaifError(f"`{name}` {message}{shown}", hint=hint, place=place)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_key(loc: tuple[int | str, ...], place: Place) -> RlaifError:
    key = str(loc[-1])
    fields = _fields_at(loc[:-1])
    close = get_close_matches(key, fields, n=1, cutoff=0.5)
    if key == "<<":
        hint = "Merge keys are not supported: use `extends:`."
    elif close:
        hint = f"Did you mean {close[0]!r}?"
    else:
        hint = f"Valid keys here: {', '.join(fields)}."
    return RlaifError(f"unknown key {_short(key)}", hint=hint, place=place)


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in the document."""
    model: type[BaseModel] = Constitution
    if "examples" in loc:
        model = schemas.ExampleTurn if "prompt" in loc else schemas.Example
    elif "check" in loc:
        kinds: dict[object, type[BaseModel]] = {
            "regex": schemas.RegexCheck,
            "max_length": schemas.MaxLengthCheck,
            "json": schemas.JsonCheck,
            "forbidden_phrases": schemas.ForbiddenPhrasesCheck,
            "python": schemas.PythonCheck,
            "reward_model": schemas.RewardModelCheck,
        }
        model = kinds.get(loc[-1], schemas.JsonCheck)
    elif "translations" in loc:
        model = schemas.Translation
    elif "applies_to" in loc:
        model = schemas.AppliesTo
    elif "principles" in loc:
        model = Principle
    return [info.alias or name for name, info in model.model_fields.items()]
