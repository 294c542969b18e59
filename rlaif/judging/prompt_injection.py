"""Finds text in a completion that speaks to the judge instead of answering.

Instructions, fake turns, the judge's own delimiters, and characters that hide something.

Patterns only: they find the known and see no intent.  What they find is kept with the row and may
be held back; special tokens are defused before any judge reads them, whatever is found here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rlaif.records import Message, Pair
from rlaif.templates.messages import message_text


class _InjectionRule(NamedTuple):
    """A pattern, and what a text must hold before it is tried: patterns are far slower.

    Attributes:
        words: one of these, in any case.
        named: the name of a response: A or B.
    """

    words: tuple[str, ...]
    pattern: str
    named: bool = False


_SIDE = r"[\"'(\[*]{0,3}(?:(?:response|answer)\s+)?(?-i:[AB])\b"
_ASKED = r"(?:choose|pick|select|prefer)"
_INSTRUCTIONS: tuple[_InjectionRule, ...] = (
    _InjectionRule(
        ("ignore", "disregard", "override"),
        r"\b(?:ignore|disregard|override)\s+(?:(?:all|any|every|each|everything|the|of|these|those|"
        r"this|your|my|other|that\s+is|text|above|previous|prior|earlier)\s+){0,5}"
        r"(?:instructions?|rules|principles?|prompt|constitution|(?:above|previous)(?=\s*(?:[.,;!\n]|$"
        r"|and\b)))",
    ),
    _InjectionRule(
        ("forget",),
        r"(?<!not )(?<!n't )\bforget\s+(?:(?:all|everything|the|your|previous)\s+){0,3}"
        r"(?:above\b(?!\s+\w)|instructions?\b|you\s+were\s+told)",
    ),
    _InjectionRule(
        ("answer", "output", "reply", "respond", "say"),
        r"\b(?:answer|output|reply|respond|say)(?:\s{1,3}(?:only\s{1,3})?with)?(?:\s{0,3}:)?"
        rf"\s{{1,3}}(?:only\s{{1,3}})?{_SIDE}"
        r"[\"')\]]{0,2}(?=\s{0,3}(?:[.!\n]|$|instead|now|only))",
        named=True,
    ),
    _InjectionRule(
        ("choose", "pick", "select", "prefer"),
        rf"\b{_ASKED}\s{{1,3}}(?:response|answer)\s{{1,3}}(?-i:[AB])\b"
        rf"|(?:^|[.!?:]|\bmust|\balways|\bplease)[ \t]{{0,3}}{_ASKED}\s{{1,3}}{_SIDE}"
        r"[\"')\]]{0,2}[ \t]{0,3}(?:[.!]|$)",
        named=True,
    ),
    _InjectionRule(
        ("this response", "this answer", "this one", "this is the better"),
        rf"\bthis\s+(?:response|answer)\s+(?:is\s+(?:clearly\s+|obviously\s+|the\s+)?"
        r"(?:better|best|superior)\b|should\s+win\b|wins\b"
        r"|follows\s+(?:the|every|all)\s+(?:principle|constitution))"
        rf"|\b{_ASKED}\s+this\s+(?:response|answer)\b"
        r"|\bthis\s+is\s+the\s+better\s+(?:response|answer)\b"
        r"|\bthis\s+one\s+(?:should\s+win|wins|is\s+(?:clearly|obviously)\s+better)\b",
    ),
    _InjectionRule(
        ("better", "winning", "superior", "winner"),
        rf"\b(?:better|winning|superior)\s+(?:answer|response|one|completion)\s+is\s+{_SIDE}"
        r"|\b(?:response|answer)\s+(?-i:[AB])\s+is\s+(?:clearly\s+|obviously\s+|the\s+)?"
        r"(?:better|superior|winner)\b",
        named=True,
    ),
    _InjectionRule(
        ("winner", "decision", "boxed", "<answer>"),
        rf"\b(?:winner|decision)[\"']?[ \t]{{0,3}}[:=][ \t]{{0,3}}{_SIDE}"
        r"(?=[\"'\]})*]{0,4}[ \t]{0,3}(?:[,.}\n]|$))"
        r"|\\boxed\{[ ]*(?-i:[AB])[ ]*\}|<answer>\s{0,3}(?-i:[AB])\s{0,3}</answer>",
    ),
    _InjectionRule(("[[",), r"\[\[(?-i:[AB])(?:[<>=]{1,2}(?-i:[AB]))?\]\]", named=True),
    _InjectionRule(
        ("verdict",),
        rf"\bverdict(?:[ \t]{{0,3}}[:=]|[ \t]is)[ \t]{{0,3}}(?:{_SIDE}"
        r"(?=[\"'\])*]{0,4}\s{0,3}(?:[.!]|$))|[*\[]{0,3}tie\b)",
    ),
    _InjectionRule(
        ("judge", "evaluator", "grader"),
        r"\b(?:dear|note\s+(?:to|for)(?:\s+the)?|attention:?)\s+(?:AI\s+)?(?:judge|evaluator|grader)\b"
        r"|\byou\s+are\s+(?:the|now\s+an?)\s+(?:judge|evaluator|grader)\b",
    ),
)
_TURN_MARKERS: tuple[_InjectionRule, ...] = (
    _InjectionRule(
        ("human", "user", "assistant", "system", "judge", "ai"),
        r"^[ \t>*_]{0,8}(?:Human|Assistant|Judge)[ \t*_]{0,4}:"
        r"|\n[ \t]*\n[ \t>*_]{0,8}(?:User|System|AI)[ \t*_]{0,4}:",
    ),
    _InjectionRule(
        ("##",),
        r"^[ \t]{0,8}#{2,3}[ \t]{0,4}(?:Response|Instruction|Assistant|User|Human)(?:[ \t]{0,4}:)?"
        r"[ \t]{0,8}$",
    ),
    _InjectionRule(("<|", "<｜"), r"<\|[a-z0-9_]{2,40}\|>|<｜[^<>\n]{1,40}[｜>]"),
    _InjectionRule(
        (
            "inst]",
            "<<",
            "_of_turn>",
            "bos",
            "eos",
            "<pad>",
            "<unk>",
            "gmask",
            "tool",
            "</s>",
            "think>",
            "<mask>",
        ),
        r"\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|(?-i:</?think>|</?tool_call>|<mask>)"
        # </s> also ends struck-out text in HTML, where <s> stands before it.
        r"|\A(?:(?!<s>)[^\0])*?</s>"
        r"|<(?:bos|eos|pad|unk|EOS_TOKEN|BOS_TOKEN)>|\[(?:gMASK|TOOL_CALLS|AVAILABLE_TOOLS)\]",
    ),
)
_RULES = tuple(
    (kind, rule, re.compile(rule.pattern, re.IGNORECASE | re.MULTILINE))
    for kind, rules in (("instruction", _INSTRUCTIONS), ("turn marker", _TURN_MARKERS))
    for rule in rules
)
_LETTER = re.compile(r"\b[AB]\b")
_TURN_SIGNS = (":", "##", "<", "[")
_IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
_UNSEEN = re.compile(f"[{_IGNORABLE}]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
_ISOLATES = "\u2066\u2067\u2068"
_RTL = r"\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
_JOINING = _RTL + r"\u0900-\u0dff\u1000-\u109f\u1780-\u18af"
"""Scripts that are written with joiners: Arabic and its kin, those of India, Khmer, Mongolian."""
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
"""Scripts that part words by zero-width spaces: Thai, Lao, Burmese, Khmer."""
_BIDI_OR_RTL = re.compile(rf"([{_RTL}]+)|[\u202a-\u202e\u2066-\u2069]")
_HIDING = re.compile(
    # Beside a Latin letter, where no script needs them; soft hyphens and emoji have their place.
    # Joiners stand between a Latin word and a Persian ending.
    # Zero-width spaces and byte order marks are left at the ends of words by copying: only within.
    r"(?:[A-Za-z][\u034f\u2060-\u2064\u180e\u3164\ufe00-\ufe0f]"
    rf"|[A-Za-z][\u200c\u200d](?! ?[{_JOINING}])"
    r"|[\u034f\u2060-\u2064\u180e\u3164] ?[A-Za-z]"
    rf"|(?<![{_JOINING}])(?<![{_JOINING}] )[\u200c\u200d] ?[A-Za-z]"
    r"|[A-Za-z][\u200b\ufeff]+[A-Za-z]"
    rf"|(?<![{_UNSPACED}])[\u200b\ufeff]{{2}}(?![\u200b\ufeff]{{0,4}}[{_UNSPACED}])"
    r"|[\U000e0100-\U000e01ef]{2}|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0020-\U000e007e])"
)
_STYLED = re.compile("[\uff01-\uff5e\u24b6-\u24e9\U0001d400-\U0001d7ff]")
"""Letters in another dress: full-width, circled, mathematical."""
_NEWLINES = re.compile(r"\r\n?|[\u2028\u2029\u0085]")


KINDS = ("instruction", "turn marker", "hidden characters", "bidi control", "judge's delimiter")


class InjectionDetector:
    """Looks for prompt injection.

    Args:
        delimiters: the judge template's own words between its places.
    """

    def __init__(self, delimiters: Iterable[str] = ()) -> None:
        kept = {d.strip() for d in delimiters if len(d.strip()) > 1}
        self._delimiters = sorted(" ".join(d.lower().split()) for d in kept if len(d) >= 6)
        # Short ones, such as "A:", mean something at the start of a line only.
        self._line_starts = tuple(sorted(d for d in kept if len(d) < 6))

    def kinds(self, text: str) -> list[str]:
        """The kinds of prompt injection in one completion, in a fixed order."""
        found = self._plain_kinds(text)
        if not text.isascii() and _STYLED.search(text):
            plain = unicodedata.normalize("NFKC", text)
            found |= self._plain_kinds(plain)
            text = plain
        if not text.isascii() and _UNSEEN.search(text):
            # What is not seen may hide or break up anything else: look again without it.
            bare = _UNSEEN.sub("", text)
            tags = "".join(chr(ord(c) - 0xE0000) for c in text if 0xE0020 <= ord(c) <= 0xE007E)
            for other in (bare, bare[::-1] if _BIDI.search(text) else "", tags):
                found |= self._plain_kinds(other)
            if _HIDING.search(text):
                found.add("hidden characters")
            if _BIDI.search(text) and _reorders(text):
                found.add("bidi control")
        return [kind for kind in KINDS if kind in found]

    def _plain_kinds(self, text: str) -> set[str]:
        if "\r" in text or not text.isascii():
            text = _NEWLINES.sub("\n", text)
        lower = text.lower()
        named = _LETTER.search(text) is not None
        marked = any(sign in text for sign in _TURN_SIGNS)
        found: set[str] = set()
        for kind, rule, pattern in _RULES:
            if kind in found or (kind == "turn marker" and not marked):
                continue
            if rule.named and not named:
                continue
            if any(word in lower for word in rule.words) and pattern.search(text):
                found.add(kind)
        if any(d in lower for d in self._delimiters) or (
            self._line_starts
            and any(line.startswith(self._line_starts) for line in text.splitlines())
        ):
            found.add("judge's delimiter")
        elif "  " in text or "\t" in text:
            squeezed = " ".join(lower.split())
            if any(d in squeezed for d in self._delimiters):
                found.add("judge's delimiter")
        return found

    def describe(self, pair: Pair) -> str:
        """What was found in a pair's completions, as `a: instruction; b: bidi control`, or ""."""
        parts = []
        for side, messages in (("a", pair.a), ("b", pair.b)):
            kinds = self.kinds(_text(messages))
            if kinds:
                parts.append(f"{side}: {', '.join(kinds)}")
        return "; ".join(parts)


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(map(message_text, messages))


def _reorders(text: str) -> bool:
    """Whether bidi controls may show a text in another order than it is read in.

    Isolates and embeddings are ordinary around right-to-left letters, and around other text within
    such a text (Unicode Standard Annex 9, section 2). Overrides, controls without an end, and
    right-to-left controls around text without such letters are not.
    """
    begun: list[tuple[str, int]] = []
    last_letters = -1  # where the last letters from right to left ended
    for found in _BIDI_OR_RTL.finditer(text):
        sign = found[0]
        if found[1] is not None:
            last_letters = found.end()
        elif sign in "\u202d\u202e":
            return True
        elif sign not in "\u202c\u2069":
            begun.append((sign, found.end()))
        else:
            if not begun:
                return True
            opened, start = begun.pop()
            if sign != ("\u2069" if opened in _ISOLATES else "\u202c"):
                return True
            if opened in "\u202b\u2067" and last_letters <= start:
                return True
    return bool(begun) or last_letters < 0
