"""Counts words in any script, and compares texts whatever way they are written.

A word is what stands between spaces.  Where a script writes no spaces between words (Chinese,
Japanese, Thai, Lao, Khmer, Burmese, Tibetan, Javanese, Yi and others), each character counts as
one, and so does each emoji.
"""

from __future__ import annotations

import unicodedata

import regex

_UNSPACED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
    r"\p{Tibetan}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Javanese}\p{Balinese}"
    r"\p{Emoji_Presentation}"
)
_BETWEEN = (
    r"\s\u200b\u3000-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff1f\uff3b-\uff40\uff5b-\uff65"
)
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*+|(?:(?![{_UNSPACED}{_BETWEEN}]).)++", regex.DOTALL)
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}\u2800\ufffc]|(?!\s)\p{Cc}")
_PILED = regex.compile(r"(\p{M}{30})\p{M}+")
"""More marks on a letter than text has (UAX 15, stream-safe text): to sort them takes long."""
_ALIKE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bc\u2032\u00b4\u0060", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
    | dict.fromkeys("\u201c\u201d", '"')
)
"""Quotation marks and hyphens that keyboards and editors put for one another."""
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
    folded = unicodedata.normalize("NFKC", _PILED.sub(r"\1", text))
    folded = _SPACES.sub(" ", _INVISIBLE.sub("", folded))
    if ignore_case:
        folded = folded.casefold()
    # What was invisible may have stood between a letter and its mark.
    return unicodedata.normalize("NFKC", _PILED.sub(r"\1", folded)).translate(_ALIKE)
