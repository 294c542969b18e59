"""The comparisons of an audit: each takes rows of both sides and gives checks with estimates."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.audits.checks import (
    Check,
    Estimate,
    held,
    one_share,
    share_difference,
    share_ratio,
    standardised,
)
from rlaif.audits.halves import compare, sampled
from rlaif.audits.rows import AuditRow
from rlaif.audits.thresholds import Thresholds
from rlaif.evaluation.style import measure_style
from rlaif.stages.diversity import diversity, matched
from rlaif.stages.languages import language_of
from rlaif.stages.near_duplicates import Fields, near_duplicates
from rlaif.stages.novelty import words
from rlaif.stages.slices import slice_values
from rlaif.stages.tails import kept, tail

Found = list[tuple[Check, Estimate]]
LEAST_TEXTS = 20
NEAR = 0.9
LEAST_SLICE = 10
LEAST_WORDS = 8
"""Shorter texts, such as yes and no, may well be said often."""
TAILS = {"vocabulary tail (words)": 1, "vocabulary tail (pairs)": 2, "vocabulary tail (triples)": 3}


def texts_of(rows: Sequence[AuditRow], places: Sequence[int]) -> list[str]:
    """The texts of some rows."""
    return [text for i in places for text in rows[i].texts]


def losses(
    data: Sequence[AuditRow],
    reference: Sequence[AuditRow],
    limits: Thresholds,
    vectors: tuple[list[NDArray[Any]], list[NDArray[Any]]] | None = None,
) -> Found:
    """Diversity and tails, at equal length.

    Args:
        vectors: embeddings of each row's texts, for their spread.
    """
    if vectors is None:
        data, reference = sampled(data, limits.seed), sampled(reference, limits.seed + 1)

    def measure(
        ours: list[int], theirs: list[int], others: list[int], seed: int
    ) -> dict[str, tuple[float, float]]:
        one, two = matched(texts_of(data, ours), texts_of(reference, theirs), seed)
        now, then = (diversity(side, seed).variety for side in (one, two))
        found = {f"diversity by {name}": (now[name], then[name]) for name in now}
        split = [[words(text) for text in side] for side in (one, two)]
        rest = [words(text) for text in texts_of(reference, others)]
        for name, n in TAILS.items():
            rare = tail(rest, n)
            found[name] = (kept(split[0], rare, n), kept(split[1], rare, n))
        if vectors is not None:
            found["diversity by embedding"] = (
                _spread(vectors[0], ours), _spread(vectors[1], theirs)
            )  # fmt: skip
        return found

    compared = compare(len(data), len(reference), measure, limits.seed)
    made = []
    for name, c in compared.items():
        rare = name in TAILS
        limit = limits.tail_floor if rare else limits.floor
        check = Check(
            name, "tail" if rare else "diversity", 0, 0, 0, c.data, c.reference, limit
        )  # fmt: skip
        made.append(held(check, Estimate(c.ratio, c.error, False)))
    return made


def _spread(vectors: list[NDArray[Any]], places: Sequence[int]) -> float:
    """Mean cosine distance between two of the texts: one minus the squared length of the mean of
    unit vectors, without the distances of texts to themselves.
    """
    units = np.concatenate([vectors[i] for i in places])
    n = len(units)
    if n < 2:
        return 0.0
    total = float((units.sum(axis=0) ** 2).sum())
    return 1.0 - (total - n) / (n * (n - 1))


def repeats(
    data: Sequence[AuditRow], reference: Sequence[AuditRow] | None, limits: Thresholds
) -> Found:
    """Near-duplicates between rows, and the text that is said most."""
    data = sampled(data, limits.seed)
    if reference is not None:
        reference = sampled(reference, limits.seed + 1)
        # There are the more duplicates the more texts there are.
        count = min(len(data), len(reference))
        data, reference = (
            random.Random(limits.seed).sample(list(side), count) for side in (data, reference)
        )
    found: Found = []
    if reference is None:
        # Answers alone may well be alike; rows that ask and answer the same are duplicates.
        ours = _repeated(data, with_prompt=True)
        check = Check(
            "the share of rows that repeat another", "duplicates", 0, 0, 0, ours / len(data), None,
            limits.duplicates_alone, least=False, unit="share of the rows",
        )  # fmt: skip
        found.append(held(check, one_share(ours, len(data))))
    else:
        ours, theirs = _repeated(data), _repeated(reference)
        check = Check(
            "the share of near-duplicates", "duplicates", 0, 0, 0, ours / len(data),
            theirs / len(reference), limits.duplicates, least=False,
            unit="share of the rows more than in the reference",
        )  # fmt: skip
        found.append(held(check, share_difference(ours, len(data), theirs, len(reference))))
    said = Counter(
        text
        for row in data
        for text in {" ".join(text.split()) for text in row.texts}
        if len(text.split()) >= LEAST_WORDS
    )
    most = max(said.values(), default=0)
    check = Check(
        "the text that is said most", "duplicates", 0, 0, 0, most / len(data), None,
        limits.same_text, least=False, unit="share of the rows",
    )  # fmt: skip
    found.append(held(check, one_share(most, len(data))))
    return found


def _repeated(rows: Sequence[AuditRow], *, with_prompt: bool = False) -> int:
    """Rows that are near-duplicates of an earlier one."""
    fields = [
        Fields(row.prompt if with_prompt else "", "\n".join(sorted(row.texts))) for row in rows
    ]
    return len(near_duplicates(fields, NEAR))


def drifts(
    data: Sequence[AuditRow],
    reference: Sequence[AuditRow],
    limits: Thresholds,
    attributes: Mapping[str, tuple[list[float], list[float]]],
) -> Found:
    """Tone, format and the user's attributes, each a mean of a row's texts."""
    sides = [[_style(row) for row in rows] for rows in (data, reference)]
    features = {name: tuple([s[name] for s in side] for side in sides) for name in sides[0][0]}
    found: Found = []
    for name, (ours, theirs) in {**features, **attributes}.items():
        estimate = standardised(ours, theirs)
        if estimate is None:
            continue
        check = Check(
            name, "drift", 0, 0, 0, float(np.nanmean(ours)), float(np.nanmean(theirs)),
            limits.drift, least=estimate.value < 0, unit="standard deviations of the reference",
        )  # fmt: skip
        if estimate.value < 0:
            check = Check(**{**vars(check), "limit": -limits.drift})
        found.append(held(check, estimate))
    return found


def _style(row: AuditRow) -> dict[str, float]:
    found = [measure_style([{"role": "assistant", "content": text}]) for text in row.texts]
    said = [text for text in row.texts if text.strip()]
    questions = [text.count("?") / max(len(words(text)), 1) for text in said]
    sentences = [len(words(t)) / max(sum(t.count(c) for c in ".!?") or 1, 1) for t in said]
    per_word = {
        name: float(np.mean([f[name] / max(f["length"], 1.0) for f in found]))
        for name in ("markdown", "assertive")
    }
    return {
        "length in words": float(np.mean([f["length"] for f in found])),
        "format (markdown marks a word)": per_word["markdown"],
        "tone (assertive phrases a word)": per_word["assertive"],
        "tone (question marks a word)": float(np.mean(questions)) if said else 0.0,
        "format (words a sentence)": float(np.mean(sentences)) if said else 0.0,
    }


def slices(
    data: Sequence[AuditRow],
    reference: Sequence[AuditRow],
    limits: Thresholds,
    columns: Sequence[str],
) -> Found:
    """Slices of the reference that have shrunk: tags, languages, and columns by name."""
    found: Found = []
    readers: dict[str, Callable[[AuditRow], list[str]]] = {
        "tag": lambda row: sorted(row.tags),
        "language": lambda row: [language_of(row.texts[0])],
    }
    for column in columns:
        readers[column] = lambda row, c=column: slice_values(row.raw, c)  # type: ignore[misc]
    for kind, values in readers.items():
        ours, theirs = (
            Counter(v for row in side for v in set(values(row))) for side in (data, reference)
        )
        if kind == "tag" and not ours:
            continue
        for value, there in sorted(theirs.items()):
            if there < LEAST_SLICE or there == len(reference) == theirs.total():
                continue
            here = ours[value]
            check = Check(
                f"slice {kind}:{value}", "slices", 0, 0, 0, here / len(data),
                there / len(reference), limits.slice_floor,
                unit="of its share in the reference",
            )  # fmt: skip
            found.append(held(check, share_ratio(here, len(data), there, len(reference))))
    return found


def perplexities(ours: Sequence[float], theirs: Sequence[float], limits: Thresholds) -> Found:
    """Perplexity over the reference's, from negative log-likelihoods of rows in nats a token."""
    one, two = (side[np.isfinite(side)] for side in map(np.asarray, (ours, theirs)))
    if min(len(one), len(two)) < 2:
        return []
    error = float(np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two)))
    estimate = Estimate(float(one.mean() - two.mean()), error, True)
    low = estimate.value < 0
    check = Check(
        "perplexity", "perplexity", 0, 0, 0, float(np.exp(one.mean())), float(np.exp(two.mean())),
        limits.perplexity_low if low else limits.perplexity_high, least=low,
    )  # fmt: skip
    return [held(check, estimate)]
