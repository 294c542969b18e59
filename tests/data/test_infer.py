"""What a sample decides holds for the file; what is not sure is asked, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import describe, open_dataset
from rlaif.data.infer import infer_layout
from rlaif.data.layout import Layout, load_layout
from rlaif.data.reading import Reader
from rlaif.data.row_model import DataRow
from rlaif.data.verdict_codes import Doubtful, read_codes
from rlaif.errors import RlaifError
from rlaif.records import Rejected


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"q {i}", "response_a": f"a {i}", "response_b": f"b {i}", **more}


@pytest.mark.parametrize(
    ("values", "name", "sides", "meanings"),
    [
        ([1, 2, 1], "label", "ab", {"1": "a", "2": "b"}),
        (["1.0", "2"], "choice", "ab", {"1": "a", "2": "b"}),
        ([0, 1], "better_response_id", "01", {"0": "a", "1": "b"}),
        ([1, 1], "better_response_id", "01", {"0": "a", "1": "b"}),
        ([0, 2], "best_index", "", None),
        (["A", "B", "tie"], "winner", "ab", {"a": "a", "b": "b", "tie": "tie"}),
        (["left", "right"], "comparison", "12", {"left": "a", "right": "b"}),
        (["Response 1 is slightly better", "both bad"], "verdict", "12", None),
        (["response_0", "response_1"], "winner", "01", {"response_0": "a", "response_1": "b"}),
        ([-3, 2, 0], "preference_strength", "12", {"<0": "a", ">0": "b", "0": "tie"}),
    ],
)
def test_codes_are_read_from_the_whole_column(
    values: list[Any], name: str, sides: str, meanings: dict[str, str] | None
) -> None:
    if meanings is None and name == "best_index":
        with pytest.raises(Doubtful):
            read_codes(values, name=name, sides=list(sides))
        return
    found = read_codes(values, name=name, sides=list(sides))
    assert found is not None
    if meanings is not None:
        assert found.values == meanings


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([0, 1], "label"),
        ([1, 1], "choice"),
        ([0, 0], "choice"),
        ([True, False], "label"),
        ([-1, 1], "margin"),
        ([0.3, 0.9], "preference"),
        ([0, 1, 2], "label"),
        ([5, 7], "winner"),
    ],
)
def test_numbers_that_can_mean_two_things_are_asked_about(values: list[Any], name: str) -> None:
    with pytest.raises(Doubtful):
        read_codes(values, name=name, sides=["a", "b"])


def test_words_that_are_no_verdicts_are_none() -> None:
    for values in (["code-style", "helpfulness"], ["the first answer cites sources"], ["x"] * 3):
        assert read_codes(values, name="preference", sides=["a", "b"]) is None


def test_a_row_that_deviates_is_rejected_and_the_rest_stands(tmp_path: Path) -> None:
    rows = [pair(i, winner="ab"[i % 2]) for i in range(20)]
    rows[7] = {"prompt": "q", "responses": ["x", "y"]}
    rows[8]["winner"] = "who knows"
    rows[9]["prompt"] = ""
    rows[10]["winner"] = "model_b"  # a word that says by itself what it means
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    bad = [k for k, row in enumerate(found) if isinstance(row, Rejected)]
    assert bad == [7, 8, 9]
    assert "'winner' is 'who knows'" in found[8].reason  # type: ignore[union-attr]
    assert found[10].winner == 1  # type: ignore[union-attr]


def test_a_slice_does_not_turn_the_labels(tmp_path: Path) -> None:
    """With the ids of one side alone, the columns' own names say which it is."""
    rows = [
        {"prompt": f"q{i}", "response_0": "x", "response_1": "y", "better_response_id": 1}
        for i in range(5)
    ]
    data = open_dataset(write(tmp_path / "d.jsonl", rows), need="verdict")
    assert {row.winner for _, row in data.read() if isinstance(row, DataRow)} == {1}


