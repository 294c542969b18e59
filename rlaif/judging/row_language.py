"""Which language a row is judged in, where the constitution has texts in several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif.constitution.schema import Constitution
from rlaif.data.languages import language_of
from rlaif.records import Message, Pair
from rlaif.templates.messages import message_text


def with_language(pair: Pair, constitution: Constitution) -> Pair:
    """The pair with the language of its prompt: as its row says, else as it is found.

    Pairs stay as they are where the constitution has texts in one language alone.
    """
    if not constitution.languages or pair.language:
        return pair
    return replace(pair, language=language_of_prompt(pair.prompt))


def language_of_prompt(prompt: Sequence[Message]) -> str:
    """The likeliest language of what the user says, as an ISO 639-1 code."""
    said = [message_text(m) for m in prompt if m["role"] == "user"]
    return language_of("\n".join(said) or "\n".join(map(message_text, prompt)))
