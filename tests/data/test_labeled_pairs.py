"""Labeled data is recognized however it says who won."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlaif.data.infer import infer_layout
from rlaif.data.labeled_pairs import LabeledPair
from rlaif.data.labeled_pairs import read_labeled as read_with
from rlaif.data.reading import Reader
from rlaif.data.single_rows import BadRow, reader_for


def read_labeled(
    row: dict[str, Any], name: str, mapping: dict[str, str] | None = None
) -> Iterator[LabeledPair]:
    """The labeled pairs of a row whose layout is found in itself."""
    return read_with(row, name, reader_for(row, mapping))


def preferred(pair: LabeledPair) -> str | None:
    """The text of the response that people prefer."""
    side = {"a": pair.a, "b": pair.b}.get(pair.label)
    return side.messages[-1]["content"] if side else None


TURN = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad", "subset": "part"},
        {
            "chosen": [TURN, {"role": "assistant", "content": "good"}],
            "rejected": [TURN, {"role": "assistant", "content": "bad"}],
            "source": "part",
        },
        {
            "question": "q",
            "response_A": "bad",
            "response_B": "good",
            "label": "B>A",
            "source": "part",
        },
        {
            "question": "q",
            "response_A": "good",
            "response_B": "bad",
            "label": "A>>B",
            "source": "part",
        },
        {
            "question": "q",
            "response_A": "good",
            "response_B": "bad",
            "label": "[[A>B]]",
            "category": "part",
        },
        {
            "conversation_a": [TURN, {"role": "assistant", "content": "bad"}],
            "conversation_b": [TURN, {"role": "assistant", "content": "good"}],
            "winner": "model_b",
            "category": "part",
        },
        {
            "prompt": "q",
            "response_a": "good",
            "response_b": "bad",
            "winner_model_a": 1,
            "winner_model_b": 0,
            "winner_tie": 0,
            "source": "part",
        },
        {
            "prompt": "q",
            "response1": "good",
            "response2": "bad",
            "overall_preference": -2,
            "domain": "part",
        },
        {
            "prompt": "q",
            "response_1": "bad",
            "response_2": "good",
            "preference": 2,
            "domain": "part",
        },
        {
            "prompt": "q",
            "responses": [{"text": "bad", "score": 1}, {"text": "good", "score": 3}],
            "subset": "part",
        },
    ],
)
def test_layouts(row: dict[str, Any]) -> None:
    (pair,) = read_labeled(row, "row-1")
    assert preferred(pair) == "good"
    assert pair.subset == "part"
    assert pair.prompt[-1]["content"] == "q"


def test_lists_of_several_become_every_pair_of_one_group() -> None:
    row = {
        "id": "7",
        "prompt": "q",
        "chosen": ["g1", "g2"],
        "rejected": ["b1", "b2", "b3"],
        "subset": "Ties",
    }
    pairs = list(read_labeled(row, "row-1"))
    assert len(pairs) == 6
    assert {p.group for p in pairs} == {"7"}
    assert len({p.id for p in pairs}) == 6
    assert all(str(preferred(p)).startswith("g") for p in pairs)


def test_the_preferred_response_stands_on_either_side() -> None:
    row = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    sides = [next(read_labeled(row, f"row-{i}")).label for i in range(400)]
    assert 160 < sides.count("a") < 240


@pytest.mark.parametrize("value", ["tie", "tie (bothbad)", "A=B", "both", "Tie"])
def test_ties_are_kept(value: str) -> None:
    row = {"prompt": "q", "response_a": "x", "response_b": "y", "winner": value}
    (pair,) = read_labeled(row, "r")
    assert pair.label == "tie"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "response_a": "x", "response_b": "y"}, "no preference found"),
        (
            {"prompt": "q", "response_a": "x", "response_b": "y", "label": "correct"},
            "no preference found",
        ),
        (
            {"prompt": "q", "response_a": "x", "response_b": "y", "label": 0},
            "no preference found",
        ),
        ({"prompt": "q", "responses": ["x", "y"]}, "no preference found"),
        ({"chosen": "x", "rejected": "y"}, "no prompt"),
    ],
)
def test_rows_that_do_not_say_are_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        list(read_labeled(row, "r"))


def test_cells_of_csv_files() -> None:
    row = {"prompt": "q", "response1": "good", "response2": "bad", "overall_preference": "-1"}
    (pair,) = read_labeled(row, "r")
    assert preferred(pair) == "good"
    row = {"prompt": "q", "chosen": '["g1", "g2"]', "rejected": '["b1"]'}
    (pair,) = read_labeled(row, "r")
    assert preferred(pair) == '["g1", "g2"]', "an answer may be a list"
    lists = Reader(infer_layout([row], {"decode": ("chosen", "rejected")}).layout)
    assert sorted(str(preferred(p)) for p in read_with(row, "r", lists)) == ["g1", "g2"]
    named = {"q": "q", "answer1": "bad", "answer2": "good", "who": "b"}
    names = {"prompt": "q", "response_a": "answer1", "response_b": "answer2", "label": "who"}
    (pair,) = read_labeled(named, "r", names)
    assert preferred(pair) == "good"


def test_columns_can_be_named() -> None:
    row = {"q": "q", "one": "x", "two": "y", "who": "2", "topic": "t", "label": "junk"}
    names = {
        "prompt": "q",
        "response_a": "one",
        "response_b": "two",
        "label": "who",
        "subset": "topic",
    }
    (pair,) = read_labeled(row, "r", names)
    assert (preferred(pair), pair.subset) == ("y", "t")
