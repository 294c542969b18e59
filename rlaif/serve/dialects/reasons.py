"""A score in words, for harnesses that show a reason."""

from __future__ import annotations

from rlaif.api.answers import Score


def in_words(found: Score) -> str:
    """Each principle with its probability, the lowest first."""
    marks = sorted((m for m in found.principles if m.p is not None), key=lambda m: m.p or 0.0)
    return "; ".join(f"{m.principle} {m.p:.2f}" for m in marks)
