"""Rows to audit: people's text from Python's own documentation."""

from __future__ import annotations

import random
import re
from functools import cache
from pydoc_data.topics import topics

from rlaif.audits.rows import AuditRow


@cache
def paragraphs() -> tuple[str, ...]:
    """Paragraphs of a dozen words and more."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return tuple(part for part in found if len(part.split()) >= 12)


def people(seed: int, count: int, skip: int = 0) -> list[str]:
    """`count` different paragraphs; those of one seed do not overlap for other `skip`."""
    drawn = random.Random(seed).sample(paragraphs(), count + skip)
    return drawn[skip:]


def rows(texts: list[str], kind: str = "human", depth: int = 0) -> list[AuditRow]:
    return [AuditRow(f"p{i}", [text], kind, depth) for i, text in enumerate(texts)]
