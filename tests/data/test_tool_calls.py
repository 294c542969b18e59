"""Tool calls and trajectories are judged as what they are."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.dataset import SAMPLE, open_dataset
from rlaif.data.pairing import make_pairs
from rlaif.data.single_rows import BadRow, read_row
from rlaif.errors import RlaifError
from rlaif.judging.questions import screen
from rlaif.records import Message, Rejected
from rlaif.templates.messages import completion_text, conversation_text
from tests.data.test_infer import write
from tests.data.test_outside_shapes import problems, read

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


CALL = {"name": "w", "arguments": {"city": "Oslo"}}
WANTED = {"type": "function", "function": CALL}
NESTED = {"type": "function", "function": {"name": "w", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize("call", [CALL, NESTED, {"name": "w", "args": {"city": "Oslo"}}])
@pytest.mark.parametrize("written", [False, True])
def test_responses_that_are_nothing_but_calls(
    tmp_path: Path, call: dict[str, Any], written: bool
) -> None:
    value: Any = json.dumps([call]) if written else [call]
    other: Any = json.dumps([{**CALL, "name": "x"}]) if written else [{**CALL, "name": "x"}]
    for one, two in (
        ("chosen", "rejected"),
        ("response_a", "response_b"),
        ("tool_calls_a", "tool_calls_b"),
        ("chosen_tool_calls", "rejected_tool_calls"),
    ):
        rows = [{"prompt": f"Weather {k}?", one: value, two: other} for k in range(3)]
        found = read(write(tmp_path / f"{one}.jsonl", rows))
        assert [c.messages for c in found[0].completions] == [
            [{"role": "assistant", "content": "", "tool_calls": [WANTED]}],
            [
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{**WANTED, "function": {**CALL, "name": "x"}}],
                }
            ],
        ]
        assert problems(str(tmp_path / f"{one}.jsonl")) == []


@pytest.mark.parametrize(
    "columns",
    [
        ("response_a", "response_b", "tool_calls_a", "tool_calls_b"),
        ("response_a", "response_b", "response_a_tool_calls", "response_b_tool_calls"),
        ("chosen", "rejected", "chosen_tool_calls", "rejected_tool_calls"),
    ],
)
@pytest.mark.parametrize("others", [[], None, [{**CALL, "name": "x"}]])
def test_calls_beside_the_texts_belong_to_their_own_response(
    tmp_path: Path, columns: tuple[str, ...], others: Any
) -> None:
    one, two, first, second = columns
    rows = [
        {"prompt": f"Weather {k}?", one: f"I look {k}.", two: "", first: others, second: [CALL]}
        for k in range(3)
    ]
    rows[0][two] = "It is sunny."
    path = write(tmp_path / "d.jsonl", rows)
    found = read(path)
    assert [m["content"] for m in found[1].completions[0].messages] == ["I look 1."]
    assert found[1].completions[1].messages[0].get("tool_calls") == [WANTED]
    assert bool(found[1].completions[0].messages[0].get("tool_calls")) == bool(others)
    assert problems(path) == []


def test_calls_in_the_entries_of_a_list_belong_to_their_entry(tmp_path: Path) -> None:
    entries = [{"text": "Sunny.", "tool_calls": []}, {"text": "", "tool_calls": [NESTED]}]
    path = write(tmp_path / "d.jsonl", [{"prompt": "Weather?", "responses": entries}] * 2)
    one, two = read(path)[0].completions
    assert "tool_calls" not in one.messages[0]
    assert two.messages == [{"role": "assistant", "content": "", "tool_calls": [WANTED]}]


def test_a_definition_of_a_tool_is_no_call(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"name": "w", "parameters": schema}
    rows = [{"prompt": "Weather?", "chosen": [CALL], "rejected": "No.", "tools": [tool]}] * 2
    (row, _) = read(write(tmp_path / "d.jsonl", rows))
    assert row.tools == [tool]
    assert row.completions[0].messages[0]["tool_calls"] == [WANTED]


def test_what_is_no_call_in_a_late_row_is_rejected(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": f"q {k}?", "chosen": f"a {k}", "rejected": f"b {k}", "tool_calls_chosen": [CALL]}
        | {"tool_calls_rejected": []}
        for k in range(SAMPLE + 3)
    ]
    rows[-2]["tool_calls_rejected"] = "he called w"
    rows[-1]["tool_calls_rejected"] = [{"kind": "w"}]
    *_, fine, one, two = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert not isinstance(fine, Rejected)
    for row in (one, two):
        assert isinstance(row, Rejected)
        assert "tool_calls_rejected" in row.reason


def test_the_way_out_names_all_sides(tmp_path: Path) -> None:
    """Trajectories beside texts: nothing says which of the two are judged."""
    done = [{"role": "assistant", "content": "", "tool_calls": [NESTED]}]
    done += [{"role": "tool", "content": "sunny"}, {"role": "assistant", "content": "Sun."}]
    rows = [
        {"prompt": f"Weather {k}?", "trajectory_a": done, "trajectory_b": done[-1:]}
        for k in range(3)
    ]
    assert len(read(write(tmp_path / "d.jsonl", rows))[0].completions[0].messages) == 3
    for k, row in enumerate(rows):
        row.update(response_a=f"It may be sunny on {k}.", response_b=f"I do not know that {k}.")
    path = write(tmp_path / "e.jsonl", rows)
    with pytest.raises(RlaifError, match=r"--map responses=trajectory_a\+trajectory_b"):
        open_dataset(path, need="responses")
    given = {"responses": ("trajectory_a", "trajectory_b")}
    with pytest.raises(RlaifError, match="--ignore response_a --ignore response_b"):
        open_dataset(path, given=given, need="responses")
    given["ignore"] = ("response_a", "response_b")
    assert open_dataset(path, given=given, need="responses").layout.responses[0] == "trajectory_a"
