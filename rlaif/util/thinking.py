"""What a model that thinks in a block of its own says after it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<\uff5cbegin▁of▁thought\uff5c>", "<\uff5cend▁of▁thought\uff5c>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<Think>", "</Think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>commentary<|message|>", "<|end|>"),
    ("<|channel|>analysis <|message|>", "<|end|>"),
    ("<|channel|>commentary <|message|>", "<|end|>"),
)
"""How models mark what they think: before and after."""
_FINAL = re.compile(
    r"(?:<\|start\|>assistant)?<\|channel\|>final\s*(?:<\|constrain\|>\s*\w*\s*)?<\|message\|>"
)
_ALONE = re.compile(
    "|".join(
        rf"(?<![`'\"]){re.escape(close)}"
        for close in sorted({c for _, c in MARKS if "end|" not in c})
    )
)
"""An end that may be that of a block which a chat template opened; one in quotes is none."""
_WRAPPED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
"""How some models that think mark what they say."""
_TURN = "<|start|>assistant"
_SPACE = re.compile(r"\s*")
_NAMED = re.compile(r"think|thought|reason|(?<![a-z])cot(?![a-z])|scratch|ponder|reflect", re.I)
_SPLIT = re.compile(r"split\(\s*(['\"])([^'\"]{2,60})\1")
_CLOSERS = (
    ("<|", "<|/"),
    ("<", "</"),
    ("[", "[/"),
    ("begin", "end"),
    ("start", "end"),
    ("BEGIN", "END"),
    ("START", "END"),
    ("open", "close"),
)


def after_thinking(text: str) -> str | None:
    """The text without the thinking that opens it; None where that never ends.

    A block is thinking only where it opens the text: an answer may quote such marks.
    """
    at = find_spoken(text)
    if at is None:
        return None
    wrapped = _WRAPPED.fullmatch(text, at) if at else None
    return (wrapped.group(1) if wrapped else text[at:]).strip()


def find_spoken(text: str, marks: Sequence[tuple[str, str]] = MARKS) -> int | None:
    """Where the thinking that opens a text has ended; 0 for none, None where it never ends.

    Args:
        marks: before and after a block.
    """
    found = _read_blocks(text, marks)
    return found if isinstance(found, int) else None


def find_open_block(text: str, marks: Sequence[tuple[str, str]] = MARKS) -> str:
    """What closes the block of thinking that a text leaves open; "" where it leaves none open.

    Where that is the end of a message, what opens the next one, which is spoken, follows.
    """
    found = _read_blocks(text, marks)
    if isinstance(found, int):
        return ""
    return f"{found}{_TURN}<|channel|>final<|message|>" if found == "<|end|>" else f"\n{found}"


def _read_blocks(text: str, marks: Sequence[tuple[str, str]]) -> int | str:
    """Where the thinking has ended, or what closes the block that is open."""
    at = _skip_space(text, 0)
    found, any_found = True, False
    while found:
        found = False
        own = at + len(_TURN) if text.startswith(_TURN, at) else at
        for before, after in marks:
            if text.startswith(before, own):
                end = text.find(after, own + len(before))
                if end < 0:
                    return after
                at, found, any_found = _skip_space(text, end + len(after)), True, True
                break
    final = _FINAL.match(text, at)
    if final:
        return final.end()
    return at if any_found else 0


def write_thinking(thought: str, spoken: str, marks: Sequence[tuple[str, str]] = MARKS) -> str:
    """A text in the form that `after_thinking` reads, whatever a model's own marks are.

    Args:
        thought: all that stands before what is spoken, with the model's marks.
    """
    if find_spoken(thought) == len(thought):
        return thought + spoken
    for mark in {m for pair in marks for m in pair} | {m for pair in MARKS for m in pair}:
        thought = thought.replace(mark, "")
    return f"<think>{thought}</think>{spoken}"


def may_end_thinking(text: str) -> str:
    """The mark in a text that may end thinking whose begin a server did not send; "" for none."""
    alone = _ALONE.search(text) if find_spoken(text) == 0 else None
    return alone.group().strip() if alone else ""


def open_thinking(text: str) -> str:
    """The text of a server whose chat template opened the block, with the mark that opens it."""
    ends = [(text.find(after), before) for before, after in MARKS if after in text]
    return f"{min(ends)[1] if ends else MARKS[0][0]}{text}"


def opened_by(framing: str, marks: Sequence[tuple[str, str]] = MARKS) -> str:
    """The mark of the block that a prompt's end leaves open for thinking; "" for none."""
    end = framing.rstrip()
    return next((before for before, _ in marks if end.endswith(before)), "")


def names_thinking(pair: tuple[str, str]) -> bool:
    """Whether both marks of a pair are named for thinking, and so are no ends of turns."""
    return all(_NAMED.search(mark) for mark in pair)


def name_marks(tokens: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs among a tokenizer's added tokens that, by their names, stand around thinking."""
    known = set(tokens)
    return [
        (token, partner)
        for token in sorted(known)
        if _NAMED.search(token)
        for partner in close_marks(token)
        if partner in known
    ]


def marks_split_at(source: str) -> list[tuple[str, str]]:
    """Pairs whose ends a chat template looks for in what an assistant said, as its source shows."""
    found = []
    for _, close in _SPLIT.findall(source):
        for after, before in _CLOSERS:
            opening = close.replace(before, after, 1)
            if before in close and opening in source and close in close_marks(opening):
                found.append((opening, close))
                break
    return found


def close_marks(opening: str) -> list[str]:
    """What may close a block that a mark opens: `</a>` for `<a>`, `<|end_a|>` for `<|begin_a|>`."""
    closers = []
    for before, after in _CLOSERS:
        if before in opening and not opening.startswith(after):
            closers.append(opening.replace(before, after, 1))
    return closers


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
