"""Text files with placeholders that people edit: what a writing model is told.

A file opens with YAML front matter between two `---` lines; `{{name}}` is a placeholder.  Values
are put in in one pass, so braces inside them stay text.  (The judge's layouts, which have labels
to read, are in `prompts`.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlaif.errors import Place, RlaifError
from rlaif.util.hashing import digest
from rlaif.util.plain_yaml import load_plain_yaml
from rlaif.util.resources import find, list_shipped

_SLOT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
NOTHING = "nothing"


@dataclass(frozen=True)
class Template:
    """A text with placeholders.

    Attributes:
        name: how it was asked for.
        settings: the front matter.
    """

    name: str
    body: str
    settings: Mapping[str, str]

    @property
    def hash(self) -> str:
        """Content address."""
        return digest({"body": self.body, "settings": dict(self.settings)})

    def render(self, **values: str) -> str:
        """The text with every placeholder filled."""
        return _SLOT.sub(lambda match: values[match.group(1)], self.body)


NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


def load_template(
    name: str,
    folder: str,
    *,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
    settings: tuple[str, ...] = (),
    defaults: Mapping[str, str] = NO_SETTINGS,
) -> Template:
    """Read a template by shipped name or path.

    Args:
        folder: below `prompts/`; also what the template is called in errors.
        required, optional: its placeholders.
        settings: the front matter that it must have, each a text.
        defaults: the front matter that it may have.

    Raises:
        RlaifError: it is missing, is not text, lacks a setting or a placeholder, or has one that
            is unknown.
    """
    what = f"{folder} template"
    path = find(name, folder=f"prompts/{folder}", suffix=".txt", what=what.capitalize())
    place = Place(path)
    try:
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RlaifError(
            f"{what} is not UTF-8 (byte {error.start})", hint="Save it as UTF-8.", place=place
        ) from None
    parts = re.match(r"---\n(.*?)\n?---\n(.*)\Z", text, re.DOTALL)
    front, body = parts.groups() if parts else ("", text)
    found = {**defaults, **_front_matter(front, settings, tuple(defaults), what=what, place=place)}
    slots = _SLOT.findall(body)
    for slot in slots:
        if slot not in (*required, *optional):
            known = ", ".join((*required, *optional))
            raise RlaifError(
                f"{what} has an unknown placeholder {{{{{slot}}}}}",
                hint=f"Use {known}.",
                place=_place_of(path, text, slot),
            )
    for slot in required:
        if slot not in slots:
            raise RlaifError(
                f"{what} is missing the placeholder {{{{{slot}}}}}", hint="Add it.", place=place
            )
    return Template(name, body.strip("\n"), found)


def _place_of(path: Path, text: str, slot: str) -> Place:
    match = re.search(r"\{\{\s*" + slot + r"\s*\}\}", text)
    assert match is not None
    before = text[: match.start()]
    return Place(path, before.count("\n") + 1, match.start() - (before.rfind("\n") + 1) + 1)


def _front_matter(
    front: str, settings: tuple[str, ...], optional: tuple[str, ...], what: str, place: Place
) -> Mapping[str, str]:
    try:
        found: Any = load_plain_yaml(front) or {}
    except ValueError as error:
        raise RlaifError(
            f"{what} has front matter that is not valid YAML ({str(error).splitlines()[0]})",
            hint="Put `name: value` lines between the two '---' lines.",
            place=place,
        ) from None
    if not isinstance(found, dict):
        found = {"": found}
    for key in found:
        if key not in (*settings, *optional):
            known = ", ".join((*settings, *optional)) or "none"
            raise RlaifError(
                f"{what} has an unknown setting {key!r}",
                hint=f"Valid settings: {known}.",
                place=place,
            )
    for key in (*settings, *(key for key in optional if key in found)):
        if not isinstance(found.get(key), str) or not found[key].strip():
            raise RlaifError(
                f"{what} is missing the setting {key!r}",
                hint=f"Add a line `{key}: ...` between two '---' lines at its top.",
                place=place,
            )
    return {key: value.strip() for key, value in found.items()}


@dataclass(frozen=True)
class WriterTemplates:
    """How a writer is asked for a critique, and for a revision.

    Attributes:
        critique: with conversation, response, request and perhaps examples; its setting
            `nothing` is what a critique begins with that finds nothing.
        revision: with conversation, response, critique, request and perhaps examples.
    """

    critique: Template
    revision: Template

    def finds_nothing(self, critique: str) -> bool:
        """Whether a critique says that there is nothing to fix."""
        return _words(critique).startswith(_words(self.critique.settings[NOTHING]))


def load_synth_template(name: str) -> Template:
    """How a writer is asked for new prompts; its setting `answer` is `list` or `conversation`.

    Raises:
        RlaifError: see `load_template`.
    """
    template = load_template(
        name,
        "synth",
        required=("examples",),
        optional=("topic", "persona", "count"),
        settings=("answer",),
    )
    if template.settings["answer"] not in ("list", "conversation"):
        raise RlaifError(
            f"synth template {name!r} has an invalid `answer`: {template.settings['answer']!r}",
            hint="Use list (one prompt per line) or conversation.",
        )
    return template


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def load_writer_templates(name: str) -> WriterTemplates:
    """The critique and the revision template of a name (a shipped one, or a folder's two files).

    Raises:
        RlaifError: see `load_template`.
    """
    files = [Path(name) / "critique.txt", Path(name) / "revision.txt"]
    shipped = name in list_shipped("prompts/critique", ".txt")
    # A folder that only has the name of shipped ones, such as a run's, is none of templates.
    own = Path(name).is_dir() and (not shipped or any(file.exists() for file in files))
    shared = ("conversation", "response", "request")
    critique = load_template(
        str(Path(name) / "critique.txt") if own else name,
        "critique",
        required=shared,
        optional=("examples",),
        settings=(NOTHING,),
    )
    revision = load_template(
        str(Path(name) / "revision.txt") if own else name,
        "revision",
        required=(*shared, "critique"),
        optional=("examples",),
    )
    return WriterTemplates(critique, revision)
