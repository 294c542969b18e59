"""Reads which response of a row is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from rlaif.data.layout import code_of
from rlaif.data.messages import BadRow
from rlaif.data.row_cells import CellReader, number_of, votes_at
from rlaif.data.row_model import Completion, WinnerIndex
from rlaif.data.verdict_codes import LETTERS, bound_of, look_up, sides_of, word_side


class VerdictReader(CellReader):
    """Reads verdicts, votes and strengths."""

    def _verdict(
        self, row: Mapping[str, Any], found: Sequence[Completion]
    ) -> tuple[WinnerIndex, float | None, list[WinnerIndex]]:
        """Winner, strength and votes.

        Raises:
            BadRow: the value of a verdict is not among those that are known.
        """
        layout = self.layout
        if len(found) < 2:
            return None, None, []
        if layout.label:
            values = [v for path in layout.label for v in votes_at(row, path)]
            values = [v for v in values if v is not None and v != ""]
            several = len(layout.label) > 1 or len(values) > 1
            votes = [self._winner(row, v, found) for v in values]
            if layout.chosen:
                stated = [vote for vote in votes if vote is not None]
                return (take_majority(stated) if stated else 0), None, []
            if not several:
                number = number_of(values[0]) if values and self._bound is not None else None
                strength = None if number is None else round(number - (self._bound or 0), 9)
                return (votes[0] if votes else None), strength, []
            return take_majority(votes), None, votes
        scores = [c.score for c in found]
        if layout.chosen:
            tied = len(found) == 2 and None not in scores and scores[0] == scores[1]
            return ("tie" if tied else 0), None, []
        if any(score is None for score in scores):
            return None, None, []
        best = min(scores) if layout.less_is_better else max(scores)  # type: ignore[type-var]
        if scores.count(best) > 1:
            return "tie", None, []
        return scores.index(best), None, []

    @cached_property
    def _bound(self) -> float | None:
        return bound_of(self.layout.values)

    @cached_property
    def _words(self) -> bool:
        """Whether verdicts are words; then a number among them is none."""
        return self._bound is None and all(number_of(code) is None for code in self.layout.values)

    @cached_property
    def _sides(self) -> list[str]:
        return sides_of(self.layout.responses)

    @cached_property
    def _places(self) -> dict[str, int | Literal["tie"]]:
        """What values mean that came up already."""
        return {}

    def _winner(
        self, row: Mapping[str, Any], value: object, found: Sequence[Completion]
    ) -> WinnerIndex:
        if self.layout.names:
            code = code_of(value)
            held = [c.name for c in found]
            if code in held:
                return held.index(code)
        known = self._places.get(value) if isinstance(value, str) else None
        if known is not None and (known == "tie" or known < len(found)):
            return known
        code = code_of(value)
        meaning = look_up(self.layout.values, value)
        stated = meaning is not None
        if meaning is None and not self.layout.values:
            names = [c.origin.lower() for c in found]
            if names.count(code) == 1:
                return names.index(code)
            texts = [c.messages[-1]["content"] for c in found]
            if texts.count(str(value)) == 1:
                return texts.index(str(value))
            meaning = word_side(code, (), (), len(found)) or None
        if meaning is None and self._words and number_of(value) is None:
            # A word says by itself what it means, whether or not the sample has it.
            meaning = word_side(code, self._sides, self.layout.responses, len(found)) or None
        if meaning is None and self.layout.chosen:
            return None
        if meaning is None:
            raise BadRow(
                f"column {self.layout.label[0]!r} is {str(value)[:40]!r}, which is no verdict that "
                "the layout knows (`values`)"
            )
        if meaning == "none":
            return None
        place: int | Literal["tie"] = "tie" if meaning == "tie" else LETTERS.index(meaning)
        if stated and isinstance(value, str) and len(self._places) < 1000:
            self._places[value] = place
        if place == "tie":
            return "tie"
        if place >= len(found):
            raise BadRow(
                f"column {self.layout.label[0]!r} names response {place + 1} of {len(found)}"
            )
        return place


def take_majority(votes: Sequence[WinnerIndex]) -> WinnerIndex:
    """What most votes say; a tie where two sides have as many."""
    sides = [v for v in votes if isinstance(v, int)]
    if not votes:
        return None
    if not sides:
        return "tie" if "tie" in votes else None
    counts = sorted(((sides.count(s), -s) for s in set(sides)), reverse=True)
    if len(counts) > 1 and counts[0][0] == counts[1][0]:
        return "tie"
    return "tie" if list(votes).count("tie") > counts[0][0] else -counts[0][1]
