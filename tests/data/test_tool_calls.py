"""Tool calls and trajectories are judged as what they are."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.layouts import BadRow, read_row
from rlaif.data.pairing import make_pairs
from rlaif.judging.questions import screen
from rlaif.records import Message
from rlaif.templates.messages import completion_text, conversation_text

NAMES = st.sampled_from(["search", "book", "cancel"])
VALUES = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b", "1", ""]), st.booleans())


@st.composite
def trajectories(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    for k in range(draw(st.integers(1, 4))):
        call = {
            "id": f"c{k}",
            "type": "function",
            "function": {
                "name": draw(NAMES),
                "arguments": draw(st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=2)),
            },
        }
        turns.append(
            {
                "role": "assistant",
                "content": draw(st.sampled_from([None, "so"])),
                "tool_calls": [call],
            }
        )
        turns.append(
            {"role": "tool", "tool_call_id": f"c{k}", "content": draw(st.sampled_from("pq"))}
        )
    return [*turns, {"role": "assistant", "content": draw(st.sampled_from(["done", "no"]))}]


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A trajectory, and the same after one edit of a call or a result."""
    before = draw(trajectories())
    after = copy.deepcopy(before)
    at = 2 * draw(st.integers(0, len(before) // 2 - 1))
    call = after[at]["tool_calls"][0]["function"]
    kind = draw(st.sampled_from(["name", "argument", "result", "order", "dropped"]))
    if kind == "name":
        call["name"] += "_x"
    elif kind == "argument":
        call["arguments"] = {**call["arguments"], "new": 1}
    elif kind == "result":
        after[at + 1]["content"] += "!"
    elif kind == "dropped":
        del after[at : at + 2]
    else:
        after[at : at + 2] = after[at : at + 2][::-1]
    return before, after


def messages_of(turns: list[dict[str, Any]]) -> list[Message]:
    row = {"prompt": "q", "responses": [turns, [{"role": "assistant", "content": "other"}]]}
    return read_row(row).completions[0].messages


@settings(max_examples=300, deadline=None)
@given(edits())
def test_any_edit_of_a_call_is_seen(
    pair: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    before, after = pair
    one, two = messages_of(before), messages_of(after)
    assert completion_text(one) != completion_text(two)
    row = read_row({"prompt": "q", "responses": [before, after]})
    (found,) = make_pairs(row, "r")
    assert screen(found) is None
    (same,) = make_pairs(read_row({"prompt": "q", "responses": [before, before]}), "r")
    assert screen(same) == ("tie", "identical completions")


def test_calls_are_read_in_every_spelling() -> None:
    wanted = {"type": "function", "function": {"name": "w", "arguments": {"city": "Oslo"}}}
    arguments = '{"city": "Oslo"}'
    for turn in (
        {"role": "assistant", "tool_calls": [{"function": {"name": "w", "arguments": arguments}}]},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "w", "arguments": arguments},
        },
        {
            "from": "function_call",
            "value": json.dumps({"name": "w", "arguments": {"city": "Oslo"}}),
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "name": "w", "input": {"city": "Oslo"}}],
        },
        {"role": "assistant", "tool_calls": [{"name": "w", "arguments": {"city": "Oslo"}}]},
        {"role": "assistant", "tool_calls": [{"name": "w", "args": {"city": "Oslo"}}]},
    ):
        row = read_row({"prompt": "q", "responses": [[turn], "other"]})
        (message,) = row.completions[0].messages
        assert message["tool_calls"] == [wanted], turn
        assert message["content"] == ""


def test_thoughts_results_and_tools_are_shown() -> None:
    row = read_row(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": "Look it up.",
                    "tool_calls": [{"id": "c1", "function": {"name": "w", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c1", "name": "w", "content": "sunny"},
            ],
            "tools": [{"type": "function", "function": {"name": "w"}}],
            "response_a": "Sunny.",
            "response_b": "Rain.",
        }
    )
    text = conversation_text(row.prompt, row.tools)
    assert text.splitlines() == [
        '[tool] {"type": "function", "function": {"name": "w"}}',
        "Developer: Be brief.",
        "User: Weather?",
        "Assistant: [thinking] Look it up.",
        "[call c1] w({})",
        "Tool (w, c1): sunny",
    ]


def test_a_turn_without_anything_is_refused() -> None:
    for turn in ({"role": "assistant", "content": None}, {"role": "assistant"}):
        with pytest.raises(BadRow, match="without `content`"):
            read_row({"prompt": "q", "responses": [[turn], "other"]})
