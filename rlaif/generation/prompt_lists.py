"""Reads prompts out of what a model wrote."""

from __future__ import annotations

import re

from rlaif.records import Message
from rlaif.text.novelty import words

_ITEM = re.compile(r"\s*(?:\d{1,3}[.):]|[-*•])\s+(\S.*)")
_TURN = re.compile(
    r"^[ \t]*\**(User|Human|Assistant|AI)\**[ \t]*:\**[ \t]*", re.MULTILINE | re.IGNORECASE
)
_SHORTEST = 3
"Minimum number of words (letters, in scripts without spaces) in a prompt."


def read_list(text: str, *, finished: bool) -> list[list[Message]]:
    """The items of a numbered or dashed list, each as a prompt of one turn.

    Args:
        finished: whether the text came to its end; if not, the last item may be cut and is left.
    """
    items = [m.group(1) for line in text.splitlines() if (m := _ITEM.fullmatch(line))]
    if not finished and items:
        items.pop()
    stripped = (item.strip().strip('"“”').strip() for item in items)
    return [
        [{"role": "user", "content": item}] for item in stripped if len(words(item)) >= _SHORTEST
    ]


def read_conversation(text: str) -> list[Message]:
    """The turns of a transcript that alternate from the user on, up to the user's last one.

    Returns:
        [] where it does not begin with the user, or where two turns of one side follow each other.
    """
    parts = _TURN.split(text)
    if parts[0].strip() or len(parts) < 3:
        return []
    turns: list[Message] = []
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        role = "user" if name.lower() in ("user", "human") else "assistant"
        expected = "user" if len(turns) % 2 == 0 else "assistant"
        if role != expected or not said.strip():
            return []
        turns.append({"role": role, "content": said.strip()})
    return turns if len(turns) % 2 else turns[:-1]
