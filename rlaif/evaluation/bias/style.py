"""Measures of how a text is written, apart from what it says: what judges are known to like."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif.records import Message
from rlaif.templates.messages import message_text

_WORDS = re.compile(r"\S+")
_MARKDOWN = re.compile(
    r"^#{1,6} |^[ \t]*[-*+] |^[ \t]*\d+[.)] |\*\*[^*\n]+\*\*|`[^`\n]+`|^```|^\|.*\|$|^> ",
    re.MULTILINE,
)
_SURE = re.compile(
    r"\b(certainly|definitely|absolutely|undoubtedly|unquestionably|clearly|obviously|surely|"
    r"guaranteed?|without (?:any |a )?doubt|there is no doubt|no question|of course|always|never|"
    r"I am (?:certain|sure|confident)|I'm (?:certain|sure|confident)|trust me|as everyone knows)\b",
    re.IGNORECASE,
)


def measure_style(messages: Sequence[Message]) -> dict[str, float]:
    """Numbers of a completion: `length` (words), `markdown` (marks: headings, list items, bold,
    code, tables, quotes) and `assertive` (phrases that assert certainty).
    """
    text = "\n".join(map(message_text, messages))
    return {
        "length": float(len(_WORDS.findall(text))),
        "markdown": float(len(_MARKDOWN.findall(text))),
        "assertive": float(len(_SURE.findall(text))),
    }
