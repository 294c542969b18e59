"""What a sample is to be drawn toward (active inheritance: Shimabucoro et al. 2024,
arXiv:2407.01490): attributes that a completion can have more or less of.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.constitution.schema import Constitution, Principle
from rlaif.errors import RlaifError
from rlaif.util.words import count_words

_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})")
_HINT = "Use principle:ID, language:en, length:short, length:long, or length:20-80 (words)."


@dataclass(frozen=True)
class AttributeTarget:
    """An attribute.

    Attributes:
        name: as it was asked for.
        principle: for a principle of the constitution (asked of the judge, or its check).
        words: for a length: from, to.
        language: for a language: its code.
    """

    name: str
    principle: Principle | None = None
    words: tuple[int, int] = (0, 0)
    language: str = ""

    def score(self, text: str) -> float:
        """How much of a length or a language a text has; more is better."""
        if self.language:
            found: float = _languages().language_probability(text, self.language)
            return found
        return self.length_score(text)

    def length_score(self, text: str) -> float:
        """0 inside the wanted length, and one less for each word that it is outside."""
        count = count_words(text)
        low, high = self.words
        return -float(max(low - count, count - high, 0))


def parse_target(text: str, constitution: Constitution | None) -> AttributeTarget:
    """Read a target.

    Raises:
        RlaifError: it is of no known form, or names a principle that the constitution lacks.
    """
    kind, _, value = text.partition(":")
    if kind == "principle":
        if constitution is None:
            raise RlaifError(f"target {text!r} needs a constitution", hint="Add -c CONSTITUTION.")
        found = [p for p in constitution.principles if p.id == value]
        if not found:
            ids = ", ".join(p.id for p in constitution.principles)
            raise RlaifError(
                f"target {text!r} is not a principle of {constitution.name!r}",
                hint=f"Use one of: {ids}.",
            )
        return AttributeTarget(text, principle=found[0])
    if kind == "language":
        known = _languages().known_languages()
        if value in known:
            return AttributeTarget(text, language=value)
        raise RlaifError(
            f"target {text!r} is not a known language", hint=f"Use one of: {', '.join(known)}."
        )
    if kind == "length":
        if value in ("short", "long"):
            return AttributeTarget(text, words=(0, 0) if value == "short" else (10**6, 10**6))
        match = _RANGE.fullmatch(value)
        if match and int(match.group(1)) <= int(match.group(2)):
            return AttributeTarget(text, words=(int(match.group(1)), int(match.group(2))))
    raise RlaifError(f"target {text!r} is unknown", hint=_HINT)


def _languages() -> Any:
    # Its model takes a moment to load, and few runs need it.
    return importlib.import_module("rlaif.data.languages")


def best(scores: Sequence[Sequence[float]], keep: int) -> list[int]:
    """Indices of the `keep` completions with the best mean rank over all targets, best first.

    Args:
        scores: for each target, a score of each completion; more is better.
    """
    count = len(scores[0])
    total = [0.0] * count
    for column in scores:
        for i in range(count):
            # Equal scores share a rank, so that a target with no opinion does not decide.
            total[i] += sum(other > column[i] for other in column)
            total[i] += 0.5 * (sum(other == column[i] for other in column) - 1)
    return sorted(range(count), key=lambda i: (total[i], i))[:keep]
