"""Reads tool calls and definitions of tools, however a file spells them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rlaif.data.flags import write_ignore
from rlaif.data.row_common import BadRow, check_text, tokens_of
from rlaif.util.doubled_keys import refuse_doubles


def is_calls(value: object) -> bool:
    """Whether a value is a list of nothing but tool calls; definitions of tools are none."""
    return isinstance(value, list) and bool(value) and all(map(is_call, value))


def is_call(value: object) -> bool:
    """Whether a value is one tool call: what is called, and with which arguments."""
    if not isinstance(value, Mapping) or {"role", "from"} & value.keys():
        return False
    inner = value.get("function")
    call = inner if isinstance(inner, Mapping) else value
    if not isinstance(_call_name(call), str):
        return False
    schema = call.get("parameters")
    defined = isinstance(schema, Mapping) and {"properties", "type"} & schema.keys()
    return not defined and "description" not in call and bool(_ARGUMENTS & call.keys())


_CALL_NAMES = ("name", "tool", "tool_name", "toolName", "function", "function_name")


def _call_name(call: Mapping[str, Any]) -> object:
    """What a call calls, by whatever name; None for nothing."""
    return next((call[key] for key in _CALL_NAMES if isinstance(call.get(key), str)), None)


def read_calls(value: object, where: str) -> list[dict[str, Any]]:
    """A cell's tool calls, in the form of chat templates.

    Args:
        where: the column, for errors.

    Raises:
        BadRow: it holds something else.
    """
    if value in (None, "", [], {}):
        return []
    if isinstance(value, str) and not value.strip():
        return []
    if isinstance(value, str | Mapping | list):
        return collect_calls({"tool_calls": value}, where)
    raise BadRow(f"column {where!r} holds {str(value)[:40]!r}, which is no list of tool calls")


def make_call(identity: object, name: object, arguments: object) -> dict[str, Any]:
    """A tool call in the form of chat templates: arguments as an object where they are one."""
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):
            arguments = json.loads(arguments, object_pairs_hook=refuse_doubles)
    function = {"name": check_text(str(name)), "arguments": {} if arguments is None else arguments}
    call: dict[str, Any] = {"type": "function", "function": function}
    return {"id": identity, **call} if isinstance(identity, str) and identity else call


def collect_calls(turn: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The calls that a message makes, whether as `tool_calls` or in the older `function_call`."""
    found = turn.get("tool_calls")
    if isinstance(found, str) and found.strip():
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise BadRow(f"column {where!r} contains `tool_calls` that are not JSON") from None
    if turn.get("function_call"):
        if found:
            raise BadRow(f"column {where!r} contains a message with calls of two kinds")
        found = [turn["function_call"]]
    if found is None and isinstance(turn.get("function_calls"), str) and turn["function_calls"]:
        return calls_of_text(turn["function_calls"]) or [
            make_call(None, "function_calls", {"text": turn["function_calls"]})
        ]
    if isinstance(found, Mapping):
        found = [found]
    found = found or _other_calls(turn, where) or []
    if isinstance(broken := turn.get("invalid_tool_calls"), list):  # LangChain's, not parsed
        found = [*(found or []), *broken]
    calls = []
    for call in found or []:
        inner = call.get("function", call) if isinstance(call, Mapping) else None
        inner = call if isinstance(inner, str) else inner
        name = _call_name(inner) if isinstance(inner, Mapping) else None
        if name is None or not isinstance(inner, Mapping):
            raise BadRow(f"column {where!r} contains a tool call without a name")
        identity = call.get("id", call.get("toolCallId"))
        calls.append(make_call(identity, name, _arguments_of(inner, where)))
    return calls


_ARGUMENT_NAMES = ("arguments", "parameters", "input", "args", "kwargs")
_ARGUMENTS = set(_ARGUMENT_NAMES)


def _other_calls(turn: Mapping[str, Any], where: str) -> list[Any] | None:
    """Calls by a name that nothing else reads, such as `toolCalls`; None for none.

    Raises:
        BadRow: what bears such a name are no calls.
    """
    if turn.keys() <= _USUAL:
        return None
    more = turn.get("additional_kwargs")  # LangChain's
    if isinstance(more, Mapping) and (held := more.get("tool_calls") or more.get("function_call")):
        return list(held) if isinstance(held, list) else [held]
    for key, held in turn.items():
        words = set(tokens_of(key))
        if key in _READ or not held or isinstance(held, bool | int | float):
            continue
        if not _CALLING & words or _ABOUT_CALLS & words:
            continue
        value = held
        if isinstance(held, str):
            with suppress(ValueError, RecursionError):
                value = json.loads(held)
        if is_call(value):
            return [value]
        if is_calls(value):
            return list(value)
        raise BadRow(
            f"column {where!r} contains a message whose {key!r} may be tool calls; write them as "
            f"`tool_calls`, or leave them out with {write_ignore(f'{where}[].{key}')}"
        )
    return None


_USUAL = frozenset({"role", "content", "name", "from", "value", "tool_call_id", "tool_calls"})
_READ = {"tool_calls", "function_call", "function_calls", "invalid_tool_calls", "tool_call_id"}
_ABOUT_CALLS = {"count", "error", "errors", "id", "ids", "name", "num", "number", "tools", "type"}
_BESIDE = {"description", "id", "index", "result", "state", "toolCallId", "type"}
"""Parts of a call that are no arguments."""
_CALLING = {"action", "actions", "call", "calls", "invocation", "invocations"}
"""Words of parts of a message that hold what it calls."""


def _arguments_of(call: Mapping[str, Any], where: str) -> object:
    """The arguments of a call, by whatever name; None for a call that has none.

    Raises:
        BadRow: the call has something that may be its arguments, by an unknown name.
    """
    found = next((call[name] for name in _ARGUMENT_NAMES if name in call), None)
    known = {
        *_ARGUMENTS,
        *_CALL_NAMES,
        "toolCallId",
        "state",
        "result",
        "id",
        "type",
        "index",
        "description",
        "function",
    }
    if found is None and (other := [str(k) for k in call if k not in known and call[k]]):
        raise BadRow(f"column {where!r} contains a tool call with the unknown part {other[0]!r}")
    return found


def calls_of_text(text: str) -> list[dict[str, Any]]:
    """Calls written out as JSON, one or a list; [] where the text is something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(
        isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls
    ):
        return []
    return [make_call(call.get("id"), call["name"], _arguments_of(call, "")) for call in calls]


def tools_of(value: object) -> list[Any]:
    """Definitions of tools: a list, or one written out as JSON; text that is none stays text."""
    if isinstance(value, str):
        if not value.strip():
            return []
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return [value]
    if isinstance(value, Mapping):
        value = [value]
    return [tool for tool in value if tool] if isinstance(value, list) else []
