"""Finds near-duplicates among many texts without comparing all of them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from rlaif.text.duplicates import shingles, words_and_signs
from rlaif.text.edits import differ_little, edits_allowed

SHORT = 10


@dataclass(frozen=True)
class TextFields:
    """A row as two texts that must both be near: what was asked, and what was answered.

    Attributes:
        parts: the completions of which `answer` consists, where there are several.
    """

    prompt: str
    answer: str
    parts: tuple[str, ...] = ()


def near_duplicates(
    rows: Sequence[TextFields], threshold: float, *, edited: bool = False
) -> dict[int, int]:
    """Rows that are near-duplicates of an earlier kept one, with the number of that one.

    Two rows are near-duplicates if the Jaccard index of their runs of three words (Broder 1997) is
    `threshold` or more, for the prompt and for the answer; at 1 only equal texts are.  Where the
    answer is short (`SHORT` runs), prompts must have the same runs: many rows ask different things
    by one long template, and are answered in a word.  Exact: rows that share none of their rarest
    runs can't be that near (prefix filtering, Chaudhuri et al. 2006), and only others are compared.

    Args:
        edited: whether texts of ten words or more are near, too, that differ in few words which
            leave the meaning alone (`edits.differ_little`): a word ends three runs, which is too
            many in a short text.
    """
    read = _hashes if threshold < 1.0 else _whole
    edited = edited and threshold < 1.0
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
        if edited:
            shared = min(shared, len(key) - _runs_lost(rows[i]))
        prefix = rarest[: len(key) - max(shared, 1) + 1]
        candidates = {j for h in prefix for j in places.get(h, ())}
        exact = bool(rows[i].answer) and len(answers[i]) < SHORT
        first = None
        for j in sorted(candidates):
            if not _near(answers[i], answers[j], threshold) and not (
                edited and _answers_edited(rows[i], rows[j])
            ):
                continue
            if _near(prompts[i], prompts[j], 1.0 if exact else threshold) or (
                edited and not exact and _edited(rows[i].prompt, rows[j].prompt)
            ):
                first = j
                break
        if first is not None:
            found[i] = first
            continue
        for h in prefix:
            places.setdefault(h, []).append(i)
    return found


def _runs_lost(row: TextFields) -> int:
    """How many runs of words edits may end at most: three by each word, and two between parts."""
    texts = [row.prompt, *(row.parts or (row.answer,))]
    edits = sum(edits_allowed(len(words_and_signs(text))) for text in texts)
    return 3 * edits + 2 * len(texts)


def _answers_edited(one: TextFields, two: TextFields) -> bool:
    """Whether each completion of one row is one of the other's, or an edit of it."""
    first, second = (row.parts or (row.answer,) for row in (one, two))
    return len(first) == len(second) and any(
        all(map(_edited, first, order)) for order in permutations(second)
    )


def _edited(one: str, two: str) -> bool:
    return differ_little(words_and_signs(one), words_and_signs(two))


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
