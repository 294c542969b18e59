"""Rows as people have them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rlaif.data.layout import Layout, make_layout, set_fields
from rlaif.data.pairing import make_pairs
from rlaif.data.single_rows import BadRow, read_row
from rlaif.records import Message


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def said(text: str) -> Message:
    return {"role": "assistant", "content": text}


TURNS = [user("hi"), said("hello"), user("how are you?")]

LAYOUTS = {
    "responses": {"prompt": "q", "responses": ["x", "y"]},
    "chosen and rejected": {"prompt": "q", "chosen": "x", "rejected": "y"},
    "response_a": {"question": "q", "response_a": "x", "response_b": "y"},
    "conversational": {"prompt": [user("q")], "chosen": [said("x")], "rejected": [said("y")]},
    "prompt repeated": {
        "prompt": "q",
        "chosen": [user("q"), said("x")],
        "rejected": [user("q"), said("y")],
    },
    "implicit prompt": {"chosen": [user("q"), said("x")], "rejected": [user("q"), said("y")]},
    "hh": {
        "chosen": "\n\nHuman: q\n\nAssistant: x",
        "rejected": "\n\nHuman: q\n\nAssistant: y",
    },
    "ultrafeedback": {
        "instruction": "q",
        "completions": [{"response": "x", "model": "m1"}, {"response": "y", "model": "m2"}],
    },
    "sharegpt roles": {
        "conversation": [{"from": "human", "value": "q"}],
        "response_a": "x",
        "response_b": "y",
    },
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    row = read_row(LAYOUTS[name])
    assert row.prompt == [user("q")]
    assert [c.messages for c in row.completions] == [[said("x")], [said("y")]]
    assert row.labeled == ("chosen" in LAYOUTS[name])


def test_multi_turn_and_system_and_origin_and_tags() -> None:
    row = read_row(
        {
            "prompt": TURNS,
            "system": "Be brief.",
            "response_a": "x",
            "response_b": "y",
            "model_a": "m1",
            "id": 7,
            "tags": ["privacy", "short"],
        }
    )
    assert row.prompt == [{"role": "system", "content": "Be brief."}, *TURNS]
    assert [c.origin for c in row.completions] == ["m1", ""]
    assert (row.id, row.tags) == ("7", frozenset({"privacy", "short"}))


def test_map_reaches_into_the_row() -> None:
    row = {"meta": {"q": "q"}, "out": [{"t": "x"}, {"t": "y"}]}
    found = read_row(row, {"prompt": "meta.q", "response_a": "out.0.t", "response_b": "out.1.t"})
    assert found.prompt == [user("q")]
    assert found.completions[1].messages == [said("y")]
    with pytest.raises(BadRow, match=r"meta\.x"):
        read_row(row, {"prompt": "meta.x"})


def test_map_wins_over_the_layouts_that_the_row_has_too() -> None:
    row = {"prompt": "q", "chosen": "C", "rejected": "R", "bot.a": "x", "two": "y"}
    found = read_row(row, {"response_a": "bot.a", "response_b": "two"})
    assert [c.messages for c in found.completions] == [[said("x")], [said("y")]]
    assert found.labeled is False
    listed = read_row({**row, "cands": ["1", "2", "3"]}, {"responses": "cands"})
    assert len(listed.completions) == 3


def test_instruction_keeps_its_input() -> None:
    row = {"instruction": "Summarise.", "input": "A text.", "output_1": "x", "output_2": "y"}
    assert read_row(row).prompt == [user("Summarise.\n\nA text.")]


def test_list_written_out_in_a_cell_is_a_list() -> None:
    read = read_row({"prompt": "q", "responses": '["one", {"text": "two", "model": "m"}]'})
    assert [c.messages[0]["content"] for c in read.completions] == ["one", "two"]
    assert read.completions[1].origin == "m"
    with pytest.raises(BadRow, match="no responses"):
        read_row({"prompt": "q", "responses": "[one, two"})


def test_numbered_columns_are_all_taken() -> None:
    row = {"prompt": "q", "response_3": "z", "response_1": "x", "response_2": "y"}
    texts = [c.messages[0]["content"] for c in read_row(row).completions]
    assert texts == ["x", "y", "z"]


def test_roles_are_read_whatever_their_case_and_transcripts_as_turns() -> None:
    row = {
        "prompt": [{"role": "User", "content": "q"}],
        "chosen": [{"role": "Assistant", "content": "x"}],
        "rejected": {"from": "gpt", "value": "y"},
    }
    found = read_row(row)
    assert found.prompt == [user("q")]
    assert [c.messages for c in found.completions] == [[said("x")], [said("y")]]
    transcript = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: q\n\nAssistant:"
    found = read_row({"prompt": transcript, "chosen": "x", "rejected": "y"})
    assert found.prompt == [user("hi"), said("hello"), user("q")]


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    row = {"messages": [{"role": "user", "content": parts}], "responses": ["x", "y"]}
    assert read_row(row).prompt == [user("one\ntwo")]


def test_score_that_is_not_a_number_is_no_score() -> None:
    entries = [{"text": "a", "score": float("nan")}, {"text": "b", "score": 2}, {"text": "c"}]
    row = read_row({"prompt": "q", "completions": entries})
    assert [c.score for c in row.completions] == [None, 2.0, None]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q"}, "no responses"),
        ({"prompt": "a \ud800", "responses": ["x", "y"]}, "not valid UTF-8"),
        ({"prompt": "q", "responses": ["x", "y"], "id": "\ud800"}, "not valid UTF-8"),
        ({"prompt": [{"role": "boss", "content": "q"}], "responses": ["x", "y"]}, "'boss'"),
        ({"prompt": [user("q"), said("x")], "responses": ["x", "y"]}, "nothing left to answer"),
        ({"responses": [[user("q"), said("x")], [user("z"), said("y")]]}, "same conversation"),
        ({"responses": ["x", "y"]}, "no prompt"),
        ({"prompt": 3, "responses": ["x", "y"]}, "no prompt"),
        ({"prompt": "q", "responses": [1, 2]}, "no responses"),
        (
            {"prompt": "q", "completions": [{"foo": "x"}]},
            "none of|no responses|not in the first",
        ),
        ({"prompt": [{"role": "user"}], "responses": ["x", "y"]}, "a message without `content`"),
        ({"chosen": [user("q"), said("x")], "rejected": [user("z"), said("y")]}, "same"),
        ({"chosen": [user("q")], "rejected": [user("q")]}, "does not end with an assistant"),
    ],
)
def test_bad_row_says_why(row: dict, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        read_row(row)


def pairs(n: int, **options):
    row = read_row(
        {"prompt": "q", "completions": [{"text": f"c{i}", "score": i % 3} for i in range(n)]}
    )
    return [(p.id, p.a[0]["content"], p.b[0]["content"]) for p in make_pairs(row, "r", **options)]


def test_all_pairs() -> None:
    assert pairs(3) == [("r/0-1", "c0", "c1"), ("r/0-2", "c0", "c2"), ("r/1-2", "c1", "c2")]
    assert pairs(2) == [("r", "c0", "c1")]


def test_best_against_rest_takes_the_highest_score() -> None:
    found = pairs(4, mode="best")
    assert [(a, b) for _, a, b in found] == [("c2", "c0"), ("c2", "c1"), ("c2", "c3")]
    unscored = read_row({"prompt": "q", "responses": ["x", "y", "z"]})
    with pytest.raises(BadRow, match="score"):
        list(make_pairs(unscored, "r", mode="best"))


def test_sample_is_seeded_and_of_the_asked_size() -> None:
    one, again = pairs(6, mode="sample", count=4, seed=1), pairs(6, mode="sample", count=4, seed=1)
    assert one == again
    assert len(set(one)) == 4
    assert one != pairs(6, mode="sample", count=4, seed=2)


def test_what_was_set_comes_in_one_order_in_every_process() -> None:
    """Sets of names come in another order in each process, and notes and files with them."""
    given = {"rejected": "r", "prompt": ("p",), "id": "i", "chosen": "c"}
    names = list(set_fields(make_layout(given)))
    assert names == [name for name in Layout.model_fields if name in given]


@pytest.mark.parametrize(
    ("options", "pairs"), [({}, 6), ({"mode": "best"}, 3), ({"mode": "sample", "count": 2}, 2)]
)
def test_pairs_of_a_prompt_can_share_its_weight(options: dict[str, Any], pairs: int) -> None:
    responses = [{"text": f"answer {k}", "score": k} for k in range(4)]
    row = read_row({"prompt": "q", "completions": responses})
    row = dataclasses.replace(row, weight=3.0)
    alone = list(make_pairs(row, "r", **options))
    shared = list(make_pairs(row, "r", share_weight=True, **options))
    assert [p.weight for p in alone] == [3.0] * pairs
    assert [p.weight for p in shared] == [3.0 / pairs] * pairs
    assert [p.id for p in alone] == [p.id for p in shared]
