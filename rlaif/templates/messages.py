"""Messages as text: what was said, what was called and with which arguments, what came back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlaif.records import Message

_ROLE_NAMES = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def message_text(message: Message) -> str:
    """What a message says, with its thought and its calls; a plain one's content as it stands."""
    if "tool_calls" not in message and "reasoning_content" not in message:
        return message["content"]
    parts = []
    if thought := message.get("reasoning_content"):
        parts.append(f"[thinking] {thought}")
    if message["content"]:
        parts.append(message["content"])
    parts += [call_text(call) for call in message.get("tool_calls", [])]
    return "\n".join(parts)


def call_text(call: dict[str, Any]) -> str:
    """One tool call on a line: `[call c1] get_weather({"city": "Oslo"})`."""
    function = call["function"]
    name = f"call {call['id']}" if call.get("id") else "call"
    return f"[{name}] {function['name']}({json.dumps(function['arguments'], ensure_ascii=False)})"


def speaker(message: Message) -> str:
    """Who speaks, for people and judges; a tool's result names the call that it answers."""
    role = message["role"]
    shown = _ROLE_NAMES.get(role, role.capitalize())
    named = [message.get("name"), message.get("tool_call_id")]
    told = ", ".join(part for part in named if part)
    return f"{shown} ({told})" if told else shown


def conversation_text(messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
    """A conversation as the judge reads it: one paragraph per message, headed by its role.

    Args:
        tools: definitions of the tools that could be called, put first, one a line.
    """
    lines = [f"[tool] {json.dumps(tool, ensure_ascii=False)}" for tool in tools]
    lines += [f"{speaker(m)}: {message_text(m)}" for m in messages]
    return "\n".join(lines)


def completion_text(messages: Sequence[Message]) -> str:
    """A completion as the judge reads it: bare text for the usual single message."""
    if len(messages) == 1:
        return message_text(messages[0])
    return conversation_text(messages)
