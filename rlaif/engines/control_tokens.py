"""Keeps text that spells a model's control tokens from becoming them.

A text gets a space after the first character of what it spells, so that no tokenizer reads it as
the token.  Control tokens are those that the tokenizer calls special, and those that the chat
template writes around messages.  Words that a tokenizer only adds to its vocabulary stay as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_MOST_ROUNDS = 8


class ControlTokens:
    """The control tokens of a tokenizer.

    Args:
        tokenizer: of the transformers library.
        framing: what the chat template writes around messages without content.

    Attributes:
        ids: of the tokens.
        longest: characters of the longest one.
    """

    def __init__(self, tokenizer: Any, framing: str = "") -> None:
        self._tokenizer = tokenizer
        added = list(getattr(tokenizer, "added_tokens_decoder", {}).items())
        used = set(tokenizer(framing, add_special_tokens=False)["input_ids"]) if framing else set()
        tokens = {
            str(token): index
            for index, token in added
            if token.special or (index in used and not str(token).isalnum())
        }
        own = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        tokens |= {str(token): index for token, index in own}
        tokens = {token: index for token, index in tokens.items() if token.strip()}
        self.ids = frozenset(tokens.values())
        self._spelled = _any_of(tokens)
        self.longest = max(map(len, tokens), default=0)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normalizer: Any = getattr(backend, "normalizer", None)
        self._normalized = None
        if self._normalizer is not None:
            # A tokenizer may look for added tokens in the text as it is normalized.
            normal = {self._normalizer.normalize_str(token) for token in tokens}
            self._normalized = _any_of(token for token in normal if token.strip())

    def occur_in(self, text: str) -> bool:
        """Whether a text spells one, as it stands or as the tokenizer normalizes it."""
        if self._spelled is not None and self._spelled.search(text):
            return True
        return self._normalizes_to_one(text)

    def defuse(self, text: str) -> str:
        """The text, with nothing in it that the tokenizer reads as a control token."""
        if self._spelled is None:
            return text
        for _ in range(_MOST_ROUNDS):
            if not self._spelled.search(text):
                break
            # What is left of one token may be another; a token of one character has no inside.
            text = self._spelled.sub(
                lambda m: f"{m.group()[0]} {m.group()[1:]}" if len(m.group()) > 1 else "\ufffd",
                text,
            )
        text = self._spelled.sub("\ufffd", text)
        return self._defuse_normalized(text) if self._normalizes_to_one(text) else text

    def _normalizes_to_one(self, text: str) -> bool:
        return self._normalized is not None and bool(
            self._normalized.search(self._normalizer.normalize_str(text))
        )

    def _defuse_normalized(self, text: str) -> str:
        """By the ids that come out, whatever the normalizer does to the text."""
        for last in (*(False,) * _MOST_ROUNDS, True):
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            spans = [
                span
                for index, span in zip(found["input_ids"], found["offset_mapping"], strict=True)
                if index in self.ids
            ]
            if not spans:
                break
            for start, end in reversed(spans):
                whole = last or end - start < 2
                kept = "\ufffd" if whole else f"{text[start]} {text[start + 1 : end]}"
                text = text[:start] + kept + text[end:]
        return text


_SPELLED = re.compile(
    r"<[|\uff5c](?!\s)[^<>|\uff5c\n]{1,48}(?<!\s)[|\uff5c]>|<\|[a-z_]{2,24}>|<[a-z_]{2,24}\|>"
    r"|</?s>|<(?:bos|eos|pad|unk|BOS_TOKEN|EOS_TOKEN)>|<(?:start|end)_of_(?:turn|image)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|IMG)\]|\[gMASK\]"
    r"|<</?SYS>>|<extra_id_\d{1,3}>|<reserved_\d{1,4}>"
)
"""How open models spell their control tokens."""


def defuse_spelled(text: str) -> str:
    """The text without what known models read as control tokens: for a tokenizer out of reach."""
    for _ in range(_MOST_ROUNDS):
        if not _SPELLED.search(text):
            return text
        text = _SPELLED.sub(lambda m: f"{m.group()[0]} {m.group()[1:]}", text)
    return _SPELLED.sub("\ufffd", text)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str] | None:
    found = sorted(set(tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None
