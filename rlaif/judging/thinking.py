"""What a model that thinks in a block of its own says after it."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


def after_thinking(text: str) -> str | None:
    """The text without its thinking blocks; None where one was opened and never closed.

    A block may have been opened by the chat template: then the text holds only its end.
    """
    spoken = text.rpartition(CLOSE)[2]
    return None if OPEN in spoken else spoken.strip()
