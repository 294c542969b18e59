"""The one error type that users see, and its parts: what failed, where, and what to do next.

Everything a user can cause raises `RlaifError`; the command line prints it as one line and
exits with 2.  Broken invariants of our own stay `AssertionError`s with their traceback.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A position in a file.  `line` and `column` count from 1; 0 means "the file as a whole"."""

    file: Path | str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return str(self.file)
        return f"{self.file}:{self.line}:{self.column or 1}"


class RlaifError(Exception):
    """A failure that its user can fix.

    Args:
        message: what failed, with the value that made it fail, in one sentence.
        hint: the next step, as an instruction.
        place: where the value stands, if it stands in a file.

    Attributes:
        exit_code: of the command line.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", place: Place | None = None) -> None:
        self.message = message
        self.hint = hint
        self.place = place
        super().__init__(str(self))

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        line = f"{head.rstrip('.')}. {self.hint}" if self.hint else head
        return " ".join(line.split())


class EngineStopped(RlaifError):
    """A running engine broke down: another one may go on."""


class ConversationRefused(RlaifError):
    """A chat template does not take a conversation: the next one may well go through."""


def first_line(error: BaseException) -> str:
    """What a library's error says, on one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [repr(error)])[0]
