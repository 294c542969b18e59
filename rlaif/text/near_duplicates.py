"""Finds near-duplicates among many texts without comparing all of them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif.text.duplicates import shingles, words_and_signs
from rlaif.text.edits import LEAST_WORDS, differ_little, edits_allowed

SHORT = 10
EDITED = 0.9


@dataclass(frozen=True)
class TextFields:
    """A row as two texts that must both be near: what was asked, and what was answered.

    Attributes:
        answers: of how many completions `answer` consists.
    """

    prompt: str
    answer: str
    answers: int = 1


def near_duplicates(rows: Sequence[TextFields], threshold: float) -> dict[int, int]:
    """Rows that are near-duplicates of an earlier kept one, with the number of that one.

    Two rows are near-duplicates if the Jaccard index of their runs of three words (Broder 1997) is
    `threshold` or more, for the prompt and for the answer; at 1 only equal texts are.  So are texts
    of ten words or more that differ in at most a tenth of their words, and in no number: a word
    replaced takes three runs with it, which is too many in a short text.  Where the answer is short
    (`SHORT` runs), prompts must have the same runs: many rows ask different things by one long
    template, and are answered in a word.  Exact: rows that share none of their rarest runs can't be
    that near (prefix filtering, Chaudhuri et al. 2006), and only others are compared.
    """
    read = _hashes if threshold < 1.0 else _whole
    similarity = max(threshold, EDITED)
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
        shared = math.ceil(threshold * len(key) - 1e-9)
        # A word taken out ends three runs, and one put in elsewhere two.
        shared = min(shared, len(key) - 5 * _edits(rows[i], similarity))
        prefix = rarest[: len(key) - max(shared, 1) + 1]
        candidates = {j for h in prefix for j in places.get(h, ())}
        first = None
        for j in sorted(candidates):
            exact = bool(rows[i].answer) and len(answers[i]) < SHORT
            if (
                _near(answers[i], answers[j], threshold)
                or _edited(rows[i].answer, rows[j].answer, similarity, rows[i].answers)
            ) and (
                _near(prompts[i], prompts[j], 1.0 if exact else threshold)
                or (not exact and _edited(rows[i].prompt, rows[j].prompt, similarity))
            ):
                first = j
                break
        if first is not None:
            found[i] = first
            continue
        for h in prefix:
            places.setdefault(h, []).append(i)
    return found


def _edits(row: TextFields, similarity: float) -> int:
    """How many words of a row may differ at most, prompt and answer together."""
    prompt, answer = (len(words_and_signs(text)) for text in (row.prompt, row.answer))
    return edits_allowed(prompt, similarity) + (
        row.answers * edits_allowed(answer // row.answers, similarity)
    )


def _edited(one: str, two: str, similarity: float, parts: int = 1) -> bool:
    if similarity >= 1.0:
        return False
    first, second = words_and_signs(one), words_and_signs(two)
    least = LEAST_WORDS * parts
    return min(len(first), len(second)) >= least and differ_little(first, second, similarity)


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
