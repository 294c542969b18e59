"""The comparisons of an audit: each takes rows of both sides and gives checks with estimates."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaif.audits.checks import (
    AuditCheck,
    ScaledEstimate,
    held,
    one_share,
    share_difference,
    share_ratio,
    standardized,
)
from rlaif.audits.half_sampling import compare_halves, sampled
from rlaif.audits.rows import AuditRow
from rlaif.audits.thresholds import Thresholds
from rlaif.data.languages import language_of
from rlaif.data.slices import slice_values
from rlaif.evaluation.bias.style import measure_style
from rlaif.text.diversity import diversity, matched
from rlaif.text.near_duplicates import TextFields, near_duplicates
from rlaif.text.novelty import words
from rlaif.text.tails import kept, tail

Found = list[tuple[AuditCheck, ScaledEstimate]]
LEAST_TEXTS = 20
NEAR = 0.9
LEAST_SLICE = 10
LEAST_WORDS = 8
"""Shorter texts, such as yes and no, may well be said often."""
MOST_SHORT = 0.9
"""But not nearly always."""
MOST_COMPARED = 20_000
LEAST_RARE = 20
"""Rare runs in a half of the reference from which a tail is compared."""
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

    Long because it is a list of checks, each with its own limit and wording.
    """
    # A text that the reference has twice must not be in the half that says what is rare and in the
    # one that is measured by it.
    places = [_together(data, texts=False), _together(reference, texts=True)]
    # Too few prompts to draw from: rows are drawn, as if each had one of its own.  What is rare
    # depends on what was asked, so that tails are not compared then.
    few = min(map(len, places)) < LEAST_TEXTS
    if few:
        places = [
            _together(data, prompts=False, texts=False),
            _together(reference, prompts=False, texts=True),
        ]
    if min(map(len, places)) < LEAST_TEXTS:
        return []

    def measure(
        our_prompts: list[int], their_prompts: list[int], other_prompts: list[int], seed: int
    ) -> dict[str, tuple[float, float]]:
        ours = [i for p in our_prompts for i in places[0][p]]
        theirs, others = (
            [i for p in prompts for i in places[1][p]] for prompts in (their_prompts, other_prompts)
        )
        one, two = matched(texts_of(data, ours), texts_of(reference, theirs), seed)
        now, then = (diversity(side, seed).variety for side in (one, two))
        split = [[words(text) for text in side] for side in (one, two)]
        length = sum(map(len, split[1])) / max(len(split[1]), 1)
        found = {
            f"diversity by {name}": (now[name], then[name])
            for name in now
            if length >= LEAST_WORDS or name not in ("self repetition", "self bleu")
        }
        rest = [words(text) for text in texts_of(reference, others)]
        for name, n in () if few else TAILS.items():
            rare = tail(rest, n)
            now_kept, then_kept = (kept(side, rare, n) for side in split)
            runs = sum(max(len(text) - n + 1, 0) for text in split[1])
            if then_kept * runs >= LEAST_RARE:
                found[name] = (now_kept, then_kept)
        if vectors is not None:
            found["diversity by embedding"] = (
                _spread(vectors[0], ours),
                _spread(vectors[1], theirs),
            )
        return found

    compared = compare_halves(len(places[0]), len(places[1]), measure, limits.seed)
    made = []
    for name, c in compared.items():
        rare = name in TAILS
        limit = limits.tail_floor if rare else limits.floor
        check = AuditCheck(
            name=name,
            group="tail" if rare else "diversity",
            value=0,
            low=0,
            high=0,
            data=c.data,
            reference=c.reference,
            limit=limit,
        )
        made.append(held(check, ScaledEstimate(c.ratio, c.error, False)))
    return made


def _together(rows: Sequence[AuditRow], *, prompts: bool = True, texts: bool) -> list[list[int]]:
    """Places of the rows of each prompt and of each text: they hang together, and are drawn
    together.
    """
    units: dict[tuple[str, str], int] = {}
    found: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        keys = [("prompt", row.prompt)] if prompts else []
        keys += [("text", " ".join(text.split())) for text in row.texts if texts]
        met = sorted({units[key] for key in keys if key in units})
        unit = met[0] if met else i
        found.setdefault(unit, []).append(i)
        for other in met[1:]:
            found[unit] += found.pop(other)
            units = {key: unit if value == other else value for key, value in units.items()}
        units.update(dict.fromkeys(keys, unit))
    return list(found.values())


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


