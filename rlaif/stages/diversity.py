"""How varied a set of texts is, measured so that two sets can be compared.

Every measure grows or falls with the amount of text, so compare sets of equal length: `matched`
cuts two sets down to the same number of texts and words.
"""

from __future__ import annotations

import math
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.stages.novelty import words

LONG_RUN = 6
MOST_FOR_BLEU = 100


@dataclass(frozen=True)
class Diversity:
    """Three measures; for each, lower is more varied.

    Attributes:
        compression_ratio: size over compressed size (Shaib et al. 2024, arXiv:2403.00553).
        self_repetition: share of the runs of six words that occur in another text as well (after
            Salkar et al. 2022, on self-repetition).
        self_bleu: mean BLEU-4 of a text against the others (Zhu et al. 2018, arXiv:1802.01886).
    """

    compression_ratio: float
    self_repetition: float
    self_bleu: float


def diversity(texts: Sequence[str], seed: int = 0) -> Diversity:
    """Measure a set of texts; at most `MOST_FOR_BLEU`, drawn by `seed`, enter self-BLEU."""
    split = [words(text) for text in texts]
    sample = split
    if len(split) > MOST_FOR_BLEU:
        sample = random.Random(seed).sample(split, MOST_FOR_BLEU)
    return Diversity(compression_ratio(texts), self_repetition(split), self_bleu(sample))


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


def self_bleu(split: Sequence[Sequence[str]]) -> float:
    """Mean BLEU of each text with all others as references; 0 for fewer than two texts."""
    full = [text for text in split if text]
    if len(full) < 2:
        return 0.0
    return sum(
        bleu(t, [o for j, o in enumerate(full) if j != i]) for i, t in enumerate(full)
    ) / len(full)


def bleu(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of one text (Papineni et al. 2002), one added to each count above the unigrams
    (Lin and Och 2004), so that a short text is not zero.
    """
    logs = []
    for n in range(1, min(4, len(candidate)) + 1):
        own = _grams(candidate, n)
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, n)
        hits, total = (own & most).total(), own.total()
        smooth = int(n > 1)
        if hits + smooth == 0:
            return 0.0
        logs.append(math.log((hits + smooth) / (total + smooth)))
    closest = min((len(r) for r in references), key=lambda m: (abs(m - len(candidate)), m))
    penalty = min(0.0, 1.0 - closest / len(candidate))
    return math.exp(penalty + sum(logs) / len(logs))


def _grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
