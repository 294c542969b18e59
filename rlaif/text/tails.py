"""The tail of a vocabulary: what rare words and runs of words a set of texts still has.

Models that learn from model output lose the tail first (Shumailov et al. 2024, Nature 631).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

TAIL_MASS = 0.2


def tail(split: Sequence[Sequence[str]], n: int, mass: float = TAIL_MASS) -> frozenset[str]:
    """The rarest runs of `n` words, that together make up `mass` of all runs.

    Runs that are equally rare are in it or out of it together.
    """
    counts = Counter(gram for text in split for gram in _grams(text, n))
    by_count = Counter(counts.values())
    budget, most = mass * counts.total(), 1
    for count in sorted(by_count):
        budget -= count * by_count[count]
        if budget < 0:
            break
        most = count
    return frozenset(gram for gram, count in counts.items() if count <= most)


def kept(split: Sequence[Sequence[str]], rare: frozenset[str], n: int) -> float:
    """How many different runs of a tail a set of texts has, for each of its runs; 0 for none."""
    total, found = 0, set()
    for text in split:
        for gram in _grams(text, n):
            total += 1
            if gram in rare:
                found.add(gram)
    return len(found) / total if total else 0.0


def _grams(text: Sequence[str], n: int) -> Iterator[str]:
    return (" ".join(text[i : i + n]) for i in range(len(text) - n + 1))
