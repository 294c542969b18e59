"""A model's chat template, tried before it is trusted: it must show what is said, and by whom."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from rlaif.errors import ConversationRefused, RlaifError
from rlaif.records import Message
from rlaif.util.thinking import MARKS, after_thinking, marks_split_at, name_marks

_log = logging.getLogger(__name__)
_TODAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The date for chat templates that include one (Llama 3.2's own default). A fixed date keeps
prompts, and so cache keys, the same from day to day."""
_SPOKEN = ("system", "user", "assistant")
_ASKED, _SAID, _AGAIN, _RULES = "Qamarkone", "Qamarktwo", "Qamarkthree", "Qamarkfour"


class ChatTemplate:
    """Renders conversations as a model's chat template does.

    A system message goes into the first user turn where the template has no place for it, and
    texts go as lists of parts where the template takes nothing else.

    Args:
        tokenizer: of the transformers library.
        name: of the model, for errors.
        options: variables of the template.

    Attributes:
        takes_system: whether the template has a place for a system message.
        takes_parts: whether it takes texts as lists of parts alone.

    Raises:
        RlaifError: there is none, or it leaves out the text of a message.
    """

    def __init__(
        self, tokenizer: Any, name: str, options: Mapping[str, object] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._options = {"strftime_now": _TODAY.strftime, **(options or {})}
        template = tokenizer.chat_template
        if not template or (isinstance(template, dict) and "default" not in template):
            known = f"; it has {', '.join(map(repr, template))}" if template else ""
            raise RlaifError(
                f"model {name!r} has no {'default ' if template else ''}chat template{known}",
                hint="Use an instruction-tuned model, or add chat_template.jinja to its folder.",
            )
        self._source = template["default"] if isinstance(template, dict) else str(template)
        self.takes_parts = False
        asked: list[Message] = [{"role": "user", "content": _ASKED}]
        if not self._shows(asked, [_ASKED]):
            self.takes_parts = True
            if not self._shows(asked, [_ASKED]):
                self._render(asked)  # what it raises says more
                raise RlaifError(
                    f"the chat template of {name!r} leaves out the text of a message",
                    hint="Fix chat_template.jinja in the model's folder, or use another model.",
                )
        long: list[Message] = [{"role": "user", "content": "so " * 1500 + _ASKED}]
        if not self._shows(long, [_ASKED]):
            raise RlaifError(
                f"the chat template of {name!r} leaves out the end of a long message",
                hint="Fix chat_template.jinja in the model's folder, or use another model.",
            )
        turns: list[Message] = [
            *asked,
            {"role": "assistant", "content": _SAID},
            {"role": "user", "content": _AGAIN},
        ]
        if self._shows(turns, [_ASKED, _SAID, _AGAIN]) is False:
            raise RlaifError(
                f"the chat template of {name!r} leaves out turns of a conversation",
                hint="Fix chat_template.jinja in the model's folder, or use another model.",
            )
        system: list[Message] = [{"role": "system", "content": _RULES}, *asked]
        self.takes_system = bool(self._shows(system, [_RULES, _ASKED]))
        self._name, self._folded = name, False

    @property
    def framing(self) -> str:
        """What the template writes around messages without content."""
        turns: list[Message] = [
            {"role": "user", "content": ""},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": ""},
        ]
        for tried in (turns, turns[:1]):
            try:
                return self._render(tried)
            except ConversationRefused:
                continue
        return ""

    @property
    def turns(self) -> str:
        """What the template writes around messages of every role, empty or not."""
        texts = [self.framing]
        for role in ("system", "user", "assistant", "tool"):
            for said in ("", "x"):
                first: list[Message] = [{"role": "user", "content": "x"}]
                turn: Message = {"role": role, "content": said}
                for tried in ([turn, *first] if role == "system" else [*first, turn], [turn]):
                    try:
                        texts.append(self._render(tried, open_end=role != "assistant"))
                        break
                    except ConversationRefused:
                        continue
        return "\n".join(texts)

    def render(self, messages: Sequence[Message], *, open_end: bool = True) -> str:
        """A conversation as the model reads it.

        Args:
            open_end: whether it is opened for the assistant's answer.

        Raises:
            ConversationRefused: the template does not take it, or leaves out some of its text.
        """
        folded = self.fold(messages)
        text = self._render(folded, open_end=open_end)
        at = 0
        for message in folded:
            system = message["role"] == "system"
            # Some templates put the system prompt into the last turn of the user.
            end = _shown_until(text, _must_show(message), 0 if system else at)
            if end < 0:
                raise ConversationRefused(
                    f"the chat template leaves out text of the {message['role']} message of "
                    f"{len(_must_show(message))} characters",
                    hint="Use a model whose chat template keeps messages whole.",
                )
            at = at if system else end
        return text

    def find_marks(self) -> tuple[tuple[str, str], ...]:
        """What may stand around an assistant's thinking, before and after: known marks, those that
        the tokenizer's added tokens are named for, and those that the template itself writes.
        """
        added = getattr(self._tokenizer, "added_tokens_decoder", {}).values()
        own = [*marks_split_at(self._source), *self._shown_marks()]
        return tuple(dict.fromkeys((*MARKS, *name_marks(map(str, added)), *own)))

    def _shown_marks(self) -> list[tuple[str, str]]:
        thought: Any = dict.fromkeys(("reasoning_content", "reasoning", "thinking", "thought"))
        turns: list[Any] = [
            {"role": "user", "content": _ASKED},
            {"role": "assistant", "content": _SAID, **dict.fromkeys(thought, _AGAIN)},
        ]
        try:
            text = self._render(turns, open_end=False)
            plain = self._render([turns[0], {"role": "assistant", "content": _SAID}])
        except ConversationRefused:
            return []
        between = text.rpartition(_ASKED)[2]
        before, shown, rest = between.partition(_AGAIN)
        after, said, _ = rest.partition(_SAID)
        marks = before.split()[-1:], after.split()[:1]
        header = plain.rpartition(_ASKED)[2].partition(_SAID)[0]
        if not (shown and said and all(marks)) or before.rstrip() == header.rstrip():
            return []
        own = [m[0] for m in marks]
        # A header on the same line is no part of the mark.
        own[0] = own[0].removeprefix(header.split()[-1] if header.split() else "") or own[0]
        return [(own[0], own[1])] if not (own[0] + own[1]).isalnum() else []

    def open_answer(self, messages: Sequence[Message], prefill: str) -> str:
        """A conversation opened for the assistant's answer, with the beginning of that answer.

        Raises:
            ConversationRefused: the template does not take it.
        """
        text = self.render(messages)
        return f"{text}{self._gap}{prefill}" if prefill else text

    @cached_property
    def _gap(self) -> str:
        """The white space that the template puts between the assistant's header and an answer."""
        asked: list[Message] = [{"role": "user", "content": _ASKED}]
        opened = self.render(asked)
        try:
            whole = self.render([*asked, {"role": "assistant", "content": _SAID}], open_end=False)
        except ConversationRefused:
            return ""
        between = whole[len(opened) : whole.find(_SAID)] if whole.startswith(opened) else ""
        return between if between.isspace() else ""

    def fold(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, a system prompt at the head of the first user turn where it has no place
        of its own.
        """
        if self.takes_system or not messages or messages[0]["role"] != "system":
            return list(messages)
        system, *rest = messages
        at = next((k for k, m in enumerate(rest) if m["role"] == "user"), None)
        if at is None:
            return list(messages)
        if not self._folded:
            self._folded = True
            _log.warning(
                "the chat template of %r has no place for a system prompt: system prompts stand at "
                "the head of the first user turn",
                self._name,
            )
        text = "\n\n".join(filter(None, (system["content"], rest[at]["content"])))
        return [*rest[:at], {**rest[at], "content": text}, *rest[at + 1 :]]

    def _shows(self, messages: Sequence[Message], marks: Sequence[str]) -> bool | None:
        """Whether all marks are rendered, in order; None where the template refuses."""
        try:
            text = self._render(messages)
        except ConversationRefused:
            return None
        places = [text.find(mark) for mark in marks]
        return min(places) >= 0 and places == sorted(places)

    def _render(self, messages: Sequence[Message], *, open_end: bool = True) -> str:
        turns: Sequence[Any] = messages
        if self.takes_parts:
            turns = [
                {**m, "content": [{"type": "text", "text": m["content"]}]}
                if isinstance(m["content"], str)
                else m
                for m in messages
            ]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=open_end, **self._options
                )
            )
        except Exception as error:  # templates raise what they like
            reason = " ".join(str(error).split())[:300]
            raise ConversationRefused(
                f"the chat template refuses the conversation ({reason})",
                hint="Use a model with a chat template that takes such conversations.",
            ) from None


_SWITCH = re.compile(r"(?:(?<!\s)\s*|(?<=\s))/(?:no_)?think\b\s*")
"""What some families write to turn thinking on or off; their templates take it out."""


def _shown_until(text: str, said: str, at: int) -> int:
    """Where what is said ends in a rendered text, from a place on; -1 where it is not all there."""
    for part in [said] if said in text[at:] else _SWITCH.split(said):
        found = text.find(part, at)
        if found < 0:
            return -1
        at = found + len(part)
    return at


def _must_show(message: Message) -> str:
    """The text of a message that a template may not leave out; thinking it may."""
    content: object = message["content"]
    if message["role"] not in _SPOKEN:
        return ""  # templates write results of tools in forms of their own, such as JSON
    if isinstance(content, list):  # pictures, and a text behind them
        texts = [str(part["text"]) for part in content if part.get("type") == "text"]
        content = texts[-1] if texts else ""
    if not isinstance(content, str):
        return ""
    if message["role"] == "assistant":
        content = after_thinking(content) or ""
    return content.strip()