@pytest.mark.parametrize(
    ("column", "value", "looks"),
    [
        ("scene", "A text that one has to know to answer {i}", "context"),
        ("picture", {"bytes": "x", "path": None}, "media"),
        ("dialog_so_far", [{"role": "user", "content": "{i}"}], "a conversation"),
    ],
)
def test_an_unused_column_that_may_matter_stops_the_run(
    tmp_path: Path, column: str, value: Any, looks: str
) -> None:
    def filled(i: int) -> Any:
        return json.loads(json.dumps(value).replace("{i}", str(i)))

    rows = [pair(i, **{column: filled(i)}) for i in range(5)]
    path = write(tmp_path / "d.jsonl", rows)
    found = infer_layout(rows)
    if looks == "media":
        assert found.layout.media == (column,)
        return
    with pytest.raises(RlaifError, match=rf"{column!r} is not used, and looks like {looks}"):
        open_dataset(path, need="responses")
    open_dataset(path, need="responses", given={"ignore": (column,)})


def test_metadata_and_short_columns_stop_nothing(tmp_path: Path) -> None:
    rows = [
        pair(
            i,
            category="math",
            source_dataset="a data set with a long name",
            annotator_comment_id=i,
            rationale="because it is a very long reason that nobody needs to read",
            difficulty=0.3,
        )
        for i in range(5)
    ]
    data = open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")
    assert not data.found.doubts


def test_mapping_one_of_two_leaves_the_other(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "accepted_text": "x", "rejected": "y"} for _ in range(3)]
    path = write(tmp_path / "d.jsonl", rows)
    data = open_dataset(path, given={"chosen": "accepted_text"}, need="verdict")
    (_, row), *_ = data.read()
    assert isinstance(row, DataRow)
    assert [c.messages[0]["content"] for c in row.completions] == ["x", "y"]
    assert row.winner == 0


def test_a_layout_that_is_written_reads_alike(tmp_path: Path) -> None:
    rows = [
        {"info": {"title": f"t{i}", "post": f"p{i}"}, "one": "x", "two": "y", "choice": i % 2}
        for i in range(6)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    file = tmp_path / "layout.yaml"
    file.write_text(
        'prompt: "{info.title}\\n\\n{info.post}"\nresponses: [one, two]\nlabel: choice\n'
        "values: {0: a, 1: b}\n"
    )
    data = open_dataset(path, given=load_layout(file), need="verdict")
    read = [row for _, row in data.read() if isinstance(row, DataRow)]
    assert read[3].prompt[0]["content"] == "t3\n\np3"
    assert [row.winner for row in read] == [0, 1] * 3
    file.write_text(data.layout.to_yaml())
    again = open_dataset(path, given=load_layout(file), need="verdict")
    assert [row for _, row in again.read()] == [row for _, row in data.read()]
    assert describe(again, 2)["layout"] == data.layout.to_data()


def test_wrong_layouts_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "layout.yaml"
    for text, what in (
        ("promt: q\n", "layout.yaml.*promt"),
        ("values: {0: first}\n", "values"),
        ("- a\n", "not a mapping"),
        ("a: [\n", "invalid YAML"),
    ):
        file.write_text(text)
        with pytest.raises(RlaifError, match=what):
            load_layout(file)
    path = write(tmp_path / "d.jsonl", [pair(1)])
    with pytest.raises(RlaifError, match=r"--map prompt=frage: no row has that column"):
        open_dataset(path, given={"prompt": "frage"})


def test_groups_that_are_torn_apart_are_rejected(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{i // 2 % 3}", "response": f"r{i}", "helpfulness": i % 4} for i in range(8)
    ]
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert [isinstance(row, Rejected) for row in found] == [False] * 3 + [True, True]
    assert "came earlier" in found[-1].reason  # type: ignore[union-attr]


def test_ids_models_and_tags_are_no_candidates() -> None:
    row = {
        "prompt": "q",
        "model_a": "a long name of a model",
        "model_b": "another long name of one",
        "response_a": "x",
        "response_b": "y",
        "tags": ["t"],
    }
    found = infer_layout([row])
    assert found.layout.responses == ("response_a", "response_b")
    read = Reader(found.layout).read(row)
    assert [c.origin for c in read.completions] == [row["model_a"], row["model_b"]]
    assert read.tags == {"t"}
    assert isinstance(found.layout, Layout)


def test_rows_are_joined_by_the_whole_question(tmp_path: Path) -> None:
    rows = [
        {
            "system": f"Be {'kind' if i < 2 else 'rude'}.",
            "prompt": "q",
            "response": f"r{i}",
            "score": i,
        }
        for i in range(4)
    ]
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert [row.prompt[0]["content"] for row in found] == ["Be kind.", "Be rude."]  # type: ignore[union-attr]
    assert [len(row.completions) for row in found] == [2, 2]  # type: ignore[union-attr]


def test_signs_leave_zero_to_itself(tmp_path: Path) -> None:
    rows = [pair(i, mark=i - 1) for i in range(3)]
    given = {"label": "mark", "values": {"<0": "a", ">0": "b"}}
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows), given=given).read()]
    assert [getattr(row, "winner", "rejected") for row in found] == [0, "rejected", 1]
    for code in ("=1", "<", "<b"):
        with pytest.raises(RlaifError, match="is no value; write '<0' or '>=1"):
            infer_layout(rows, {"label": "mark", "values": {code: "a"}})
    for codes in ({"<2": "a", ">1": "b"}, {"<1": "a", "<2": "b"}):
        with pytest.raises(RlaifError, match="bounds overlap"):
            infer_layout(rows, {"label": "mark", "values": codes})


