"""Made-up labeling jobs of a given size: so many pairs, principles and tokens."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from rlaif.records import Codec

_WORDS = re.findall(
    r"\w+",
    "about after again also always another answer around because before being below better "
    "between both bring build change check clear close could count course cover date "
    "different does done down during each early enough even every example fact family few "
    "find first follow form found friend from give given good great group hand have help here "
    "high home house idea important into just keep kind know large last later learn leave "
    "letter life light like line list little long look made make many mean might money more "
    "most move much must name near need never next night number often once only open order "
    "other over own page paper part people place plan play point present problem put question "
    "quite read real reason right same school second seem sentence several should show side "
    "simple since small some soon sound start state still story study such sure table take "
    "tell than their them then there these thing think those thought three through time "
    "together turn under until use very want water week well were what when where which while "
    "white whole why will with without word work world would write year young ",
)
_ASPECTS = (
    "polite",
    "concise",
    "honest",
    "careful",
    "kind",
    "precise",
    "complete",
    "clear",
    "modest",
    "fair",
    "useful",
    "direct",
    "warm",
    "correct",
    "calm",
    "relevant",
    "open",
    "plain",
    "patient",
    "sober",
    "vivid",
    "simple",
    "safe",
    "thorough",
    "brief",
    "balanced",
    "friendly",
    "formal",
    "curious",
    "concrete",
    "humble",
    "lively",
)


@dataclass(frozen=True)
class Workload:
    """How much there is to judge.

    Attributes:
        pairs: how many; every one has texts of its own.
        principles: how many questions about each pair and order.
        context_tokens: of a pair's prompt and responses together, roughly.
        principle_words: of each principle's question.
        both_orders: whether each pair is shown both ways round.
    """

    pairs: int = 40
    principles: int = 8
    context_tokens: int = 600
    principle_words: int = 12
    both_orders: bool = True


def _text(rng: random.Random, tokens: int, codec: Codec) -> str:
    """Words that make about `tokens` tokens."""
    words: list[str] = []
    sample = " ".join(rng.choices(_WORDS, k=64))
    per_word = len(codec.encode_text(sample)) / 64
    while len(words) < max(1, round(tokens / per_word)):
        words += [*rng.choices(_WORDS, k=rng.randint(5, 12)), "."]
    return " ".join(words[: max(1, round(tokens / per_word))]).replace(" .", ".").capitalize()


def write_synthetic_pairs(path: Path, workload: Workload, codec: Codec, *, seed: int) -> None:
    """Write the pairs as JSON lines: a fifth of the tokens are prompt, the rest responses."""
    rng = random.Random(seed)
    share = workload.context_tokens / 5
    with path.open("w", encoding="utf-8") as file:
        for _ in range(workload.pairs):
            row = {
                "prompt": _text(rng, round(share), codec),
                "response_a": _text(rng, round(2 * share), codec),
                "response_b": _text(rng, round(2 * share), codec),
            }
            file.write(json.dumps(row) + "\n")


def write_constitution(path: Path, workload: Workload) -> None:
    """Write a constitution of made-up principles, all in tier 1, no two alike."""
    rng = random.Random(workload.principles)
    lines = ["schema: 1", "name: bench", 'version: "1"', "principles:"]
    for i in range(workload.principles):
        aspect = _ASPECTS[i % len(_ASPECTS)]
        words = rng.choices(_WORDS, k=max(0, workload.principle_words - 6))
        text = " ".join(["Which response is more", aspect, "about", *words]) + "?"
        lines.append(f'  - {{id: p{i}-{aspect}, preference: "{text}"}}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
