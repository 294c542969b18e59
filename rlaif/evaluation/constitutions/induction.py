"""Principles from preferences: the few questions that explain what people preferred.

Inverse constitutional AI (Findeis et al. 2024, arXiv:2406.06560): a model proposes, near-duplicates
are merged, a judge applies every candidate to the labeled pairs, and what does not reconstruct
the labels of pairs kept aside is dropped.  Pure functions; asking is the caller's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rlaif.evaluation.bias.findings import mean_test
from rlaif.evaluation.outcomes import Floats, Outcomes
from rlaif.evaluation.stats.resampling import Estimate, holm, mean_with_interval
from rlaif.records import CLEAR
from rlaif.text.novelty import rouge_l, words
from rlaif.util.hashing import digest

SAME = 0.7
"Minimum ROUGE-L to merge two questions (Self-Instruct's threshold for prompts)."
LEAST_GAIN = 0.005
LEAST_OPINIONS = 10
_QUESTION = re.compile(r"\bwhich (?:response|answer)\b[^?\n]{3,240}\?", re.IGNORECASE)
_EMPTY = {
    "which",
    "response",
    "answer",
    "is",
    "the",
    "a",
    "an",
    "does",
    "has",
    "to",
    "of",
    "more",
    "better",
    "it",
    "its",
    "and",
    "in",
}


@dataclass(frozen=True)
class ProposedPrinciple:
    """A proposed principle and how often it was proposed, in whatever words."""

    id: str
    question: str
    proposed: int


def read_question(text: str) -> str | None:
    """The question in what a model wrote; None where there is none of the form asked for."""
    found = _QUESTION.search(" ".join(text.split()))
    if found is None:
        return None
    question = found.group().strip()
    return question[0].upper() + question[1:]


def merge(questions: Sequence[str], most: int) -> list[ProposedPrinciple]:
    """The `most` questions proposed most often, near-duplicates counted together.

    The wording that stands for a group is the one proposed most often in it.
    """
    groups: list[list[str]] = []
    for question in questions:
        own = words(question)
        for group in groups:
            if rouge_l(own, words(group[0])) >= SAME:
                group.append(question)
                break
        else:
            groups.append([question])
    groups.sort(key=len, reverse=True)
    found: list[ProposedPrinciple] = []
    taken: set[str] = set()
    for group in groups[:most]:
        question = Counter(group).most_common(1)[0][0]
        identity = _identity(question, taken)
        taken.add(identity)
        found.append(ProposedPrinciple(identity, question, len(group)))
    return found


def _identity(question: str, taken: set[str]) -> str:
    kept = [w for w in words(question) if w.isascii() and w not in _EMPTY][:4]
    base = "-".join(kept) or "principle"
    name, n = base[:60], 2
    while name in taken:
        name, n = f"{base[:56]}-{n}", n + 1
    return name


def parts(groups: Sequence[str], seed: int = 0) -> NDArray[np.int64]:
    """Where each pair goes, by the name of its group: 0 to learn from (half), 1 to check what was
    learned (a quarter), 2 to report on (a quarter).
    """
    drawn = {g: int(digest(["induce", seed, g])[:8], 16) % 4 for g in set(groups)}
    return np.array([max(0, drawn[g] - 1) for g in groups], dtype=np.int64)


@dataclass(frozen=True)
class KeptPrinciple:
    """A kept principle.

    Attributes:
        accuracy: on pairs of the last part on which it has a clear opinion.
        opinions: share of that part on which it has one.
        examples: places of pairs of the other part that it decides rightly, the clearest first.
    """

    candidate: ProposedPrinciple
    accuracy: Estimate
    opinions: float
    examples: list[int]


@dataclass(frozen=True)
class Induction:
    """What was kept and what was not.

    Attributes:
        accuracy: of all kept principles together, on pairs that decided nothing.
        dropped: the other candidates, each with the reason.
    """

    kept: list[KeptPrinciple]
    accuracy: Estimate
    dropped: list[tuple[ProposedPrinciple, str]]


def select(
    candidates: Sequence[ProposedPrinciple],
    outcomes: Outcomes,
    label: NDArray[np.int64],
    groups: Sequence[str],
    *,
    most: int = 8,
    seed: int = 0,
) -> Induction:
    """Keep the candidates that help to reconstruct the labels.

    On half of the data: those that agree with people more often than chance (one-sided t-test over
    prompts, Holm's correction) are added one by one, each time the one that raises the accuracy of
    all together most.  On a quarter: each must be right more often than not.  On the last quarter,
    which decided nothing: what is reported.

    Args:
        outcomes: of a constitution with a principle for every candidate, by its id.
        label: 1, 0 or -1; ties are left out.

    Long because forward selection keeps its state in one place.
    """
    part = parts(groups, seed)
    learn, check, test = ((label != 0) & (part == k) for k in range(3))
    signs = {
        c.id: np.nan_to_num(np.tanh(outcomes.principles[c.id].logits / 2.0)) for c in candidates
    }
    dropped: list[tuple[ProposedPrinciple, str]] = []
    tested: list[tuple[ProposedPrinciple, float, int, int]] = []
    for c in candidates:
        clear = learn & (np.abs(signs[c.id]) >= CLEAR)
        n = int(clear.sum())
        if n < LEAST_OPINIONS:
            dropped.append((c, f"has a confident verdict on only {n} pairs"))
        else:
            right, p = _right(signs[c.id], label, clear, groups)
            tested.append((c, p, int(right.sum()), n))
    good: list[ProposedPrinciple] = []
    if tested:
        passed = [p <= 0.05 for p in holm([p for _, p, _, _ in tested])]
        for (c, _, hits, n), fine in zip(tested, passed, strict=True):
            if fine:
                good.append(c)
            else:
                dropped.append(
                    (
                        c,
                        (
                            f"agrees with humans on {100 * hits / n:.0f}% of {n} pairs; may "
                            "be chance"
                        ),
                    )
                )
    chosen = _greedy(good=good, signs=signs, label=label, learn=learn, most=most)
    for c in good:
        if c not in chosen:
            dropped.append((c, "adds nothing to the principles that were kept"))
    kept = []
    for c in chosen:
        clear = check & (np.abs(signs[c.id]) >= CLEAR)
        right, p = _right(signs[c.id], label, clear, groups)
        if p >= 0.05:
            held = f"{int(right.sum())} of {len(right)}"
            dropped.append((c, f"does not hold on held-out pairs: correct on {held}"))
            continue
        clear = test & (np.abs(signs[c.id]) >= CLEAR)
        right, _ = _right(signs[c.id], label, clear, groups)
        found = mean_with_interval(right, _of(groups, clear))
        examples = np.flatnonzero(learn & (np.sign(signs[c.id]) == label))
        clearest = examples[np.argsort(-np.abs(signs[c.id][examples]), kind="stable")]
        opinions = float(clear.sum() / max(1, test.sum()))
        kept.append(KeptPrinciple(c, found, opinions, [int(i) for i in clearest]))
    whole = credit_of([signs[k.candidate.id] for k in kept], label)[test]
    return Induction(kept, mean_with_interval(whole, _of(groups, test)), dropped)


def _of(groups: Sequence[str], where: NDArray[np.bool_]) -> list[str]:
    return [groups[i] for i in np.flatnonzero(where)]


def _right(
    signs: Floats, label: NDArray[np.int64], where: NDArray[np.bool_], groups: Sequence[str]
) -> tuple[Floats, float]:
    """Where a candidate is right (1) or wrong (0), and the one-sided p-value against chance; pairs
    of one prompt count once.
    """
    right = (np.sign(signs[where]) == label[where]).astype(np.float64)
    if not len(right):
        return right, 1.0
    mean, _, _, p = mean_test(right - 0.5, _of(groups, where), symmetric=True)
    return right, p / 2.0 if mean > 0 else 1.0 - p / 2.0


def _greedy(
    good: Sequence[ProposedPrinciple],
    signs: Mapping[str, Floats],
    label: NDArray[np.int64],
    learn: NDArray[np.bool_],
    most: int,
) -> list[ProposedPrinciple]:
    chosen: list[ProposedPrinciple] = []
    best = 0.5
    while len(chosen) < most:
        scored = [
            (float(credit_of([signs[k.id] for k in [*chosen, c]], label)[learn].mean()), -i, c)
            for i, c in enumerate(good)
            if c not in chosen
        ]
        if not scored:
            break
        accuracy, _, c = max(scored)
        if accuracy < best + LEAST_GAIN:
            break
        chosen.append(c)
        best = accuracy
    return chosen


def credit_of(signs: Sequence[Floats], label: NDArray[np.int64]) -> Floats:
    """1 where principles of equal weight, pooled as a tier's are, side with people; one half where
    with nobody.
    """
    if not signs:
        return np.full(len(label), 0.5)
    stacked = np.stack(signs)
    said = [np.maximum(side * stacked, 0.0) for side in (1, -1)]
    total = np.maximum(sum(side.sum(axis=0) for side in said), 1e-12)
    ours, theirs = (side.max(axis=0) * (side.sum(axis=0) / total) for side in said)
    opinion = ours - theirs
    return np.where(np.abs(opinion) < 0.05, 0.5, (np.sign(opinion) == label).astype(np.float64))


def constitution_yaml(
    name: str, found: Sequence[KeptPrinciple], pairs: Sequence[Mapping[str, Any]], header: str
) -> str:
    """A draft constitution: each principle with its measured accuracy and two examples.

    Args:
        pairs: the labeled pairs, by place, as rows.
    """
    lines = [f"# {line}" for line in header.splitlines()]
    lines += ["schema: 1", f"name: {name}", 'version: "0.1.0"', "principles:"]
    for k in found:
        lines.append(
            f"  # Agrees with humans on {k.accuracy} of the held-out pairs on which it "
            f"has a confident verdict ({100 * k.opinions:.0f}% of them); proposed "
            f"{k.candidate.proposed} times."
        )
        principle = {
            "id": k.candidate.id,
            "preference": k.candidate.question,
            "examples": [_example(pairs[i]) for i in _short(k.examples, pairs)],
        }
        if not principle["examples"]:
            del principle["examples"]
        text = yaml.safe_dump([principle], sort_keys=False, allow_unicode=True, width=96)
        lines += [f"  {line}" for line in text.rstrip().splitlines()]
    return "\n".join(lines) + "\n"


def _short(places: Sequence[int], pairs: Sequence[Mapping[str, Any]]) -> list[int]:
    """The two clearest examples that are short enough to read."""

    def size(i: int) -> int:
        return sum(
            len(m["content"])
            for key in ("prompt", "response_a", "response_b")
            for m in pairs[i][key]
        )

    return [
        i
        for i in places
        if size(i) <= 1500 and len(pairs[i]["response_a"]) == 1 and len(pairs[i]["response_b"]) == 1
    ][:2]


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    sides = (row["response_a"], row["response_b"])
    chosen, rejected = sides if row["label"] == "a" else sides[::-1]
    prompt = row["prompt"]
    plain = len(prompt) == 1 and prompt[0]["role"] == "user"
    return {
        "prompt": prompt[0]["content"] if plain else [dict(m) for m in prompt],
        "chosen": chosen[-1]["content"],
        "rejected": rejected[-1]["content"],
    }