def _duplicates(
    name: str, data: float, reference: float | None, *, limit: float, unit: str
) -> AuditCheck:
    """A check that trips above its limit; `held` puts the interval in."""
    return AuditCheck(
        name=name,
        group="duplicates",
        value=0,
        low=0,
        high=0,
        data=data,
        reference=reference,
        limit=limit,
        least=False,
        unit=unit,
    )


def repeats(
    data: Sequence[AuditRow], reference: Sequence[AuditRow] | None, limits: Thresholds
) -> Found:
    """Rows that repeat others, and the text that is said most, by weight."""
    found: Found = []
    # Answers alone may well be alike; rows that ask and answer the same are duplicates.
    some = sampled(data, limits.seed, MOST_COMPARED)
    ours = len(
        near_duplicates([TextFields(r.prompt, "\n".join(sorted(r.texts))) for r in some], NEAR)
    )
    alone, unit = limits.duplicates_alone, "share of the rows"
    check = _duplicates("duplicate row share", ours / len(some), None, limit=alone, unit=unit)
    found.append(held(check, one_share(ours, len(some))))
    if reference is not None:
        # There are the more duplicates the more texts there are: as many of each, one a row.
        there = sampled(reference, limits.seed + 1, MOST_COMPARED)
        count = min(len(some), len(there))
        mine, others = (_repeated(side, count, limits.seed) for side in (some, there))
        check = _duplicates(
            "near-duplicate share",
            mine / count,
            others / count,
            limit=limits.duplicates,
            unit=f"{unit} more than in the reference",
        )
        found.append(held(check, share_difference(mine, count, others, count)))
    else:
        said = [" ".join(row.texts[0].split()) for row in some]
        long = [text for text in said if len(text.split()) >= LEAST_WORDS]
        again = len(long) - len(set(long))
        name = "repeated completion share"
        check = _duplicates(name, again / len(some), None, limit=alone, unit=unit)
        found.append(held(check, one_share(again, len(some))))
    found += _said_most(data, reference, limits)
    return found


def _repeated(rows: Sequence[AuditRow], count: int, seed: int) -> int:
    """Texts that are near-duplicates of another row's: one drawn of each of `count` rows."""
    rng = random.Random(seed)
    drawn = rng.sample(list(rows), count)
    return len(near_duplicates([TextFields("", rng.choice(row.texts)) for row in drawn], NEAR))


def _said_most(
    data: Sequence[AuditRow], reference: Sequence[AuditRow] | None, limits: Thresholds
) -> Found:
    ours = _weights(data)
    text = max(ours, key=lambda t: ours[t] * (1.0 if len(t.split()) >= LEAST_WORDS else 0.2))
    total = sum(ours.values())
    share = ours[text] / total if total else 0.0
    # As many rows as weigh about the same: what one heavy row says is said once, and heavily.
    count = len(data)
    hits = round(share * count)
    unit, limit = "share of the rows, by weight", limits.same_text
    estimate, there = one_share(hits, count), None
    if reference is not None:
        theirs = _weights(reference)
        there = theirs.get(text, 0.0) / (sum(theirs.values()) or 1.0)
        estimate = share_difference(hits, count, round(there * len(reference)), len(reference))
        unit = "share of the rows, by weight, more than in the reference"
    elif len(text.split()) < LEAST_WORDS:
        limit = MOST_SHORT
    check = AuditCheck(
        name="the most common text",
        group="duplicates",
        value=0,
        low=0,
        high=0,
        data=share,
        reference=there,
        limit=limit,
        least=False,
        unit=unit,
    )
    return [held(check, estimate)]


