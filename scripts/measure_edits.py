"""Prints how many edited copies of texts `rlaif mix` finds, by length and kind of edit.

    python scripts/measure_edits.py

Texts are of made-up words, a few common and many rare. Copies have one word in twenty (at least
one) misspelled, missing, added, or replaced by another one, which makes another text on purpose.
"""

from __future__ import annotations

import random

from rlaif.text.contamination import Contamination
from rlaif.text.near_duplicates import TextFields, near_duplicates

TEXTS = 200
LENGTHS = (8, 12, 20, 40, 80, 160)


def draw_text(rng: random.Random, words: list[str], length: int) -> list[str]:
    """Words by a law with few common ones."""
    last = len(words) - 1
    return [words[min(int(rng.expovariate(1 / 300)), last)] for _ in range(length)]


def edit(rng: random.Random, text: list[str], kind: str, words: list[str]) -> list[str]:
    """A copy with one word in twenty changed."""
    found = list(text)
    for at in sorted(rng.sample(range(len(text)), max(1, len(text) // 20)), reverse=True):
        if kind == "missing":
            del found[at]
        elif kind == "added":
            found.insert(at, rng.choice(words))
        elif kind == "replaced":
            found[at] = rng.choice(words)
        else:
            place = rng.randrange(1, len(found[at]))
            found[at] = found[at][:place] + "q" + found[at][place + 1 :]
    return found


def main() -> None:
    """Print a row for each length."""
    rng = random.Random(0)
    letters = "abcdefghijklmnoprstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(3000)]
    for length in LENGTHS:
        texts = [draw_text(rng, words, length) for _ in range(TEXTS)]
        evaluated = Contamination([" ".join(text) for text in texts], 13)
        for kind in ("misspelled", "missing", "added", "replaced"):
            copies = [edit(rng, text, kind, words) for text in texts]
            rows = [TextFields(" ".join(text), "") for text in (*texts, *copies)]
            runs = near_duplicates(rows, 0.9)
            both = near_duplicates(rows, 0.9, edited=True)
            hidden = [[*draw_text(rng, words, 20), *copy] for copy in copies]
            held = sum(evaluated.finds(" ".join(text)) for text in hidden)
            print(
                f"{length} words, {kind}: near-duplicates {len(both) / TEXTS:.0%} (by runs alone "
                f"{len(runs) / TEXTS:.0%}), evaluation texts within others {held / TEXTS:.0%}"
            )


if __name__ == "__main__":
    main()