def test_an_answer_that_is_a_list_stays_an_answer() -> None:
    row = {"prompt": "List two.", "chosen": '["apple", "pear"]', "rejected": "[1, 2]"}
    read = Reader(infer_layout([row]).layout).read(row)
    assert [c.messages[0]["content"] for c in read.completions] == [row["chosen"], row["rejected"]]


def test_a_conversation_that_the_question_is_not_in_is_not_dropped(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "I am Ann."},
        {"role": "assistant", "content": "Hello Ann."},
    ]
    rows = [
        {"prompt": f"Who am I? {i}", "chosen": "Ann", "rejected": "Bob", "messages": talk}
        for i in range(3)
    ]
    with pytest.raises(RlaifError, match="'messages' is not used, and looks like a conversation"):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")


def test_letters_of_options_are_no_votes() -> None:
    row = {
        "question": "q",
        "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    }
    found = infer_layout([row])
    assert found.layout.label != ("choices.label",)
    assert Reader(found.layout).read(row).votes == []


@pytest.mark.parametrize(
    "more",
    [{"is_tie": True}, {"tie": 1}, {"winner": "tie"}, {"status": "tie"}, {"label": "both bad"}],
)
def test_a_tie_beside_chosen_and_rejected_is_one(more: dict[str, Any]) -> None:
    rows = [{"prompt": "q", "chosen": "x", "rejected": "y", **more}]
    assert Reader(infer_layout(rows).layout).read(rows[0]).winner == "tie"


def test_scores_of_harm_are_not_taken_for_quality(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{i}", "responses": ["x", "y"], "harm_scores": [0.9, 0.1]} for i in range(3)
    ]
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert all(row.winner is None for row in found)  # type: ignore[union-attr]


def test_columns_of_annotators_are_votes(tmp_path: Path) -> None:
    rows = [
        pair(i, rater1_preference="A", rater2_preference="B", rater3_preference="B")
        for i in range(3)
    ]
    for _, row in open_dataset(write(tmp_path / "d.jsonl", rows), need="verdict").read():
        assert (row.votes, row.winner) == ([0, 1, 1], 1)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("is_correct", False),
        ("passed", 0),
        ("unsafe", True),
        ("is_harmful", "true"),
        ("flagged", 1),
    ],
)
def test_bad_answers_are_known_by_many_names(flag: str, value: Any) -> None:
    row = {"prompt": "q", "response": "x", flag: value}
    assert Reader(infer_layout([row]).layout).read(row).completions[0].good is False


@pytest.mark.parametrize("column", ["image_path", "image_url", "screenshot", "photos"])
def test_pictures_by_their_address_are_pictures(column: str) -> None:
    row = {"prompt": "q", "chosen": "x", "rejected": "y", column: "shots/0.png"}
    assert Reader(infer_layout([row]).layout).read(row).media == ("image",)
    text = {"prompt": "<image>\nWhat is it?", "chosen": "x", "rejected": "y"}
    assert Reader(infer_layout([text]).layout).read(text).media == ("image",)


@pytest.mark.parametrize(
    "more",
    [
        {"documents": [{"title": "t", "text": "It is long."}]},
        {"code": "def f(): return 1  # number {i}"},
        {"demonstrations": ["one", "two"]},
        {"tool_calls_a": [{"name": "w"}]},
    ],
)
def test_context_in_any_form_stops_the_run(tmp_path: Path, more: dict[str, Any]) -> None:
    rows = [pair(i, **json.loads(json.dumps(more).replace("{i}", str(i)))) for i in range(4)]
    with pytest.raises(RlaifError, match="is not used, and looks like"):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")


