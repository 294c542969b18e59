"""Conversations as a policy reads them: what its chat template refuses, folds, or reads as tokens
that it should not.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlaif.engines.chat_template import ChatTemplate
from rlaif.engines.control_tokens import ControlTokens
from rlaif.errors import ConversationRefused, RlaifError
from rlaif.records import Message
from rlaif.util.thinking import after_thinking, find_spoken, names_thinking


@dataclass
class TextAccount:
    """What was done to conversations, so that the policy's chat template takes them."""

    refused: list[str] = field(default_factory=list)
    defused: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    endless: list[str] = field(default_factory=list)
    prompt_end_cut: list[str] = field(default_factory=list)

    def text_lines(self) -> list[str]:
        """One sentence for each thing that happened."""
        named = (
            (
                self.refused,
                "skipped: the template cuts the answer or refuses the conversation",
            ),
            (
                self.folded,
                "with the system message in the first user turn: the chat template has "
                "no place for it",
            ),
            (
                self.defused,
                "with control tokens of the policy in their text, which are written "
                "apart, so that they stay text",
            ),
            (
                self.endless,
                "without an end token after the completion: the policy does not learn to stop",
            ),
            (
                self.prompt_end_cut,
                "with a shortened prompt: the policy's chat template renders its "
                "end differently before a completion",
            ),
        )
        return [f"{len(ids)} {what} ({shown(ids)})" for ids, what in named if ids]


def shown(ids: Sequence[str]) -> str:
    """The first five ids of some rows."""
    return ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")


