"""What a principle's question asks about, read from its words: for lint's advice.

A small lexicon of qualities.  It knows common words only and sees no meaning: what it finds is
worth a second look, and what it misses may still be so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

QUALITIES: dict[str, str] = {
    "brevity": r"concise|brief|short(?:er)?|succinct|terse|fewer words|no padding|less verbose",
    "detail": r"detail(?:ed|s)?|thorough|comprehensive|exhaustive|in depth|elaborate|longer",
    "accuracy": r"accura\w+|correct(?:ly)?|factual\w*|true|truthful\w*|falsehoods?|errors?",
    "courtesy": r"polite\w*|rude\w*|courte\w+|respect\w*|warm\w*|kind(?:er|ly|ness)?|friendl\w+",
    "clarity": r"clear(?:er|ly)?|clarity|plain(?:er)?|readab\w+|understand\w*",
    "helpfulness": r"helpful\w*|useful\w*",
    "safety": r"safe(?:r|ly|ty)?|harmless|dangerous|harmful",
    "creativity": r"creativ\w+|original\w*|imaginative\w*|novel\w*",
    "formality": r"formal\w*|professional\w*|serious\w*",
    "casualness": r"casual\w*|informal\w*|relaxed|playful\w*|colloquial\w*",
    "confidence": r"confiden(?:t|tly|ce)|decisive\w*|assertive\w*",
    "caution": r"cautious\w*|hedg\w+|tentative\w*|uncertain\w*",
}
OPPOSITES = (("brevity", "detail"), ("formality", "casualness"), ("confidence", "caution"))
_VAGUE = {
    "better",
    "best",
    "good",
    "great",
    "nice",
    "nicer",
    "appropriate",
    "suitable",
    "high-quality",
    "quality",
    "ideal",
    "preferable",
    "proper",
    "right",
    "superior",
    "excellent",
    "desirable",
    "acceptable",
    "reasonable",
    "higher",
    "high",
    "overall",
}
_EMPTY = {
    "which",
    "response",
    "answer",
    "reply",
    "completion",
    "summary",
    "is",
    "the",
    "a",
    "an",
    "of",
    "in",
    "more",
    "most",
    "has",
    "would",
    "be",
    "you",
    "do",
    "think",
    "prefer",
    "one",
    "two",
    "these",
    "and",
    "or",
    "to",
    "for",
    "general",
    "prompt",
    "question",
    "choose",
    "pick",
    "that",
    "user",
    "quality",
    "please",
    "responses",
    "answers",
    "given",
    "it",
    "with",
    "as",
    "by",
}
_JOINED = re.compile(r"\b(?:and|or|as well as|while|but)\b")
_LESS = re.compile(r"\b(?:less|fewer|least|no|not|without|avoids?|never)\s+(?:\w+\s+){0,2}$")


def is_vague(question: str) -> bool:
    """Whether it names no quality at all, only that one response be better."""
    words = re.findall(r"[a-z][a-z-]*", question.lower())
    rest = [word for word in words if word not in _EMPTY]
    return all(word in _VAGUE for word in rest)


def qualities(question: str) -> list[str]:
    """The qualities that it names, in the order of their words; one asked for less is left out.

    A quality that is to be avoided ("less formal") does not ask for it.
    """
    found: dict[str, int] = {}
    text = question.lower()
    for name, pattern in QUALITIES.items():
        for match in re.finditer(rf"\b(?:{pattern})\b", text):
            asked = match.group()
            negative = asked.startswith(("rude", "falsehood", "error", "danger", "harmful", "hedg"))
            own = asked.startswith(("fewer", "no ", "less"))
            if own or negative or not _LESS.search(text[: match.start()]):
                found.setdefault(name, match.start())
    return sorted(found, key=lambda name: found[name])


def joined_qualities(question: str) -> list[str]:
    """Qualities that one question joins with "and": a response may have one and lack the other."""
    main = re.split(r"[;(]|,(?! (?:and|but|while|as well))", question)[0]
    found = qualities(main)
    return found if len(found) > 1 and _JOINED.search(main.lower()) else []


def opposite(one: str, two: str) -> tuple[str, str] | None:
    """The opposite qualities that two questions ask for, if they do."""
    first, second = qualities(one), qualities(two)
    for left, right in OPPOSITES:
        if left in first and right in second and right not in first and left not in second:
            return left, right
        if right in first and left in second and left not in first and right not in second:
            return right, left
    return None


def names(found: Sequence[str]) -> str:
    """As words: `brevity and detail`."""
    return " and ".join(found)
