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
    spoken = text.lstrip()
    found = True
    while found:
        found = False
        for before, after in MARKS:
            if spoken.startswith(before):
                end = spoken.find(after, len(before))
                if end < 0:
                    return None
                spoken, found = spoken[end + len(after) :].lstrip(), True
    if spoken == text.lstrip() and (end_alone := _ALONE.search(spoken)):
        spoken = spoken[end_alone.end() :]
    final = _FINAL.match(spoken)
    return (spoken[final.end() :] if final else spoken).strip()


def opened_by(framing: str) -> str:
    """The mark of the block that a prompt's end leaves open for thinking; "" for none."""
    end = framing.rstrip()
    return next((before for before, _ in MARKS if end.endswith(before)), "")
