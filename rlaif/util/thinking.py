"""What a model that thinks in a block of its own says after it."""

from __future__ import annotations

import re

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
)
"""How models mark what they think: before and after."""
_FINAL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>")
_ALONE = re.compile(
    "|".join(
        rf"(?:^|\n)[ \t]*{re.escape(close)}[ \t]*\n|{re.escape(close)}\n\n" for _, close in MARKS
    )
)
"""An end that stands alone on its line: of a block that the chat template opened."""


def after_thinking(text: str) -> str | None:
    """The text without the thinking that opens it; None where that never ends.

    A block is thinking only where it opens the text: an answer may quote such marks.  A block that
    a server's chat template opened shows its end alone, on a line of its own.
    """
    start = at = _skip_space(text, 0)
    found = True
    while found:
        found = False
        own = at + len(_TURN) if text.startswith(_TURN, at) else at
        for before, after in MARKS:
            if text.startswith(before, own):
                end = text.find(after, own + len(before))
                if end < 0:
                    return None
                at, found = _skip_space(text, end + len(after)), True
                break
    spoken = text[at:]
    alone = _ALONE.search(spoken) if at == start else None
    if alone and spoken.count("```", 0, alone.start()) % 2 == 0:  # in code it is quoted
        spoken = spoken[alone.end() :]
    final = _FINAL.match(spoken)
    return (spoken[final.end() :] if final else spoken).strip()


_TURN = "<|start|>assistant"
_SPACE = re.compile(r"\s*")


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def opened_by(framing: str) -> str:
    """The mark of the block that a prompt's end leaves open for thinking; "" for none."""
    end = framing.rstrip()
    return next((before for before, _ in MARKS if end.endswith(before)), "")
