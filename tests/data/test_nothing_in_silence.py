"""What must stop, or reject a row, so that nothing a row says is dropped without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.data.columns import decode
from rlaif.data.dataset import SAMPLE, open_dataset
from rlaif.data.infer import infer_layout
from rlaif.data.reading import Reader
from rlaif.data.sources import open_source
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from rlaif.training.supervised import SupervisedAccount, read_supervised
from tests.data.test_infer import write


def pairs(count: int = 4, **columns: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"What is the number {k}?",
            "response_a": f"It is the number {k} of all.",
            "response_b": f"I can not tell you about {k}.",
            **{name: values[k % len(values)] for name, values in columns.items()},
        }
        for k in range(count)
    ]


def answers(**columns: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"What is the number {k}?",
            "response": f"It is the number {k} of all.",
            **{name: values[k % len(values)] for name, values in columns.items()},
        }
        for k in range(4)
    ]


@pytest.mark.parametrize(
    "late",
    [
        {"image": "x.png"},
        {"context": "A passage that it is about."},
        {"system": "Be brief."},
        {"tools": [{"name": "f"}]},
        {"is_safe": False},
        {"swapped": True},
    ],
)
def test_a_column_that_comes_late_rejects_its_rows(tmp_path: Path, late: dict[str, Any]) -> None:
    rows = pairs(SAMPLE) + [{**row, **late} for row in pairs(2)] + pairs(1)
    data = open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")
    found = [row for _, row in data.read()]
    rejected = [row for row in found if isinstance(row, Rejected)]
    assert len(rejected) == 2
    (name,) = late
    assert f"column {name!r} is not in the first rows" in rejected[0].reason
    assert f"--ignore {name}" in rejected[0].reason
    ignored = open_dataset(data.source, given={"ignore": [name]}, need="responses")
    assert not any(isinstance(row, Rejected) for _, row in ignored.read())
    empty = pairs(SAMPLE) + [{**row, name: None} for row in pairs(2)]
    whole = open_dataset(write(tmp_path / "e.jsonl", empty), need="responses")
    assert not any(isinstance(row, Rejected) for _, row in whole.read())


@pytest.mark.parametrize(
    "columns",
    [
        {"is_wrong": [True, False]},
        {"helpful": [1, 0]},
        {"truthful": ["false", "true"]},
        {"looks_fine_to_me": [True, False]},
        {"outcome": ["failure", "success"]},
        {"low_quality": [True, False]},
        {"moderation": ["unsafe", "safe"]},
        {"finish_reason": ["stop", "length"]},
        {"toxicity": [0.9, 0.1]},
        {"severity": [3, 0]},
        {"score": ["1/5", "4/5"]},
    ],
)
def test_bad_answers_are_not_learned_unasked(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = write(tmp_path / "d.jsonl", answers(**columns))
    (name,) = columns
    account = SupervisedAccount()
    try:
        read = read_supervised(path, account)
    except RlaifError as error:
        assert repr(name) in str(error)  # noqa: PT017 - either way is right
    else:  # the flag is understood
        assert len(read) == 2
        assert len(account.unreadable) == 2
    given = {"ignore": (name,)}
    assert len(read_supervised(path, SupervisedAccount(), given)) == 4


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"train": False}, {"rating": 1}, {"annotation": {"rating": -1}}]
)
def test_a_message_that_is_not_to_be_learned(tmp_path: Path, mark: dict[str, Any]) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Q{k}?"},
                {"role": "assistant", "content": f"A{k}.", **(mark if k else {})},
            ]
        }
        for k in range(3)
    ]
    account = SupervisedAccount()
    read = read_supervised(write(tmp_path / "d.jsonl", rows), account)
    assert [row.completion[0]["content"] for row in read] == ["A0."]
    assert len(account.unreadable) == 2


@pytest.mark.parametrize(
    "rows",
    [
        pairs(),
        pairs(winner=[0, 1]),
        pairs(response_c=["Perhaps it is."]),
        [{"prompt": "Q?", "options": ["A.", "B."], "answer": k} for k in (0, 1)],
    ],
)
def test_pairs_that_nothing_decides_are_no_targets(tmp_path: Path, rows: Any) -> None:
    with pytest.raises(
        RlaifError, match=r"nothing says which is be|0, 1 can count|looks like a verdict"
    ):
        read_supervised(write(tmp_path / "d.jsonl", rows), SupervisedAccount())


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"human_winner": ["a", "b"], "winner": ["b", "a"]}, "and differ"),
        ({"winner": ["a", "b"], "adjudicated": ["b", "b"]}, "and differ"),
        ({"annotator_1": ["a", "a"], "annotator_2": ["a", "b"], "final": ["b", "b"]}, "and differ"),
        ({"overall_preference": [0.1, 0.9]}, "can be probabilities"),
        ({"preference": ["B is not better", "A is better"]}, "no column says|looks like a verdict"),
        ({"winner": ["a", "b"], "swapped": [False, True]}, "'swapped' is not used"),
        ({"harmfulness_score_a": [5, 1], "harmfulness_score_b": [1, 2]}, "looks like scores"),
        ({"verbosity_a": [5, 1], "verbosity_b": [1, 2]}, "looks like scores"),
        ({"labels": ["x", "y"]}, "no column says which response is better"),
    ],
)
def test_verdicts_that_contradict_each_other_or_lie_low_are_asked_about(
    tmp_path: Path, columns: dict[str, Any], why: str
) -> None:
    with pytest.raises(RlaifError, match=why):
        open_dataset(write(tmp_path / "d.jsonl", pairs(**columns)), need="verdict")


def test_the_verdict_of_all_stands_before_that_of_one(tmp_path: Path) -> None:
    rows = pairs(gpt_preference=["b", "a"], preference=["a", "b"])
    data = open_dataset(write(tmp_path / "d.jsonl", rows), need="verdict")
    assert data.layout.label == ("preference",)


def test_a_label_beside_chosen_and_rejected_may_turn_them_around(tmp_path: Path) -> None:
    rows = [{"prompt": "Q?", "chosen": f"A{k}.", "rejected": "B.", "label": k % 2} for k in (0, 1)]
    with pytest.raises(RlaifError, match="'label' differs from row to row"):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="verdict")


def test_ranks_and_scores_that_contradict_each_other_are_asked_about() -> None:
    entries = [{"text": "A.", "rank": 1, "score": 0.1}, {"text": "B.", "rank": 2, "score": 0.9}]
    found = infer_layout([{"prompt": "Q?", "responses": entries}] * 2)
    assert "name different responses as the best" in found.questions[0]


@pytest.mark.parametrize(
    "column",
    [
        {"source_document": ["A report on rivers of Asia.", "A report on trains in Peru."]},
        {"clinical_note": [f"He has had a bad cough for {k} weeks." for k in range(4)]},
        {"starter_code": [f"def f{k}():" for k in range(4)]},
        {"prompt_suffix": [f"in {k} words" for k in range(4)]},
        {"persona": ["You are a pirate who always shouts out loud."]},
        {"search_results": [[{"snippet": f"River {k} is long and wide."}] for k in range(4)]},
        {"api_list": [[{"name": "look_up", "description": "Looks up."}]]},
    ],
)
def test_what_may_belong_to_the_question_stops_the_run(tmp_path: Path, column: Any) -> None:
    (name,) = column
    with pytest.raises(RlaifError, match=f"{name!r}? is not used, and looks like"):
        open_dataset(write(tmp_path / "d.jsonl", pairs(**column)), need="responses")


@pytest.mark.parametrize(
    "column",
    [
        {"figure": ["a/one.png", "b/two.jpeg"]},
        {"attachment": ["data:image/png;base64,AAAA"]},
        {"url": ["https://example.org/x.webp"]},
        {"files": [[{"mime": "image/png", "name": "x"}]]},
        {"clip": ["talk.mp4"]},
    ],
)
def test_media_are_known_by_what_cells_hold(tmp_path: Path, column: Any) -> None:
    path = write(tmp_path / "d.jsonl", pairs(**column))
    try:
        found = [row for _, row in open_dataset(path, need="responses").read()]
    except RlaifError as error:
        assert "looks like media" in str(error)  # noqa: PT017 - either way is right
    else:
        assert all(row.media for row in found)  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["images", "image", "attachments", "experimental_attachments"])
def test_media_of_a_message_are_seen(key: str) -> None:
    rows = [
        {**row, "prompt": [{"role": "user", "content": row["prompt"], key: ["x.png"]}]}
        for row in pairs()
    ]
    reader = Reader(infer_layout(rows).layout)
    assert all(reader.read(row).media == ("image",) for row in rows)


def test_system_prompts_in_parts_are_text() -> None:
    rows = [{**row, "system": [{"type": "text", "text": "Be brief."}]} for row in pairs()]
    read = Reader(infer_layout(rows).layout).read(rows[0])
    assert read.prompt[0] == {"role": "system", "content": "Be brief."}


def test_texts_under_a_name_keep_the_name_s_role() -> None:
    rows = [{"prompt": {"text": f"Q{k}?"}, "continuation": {"text": f"A{k}."}} for k in range(3)]
    found = infer_layout(rows)
    assert found.layout.prompt == ("prompt.text",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['a' 'b']", ["a", "b"]),
        ("['it''s'\n \"two words\"]", None),
        ("['one two'\n 'three']", ["one two", "three"]),
        ("['a', 'b']", ["a", "b"]),
        ("[1 2]", "[1 2]"),
    ],
)
def test_arrays_that_numpy_wrote_are_lists(text: str, value: Any) -> None:
    if value is not None:
        assert decode(text) == value


def test_blank_words_of_tables_are_no_context() -> None:
    rows = [{"instruction": f"Sum up {k}.", "input": "nan", "output": "x"} for k in range(3)]
    rows[0]["input"] = "A text."
    reader = Reader(infer_layout(rows).layout)
    assert [reader.read(row).prompt[0]["content"] for row in rows] == [
        "Sum up 0.\n\nA text.",
        "Sum up 1.",
        "Sum up 2.",
    ]


@pytest.mark.parametrize("flag", [{"deleted": True}, {"review_result": False}])
def test_messages_that_were_turned_down_are_no_answers(tmp_path: Path, flag: Any) -> None:
    good = {"text": "Fine.", "role": "assistant", "rank": 1, "replies": []}
    bad = {"text": "Bad.", "role": "assistant", "rank": 0, "replies": [], **flag}
    worse = {"text": "So so.", "role": "assistant", "rank": 2, "replies": []}
    tree = {"prompt": {"text": "Q?", "role": "prompter", "replies": [bad, good, worse]}}
    ((_, row),) = open_dataset(write(tmp_path / "d.jsonl", [tree])).read()
    assert not isinstance(row, Rejected)
    assert [c.messages[0]["content"] for c in row.completions] == ["Fine.", "So so."]
    assert row.winner == 0


def test_answers_about_other_pictures_are_not_rivals(tmp_path: Path) -> None:
    rows = [
        {"image": f"{k // 2}.png", "question": "What is it?", "answer": f"A{k}.", "score": k}
        for k in range(4)
    ]
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert [len(row.completions) for row in found] == [2, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["data/train", "org/name", "imdb", "./x", "~/nothing.jsonl"])
def test_a_name_without_hub_is_a_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(RlaifError, match=r"does not exist.*hub:NAME"):
        open_source(name)


def test_many_keys_that_differ_from_row_to_row_cost_little(tmp_path: Path) -> None:
    rows = pairs(200)
    for k, row in enumerate(rows):
        row["labels"] = {f"key{k}_{j}": j for j in range(50)}
    found = infer_layout(rows)
    assert len(found.names) == 4
