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
)
_BETWEEN = (
    r"\s\u200b\u2800\u3164\u115f\u1160\uffa0\u180e"
    r"\u3000-\u3004\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff1f\uff3b-\uff40\uff5b-\uff65"
)
_EMOJI = r"(?=\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f|\p{Regional_Indicator})"
_WORD = regex.compile(
    rf"{_EMOJI}\X|[{_UNSPACED}]\p{{M}}*+|(?:(?!{_EMOJI})(?![{_UNSPACED}{_BETWEEN}]).)++",
    regex.DOTALL,
)
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}\u2800\ufffc]|(?!\s)\p{Cc}")
_BLANK = regex.compile(
    r"[\u200b\u2800\u3164\u115f\u1160\uffa0\u180e\u2060\ufeff\x00-\x08\x0e-\x1f\x7f-\x9f]"
)
"""What looks like a space, or like nothing, and is neither to a computer."""
_PILED = regex.compile(r"(\p{M}{30})\p{M}+")
"""More marks on a letter than text has (UAX 15, stream-safe text): to sort them takes long."""
_ALIKE = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bb\u02bc\u02bd\u2032\u2035\u00b4\u0060", "'")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
    | dict.fromkeys("\u201c\u201d\u201f\u2033\u2036", '"')
)
"""Quotation marks and hyphens that keyboards and editors put for one another."""
_MARK = "\ue0fe"
_SPACES = regex.compile(r"\s+")


def count_words(text: str) -> int:
    """How many words a text has."""
    if text.isascii():
        return len(text.split())
    return sum(len(_WORD.findall(run)) for run in text.split())


def find_phrase(phrase: str, text: str, *, ignore_case: bool = True) -> bool:
    """Whether a text holds a phrase, whatever way it is written (see `fold_text`).

    A blank of no width, or one that is no white space, may stand for a space or for nothing.
    """
    wanted = fold_text(phrase, ignore_case=ignore_case)
    if wanted in fold_text(text, ignore_case=ignore_case):
        return True
    if not _BLANK.search(text):
        return False
    # One sign for every blank, which folding keeps.
    marked = fold_text(_BLANK.sub(_MARK, text.replace(_MARK, "")), ignore_case=ignore_case)
    # Letters and their marks apart: a blank may stand between them.
    marked, wanted = (unicodedata.normalize("NFD", t) for t in (marked, wanted))
    words = (f"{_MARK}*+".join(map(regex.escape, word)) for word in wanted.split())
    pattern = f"[ {_MARK}]++".join(words)
    return bool(pattern) and regex.search(pattern, marked) is not None


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
