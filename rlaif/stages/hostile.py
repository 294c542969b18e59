"""Finds text in a completion that speaks to the judge instead of answering.

Instructions, fake turns, the judge's own delimiters, and characters that hide something.

Patterns only: they find the known and see no intent.  What they find is kept with the row and may
be held back; special tokens are defused before any judge reads them, whatever is found here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rlaif.records import Message, Pair

_PATTERNS: dict[str, str] = {
    "instruction": (
        r"\b(?:ignore|disregard|forget|override)\s+(?:(?:all|any|everything|the|of|these|those|"
        r"your|my|other|that\s+is)\s+){0,3}(?:above|previous|prior|earlier|instructions?|rules|"
        r"principles?|prompt)\b"
        r"|\b(?:answer|choose|pick|select|output|reply|respond)(?:\s+with)?\s+(?:only\s+)?"
        r"[\"'(\[]?(?:response\s+)?(?-i:[AB])\b[\"')\]]?(?=\s*(?:[.!\n]|$|instead|now|only))"
        r"|\bthis\s+(?:response|answer|one)\s+(?:is\s+(?:clearly\s+|obviously\s+|the\s+)?"
        r"(?:better|best|correct|superior)|should\s+win|wins|follows\s+(?:the|every|all)\s+"
        r"(?:principle|constitution))"
        r"|\b(?:final\s+)?verdict\s*[:=]|\b(?:dear|note\s+to(?:\s+the)?|attention)\s+"
        r"(?:judge|evaluator|grader)\b|\byou\s+are\s+(?:the|a|now\s+a?)\s*(?:judge|evaluator|grader)\b"
    ),
    "turn marker": (
        r"\n\s*(?:Human|User|Assistant|System|Judge)\s*:"
        r"|^\s*#{2,3}\s*(?:Response|Instruction|Assistant|User|Human|System)\b"
        r"|<\|[^|>\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    ),
    "hidden characters": (
        r"[\u200b\u2060\ufeff\u00ad\U000e0000-\U000e007f]|(?<=[A-Za-z])[\u200c\u200d](?=[A-Za-z])"
    ),
    "bidi control": r"[\u202a-\u202e\u2066-\u2069]",
}
_EACH = {name: re.compile(p, re.IGNORECASE | re.MULTILINE) for name, p in _PATTERNS.items()}
_HINTS: dict[str, tuple[str, ...]] = {
    "instruction": (
        "ignore", "disregard", "forget", "override", "this response", "this answer", "this one",
        "verdict", "judge", "evaluator", "grader",
    ),
    "turn marker": (
        "human:", "user:", "assistant:", "system:", "judge:", "##", "<|", "s>", "inst]", "<<",
        "_of_turn>", "human :", "user :", "assistant :",
    ),
}  # fmt: skip
"""Words of which a text must hold one before its pattern is tried: patterns are far slower."""
_LETTER = re.compile(r"\b[AB]\b")
_UNSEEN = re.compile(
    r"[\u200b-\u200d\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
_PICKED = ("answer", "choose", "pick", "select", "output", "reply", "respond")
_HIDDEN = re.compile(r"[\u200b-\u200d\u2060\ufeff\u00ad\u202a-\u202e\u2066-\u2069]")


class HostileText:
    """Looks for hostile text.

    Args:
        delimiters: the judge template's own words between its places.
    """

    def __init__(self, delimiters: Iterable[str] = ()) -> None:
        kept = {d.strip() for d in delimiters if len(d.strip()) > 1}
        self._delimiters = sorted(d for d in kept if len(d) >= 6)
        # Short ones, such as "A:", mean something at the start of a line only.
        self._line_starts = tuple(sorted(d for d in kept if len(d) < 6))

    def kinds(self, text: str) -> list[str]:
        """The kinds of hostile text in one completion, in a fixed order."""
        lower = text.lower()
        found = [
            name for name in _PATTERNS if _hinted(name, text, lower) and _EACH[name].search(text)
        ]
        if "hidden characters" in found or "bidi control" in found:
            # What they hide may be an instruction.
            plain = _HIDDEN.sub("", text)
            plain = "".join(
                chr(ord(c) - 0xE0000) if 0xE0020 <= ord(c) <= 0xE007E else c for c in plain
            )
            shown = (plain, plain[::-1])
            if "instruction" not in found and any(_EACH["instruction"].search(t) for t in shown):
                found.insert(0, "instruction")
        if any(d in text for d in self._delimiters) or (
            self._line_starts
            and any(line.startswith(self._line_starts) for line in text.splitlines())
        ):
            found.append("judge's delimiter")
        return found

    def describe(self, pair: Pair) -> str:
        """What was found in a pair's completions, as `a: instruction; b: bidi control`, or ""."""
        parts = []
        for side, messages in (("a", pair.a), ("b", pair.b)):
            kinds = self.kinds(_text(messages))
            if kinds:
                parts.append(f"{side}: {', '.join(kinds)}")
        return "; ".join(parts)


def _hinted(kind: str, text: str, lower: str) -> bool:
    """Whether the kind's pattern can match at all."""
    if kind in _HINTS:
        if any(hint in lower for hint in _HINTS[kind]):
            return True
        asks = kind == "instruction" and any(word in lower for word in _PICKED)
        return asks and _LETTER.search(text) is not None
    return not text.isascii() and _UNSEEN.search(text) is not None


def _text(messages: Sequence[Message]) -> str:
    return (
        messages[0]["content"] if len(messages) == 1 else "\n".join(m["content"] for m in messages)
    )
