"""A row as it was understood: prompt, tools, completions, verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rlaif.data.messages import BadRow
from rlaif.records import UNKNOWN_ORIGIN, Criterion, Message, Origin

WinnerIndex = int | Literal["tie"] | None


@dataclass(frozen=True)
class Completion:
    """One response of a row.

    Attributes:
        prompt: the conversation that it carries before it; empty for none.
        name: what a verdict calls it; "" for nothing of its own.
        origin: who wrote it, by name; "" for unknown.
        source: all that is known of where it comes from.
        good: whether people called it good; None where nobody said.
    """

    messages: list[Message]
    prompt: list[Message] = field(default_factory=list)
    name: str = ""
    origin: str = ""
    score: float | None = None
    good: bool | None = None
    source: Origin = UNKNOWN_ORIGIN

    @property
    def depth(self) -> int:
        """How many synthetic generations deep it is; 0 for human or unknown."""
        return self.source.depth


@dataclass(frozen=True)
class DataRow:
    """A row as it was understood.

    Attributes:
        winner: place of the better of two candidates, or of the best one; "tie"; None for unknown.
        strength: how much better, on the data's own signed scale; None where it has none.
        votes: what each annotator said, as places of candidates, "tie" or None.
        media: kinds of content that are no text.
        images: the pictures of the prompt, as the row holds them; empty where there are others.
        ranked: whether scores are ranks: the least is the best.
        rivals: whether its responses stand in columns of their own, as those of a comparison do.
        reference, criteria, language: see `rlaif.records.Pair`.
        unrated: whether nothing says how good its one completion is, though something should.
    """

    prompt: list[Message]
    tools: list[Any]
    completions: list[Completion]
    winner: WinnerIndex = None
    strength: float | None = None
    votes: list[WinnerIndex] = field(default_factory=list)
    tags: frozenset[str] = frozenset()
    id: str = ""
    media: tuple[str, ...] = ()
    images: tuple[Any, ...] = ()
    weight: float = 1.0
    prompt_origin: Origin = UNKNOWN_ORIGIN
    unrated: bool = False
    rivals: bool = False
    ranked: bool = False
    reference: str = ""
    criteria: tuple[Criterion, ...] = ()
    language: str = ""

    @property
    def labeled(self) -> bool:
        """Whether it is a pair whose better response is known."""
        return len(self.completions) == 2 and isinstance(self.winner, int)

    def with_winner(self, winner: int) -> DataRow:
        """A pair with the better response, at place `winner`, put first."""
        completions = self.completions[::-1] if winner == 1 else self.completions
        return replace(self, completions=completions, winner=0)


def refuse_media(found: DataRow) -> DataRow:
    """The row, which must be text alone: nothing else is passed on.

    Raises:
        BadRow: it has a picture or the like.
    """
    if found.media:
        raise BadRow(
            f"has content that is no text ({', '.join(found.media)}), which is not passed on"
        )
    return found


def refuse_calls(found: DataRow) -> DataRow:
    """The row, which must have no tools and no calls of them: they are not passed on.

    Raises:
        BadRow: it has.
    """
    turns = [*found.prompt, *(m for c in found.completions for m in c.messages)]
    if found.tools or any("tool_calls" in m or m["role"] in ("tool", "function") for m in turns):
        raise BadRow("has tools or tool calls, which this command does not pass on")
    return found
