"""A policy over a thousand texts that learns from those of its own samples that win.

Curating one's own samples collapses onto what wins most; a fraction of real data keeps the rest
(Ferbach et al. 2024, arXiv:2407.09499). What `rlaif guard` looks at is what the policy
writes after each round, before the next one learns from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif.audits.audit import audit
from rlaif.audits.rows import AuditRow
from rlaif.audits.thresholds import Thresholds

MODES, DRAWN, PAIR, SAMPLE = 1000, 20_000, 2, 500
VOCABULARY, WORDS = 5000, 40


@dataclass(frozen=True)
class Loop:
    """One seed's rounds.

    Attributes:
        support: effective support (the exponential of the entropy) after each round, as a share of
            people's.
        tripped: the first round in which the guard trips; 0 for none.
        reasons: the groups of checks that trip then.
    """

    support: list[float]
    tripped: int
    reasons: list[str]


def loop(human: float, seed: int, rounds: int) -> Loop:
    """Learn `rounds` times from curated samples, a share `human` of fresh human data among them."""
    rng = np.random.default_rng(seed)
    reward = rng.normal(0, 1, MODES)
    texts = _texts(rng)
    people = np.full(MODES, 1.0 / MODES)
    reference = _rows(rng, texts, people)
    policy, support, tripped, reasons = people, [], 0, []
    for turn in range(1, rounds + 1):
        # The winner of a pair by a Bradley-Terry judge.
        pool = rng.choice(MODES, (DRAWN, PAIR), p=policy)
        odds = np.exp(reward[pool])
        pick = (odds.cumsum(1) / odds.sum(1, keepdims=True) > rng.random((DRAWN, 1))).argmax(1)
        won = np.bincount(pool[np.arange(DRAWN), pick], minlength=MODES) / DRAWN
        fresh = np.bincount(rng.choice(MODES, DRAWN, p=people), minlength=MODES) / DRAWN
        policy = (1.0 - human) * won + human * fresh
        support.append(_support(policy) / MODES)
        if not tripped:
            report = audit(_rows(rng, texts, policy), reference, Thresholds(seed=seed))
            if report.tripped:
                tripped = turn
                reasons = sorted({item["group"] for item in report.tripped})
    return Loop(support, tripped, reasons)


def _support(policy: np.ndarray) -> float:
    kept = policy[policy > 0]
    return float(np.exp(-(kept * np.log(kept)).sum()))


def _texts(rng: np.random.Generator) -> list[list[str]]:
    """One text a mode."""
    return [_words(rng, WORDS) for _ in range(MODES)]


def _words(rng: np.random.Generator, count: int) -> list[str]:
    """Words of a vocabulary with a long tail."""
    weights = 1.0 / np.arange(1, VOCABULARY + 1)
    return [f"w{w}" for w in rng.choice(VOCABULARY, count, p=weights / weights.sum())]


def _rows(rng: np.random.Generator, texts: list[list[str]], policy: np.ndarray) -> list[AuditRow]:
    """Samples of a policy, each with a tenth of its words exchanged."""
    rows = []
    for n, mode in enumerate(rng.choice(MODES, SAMPLE, p=policy)):
        other = _words(rng, WORDS)
        said = [o if rng.random() < 0.1 else w for w, o in zip(texts[mode], other, strict=True)]
        rows.append(AuditRow(f"p{n}", [" ".join(said)], "", 0))
    return rows