def test_what_flags_leave_open_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", [{"q": "q", "a1": "x", "a2": "y"}] * 2)
    with pytest.raises(RlaifError, match=r"no column is 'rejected'.*--map rejected=COLUMN"):
        open_dataset(path, given={"prompt": "q", "chosen": "a1"}, need="responses")
    given = {"prompt": "q", "responses": ("a1", "a2"), "values": {"0": "a"}}
    with pytest.raises(RlaifError, match=r"--value names.*--map label=COLUMN"):
        open_dataset(path, given=given, need="responses")


@pytest.mark.parametrize(
    ("more", "winners"),
    [
        ({"chosen": [2, 1, 2]}, [1, 0, 1]),
        ({"chosen": ["A", "B", "A"]}, [0, 1, 0]),
        (
            {
                "chosen": ["response_2", "response_1", "response_2"],
                "rejected": ["response_1", "response_2", "response_1"],
            },
            [1, 0, 1],
        ),
        ({"ranking": ["B > A", "A > B", "A = B"]}, [1, 0, "tie"]),
        ({"preference": [1.0002, 1.97, 1.5]}, [0, 1, "tie"]),
    ],
)
def test_verdicts_beside_responses_in_columns(more: dict[str, Any], winners: list[Any]) -> None:
    rows = [
        {"prompt": f"Q{k}?", "response_1": f"One {k}.", "response_2": f"Two {k}."}
        | {name: values[k] for name, values in more.items()}
        for k in range(3)
    ]
    found = infer_layout(rows)
    assert not found.questions
    assert [Reader(found.layout).read(row).winner for row in rows] == winners


def test_a_probability_keeps_its_size() -> None:
    rows = [
        {"prompt": "Q?", "output_1": "One.", "output_2": "Two.", "preference": p}
        for p in (1.02, 1.75)
    ]
    reader = Reader(infer_layout(rows).layout)
    assert [reader.read(row).strength for row in rows] == [-0.48, 0.25]
    given = {"label": "p", "values": {"<0.5": "b", ">0.5": "a", "0.5": "tie"}}
    others = [{"prompt": "Q?", "output_1": "One.", "output_2": "Two.", "p": p} for p in (0.9, 0.5)]
    reader = Reader(infer_layout(others, given).layout)
    assert [reader.read(row).winner for row in others] == [0, "tie"]


@pytest.mark.parametrize(
    ("name", "values", "looks"),
    [
        ("prob_a", [0.1, 0.8, 0.4], "a verdict"),
        ("worse_response", ["a", "b", "a"], "a verdict"),
        ("passed_b", [True, False, True], "scores"),
        ("correct", ["b", "a", "b"], "a verdict"),
    ],
)
def test_verdicts_that_are_not_read_are_doubts(name: str, values: list[Any], looks: str) -> None:
    rows = [
        {"prompt": f"Q{k}?", "response_a": f"One {k}.", "response_b": f"Two {k}.", name: value}
        for k, value in enumerate(values)
    ]
    if name == "passed_b":
        rows = [{**row, "passed_a": True} for row in rows]
    assert infer_layout(rows).doubts.get(name) == looks


@pytest.mark.parametrize("name", ["answer", "gold", "target", "correct_answer"])
def test_the_number_of_the_right_choice_is_no_metadata(name: str) -> None:
    rows = [{"question": "Q?", "choices": ["1", "2", "3"], name: k} for k in (0, 2)]
    assert infer_layout(rows).doubts == {name: "a verdict"}


@pytest.mark.parametrize(
    ("name", "value", "looks"),
    [
        ("verdict", "winner", "a verdict"),
        ("image_url", "https://example.org/a.png", "media"),
        ("tool_calls", [{"name": "f"}], "tool calls"),
    ],
)
def test_what_stands_beside_the_texts_of_a_list_is_accounted_for(
    name: str, value: Any, looks: str
) -> None:
    entries = [{"text": "One.", "note": "x"}, {"text": "Two.", "note": "y", name: value}]
    found = infer_layout([{"prompt": "Q?", "responses": entries}] * 2)
    assert found.doubts == {f"responses[].{name}": looks}
    ignored = infer_layout(
        [{"prompt": "Q?", "responses": entries}] * 2, {"ignore": [f"responses[].{name}"]}
    )
    assert ignored.doubts == {}


