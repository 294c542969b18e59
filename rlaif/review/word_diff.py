"""Two texts word by word: what one has that the other has not.  Pure."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Segments = list[tuple[bool, str]]
"""Parts of a text in order, and whether the part is its own."""
ALIKE = 0.4
"""Share of common words from which two texts are versions of one."""
_MOST_WORDS = 6_000
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


def word_diff(a: str, b: str) -> tuple[Segments, Segments] | None:
    """Both texts in parts; None where they are no versions of one text, or too long to compare.

    Longest common blocks (Ratcliff and Obershelp 1988, by difflib) of words, spaces and marks.
    """
    left, right = _WORDS.findall(a), _WORDS.findall(b)
    # Comparing takes time with the square of the length: a second for these many.
    if len(left) + len(right) > _MOST_WORDS:
        return None
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    if matcher.real_quick_ratio() < ALIKE or matcher.quick_ratio() < ALIKE:
        return None
    if matcher.ratio() < ALIKE:
        return None
    one: Segments = []
    two: Segments = []
    for kind, i, j, k, m in matcher.get_opcodes():
        own = kind != "equal"
        if j > i:
            one.append((own, "".join(left[i:j])))
        if m > k:
            two.append((own, "".join(right[k:m])))
    return one, two
