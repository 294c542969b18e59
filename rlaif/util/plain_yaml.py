"""Reads YAML that somebody else may have written, where only the values matter.

Aliases can make billions of values of a few lines, and nesting can exhaust the stack: both are
measured before anything is built.
"""

from __future__ import annotations

import yaml

_MOST_VALUES = 1 << 20
_MOST_DEPTH = 64


def load_plain_yaml(text: str) -> object:
    """The values of a document.

    Raises:
        ValueError: it is not YAML of plain values, or much too large or deep.
    """
    try:
        _measure(text)
        return yaml.safe_load(text)
    except (yaml.YAMLError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError((str(error).splitlines() or [repr(error)])[0]) from None


def _measure(text: str) -> None:
    """Count the values with those that aliases repeat, event by event.

    Raises:
        ValueError: there are too many, or they are nested too deep.
    """
    sizes: dict[str, int] = {}
    counts, anchors = [0], [""]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            anchors.append(event.anchor or "")
        elif isinstance(event, yaml.CollectionEndEvent):
            size, anchor = counts.pop(), anchors.pop()
            counts[-1] += size
            sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            counts[-1] += 1
            sizes[event.anchor or ""] = 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in anchors or event.anchor not in sizes:
                raise ValueError(f"alias {event.anchor!r} has no end")
            counts[-1] += sizes[event.anchor]
        if counts[-1] > _MOST_VALUES or len(counts) > _MOST_DEPTH:
            raise ValueError("too many values, or nested too deep")
