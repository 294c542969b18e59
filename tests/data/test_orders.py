"""Cells that list all responses of a row: an order, the rank of each, or votes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.dataset import open_dataset
from rlaif.data.labeled_pairs import read_labeled
from rlaif.data.verdict_codes import read_order
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from tests.data.test_infer import write
from tests.data.test_nothing_in_silence import pairs
from tests.data.test_outside_shapes import problems, read


def lists(count: int, **columns: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Which is number {k}?",
            "responses": [f"It is {name} of {k}." for name in ("one", "two", "three")],
            **{name: values[k % len(values)] for name, values in columns.items()},
        }
        for k in range(count)
    ]


@pytest.mark.parametrize(
    "order",
    [
        [["b", "a"], ["a", "b"]],
        [["B", "A"], ["A", "B"]],
        [["response_b", "response_a"], ["response_a", "response_b"]],
        [["2", "1"], ["1", "2"]],
        [[1, 0], [0, 1]],
        [[2, 1], [1, 2]],
        ['["b", "a"]', '["a", "b"]'],
    ],
)
def test_an_order_of_two_says_which_is_better(tmp_path: Path, order: list[Any]) -> None:
    path = write(tmp_path / "d.jsonl", pairs(ranking=order))
    assert [row.winner for row in read(path)] == [1, 0, 1, 0]
    assert problems(path) == []


def test_an_order_names_letters_or_writers(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", lists(2, ranking=[["c", "a", "b"], ["b", "c", "a"]]))
    assert [[c.score for c in row.completions] for row in read(path)] == [[2, 3, 1], [3, 1, 2]]
    models = {"models": [["x", "y", "z"]], "ranking": [["z", "x", "y"], ["y", "z", "x"]]}
    path = write(tmp_path / "m.jsonl", lists(2, **models))
    assert [[c.score for c in row.completions] for row in read(path)] == [[2, 3, 1], [3, 1, 2]]


def test_numbers_of_three_are_asked_about_and_both_answers_are_taken(tmp_path: Path) -> None:
    """`[3, 1, 2]`: the third is best, or the first has rank 3 and the second is best."""
    path = write(tmp_path / "d.jsonl", lists(2, ranking=[[3, 1, 2], [1, 2, 3]]))
    (problem,) = problems(path)
    assert "--map scores=ranking" in problem
    assert "--map order=ranking" in problem
    assert [row.winner for row in read(path)] == [None, None]
    assert [row.winner for row in read(path, order="ranking")] == [2, 0]
    assert [row.winner for row in read(path, scores=("ranking",))] == [1, 0]
    assert problems(path, order="ranking") == problems(path, scores=("ranking",)) == []


def test_ranks_with_ties_are_ranks(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", lists(3, ranking=[[2, 1, 1], [3, 1, 2], [1, 2, 2]]))
    assert [row.winner for row in read(path)] == ["tie", 1, 0]
    path = write(tmp_path / "e.jsonl", pairs(ranking=[[1, 1], [2, 1]]))
    assert [row.winner for row in read(path)] == ["tie", 1, "tie", 1]


def test_two_votes_that_never_agree_are_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", pairs(votes=[["1", "0"], ["0", "1"]]))
    (problem,) = problems(path)
    assert "--map order=votes" in problem
    assert "--map label=votes" in problem
    votes = read(path, label=("votes",), values={"0": "a", "1": "b"})
    assert [(row.winner, row.votes) for row in votes[:2]] == [("tie", [1, 0]), ("tie", [0, 1])]
    assert [row.winner for row in read(path, order="votes")] == [1, 0, 1, 0]


def test_an_order_that_contradicts_the_verdict_is_asked_about(tmp_path: Path) -> None:
    orders = [["b", "a"], ["a", "b"]]
    path = write(tmp_path / "d.jsonl", pairs(ranking=orders, winner=["a", "b"]))
    assert any("'winner' and 'ranking'" in problem for problem in problems(path))
    same = write(tmp_path / "e.jsonl", pairs(ranking=orders, winner=["b", "a"]))
    assert problems(same) == []


def test_a_row_whose_order_is_not_whole_is_rejected(tmp_path: Path) -> None:

    rows = lists(4, ranking=[["c", "a", "b"], ["b", "c", "a"]])
    rows[2]["ranking"] = ["c", "a", "a"]
    rows[3]["ranking"] = "c > b > a"
    data = open_dataset(write(tmp_path / "d.jsonl", rows), given={"order": "ranking"})
    found = [row for _, row in data.read()]
    assert isinstance(found[2], Rejected)
    assert "each of 3 responses once" in found[2].reason
    assert [getattr(row, "winner", None) for row in found] == [2, 1, None, 2]


def test_all_pairs_of_an_order_are_labeled(tmp_path: Path) -> None:

    path = write(tmp_path / "d.jsonl", lists(1, ranking=[["c", "a", "b"]]))
    data = open_dataset(path, need="verdict")
    (row,) = [row for _, row in data.source.rows()]
    texts = ["It is three of 0.", "It is one of 0.", "It is two of 0."]  # the best first
    for one in read_labeled(row, "r", data.reader):
        said = [one.a.messages[0]["content"], one.b.messages[0]["content"]]
        better = said["ab".index(one.label)]
        assert texts.index(better) == min(map(texts.index, said))


def test_a_ranking_that_nothing_can_read_stops_the_run(tmp_path: Path) -> None:

    rows = lists(2, ranking=[[["c"], ["a", "b"]], [["b"], ["a", "c"]]])
    with pytest.raises(RlaifError, match="'ranking'"):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="verdict")


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(["abcd", "ABCD", "0123", "1234", "wxyz"]))
def test_places_are_the_inverse_of_the_order(order: list[int], names: str) -> None:
    codes = [names[k].lower() for k in order]
    writers = list("wxyz") if names == "wxyz" else []
    places = read_order(codes, 4, names=writers)
    assert places is not None
    assert all(places[k] == at + 1 for at, k in enumerate(order))
    assert read_order([*codes[:3], codes[0]], 4, names=writers) is None
    assert read_order(codes[:3], 4, names=writers) is None


def test_an_order_of_two_is_its_own_ranks() -> None:
    for order in itertools.permutations((1, 2)):
        assert read_order([str(k) for k in order], 2) == list(order)


@pytest.mark.parametrize(
    ("columns", "values", "wanted"),
    [
        (("base_output", "tuned_output"), ("tuned", "base", "tie"), [1, 0, "tie"]),
        (("human_response", "model_response"), ("model", "human", "model"), [1, 0, 1]),
    ],
)
def test_a_verdict_may_be_the_word_that_one_column_has_alone(
    tmp_path: Path, columns: tuple[str, str], values: tuple[str, ...], wanted: list[int | str]
) -> None:
    rows = [
        {"prompt": f"What is {k} for you?", columns[0]: f"It is {k}.", columns[1]: f"No {k} here."}
        | {"winner": value}
        for k, value in enumerate(values)
    ]
    given = {"responses": columns}
    found = [
        row
        for _, row in open_dataset(
            write(tmp_path / "d.jsonl", rows), given=given, need="verdict"
        ).read()
    ]
    assert [row.winner for row in found if not isinstance(row, Rejected)] == wanted