def _weights(rows: Sequence[AuditRow]) -> dict[str, float]:
    """What each text weighs; texts of a row share its weight."""
    found: dict[str, float] = {}
    for row in rows:
        for text in row.texts:
            key = " ".join(text.split())
            found[key] = found.get(key, 0.0) + row.weight / len(row.texts)
    return found


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
        estimate = standardized(ours, theirs)
        if estimate is None:
            continue
        check = AuditCheck(
            name=name,
            group="drift",
            value=0,
            low=0,
            high=0,
            data=float(np.nanmean(ours)),
            reference=float(np.nanmean(theirs)),
            limit=limits.drift,
            least=estimate.value < 0,
            unit="standard deviations of the reference",
        )
        if estimate.value < 0:
            check = AuditCheck(**{**vars(check), "limit": -limits.drift})
        found.append(held(check, estimate))
    return found


def drifts_by_slice(
    name: str,
    values: tuple[list[float], list[float]],
    where: tuple[list[list[str]], list[list[str]]],
    limits: Thresholds,
) -> Found:
    """An attribute's means in each slice of the reference that is large enough on both sides."""
    counts = [Counter(s for row in side for s in row) for side in where]
    found: Found = []
    for slice_ in sorted(counts[1]):
        if min(counts[0][slice_], counts[1][slice_]) < LEAST_SLICE or (
            counts[0][slice_] == len(where[0]) and counts[1][slice_] == len(where[1])
        ):
            continue
        ours, theirs = (
            [v for v, row in zip(own, side, strict=True) if slice_ in row]
            for own, side in zip(values, where, strict=True)
        )
        # In the standard deviations of the whole: a slice in which nothing varies has none.
        estimate = standardized(ours, theirs, values[1])
        if estimate is None:
            continue
        least = estimate.value < 0
        check = AuditCheck(
            name=f"{name} in {slice_}",
            group="drift",
            value=0,
            low=0,
            high=0,
            data=float(np.nanmean(ours)),
            reference=float(np.nanmean(theirs)),
            limit=-limits.drift if least else limits.drift,
            least=least,
            unit="standard deviations of the reference",
        )
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
        "format (Markdown marks per word)": per_word["markdown"],
        "tone (assertive phrases per word)": per_word["assertive"],
        "tone (question marks per word)": float(np.mean(questions)) if said else 0.0,
        "format (words per sentence)": float(np.mean(sentences)) if said else 0.0,
    }


def slices(
    data: Sequence[AuditRow],
    reference: Sequence[AuditRow],
    limits: Thresholds,
    columns: Sequence[str],
) -> Found:
    """Slices of the reference that have shrunk: tags, languages, and columns by name.

    What no row of the data says of itself is not compared: `audit` notes it.
    """
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
        if not ours:
            continue
        for value, there in sorted(theirs.items()):
            if there < LEAST_SLICE or there == len(reference) == theirs.total():
                continue
            here = ours[value]
            check = AuditCheck(
                name=f"slice {kind}:{value}",
                group="slices",
                value=0,
                low=0,
                high=0,
                data=here / len(data),
                reference=there / len(reference),
                limit=limits.slice_floor,
                unit="of its share in the reference",
            )
            found.append(
                held(
                    check,
                    share_ratio(
                        hits=here,
                        total=len(data),
                        others=there,
                        of=len(reference),
                        limit=limits.slice_floor,
                    ),
                )
            )
    return found


def perplexities(ours: Sequence[float], theirs: Sequence[float], limits: Thresholds) -> Found:
    """Perplexity over the reference's, from negative log-likelihoods of rows in nats a token."""
    one, two = (side[np.isfinite(side)] for side in map(np.asarray, (ours, theirs)))
    if min(len(one), len(two)) < 2:
        return []
    error = float(np.sqrt(one.var(ddof=1) / len(one) + two.var(ddof=1) / len(two)))
    estimate = ScaledEstimate(float(one.mean() - two.mean()), error, True)
    low = estimate.value < 0
    check = AuditCheck(
        name="perplexity",
        group="perplexity",
        value=0,
        low=0,
        high=0,
        data=float(np.exp(one.mean())),
        reference=float(np.exp(two.mean())),
        limit=limits.perplexity_low if low else limits.perplexity_high,
        least=low,
    )
    return [held(check, estimate)]
