"""Texts that differ in a few words: what runs of words miss in short ones.

An edit must leave the meaning alone, as far as words tell: a word that is spelled almost alike, or
one more or one less that denies nothing.  Another word in its place makes another text: a template
with another name in it is asked about something else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from rlaif.text.novelty import common_subsequence, is_unspaced

LEAST_WORDS = 10
"""Shorter texts mean something else with one word changed."""
SIMILARITY = 0.9
LEAST_LETTERS = 5
"""Of words that may be misspelled."""
_DENIALS = frozenset(
    word
    for line in (
        "not no never none nobody nothing nor neither without cannot cant dont doesnt didnt isnt",
        "arent wasnt werent wont wouldnt shouldnt couldnt hasnt havent t un non dis except unless",
        "false wrong incorrect nicht kein keine keinen nie niemals ohne nichts pas ne jamais sans",
        "rien aucun aucune plus nunca ningun ninguna sin nada tampoco nao sem nenhum nenhuma mai",
        "senza nessun nessuna niet geen nooit zonder",
    )
    for word in line.split()
)
"""Words that turn a sentence round, in some languages; in others only the rest of the rule is."""


def edits_allowed(words: int, similarity: float = SIMILARITY) -> int:
    """How many words of a text may differ for it to be the same one: a share of 1 - `similarity`.

    None of a text under `LEAST_WORDS`; else at least one, unless `similarity` is 1.
    """
    if words < LEAST_WORDS or similarity >= 1.0:
        return 0
    return max(1, math.floor((1.0 - similarity) * words + 1e-9))


def differ_little(one: Sequence[str], two: Sequence[str], *, within: bool = False) -> bool:
    """Whether two lists of words are the same but for edits that leave the meaning alone.

    Args:
        within: whether `two` may have more words before and after.
    """
    allowed = edits_allowed(len(one) if within else min(len(one), len(two)))
    if not allowed:
        return list(one) == list(two)
    if is_unspaced(one) or is_unspaced(two):  # each letter counts as a word there
        return list(one) == list(two)
    needed = len(one) - allowed
    if (Counter(one) & Counter(two)).total() < needed or common_subsequence(one, two) < needed:
        return False
    changes = SequenceMatcher(None, one, two, autojunk=False).get_opcodes()
    if within:
        changes = [
            change
            for change in changes
            if not (change[0] == "insert" and change[1] in (0, len(one)))
        ]
    edits = 0
    for kind, i, j, k, m in changes:
        old, new = one[i:j], two[k:m]
        if kind == "equal":
            continue
        edits += max(len(old), len(new))
        if edits > allowed or not _harmless(old, new):
            return False
    return True


def _harmless(old: Sequence[str], new: Sequence[str]) -> bool:
    if old and new:
        return len(old) == len(new) and all(map(_misspelled, old, new))
    changed = [*old, *new]
    return not any(word in _DENIALS or _has_digit(word) for word in changed)


def _misspelled(one: str, two: str) -> bool:
    """Whether two words are one letter apart, or two letters stand the other way round."""
    if min(len(one), len(two)) < LEAST_LETTERS or _has_digit(one) or _has_digit(two):
        return False
    if one[0] != two[0]:
        return False
    if len(one) == len(two):
        wrong = [n for n in range(len(one)) if one[n] != two[n]]
        if len(wrong) == 1:
            return True
        swapped = len(wrong) == 2 and wrong[1] == wrong[0] + 1
        return swapped and one[wrong[0]] == two[wrong[1]] and one[wrong[1]] == two[wrong[0]]
    short, long = sorted((one, two), key=len)
    return len(long) == len(short) + 1 and any(
        long[:n] + long[n + 1 :] == short for n in range(len(long))
    )


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))
