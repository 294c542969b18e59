"""Draws prompts, responses and pairs of the demo world from a seed.

`split` keeps the world honest: "train" yields only sentences, prompts and claims that are
not held out, "test" only held-out ones, so a measured score is one on text never trained on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rlaif.demo.grammar import (
    KINDS,
    PROMPTS,
    TOPICS,
    ask,
    claim,
    fill,
    held_out,
    held_out_claim,
    parse_prompt,
)
from rlaif.demo.oracle import topic_of

Split = Literal["train", "test"]

RATES = {"danger": 0.5, "private": 0.5, "unknown": 0.5, "stray": 0.3, "leak": 0.15, "filler": 0.4}
"""How often a response of the untrained policy does the wrong thing, per kind of wrong."""

PROMPT_MIX = {"howto": 4, "danger": 2, "unknown": 2, "private": 2}
"""How often each kind of prompt is drawn, relative to the others."""


@dataclass(frozen=True)
class DemoPair:
    """A prompt and two responses to it."""

    prompt: str
    response_a: str
    response_b: str


class World:
    """A seeded source of text of one split.

    Args:
        seed: two worlds with the same seed and split draw the same text.
        split: "train" or "test"; they share no prompt, no sentence, and no claim about a
            principle in whatever frame of words.
        mix: relative frequency of each kind of prompt.
    """

    def __init__(self, seed: int, split: Split, mix: Mapping[str, float] = PROMPT_MIX) -> None:
        self.split = split
        self.mix = mix
        self._rng = random.Random(f"{seed}/{split}")

    def _of_split(self, text: str) -> bool:
        return held_out(text) == (self.split == "test")

    def _draw(
        self, table: dict[str, tuple[str, ...]], kind: str, topic: str | None = None, **fixed: str
    ) -> str:
        """A text of `kind` of this split; the fixed slots give way if the split lacks it."""
        for attempt in range(400):
            slots = fixed if attempt < 200 else {}
            text = fill(self._rng.choice(table[kind]), self._rng, slots, topic)
            if self._of_split(text):
                return text
        raise AssertionError(f"the {self.split} split holds no {kind} text")

    def prompt(self) -> str:
        """One prompt: a how-to, a dangerous, an unknowable or a private question."""
        kind = self._rng.choices(list(self.mix), list(self.mix.values()))[0]
        topic = self._rng.choice(list(TOPICS)) if kind == "howto" else None
        return self._draw(PROMPTS, kind, topic)

    def _core(self, prompt: str) -> list[str]:
        asked = parse_prompt(prompt)
        assert asked is not None, prompt
        rng = self._rng
        bad = rng.random() < RATES.get(asked.kind, 0.0)
        if asked.kind == "howto":
            topic = topic_of(asked.slots["object"])
            fixed = {"object": asked.slots["object"]}
            count = rng.choice([1, 1, 2])
            return [self._draw(KINDS, "tip", topic, **fixed) for _ in range(count)]
        kind = {
            "danger": ("refuse", "comply"),
            "private": ("withhold", "leak"),
            "unknown": ("admit", "claim"),
        }[asked.kind][bad]
        shared = {k: v for k, v in asked.slots.items() if k != "stealth"}
        return [self._draw(KINDS, kind, None, **shared)]

    def sentence(self, kind: str, prompt: str) -> str:
        """A sentence of `kind` that fits `prompt`."""
        asked = parse_prompt(prompt)
        slots = dict(asked.slots) if asked else {}
        topic = topic_of(slots["object"]) if asked and asked.kind == "howto" else None
        shared = {k: v for k, v in slots.items() if k not in ("stealth", "adj", "act")}
        return self._draw(KINDS, kind, topic, **shared)

    def _stray(self, prompt: str) -> str:
        asked = parse_prompt(prompt)
        own = topic_of(asked.slots.get("object", "")) if asked else None
        topic = self._rng.choice([name for name in TOPICS if name != own])
        kind = "tip" if self._rng.random() < 0.4 else "stray"
        return self._draw(KINDS, kind, topic)

    def response(self, prompt: str) -> str:
        """One response to `prompt`, in a manner drawn at random."""
        rng = self._rng
        manner = rng.choices(["polite", "plain", "rude"], [1, 1, 1])[0]
        extras = []
        if rng.random() < RATES["stray"]:
            extras.append(self._stray(prompt))
        if rng.random() < RATES["leak"]:
            extras.append(self._draw(KINDS, "leak"))
        if rng.random() < RATES["filler"]:
            extras += [self._draw(KINDS, "filler") for _ in range(rng.choice([1, 1, 2]))]
        rng.shuffle(extras)
        body = self._core(prompt) + extras
        if manner != "plain":
            line = self._draw(KINDS, manner)
            body = [line, *body] if rng.random() < 0.5 else [*body, line]
        return " ".join(body)

    def pair(self) -> DemoPair:
        """One prompt with two different responses."""
        prompt = self.prompt()
        first = second = self.response(prompt)
        while second == first:
            second = self.response(prompt)
        return DemoPair(prompt, first, second)

    def pairs(self, count: int) -> Iterator[DemoPair]:
        """`count` pairs, one after the other."""
        return (self.pair() for _ in range(count))

    def wording(self, principle: str) -> str:
        """One way of asking about `principle` whose claim, in any frame, is of this split."""
        for _ in range(1000):
            claimed = claim(principle, self._rng)
            if (
                held_out_claim(principle, claimed)
                if self.split == "test"
                else not held_out(claimed)
            ):
                return ask(claimed, self._rng)
        raise AssertionError(f"the {self.split} split holds no wording of {principle}")
