"""Counts words in any script, and compares texts whatever way they are written.

A word is what stands between spaces.  Where a script writes no spaces between words (Chinese,
Japanese, Thai, Lao, Khmer, Burmese, Tibetan), each character counts as one.
"""

from __future__ import annotations

import unicodedata

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_BETWEEN = r"\s\u3000-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff1f\uff3b-\uff40\uff5b-\uff65"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*+|(?:(?![{_UNSPACED}{_BETWEEN}]).)++", regex.DOTALL)
_INVISIBLE = regex.compile(r"[\p{Cf}\u034f\u115f\u1160\u17b4\u17b5\u3164\ufe00-\ufe0f\uffa0]")
_SPACES = regex.compile(r"\s+")


def count_words(text: str) -> int:
    """How many words a text has."""
    if text.isascii():
        return len(text.split())
    return sum(len(_WORD.findall(run)) for run in text.split())


def fold_text(text: str, *, ignore_case: bool = True) -> str:
    """A text as it is compared: compatible letters as one (NFKC), without invisible characters,
    with single spaces, and without case unless that matters.
    """
    folded = unicodedata.normalize("NFKC", text)
    folded = _SPACES.sub(" ", _INVISIBLE.sub("", folded))
    return unicodedata.normalize("NFKC", folded.casefold()) if ignore_case else folded
