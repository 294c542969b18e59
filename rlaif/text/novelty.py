"""Which new prompts say something new."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_SCRIPTS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts that put no spaces between words: each of their letters counts as one."""
_UNSPACED = re.compile(rf"[{_SCRIPTS}]")
_WORD = re.compile(rf"[{_SCRIPTS}]|[^\W{_SCRIPTS}]+")


def words(text: str) -> list[str]:
    """The words of a text, lower case."""
    return _WORD.findall(text.lower())


def is_unspaced(words: Sequence[str]) -> bool:
    """Whether most words are single letters of a script without spaces."""
    letters = sum(len(word) == 1 and _UNSPACED.match(word) is not None for word in words)
    return 2 * letters > len(words)


def common_subsequence(one: Sequence[str], two: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bit-parallel method of Hyyro (2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << i
    everything = (1 << len(one)) - 1
    rows = everything
    for word in two:
        match = rows & places.get(word, 0)
        rows = ((rows + match) | (rows - match)) & everything
    return len(one) - rows.bit_count()


def rouge_l(one: Sequence[str], two: Sequence[str]) -> float:
    """ROUGE-L F-measure of two lists of words (Lin 2004), from 0 to 1."""
    if not one or not two:
        return float(list(one) == list(two))
    return 2.0 * common_subsequence(one, two) / (len(one) + len(two))


class PromptPool:
    """Prompts so far; a new one must differ from all of them.

    Only prompts that share one of a new one's rarer words are compared with it.  A near-duplicate
    shares so many words that it can't do without all of those: exact, and spares some 97% of the
    comparisons (prefix filtering, Chaudhuri et al. 2006).

    Args:
        threshold: the ROUGE-L from which two prompts are near-duplicates (Self-Instruct: 0.7).
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._known: list[tuple[list[str], Counter[str]]] = []
        # A word that occurs twice in a prompt stands for two: (word, 0) and (word, 1).
        self._places: dict[tuple[str, int], list[int]] = {}
        self._wordless = False

    def add(self, text: str) -> None:
        """Take a prompt in without asking."""
        own = words(text)
        self._add(own, Counter(own))

    def admits(self, text: str) -> bool:
        """Whether a prompt differs enough; if so it is taken in."""
        own = words(text)
        bag = Counter(own)
        if not own:
            admitted = not self._wordless
        else:
            admitted = not any(
                self._near(own, bag, *self._known[i]) for i in self._candidates(own, bag)
            )
        if admitted:
            self._add(own, bag)
        return admitted

    def _add(self, own: list[str], bag: Counter[str]) -> None:
        for place in _numbered(bag):
            self._places.setdefault(place, []).append(len(self._known))
        self._known.append((own, bag))
        self._wordless |= not own

    def _candidates(self, own: list[str], bag: Counter[str]) -> set[int]:
        # ROUGE-L is 2 c / (n + m) with c shared words, and m >= c, so c >= n t / (2 - t).
        needed = math.ceil(len(own) * self._threshold / (2.0 - self._threshold) - 1e-9)
        rarest = sorted(_numbered(bag), key=lambda place: len(self._places.get(place, ())))
        found: set[int] = set()
        for place in rarest[: len(own) - needed + 1]:
            found.update(self._places.get(place, ()))
        return found

    def _near(
        self, own: list[str], bag: Counter[str], other: list[str], other_bag: Counter[str]
    ) -> bool:
        total = len(own) + len(other)
        # No subsequence is longer than the shorter text, nor than the words they share.
        if 2.0 * min(len(own), len(other)) < self._threshold * total:
            return False
        if 2.0 * (bag & other_bag).total() < self._threshold * total:
            return False
        return rouge_l(own, other) >= self._threshold


def _numbered(bag: Counter[str]) -> list[tuple[str, int]]:
    return [(word, i) for word, count in bag.items() for i in range(count)]
