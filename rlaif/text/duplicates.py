"""Near-duplicates among texts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.text.novelty import words as split

_SIGN = re.compile(r"""[^\w\s.,;:!?'"()\[\]…“”‘’«»]""")
_SHINGLE = 3


def words_and_signs(text: str) -> list[str]:
    """The words of a text, lower case. A sign that is no punctuation (a minus, an emoji) is one:
    answers may differ by it alone.
    """
    return split(_SIGN.sub(lambda m: f" sign{ord(m.group())} ", text))


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words, lower case; of a shorter text all its words in one."""
    words = words_and_signs(text)
    if len(words) < _SHINGLE:
        return frozenset([tuple(words)])
    return frozenset(tuple(words[i : i + _SHINGLE]) for i in range(len(words) - _SHINGLE + 1))


def resemblance(one: frozenset[tuple[str, ...]], two: frozenset[tuple[str, ...]]) -> float:
    """Jaccard index of two sets of shingles, from 0 to 1 (Broder 1997, on resemblance)."""
    return len(one & two) / len(one | two) if one or two else 1.0


def distinct(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Indices of the texts that resemble no earlier kept one by `threshold` or more, in order, and
    how many texts each stands for.

    At 1 only equal texts are near-duplicates.
    """
    found: dict[int, int] = {}
    if threshold >= 1.0:
        places: dict[str, int] = {}
        for i, text in enumerate(texts):
            first = places.setdefault(" ".join(text.split()), i)
            found[first] = found.get(first, 0) + 1
        return found
    kept: list[tuple[int, frozenset[tuple[str, ...]]]] = []
    for i, text in enumerate(texts):
        own = shingles(text)
        first = next((j for j, other in kept if resemblance(own, other) >= threshold), i)
        if first == i:
            kept.append((i, own))
        found[first] = found.get(first, 0) + 1
    return found
