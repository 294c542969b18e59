"""Texts that differ in a few words: what runs of words miss in short ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rlaif.text.novelty import common_subsequence

LEAST_WORDS = 10
"""Shorter texts mean something else with one word changed."""


def edits_allowed(words: int, similarity: float) -> int:
    """How many words of a text may differ for it to be the same one: a share of 1 - `similarity`.

    None of a text under `LEAST_WORDS`; else at least one, unless `similarity` is 1.
    """
    if words < LEAST_WORDS or similarity >= 1.0:
        return 0
    return max(1, math.floor((1.0 - similarity) * words + 1e-9))


def differ_little(one: Sequence[str], two: Sequence[str], similarity: float) -> bool:
    """Whether two lists of words differ in so few that one is an edit of the other.

    Words are put in, taken out or replaced; numbers must be the same, since another number makes
    another problem.
    """
    longer = max(len(one), len(two))
    allowed = edits_allowed(min(len(one), len(two)), similarity)
    if not allowed:
        return list(one) == list(two)
    if abs(len(one) - len(two)) > allowed or numbers_of(one) != numbers_of(two):
        return False
    return longer - common_subsequence(one, two) <= allowed


def numbers_of(words: Sequence[str]) -> Counter[str]:
    """The words with a digit or a sign in them, with how often each is there."""
    return Counter(word for word in words if any(map(str.isdigit, word)))
