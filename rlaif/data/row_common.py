"""What all readers of rows share: the words of names, text that can be written, and refusals."""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadRow(Exception):
    """A row that cannot be read; the message says why."""


def check_text(text: str) -> str:
    """`text`, if it can be written as UTF-8.

    Raises:
        BadRow: it can't.
    """
    if _SURROGATE.search(text):
        raise BadRow("text is not valid UTF-8: it contains half of a surrogate pair")
    return text


def tokens_of(name: str) -> tuple[str, ...]:
    """The words of a name: `chosen-model`, `chosenModel` and `chosen_model` have the same."""
    return tuple(word.lower() for word in _WORD.findall(name))
