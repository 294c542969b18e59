"""Which language a row is judged in, where the constitution has texts in several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif.constitution.schema import Constitution
from rlaif.data.languages import likeliest_language
from rlaif.records import Message, Pair
from rlaif.templates.messages import message_text

OWN = "default"
"""Stands for the constitution's own language, whichever it is."""
_LIKELY = 0.5
"""Probability from which a language counts as found: above all others together.  Greetings and code
are below it.
"""


def language_for(prompt: Sequence[Message], constitution: Constitution, stated: str = "") -> str:
    """The language to ask about a prompt in: a code, `OWN`, or "" where there is one language.

    Args:
        stated: what the row says; else it is found by what the user says.
    """
    if not constitution.languages:
        return ""
    code = stated or _language_of(prompt)
    return code if code in constitution.languages else OWN


def with_language(pair: Pair, constitution: Constitution) -> Pair:
    """The pair with the language that it is asked about in; see `language_for`."""
    if not constitution.languages:
        return replace(pair, language="") if pair.language else pair
    return replace(pair, language=language_for(pair.prompt, constitution, pair.language))


def in_language_of(prompt: Sequence[Message], constitution: Constitution) -> Constitution:
    """The constitution as a prompt is asked about by it."""
    return constitution.in_language(language_for(prompt, constitution))


def _language_of(prompt: Sequence[Message]) -> str:
    said = [message_text(m) for m in prompt if m["role"] == "user"]
    text = "\n".join(said) or "\n".join(map(message_text, prompt))
    code, probability = likeliest_language(text)
    return code if probability >= _LIKELY else ""