def test_responses_by_the_model_that_wrote_them() -> None:
    rows = [
        {
            "prompt": f"Q{k}?",
            "responses": {"mistral-7b": f"One {k}.", other: f"Two {k}."},
            "scores": {other: 3 + k, "mistral-7b": 4},
        }
        for k, other in enumerate(("gpt-4", "llama-3", "qwen"))
    ]
    found = infer_layout(rows)
    read = [Reader(found.layout).read(row) for row in rows]
    assert [row.winner for row in read] == [0, "tie", 1]
    assert [[c.origin for c in row.completions] for row in read] == [
        ["mistral-7b", other] for other in ("gpt-4", "llama-3", "qwen")
    ]
    named = [{**row, "scores": None, "winner": "mistral-7b"} for row in rows]
    found = infer_layout(named)
    assert [Reader(found.layout).read(row).winner for row in named] == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "values"),
    [("status", ["approved", "rejected"]), ("verdict", ["good", "bad"]), ("passed", [True, False])],
)
def test_words_for_good_and_bad_mark_single_answers(name: str, values: list[Any]) -> None:
    rows = [{"prompt": f"Q{k}?", "response": f"A {k}.", name: v} for k, v in enumerate(values)]
    reader = Reader(infer_layout(rows).layout)
    assert [reader.read(row).completions[0].good for row in rows] == [True, False]


@pytest.mark.parametrize(
    ("name", "values"),
    [("quality", ["high", "low"]), ("grade", ["A", "F"]), ("rating", ["poor", "excellent"])],
)
def test_ratings_in_words_are_asked_about_where_answers_are_learned(
    tmp_path: Path, name: str, values: list[Any]
) -> None:
    rows = [{"prompt": f"Q{k}?", "response": f"A {k}.", name: v} for k, v in enumerate(values)]
    path = write(tmp_path / "d.jsonl", rows)
    assert open_dataset(path, need="prompt")
    with pytest.raises(RlaifError, match=f"{name!r} is not used, and looks like a graded rating"):
        open_dataset(path, need="targets")


def test_rows_on_the_same_pair_are_votes_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [
        {"qid": 1, "prompt": "Q?", "response_a": "One.", "response_b": "Two.", "winner": "a"},
        {"qid": 1, "prompt": "Q?", "response_a": "Two.", "response_b": "One.", "winner": "b"},
        {"qid": 1, "prompt": "Q?", "response_a": "One.", "response_b": "Two.", "winner": "b"},
        {"qid": 2, "prompt": "Q2?", "response_a": "One.", "response_b": "Two.", "winner": "b"},
        {"qid": 2, "prompt": "Q2?", "response_a": "One.", "response_b": "Three.", "winner": "a"},
    ]
    path = write(tmp_path / "d.jsonl", rows)
    read = [row for _, row in open_dataset(path, given={"group_by": "qid"}).read()]
    assert (read[0].winner, read[0].votes) == (0, [0, 0, 1])  # type: ignore[union-attr]
    assert "different responses" in read[1].reason  # type: ignore[union-attr]


def test_a_prompt_that_stands_now_here_now_there_is_read(tmp_path: Path) -> None:
    """A null beside a value loses no row; two prompts in a later row are no prompt."""
    rows: list[dict[str, Any]] = []
    for i in range(1100):
        text = i % 3 == 0
        rows.append(
            {
                "question": f"why {i}?" if text else None,
                "messages": None if text else [{"role": "user", "content": f"how {i}?"}],
                "response_a": f"left {i}",
                "response_b": f"right {i}",
                "winner": "a",
            }
        )
    rows[1050]["question"], rows[1050]["messages"] = "one?", [{"role": "user", "content": "two?"}]
    found = [row for _, row in open_dataset(write(tmp_path / "data.jsonl", rows)).read()]
    for k, row in enumerate(found):
        if k == 1050:
            assert isinstance(row, Rejected)
            assert "both have a prompt" in row.reason
            continue
        assert isinstance(row, DataRow)
        (asked,) = row.prompt
        assert asked["content"] == (f"why {k}?" if k % 3 == 0 else f"how {k}?")
