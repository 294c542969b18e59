"""What a message says to do can be done: each flag that it names is taken, and leads on.

A data set that is refused is opened again with the first flags that the message names, then with
the next ones, until it is read.  The message must not come back, and no flag may be refused.
"""

from __future__ import annotations

import json
import re
import shlex
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli.common.layout_flags import layout_fields
from rlaif.data.dataset import Need, open_dataset
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from tests.data.test_public_layouts import FILES

FLAGS = {"--map": "maps", "--ignore": "ignore", "--value": "value_map", "--transcript": "forms"}
PICTURE = [{"role": "user", "content": "<image>\nWhat is it?"}]
GRADES = {"Help": {"Rating": "4", "Reason": "r"}, "Care": {"Rating": "2", "Reason": "r"}}


def ways_of(error: RlaifError) -> list[list[str]]:
    """The flags that a message names, each way out as words of a command line."""
    said = f"{error} {error.hint}"
    quoted = [shlex.split(part) for part in re.findall(r"`([^`]*--[^`]*)`", said)]
    return [words for words in quoted if words and words[0] in FLAGS]


def fields_of(words: list[str]) -> dict[str, Any]:
    flags: dict[str, Any] = dict.fromkeys(FLAGS.values(), ())
    for flag, value in zip(words[::2], words[1::2], strict=True):
        flags[FLAGS[flag]] = (*flags[FLAGS[flag]], value)
    return layout_fields(flags)


def follow(path: Path, need: Need, *, last: bool) -> tuple[list[str], str]:
    """Take the first way out of each message, or the last one; the flags, and what stays."""
    words: list[str] = []
    seen: list[str] = []
    for _ in range(20):
        try:
            data = open_dataset(str(path), given=fields_of(words), need=need)
        except RlaifError as error:
            if str(error) in seen:
                raise AssertionError(f"{words}: {error} {error.hint}") from error
            seen.append(str(error))
            ways = [way for way in ways_of(error) if not re.search("COLUMN|SIDE", " ".join(way))]
            if not ways:
                return words, str(error)
            words += ways[-1 if last else 0]
            continue
        read = [row for _, row in data.read()]
        return words, "" if any(not isinstance(row, Rejected) for row in read) else str(read[0])
    raise AssertionError(f"no end: {words}")


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("need", ["verdict", "responses", "targets", "prompt"])
def test_each_way_out_can_be_taken(need: Need, *, last: bool) -> None:
    followed = 0
    for path in FILES:
        words, _ = follow(path, need, last=last)
        followed += bool(words)
    assert followed


ODD: dict[str, dict[str, Any]] = {
    "two tools": {"prompt": "q{k}?", "chosen": "g{k}", "rejected": "b{k}"}
    | {"tools": [{"name": "w"}], "orig_tools": [{"name": "v"}]},
    "other pair": {"prompt": "q{k}?", "chosen": "g{k}", "rejected": "b{k}"}
    | {"full_chosen": "longer g{k} here", "full_rejected": "longer b{k} here"},
    "two questions": {"vanilla": "What is {k} and why?", "adversarial": "Say what {k} is or else."}
    | {"chosen": "g{k}", "rejected": "b{k}"},
    "spaces in names": {"the text": "What is {k} and why is it?", "chosen": "g{k}"}
    | {"rejected": "b{k}"},
    "grades in objects": {"prompt": "q{k}?"}
    | {
        "completions": [
            {"response": "g{k}", "annotations": GRADES},
            {"response": "b{k}", "annotations": GRADES | {"Help": {"Rating": "1"}}},
        ]
    },
    "ratings of several": {"prompt": "q{k}?", "response": "a{k}"}
    | {"safety_rating": "good", "quality_rating": "good", "overall_rating": "bad"},
    "whole conversation": {"task": "You are a customer {k} who wants help."}
    | {
        "traj": [
            {"role": "user", "content": "Where is {k}?"},
            {"role": "assistant", "content": "There, {k}."},
        ]
    },
    "texts of unknown use": {"question": "What is {k}?", "documents": [{"snippet": "It is {k}."}]}
    | {"told": "There are {k} of them here.", "more": "They are known since {k} years."},
    "two lists of turns": {"free": ["hello {k}", "well {k}"], "guided": ["so {k}", "fine {k}"]}
    | {"persona": "someone who likes {k} things"},
    "score of one": {"prompt": "q{k}?", "response": "a{k}", "score": 3},
}


def filled(value: Any, k: int) -> Any:
    return json.loads(json.dumps(value).replace("{k}", str(k)))


def write(path: Path, row: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(filled(row, k)) + "\n" for k in range(4)))
    return path


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", ODD)
def test_each_way_out_of_odd_columns_can_be_taken(tmp_path: Path, name: str, *, last: bool) -> None:
    for number, need in zip(count(), ("verdict", "responses", "targets", "prompt"), strict=False):
        follow(write(tmp_path / f"{number}.jsonl", ODD[name]), need, last=last)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "need", "wanted"),
    [
        ("other pair", "verdict", []),
        ("spaces in names", "verdict", ["--map", "prompt=the text"]),
        (
            "grades in objects",
            "verdict",
            ["--map", "scores=completions[].annotations.Help.Rating"],
        ),
        ("whole conversation", "targets", ["--map", "prompt=traj"]),
        ("two questions", "verdict", ["--map", "prompt=vanilla"]),
        ("score of one", "targets", ["--map", "good_from=4"]),
    ],
)
def test_the_first_way_out_reads_the_rows(
    tmp_path: Path, name: str, need: Need, wanted: list[str]
) -> None:
    words, left = follow(write(tmp_path / "d.jsonl", ODD[name]), need, last=False)
    assert left == "" or name == "score of one"
    assert words[: len(wanted)] == wanted


def test_answers_to_one_turn_are_not_read_as_one(tmp_path: Path) -> None:
    """PRISM keeps the answers of several models in one conversation."""
    turns = [
        {"role": "user", "content": "q{k}?"},
        {"role": "model", "content": "one {k}", "model_name": "x", "if_chosen": True},
        {"role": "model", "content": "two {k}", "model_name": "y", "if_chosen": False},
    ]
    path = write(tmp_path / "d.jsonl", {"conversation_history": turns})
    found = [row for _, row in open_dataset(str(path)).read()]
    assert all(
        isinstance(row, Rejected) and "several answers to one" in row.reason for row in found
    )
    turns[2]["model_name"], turns[2]["if_chosen"] = "x", True
    path = write(tmp_path / "e.jsonl", {"conversation_history": turns})
    assert not any(isinstance(row, Rejected) for _, row in open_dataset(str(path)).read())
    several = [*turns[:2], {"role": "user", "content": "and {k}?"}, {**turns[1], "model_name": "z"}]
    path = write(tmp_path / "f.jsonl", {"conversation_history": several})
    assert not any(isinstance(row, Rejected) for _, row in open_dataset(str(path)).read())


def test_an_answer_is_no_name_of_who_wrote_it(tmp_path: Path) -> None:
    row = {"prompt": "What is {k}?", "model_1_output": "It is the number {k}, as you can see."}
    data = open_dataset(str(write(tmp_path / "d.jsonl", row)))
    assert data.layout.origins == ()
    assert data.found.doubts == {"model_1_output": "an answer"}
