"""How varied a set of texts is, measured so that two sets can be compared.

Every measure grows or falls with the amount of text, so compare sets of equal length: `matched`
cuts two sets down to the same number of texts and words.
"""

from __future__ import annotations

import math
import random
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlaif.text.novelty import words

LONG_RUN = 6
MOST_FOR_BLEU = 500


@dataclass(frozen=True)
class Diversity:
    """Four measures; for all but the last, lower is more varied.

    Attributes:
        compression_ratio: size over compressed size (Shaib et al. 2024, arXiv:2403.00553).
        self_repetition: share of the runs of six words that occur in another text as well (after
            Salkar et al. 2022, on self-repetition).
        self_bleu: mean BLEU-4 of a text against the others (Zhu et al. 2018, arXiv:1802.01886).
        distinct: share of the pairs of words that are different (distinct-2, Li et al. 2016,
            arXiv:1510.03055).
    """

    compression_ratio: float
    self_repetition: float
    self_bleu: float
    distinct: float

    @property
    def variety(self) -> dict[str, float]:
        """Each as an amount that falls with diversity and is above 0 unless there is none."""
        return {
            "compression ratio": 1.0 / self.compression_ratio,
            "self repetition": 1.0 - self.self_repetition,
            "self bleu": 1.0 - self.self_bleu,
            "distinct pairs": self.distinct,
        }


def diversity(texts: Sequence[str], seed: int = 0) -> Diversity:
    """Measure a set of texts; at most `MOST_FOR_BLEU`, drawn by `seed`, enter self-BLEU."""
    split = [words(text) for text in texts]
    sample = split
    if len(split) > MOST_FOR_BLEU:
        sample = random.Random(seed).sample(split, MOST_FOR_BLEU)
    return Diversity(
        compression_ratio(texts), self_repetition(split), self_bleu(sample), distinct_pairs(split)
    )


def matched(one: Sequence[str], two: Sequence[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """As many texts of each, drawn by `seed`, each pair cut to the same number of words.

    Texts are paired by length, so that little is cut; what is kept lies anywhere in a text, since
    its opening is often the same as others'.
    """
    count = min(len(one), len(two))
    rng = random.Random(seed)
    sides = [
        sorted((text.split() for text in rng.sample(list(side), count)), key=len)
        for side in (one, two)
    ]
    cut = [min(len(a), len(b)) for a, b in zip(*sides, strict=True)]

    def window(text: list[str], length: int) -> str:
        start = rng.randint(0, len(text) - length)
        return " ".join(text[start : start + length])

    first, second = ([window(text, n) for text, n in zip(side, cut, strict=True)] for side in sides)
    return first, second


def compression_ratio(texts: Sequence[str]) -> float:
    """Bytes of all texts over bytes after DEFLATE; 1 for none."""
    data = "\n".join(texts).encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data, 9)) if data else 1.0


def self_repetition(split: Sequence[Sequence[str]]) -> float:
    """Share of long runs that more than one text has; 0 where no text is long enough."""
    owners: Counter[tuple[str, ...]] = Counter()
    runs = []
    for text in split:
        own = [tuple(text[i : i + LONG_RUN]) for i in range(len(text) - LONG_RUN + 1)]
        runs += own
        owners.update(set(own))
    return sum(owners[run] > 1 for run in runs) / len(runs) if runs else 0.0


def distinct_pairs(split: Sequence[Sequence[str]]) -> float:
    """Different pairs of neighboring words over all of them; 1 for none."""
    pairs = Counter(pair for text in split for pair in pairwise(text))
    return len(pairs) / pairs.total() if pairs else 1.0


def self_bleu(split: Sequence[Sequence[str]]) -> float:
    """Mean BLEU of each text with all others as references; 0 for fewer than two texts.

    What others have at most of a run is the highest count of all texts, or the second highest where
    the highest is the text's own: no text is compared with each other one.
    """
    full = [text for text in split if text]
    if len(full) < 2:
        return 0.0
    grams = [[_grams(text, n) for n in range(1, 5)] for text in full]
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for i, own in enumerate(grams):
        for counts in own:
            for gram, count in counts.items():
                highest, owner, second = most.get(gram, (0, -1, 0))
                if count > highest:
                    most[gram] = (count, i, highest)
                elif count > second:
                    most[gram] = (highest, owner, count)
    lengths = sorted(len(text) for text in full)
    total = 0.0
    for i, text in enumerate(full):
        hits = []
        for counts in grams[i][: min(4, len(text))]:
            shared = 0
            for gram, count in counts.items():
                highest, owner, second = most[gram]
                shared += min(count, second if owner == i else highest)
            hits.append((shared, counts.total()))
        total += _bleu(hits, len(text), _closest(lengths, len(text)))
    return total / len(full)


def _closest(lengths: Sequence[int], own: int) -> int:
    """The length of another text that is closest to a text's own, the shorter of two."""
    place = bisect_left(lengths, own)
    others = [lengths[k] for k in (place - 1, place + 1) if 0 <= k < len(lengths)]
    return min(others, key=lambda m: (abs(m - own), m))


def bleu(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of one text (Papineni et al. 2002), one added to each count above the unigrams
    (Lin and Och 2004), so that a short text is not zero.
    """
    hits = []
    for n in range(1, min(4, len(candidate)) + 1):
        own = _grams(candidate, n)
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, n)
        hits.append(((own & most).total(), own.total()))
    closest = min((len(r) for r in references), key=lambda m: (abs(m - len(candidate)), m))
    return _bleu(hits, len(candidate), closest)


def _bleu(hits: Sequence[tuple[int, int]], length: int, closest: int) -> float:
    """From (runs that occur in a reference, all runs) of each length, and the two lengths."""
    logs = []
    for n, (found, total) in enumerate(hits):
        smooth = int(n > 0)
        if found + smooth == 0:
            return 0.0
        logs.append(math.log((found + smooth) / (total + smooth)))
    penalty = min(0.0, 1.0 - closest / length)
    return math.exp(penalty + sum(logs) / len(logs))


def _grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