class PolicyText:
    """Conversations for one policy.

    Args:
        tokenizer: of the transformers library.
        name: of the policy, for errors.

    Attributes:
        ends_turns: whether an answer ends with a token that says so.

    Raises:
        RlaifError: its chat template leaves out texts or turns, or takes lists of parts alone.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, name)
        if self._template.takes_parts:
            raise RlaifError(
                f"the chat template of policy {name!r} takes texts as lists of parts alone, which "
                "TRL does not give",
                hint="Edit chat_template.jinja in the policy's folder so that it takes texts.",
            )
        self._control = ControlTokens(tokenizer, self._template.turns)
        # Only those that the policy reads as tokens of its own; all else is text.
        own = {str(t) for t in getattr(tokenizer, "added_tokens_decoder", {}).values()}
        marks = filter(names_thinking, self._template.find_marks())
        self._marks = [pair for pair in marks if own.issuperset(pair)]
        self.ends_turns = self._ends_turns()

    def prepare(self, row: Any, columns: Sequence[str], account: TextAccount) -> Any:
        """A row whose messages the template takes and no text of which is a control token.

        Args:
            row: with an `id` and `columns` of messages, the first of them the prompt.
        """
        found: dict[str, list[Message]] = {}
        folded = self._template.fold(getattr(row, columns[0]))
        if len(folded) < len(getattr(row, columns[0])):
            account.folded.append(row.id)
        for column in columns:
            messages = folded if column == columns[0] else getattr(row, column)
            found[column] = [self._defused(message) for message in messages]
            if found[column] != list(messages) and row.id not in account.defused[-1:]:
                account.defused.append(row.id)
        more: dict[str, Any] = {}
        if tools := getattr(row, "tools", None):
            more["tools"] = _deeply(list(tools), self._control.defuse)
            if more["tools"] != list(tools) and row.id not in account.defused[-1:]:
                account.defused.append(row.id)
        return replace(row, **found, **more)

    def lengths(
        self, prompt: Sequence[Message], completion: Sequence[Message], tools: Sequence[Any]
    ) -> tuple[int, int, int]:
        """Token counts: of the prompt, of prompt and completion, and of their common prefix.

        Raises:
            ConversationRefused: the chat template does not take the conversation.
            RlaifError: it leaves out tools or calls.
        """
        self._check_answers(prompt, completion)
        head = self._ids(prompt, tools, opened=True)
        whole = self._ids([*prompt, *completion], tools)
        if tools or any("tool_calls" in turn for turn in [*prompt, *completion]):
            self._check_calls([*prompt, *completion], tools, whole)
        pairs = enumerate(zip(head, whole, strict=False))
        common = next((i for i, (a, b) in pairs if a != b), min(len(head), len(whole)))
        return len(head), len(whole), common

    def _check_answers(self, prompt: Sequence[Message], completion: Sequence[Message]) -> None:
        """Refuse a conversation of which the template leaves out a part of an answer.

        Raises:
            ConversationRefused: it does.
        """
        if any("tool_calls" in turn for turn in [*prompt, *completion]):
            return  # rendered with its tools: see `_check_calls`
        text = self._template.render([*prompt, *completion], open_end=False)
        for turn in completion:
            if turn["role"] == "assistant" and not self._shows(turn["content"], text):
                raise ConversationRefused(
                    "the policy's chat template leaves out a part of the answer",
                    hint="Take such answers out, or edit chat_template.jinja.",
                )

    def _shows(self, content: str, text: str) -> bool:
        """Whether a conversation shows an answer: what is thought, and what is said, for templates
        write the marks around thinking in a way of their own.
        """
        if content.strip() in text:
            return True
        at = find_spoken(content, self._marks) or 0
        said, thought = after_thinking(content) or "", content[:at]
        for mark in (mark for pair in self._marks for mark in pair):
            thought = thought.replace(mark, "")
        return bool(at) and thought.strip() in text and said in text

    def _ends_turns(self) -> bool:
        """Whether the template writes a control token after an answer."""
        mark = "Qamarkend"
        turns: list[Message] = [
            {"role": "user", "content": "Q"},
            {"role": "assistant", "content": mark},
        ]
        behind = self._template.render(turns, open_end=False).rpartition(mark)[2]
        ids = self._tokenizer(behind, add_special_tokens=False)["input_ids"]
        return not self._control.ids.isdisjoint(ids)

    def _defused(self, message: Message) -> Message:
        defuse = self._control.defuse
        found: Any = dict(message)
        for key in ("content", "reasoning_content", "name"):
            if key in found:
                found[key] = defuse(found[key])
        if message["role"] == "assistant":
            found["content"] = self._keep_thinking(message["content"])
        if "tool_calls" in found:
            found["tool_calls"] = _deeply(found["tool_calls"], defuse)
        return found  # type: ignore[no-any-return]

    def _keep_thinking(self, text: str) -> str:
        """An answer without control tokens, but for the marks of the thinking that opens it: those
        the policy is to learn as the tokens that they are.
        """
        defuse, marks = self._control.defuse, self._marks
        at = find_spoken(text, marks) or 0
        if not at:
            return defuse(text)
        names = {mark for pair in marks if pair[0] in text[:at] for mark in pair}
        own = sorted(names, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, own))})", text[:at])
        # Marks stand between the parts of what is thought.
        kept = "".join(part if k % 2 else defuse(part) for k, part in enumerate(parts))
        return kept + defuse(text[at:])

    def _ids(
        self, messages: Sequence[Message], tools: Sequence[Any] = (), *, opened: bool = False
    ) -> list[int]:
        try:
            encoded = self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                add_generation_prompt=opened,
                tokenize=True,
                return_dict=True,
            )
        except Exception as error:  # templates raise what they like
            raise ConversationRefused(
                f"the policy's chat template refuses a conversation ({error})",
                hint="Fix chat_template.jinja in the policy's folder.",
            ) from None
        return list(encoded["input_ids"])

    def _check_calls(
        self, messages: Sequence[Message], tools: Sequence[Any], whole: Sequence[int]
    ) -> None:
        """Refuse a chat template that leaves out what was called, or what could be.

        Raises:
            RlaifError: it renders the conversation alike without its tools, or without a call.
        """
        hint = "Train a policy whose chat template takes tools."
        if tools and self._ids(messages) == whole:
            raise RlaifError("the policy's chat template leaves out the tools", hint=hint)
        for at, turn in enumerate(messages):
            if "tool_calls" not in turn:
                continue
            renamed: Any = copy.deepcopy(dict(turn))
            for call in renamed["tool_calls"]:
                call["function"]["arguments"] = {"other": "argument"}
            if self._ids([*messages[:at], renamed, *messages[at + 1 :]], tools) == whole:
                raise RlaifError("the policy's chat template leaves out tool calls", hint=hint)


def _deeply(value: Any, change: Any) -> Any:
    """A value with all its texts changed, those that are keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_deeply(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _deeply(item, change) for key, item in value.items()}
    return value
