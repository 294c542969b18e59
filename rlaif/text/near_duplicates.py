"""Finds near-duplicates among many texts without comparing all of them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.text.duplicates import shingles

SHORT = 10


@dataclass(frozen=True)
class TextFields:
    """A row as two texts that must both be near: what was asked, and what was answered."""

    prompt: str
    answer: str


def near_duplicates(rows: Sequence[TextFields], threshold: float) -> dict[int, int]:
    """Rows that are near-duplicates of an earlier kept one, with the number of that one.

    Two rows are near-duplicates if the Jaccard index of their runs of three words (Broder 1997) is
    `threshold` or more, for the prompt and for the answer; at 1 only equal texts are.  Where the
    answer is short (`SHORT` runs), prompts must have the same runs: many rows ask different things
    by one long template, and are answered in a word.  Exact: rows that share none of their rarest
    runs can't be that near (prefix filtering, Chaudhuri et al. 2006), and only others are compared.
    """
    read = _hashes if threshold < 1.0 else _whole
    prompts = [read(row.prompt) for row in rows]
    answers = [read(row.answer) for row in rows]
    # Near in both is near in both together: what tells rows apart may be in either.
    keys = [
        frozenset([*answer, *(~h for h in prompt)])
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    common: Counter[int] = Counter()
    for key in keys:
        common.update(key)
    places: dict[int, list[int]] = {}
    found: dict[int, int] = {}
    for i, key in enumerate(keys):
        rarest = sorted(key, key=lambda h: (common[h], h))
        # Two sets of Jaccard index t share at least t of the larger: what is left over is too few.
        prefix = rarest[: len(key) - math.ceil(threshold * len(key) - 1e-9) + 1]
        candidates = {j for h in prefix for j in places.get(h, ())}
        first = next(
            (
                j
                for j in sorted(candidates)
                if _near(answers[i], answers[j], threshold)
                and _near(
                    prompts[i],
                    prompts[j],
                    1.0 if rows[i].answer and len(answers[i]) < SHORT else threshold,
                )
            ),
            None,
        )
        if first is not None:
            found[i] = first
            continue
        for h in prefix:
            places.setdefault(h, []).append(i)
    return found


def _near(one: frozenset[int], two: frozenset[int], threshold: float) -> bool:
    small, large = sorted((len(one), len(two)))
    if not large:
        return True
    if small < threshold * large - 1e-9:
        return False
    shared = len(one & two)
    return shared >= threshold * (len(one) + len(two) - shared) - 1e-9


def _hashes(text: str) -> frozenset[int]:
    return frozenset(_hash(" ".join(run)) for run in shingles(text))


def _whole(text: str) -> frozenset[int]:
    return frozenset([_hash(" ".join(text.split()))])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
