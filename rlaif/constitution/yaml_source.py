"""Reads YAML that strangers wrote: every value with its place, nothing that explodes.

Refuses what a constitution never needs: other tags than text, numbers, booleans and null,
keys that are not text, repeated keys, deep nesting, large files, and aliases whose expansion
is large or endless.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlaif.errors import Place, RlaifError

MAX_BYTES = 512 << 10
MAX_DEPTH = 24
MAX_NODES = 20_000
_LONGEST_NUMBER = 40

YamlPath = tuple[str | int, ...]
_STR = "tag:yaml.org,2002:str"
_AS_TEXT = {_STR, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"}
_AS_VALUE = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")}


@dataclass
class YamlTree:
    """A document as plain values, with the place of every value and key by its path."""

    value: object
    places: dict[YamlPath, Place] = field(default_factory=dict)
    keys: dict[YamlPath, Place] = field(default_factory=dict)


def read_yaml(file: Path) -> YamlTree:
    """Parse `file`.

    Raises:
        RlaifError: it can't be read, or is not YAML of the kind described above; with its place.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise RlaifError(
            f"could not read {str(file)!r} ({error.strerror})", hint="Check the path."
        ) from None
    if len(data) > MAX_BYTES:
        raise RlaifError(
            f"file is larger than the limit of {MAX_BYTES >> 10} KiB",
            hint="Split it with `extends:`.",
            place=Place(file, 1, 1),
        )
    return parse_yaml(_decode(data, file), file)


def _decode(data: bytes, file: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise RlaifError(
            f"file is not UTF-8: byte 0x{data[error.start]:02x}",
            hint="Save it as UTF-8.",
            place=Place(file, before.count(b"\n") + 1, column),
        ) from None


def parse_yaml(text: str, file: Path) -> YamlTree:
    """Parse `text`, naming `file` in errors; see `read_yaml`."""
    try:
        _check_shape(text, file)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        raise RlaifError(
            f"character U+{ord(text[error.position]):04X} is not allowed in YAML",
            hint="Remove it, or write it as an escape inside double quotes.",
            place=Place(file, before.count("\n") + 1, error.position - before.rfind("\n")),
        ) from None
    except yaml.MarkedYAMLError as error:
        problem = " ".join(filter(None, [error.context, error.problem]))
        raise RlaifError(
            f"invalid YAML: {problem or 'syntax error'}",
            hint="Check the indentation, quotes and brackets there.",
            place=_at(error.problem_mark or error.context_mark, file),
        ) from None
    except (ValueError, OverflowError, IndexError) as error:  # from PyYAML, on odd escapes
        raise RlaifError(
            f"invalid YAML ({str(error)[:80]})",
            hint="Check for unusual escapes or directives.",
            place=Place(file, 1, 1),
        ) from None
    if node is None:
        raise RlaifError(
            "file is empty",
            hint="Add at least one `name: value` line; `rlaif init` creates a starter "
            "constitution.",
            place=Place(file, 1, 1),
        )
    tree = YamlTree(None)
    tree.value = _Builder(file, tree).build(node, ())
    return tree


def _at(mark: Any, file: Path) -> Place:
    return Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)


def _check_shape(text: str, file: Path) -> None:
    """Walk the events, which needs no stack, before anything recursive sees the document."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > 2 * MAX_NODES:
            what = f"nested deeper than {MAX_DEPTH} levels" if depth > MAX_DEPTH else "too large"
            raise RlaifError(
                f"document is {what}",
                hint="Flatten it, or split it with `extends:`.",
                place=_at(event.start_mark, file),
            )


_ODD_NUMBER = re.compile(
    r"[-+]?(?:0[0-7_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[0-9]+_[0-9_]*)"
)
"""Octal, base 60 and with underscores: `010` is 8, and `1:30` is 90."""


class _Builder:
    """Turns composed nodes into plain values and notes where each stood."""

    def __init__(self, file: Path, tree: YamlTree) -> None:
        self._file = file
        self._tree = tree
        self._constructor = yaml.constructor.SafeConstructor()
        self._count = 0

    def build(self, node: yaml.Node, path: YamlPath) -> object:
        place = _at(node.start_mark, self._file)
        self._count += 1
        if self._count > MAX_NODES or len(path) > MAX_DEPTH:
            raise RlaifError(
                "aliases expand to a document that is too large or infinite",
                hint="Write out the repeated part, or share it with `extends:`.",
                place=place,
            )
        self._tree.places[path] = place
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return dict(self._items(node, path))
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        raise _bad_tag(node, place)

    def _items(self, node: yaml.MappingNode, path: YamlPath) -> Iterator[tuple[str, object]]:
        seen: dict[str, Place] = {}
        for key_node, value_node in node.value:
            place = _at(key_node.start_mark, self._file)
            if not isinstance(key_node, yaml.ScalarNode):
                raise RlaifError(
                    "a key is not a string", hint="Use a plain string as the key.", place=place
                )
            key = str(key_node.value)
            if key in seen:
                raise RlaifError(
                    f"key {key!r} is used twice (first on line {seen[key].line})",
                    hint="Remove one of them.",
                    place=place,
                )
            seen[key] = place
            self._tree.keys[(*path, key)] = place
            yield key, self.build(value_node, (*path, key))

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> object:
        if node.tag in _AS_TEXT or (node.tag in _AS_VALUE and len(node.value) > _LONGEST_NUMBER):
            return str(node.value)
        if node.tag not in _AS_VALUE:
            raise _bad_tag(node, place)
        if node.style is None and _ODD_NUMBER.fullmatch(node.value):
            raise RlaifError(
                f"{node.value!r} is another number in YAML 1.1 than it looks like",
                hint="Put it in quotes for a text, or write the number plainly.",
                place=place,
            )
        try:
            return self._constructor.construct_object(node)
        except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError):
            raise RlaifError(
                f"{node.value!r} is not a valid {node.tag.rsplit(':', 1)[-1]}",
                hint="Quote it if it is meant as a string.",
                place=place,
            ) from None


def _bad_tag(node: yaml.Node, place: Place) -> RlaifError:
    tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
    return RlaifError(f"tag {tag!r} is not allowed", hint="Remove the tag.", place=place)
