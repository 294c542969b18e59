"""Shapes that files from outside had and that were read wrongly once: now right, or asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import SAMPLE, describe, open_dataset
from rlaif.data.layout import load_layout
from rlaif.data.row_model import DataRow
from rlaif.data.sources import open_evaluation, open_source
from rlaif.errors import RlaifError
from rlaif.judging.questions import screen
from rlaif.records import Pair, Rejected
from rlaif.templates.messages import completion_text
from tests.data.test_infer import write
from tests.data.test_nothing_in_silence import answers, pairs
from tests.data.test_public_layouts import FILES


def read(path: str, **given: Any) -> list[DataRow]:
    rows = [row for _, row in open_dataset(path, given=given).read()]
    assert all(isinstance(row, DataRow) for row in rows)
    return rows  # type: ignore[return-value]


def problems(path: str, **given: Any) -> list[str]:
    return list(describe(open_dataset(path, given=given), 0)["problems"])


def said(row: DataRow) -> list[str]:
    return [" ".join(str(m["content"]) for m in c.messages) for c in row.completions]


@pytest.mark.parametrize(
    "columns",
    [
        # columns that name the worse one
        {"worst_response": ["a", "b"]},
        {"dispreferred": ["response_a", "response_b"]},
        {"less_liked_answer": ["B", "A"]},
        {"not_preferred": [1, 2]},
        {"incorrect_choice": ["A", "B"]},
        {"losing_side": ["left", "right"]},
        # words that turn a verdict around
        {"verdict": ["A is not preferred", "B is never better"]},
        {"choice": ["a less preferred", "b least preferred"]},
        {"winner": ["A doesn't win", "B isn't better"]},
        # grades without a sign, whatever the column is called
        {"overall_preference": [2, 6]},
        {"preference_strength": ["1", "5"]},
        {"overall_preference": [1, 2]},
        # orders of the responses, or votes that never agree
        {"preferred": [["b", "a"], ["a", "b"]]},
        # a scale between the two
        {"rating": [-2, 3]},
        {"grade_a": ["9/10", "3/10"], "grade_b": ["4/10", "5/10"]},
        {"outcome": ["A>>B", "B>A"]},
        {"labels": [0, 1]},
        {"prefer_b": [0, 1]},
    ],
)
def test_verdicts_that_can_be_read_the_wrong_way_round_are_asked_about(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    path = write(tmp_path / "d.jsonl", pairs(**columns))
    rows = read(path)
    assert [row.winner for row in rows] == [None] * 4
    assert any(repr(next(iter(columns))) in problem for problem in problems(path))
    with pytest.raises(RlaifError):
        open_dataset(path, need="verdict")


def test_the_worse_one_is_read_where_the_user_says_what_it_means(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", pairs(worst_response=["a", "b"]))
    rows = read(path, label=["worst_response"], values={"a": "b", "b": "a"})
    assert [row.winner for row in rows] == [1, 0, 1, 0]


@pytest.mark.parametrize(
    "withdrawn", [{"status": "discarded"}, {"status": "Draft"}, {"was_cancelled": True}]
)
def test_votes_that_were_not_given_in_the_end_do_not_count(
    tmp_path: Path, withdrawn: dict[str, Any]
) -> None:
    votes = [
        [
            {"value": right, "status": "submitted"},
            {"value": wrong, **withdrawn},
            {"value": wrong, **withdrawn},
        ]
        for right, wrong in (("a", "b"), ("b", "a"))
    ]
    path = write(tmp_path / "d.jsonl", pairs(preference=votes))
    assert [row.winner for row in read(path)] == [0, 1, 0, 1]


def test_the_letters_of_choices_are_no_votes_beside_a_verdict(tmp_path: Path) -> None:
    choices = {"label": ["A", "B"], "text": ["one thing", "another thing"]}
    path = write(tmp_path / "d.jsonl", pairs(winner=["b", "a"], choices=[choices]))
    assert [row.winner for row in read(path)] == [1, 0, 1, 0]
    assert any("choices.text" in problem for problem in problems(path))


@pytest.mark.parametrize(
    "rows",
    [
        # a list of one response is one response
        [
            {"prompt": f"q {k}?", "choices": [{"text": f"It is {k}."}], "liked": k % 2 == 0}
            for k in range(4)
        ],
        answers(correctness=[[1, 0, 1], [0, 0, 0]]),
        answers(scores=[[{"name": "quality", "value": 0}], [{"name": "quality", "value": 1}]]),
        answers(evaluation=[{"rating": {"human": 1}}, {"rating": {"human": 5}}]),
        # a flag that is understood says nothing of a grade beside it
        answers(toxic=[False], stars=[1, 5]),
    ],
)
def test_what_says_how_good_an_answer_is_stops_its_training(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    with pytest.raises(RlaifError):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="targets")


@pytest.mark.parametrize(
    "name",
    [
        "user_story",
        "full_transcript",
        "error_report",
        "event_description",
        "model_background",
        "knowledge",
    ],
)
def test_a_text_of_its_own_in_each_row_is_no_metadata_for_a_common_word(
    tmp_path: Path, name: str
) -> None:
    texts = [f"The kettle number {k} stood on the stove for an hour." for k in range(4)]
    path = write(tmp_path / "d.jsonl", pairs(winner=["a", "b"], **{name: texts}))
    with pytest.raises(RlaifError, match=f"column '{name}' is not used"):
        open_dataset(path, need="responses")


LATE: list[dict[str, Any]] = [
    {"picture": "https://example.org/a.png"},
    {"passage": "It is about this passage."},
    {"chat_history": [{"role": "user", "content": "before"}]},
    {"system_prompt": "Speak like a pirate."},
    {"functions": [{"name": "f", "description": "does it"}]},
    {"is_unsafe": True},
    {"info": {"context": "what it is about"}},
    {"flipped": True},
]


@pytest.mark.parametrize("late", LATE, ids=lambda late: next(iter(late)))
@pytest.mark.parametrize("before", ["absent", "null", "empty"])
def test_what_is_empty_in_the_sample_and_filled_later_is_never_dropped(
    tmp_path: Path, late: dict[str, Any], before: str
) -> None:
    (name,) = late
    value = late[name]
    empty: dict[str, Any] = {name: None if before == "null" else type(value)()}
    start = pairs(SAMPLE, winner=["a", "b"])
    if before != "absent":
        start = [{**row, **empty} for row in start]
    rows = start + [{**row, **late} for row in pairs(2, winner=["a", "b"])] + pairs(1, winner=["b"])
    data = open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")
    found = [row for _, row in data.read()]
    if before == "empty" and isinstance(value, str | bool) and name != "flipped":
        for row in found[SAMPLE : SAMPLE + 2]:  # empty texts say what their column is
            assert isinstance(row, DataRow)
            read = [*(m["content"] for m in row.prompt), *row.images]
            assert isinstance(value, bool) or any(value in str(text) for text in read)
        return
    assert [k for k, row in enumerate(found) if isinstance(row, Rejected)] == [SAMPLE, SAMPLE + 1]
    left_out = open_dataset(data.source, given={"ignore": [name]}, need="responses")
    assert not any(isinstance(row, Rejected) for _, row in left_out.read())


@pytest.mark.parametrize("key", ["screenshot", "is_harmful", "custom_system_prompt", "passage"])
def test_new_keys_in_the_entries_of_a_list_are_never_dropped(tmp_path: Path, key: str) -> None:
    rows = [
        {"prompt": f"q {k}?", "responses": [{"text": f"a {k}", "score": 1}, {"text": f"b {k}"}]}
        for k in range(SAMPLE + 3)
    ]
    rows[SAMPLE + 1]["responses"][1][key] = "something else"  # type: ignore[index]
    found = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert [k for k, row in enumerate(found) if isinstance(row, Rejected)] == [SAMPLE + 1]


def test_models_that_come_late_are_no_deviation(tmp_path: Path) -> None:
    """Where names are data, new ones are no new columns."""
    rows: list[dict[str, Any]] = [
        {"prompt": f"q {k}?", "responses": {f"model-{k}": f"one {k}", f"other-{k}": f"two {k}"}}
        for k in range(SAMPLE + 5)
    ]
    assert len(read(write(tmp_path / "d.jsonl", rows))) == SAMPLE + 5
    calls = [
        {
            "prompt": f"q {k}?",
            "chosen": [{"role": "assistant", "content": f"a {k}"}],
            "rejected": [{"role": "assistant", "content": f"b {k}"}],
        }
        for k in range(SAMPLE + 2)
    ]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls[-1]["chosen"] = [{"role": "assistant", "content": "x", "tool_calls": [call]}]
    assert read(write(tmp_path / "c.jsonl", calls))[-1].completions[0].messages[0]["tool_calls"]


def test_a_conversation_that_comes_late_as_one_text_is_rejected(tmp_path: Path) -> None:
    rows = pairs(SAMPLE + 4, winner=["a", "b"])
    rows[SAMPLE]["prompt"] = "Human: one?\n\nAssistant: two.\n\nHuman: three?"
    rows[SAMPLE + 1]["prompt"] = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    rows[SAMPLE + 2]["prompt"] = "What does the word Assistant: mean in <b>this</b>?"
    path = write(tmp_path / "d.jsonl", rows)
    found = [row for _, row in open_dataset(path).read()]
    assert [k - SAMPLE for k, row in enumerate(found) if isinstance(row, Rejected)] == [0, 1]
    assert len(read(path, transcripts={"prompt": "text"})) == SAMPLE + 4


def test_leaving_out_a_part_of_a_list_leaves_the_list(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"q {k}?",
            "responses": [{"text": f"a {k}", "pic": "x.png"}, {"text": f"b {k}", "pic": "y.png"}],
            "notes_b": "none",
        }
        for k in range(3)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    assert [said(row) for row in read(path, ignore=["responses[].pic"])] == [
        [f"a {k}", f"b {k}"] for k in range(3)
    ]


def test_context_may_stand_with_each_response_if_it_is_the_same(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"q {k}?",
            "responses": [{"text": f"a {k}", "sys": "Be kind."}, {"text": f"b {k}", "sys": s}],
        }
        for k, s in enumerate(["Be kind.", "Be rude.", "Be kind."])
    ]
    data = open_dataset(write(tmp_path / "d.jsonl", rows), given={"context": ["responses[].sys"]})
    found = [row for _, row in data.read()]
    assert isinstance(found[1], Rejected)
    assert "not the same for all responses" in found[1].reason
    for k in (0, 2):
        row = found[k]
        assert isinstance(row, DataRow)
        assert row.prompt[0]["content"] == f"Be kind.\n\nq {k}?"
        assert said(row) == [f"a {k}", f"b {k}"]


@pytest.mark.parametrize(
    "rejected",
    [
        {"rejected_response": "worse"},
        {"rejected_messages": [{"role": "assistant", "content": "worse"}]},
        {"rejected_conversations": [{"from": "gpt", "value": "worse"}]},
    ],
)
def test_a_rejected_answer_beside_a_conversation_makes_a_pair(
    tmp_path: Path, rejected: dict[str, Any]
) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": f"q {k}?"},
                {"role": "assistant", "content": "better"},
            ],
            **rejected,
        }
        for k in range(3)
    ]
    for k, row in enumerate(read(write(tmp_path / "d.jsonl", rows))):
        assert [m["content"] for m in row.prompt] == ["Be kind.", f"q {k}?"]
        assert (said(row), row.winner) == (["better", "worse"], 0)


def test_messages_of_an_assistant_alone_are_rivals_by_the_name_of_their_list(
    tmp_path: Path,
) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"q {k}?"}],
            "responses": [
                {"role": "assistant", "content": "one"},
                {"role": "assistant", "content": "two"},
            ],
            "scores": [1, 4],
        }
        for k in range(3)
    ]
    for row in read(write(tmp_path / "d.jsonl", rows)):
        assert (said(row), row.winner) == (["one", "two"], 1)


def test_whole_rows_in_one_cell_are_taken_apart_and_answers_in_json_are_not(
    tmp_path: Path,
) -> None:
    cells = [
        {"text": json.dumps({"question": f"q {k}?", "chosen": "good", "rejected": "bad"})}
        for k in range(3)
    ]
    for k, row in enumerate(read(write(tmp_path / "d.jsonl", cells))):
        assert (row.prompt[0]["content"], said(row)) == (f"q {k}?", ["good", "bad"])
    answer = '{"question": "which?", "answer": 1}'
    rows = [{"prompt": f"q {k}?", "chosen": answer, "rejected": '{"answer": 2}'} for k in range(3)]
    for row in read(write(tmp_path / "e.jsonl", rows)):
        assert said(row) == [answer, '{"answer": 2}']


def test_a_folder_of_several_splits_gives_the_one_that_is_asked_for(tmp_path: Path) -> None:
    for inner in ("flat", "deep/data", "dirs"):
        folder = tmp_path / inner
        folder.mkdir(parents=True)
        for split in ("train", "test"):
            own = folder / split if inner == "dirs" else folder
            own.mkdir(exist_ok=True)
            name = "part-0.jsonl" if inner == "dirs" else f"{split}-00000-of-00001.jsonl"
            write(own / name, [{"prompt": f"{split} question", "chosen": "g", "rejected": "b"}])
        top = str(tmp_path / inner.split("/")[0])
        assert read(top)[0].prompt[0]["content"] == "train question"
        assert len(read(top)) == 1
        (test,) = open_source(top, "test").rows()
        assert test[1]["prompt"] == "test question"  # type: ignore[index]
        assert open_evaluation(top).split == "test"
        with pytest.raises(RlaifError, match="no files of split 'dev'"):
            open_source(top, "dev")
    shards = tmp_path / "shards"
    shards.mkdir()
    for k in range(3):
        write(shards / f"{k:05}.jsonl", pairs(1, winner=["a"]))
    assert len(read(str(shards))) == 3


def call(argument: Any) -> Any:
    made = {"type": "function", "function": {"name": "set", "arguments": {"on": argument}}}
    return [{"role": "assistant", "content": "", "tool_calls": [made]}]


@pytest.mark.parametrize(("one", "two"), [(1, True), (0, False), (1, 1.0), ([1], [True])])
def test_arguments_that_only_python_takes_for_equal_are_not_identical(one: Any, two: Any) -> None:
    asked: Any = [{"role": "user", "content": "q"}]
    assert screen(Pair("", asked, call(one), call(two))) is None
    assert screen(Pair("", asked, call(one), call(one))) == ("tie", "identical completions")


def test_what_a_tool_gave_back_keeps_its_picture_and_its_failure(tmp_path: Path) -> None:
    picture = {"type": "image", "source": {"type": "base64", "data": "xx"}}

    def row(**result: Any) -> dict[str, Any]:
        use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        given = {"type": "tool_result", "tool_use_id": "t", **result}
        return {
            "prompt": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": [use]},
                {"role": "user", "content": [given]},
            ],
            "response_a": "x",
            "response_b": "y",
        }

    rows = [
        row(content=[picture]),
        row(content="no", is_error=True),
        row(content="no", is_error=False),
    ]
    seen, failed, fine = read(write(tmp_path / "d.jsonl", rows))
    assert seen.media == ("image",)
    assert failed.prompt != fine.prompt


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.parent.name))
def test_a_layout_that_is_written_reads_every_public_file_alike(path: Path, tmp_path: Path) -> None:
    data = open_dataset(str(path))
    file = tmp_path / "layout.yaml"
    file.write_text(data.whole_layout().to_yaml())
    again = open_dataset(str(path), given=load_layout(file))
    before, after = describe(data, 100), describe(again, 100)
    assert after["rows"] == before["rows"]
    assert after["rejected"] == before["rejected"]
    assert len(after["problems"]) <= len(before["problems"])


@pytest.mark.parametrize(
    "columns",
    [
        {"human_verdict": ["chosen", "rejected"]},
        {"info.final_decision": ["chosen", "rejected"]},
        {"rejected_was_preferred": [True, False]},
        {"gap": [0.5, -0.5]},
        {"preferred": ["b", "a"]},
    ],
)
def test_a_verdict_beside_a_pair_that_may_turn_it_is_asked_about(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    rows = [
        {
            "prompt": f"q {k}?",
            "chosen": f"a {k}",
            "rejected": f"b {k}",
            **{name: values[k % 2] for name, values in columns.items()},
        }
        for k in range(4)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    with pytest.raises(RlaifError, match="may turn some of them around"):
        open_dataset(path, need="verdict")
    (name,) = columns
    if "chosen" in columns[name]:
        assert [row.winner for row in read(path, label=[name])] == [0, 1, 0, 1]


def test_the_place_of_the_best_of_several_is_read_only_where_its_count_is_sure(
    tmp_path: Path,
) -> None:
    rows = [
        {"prompt": f"q {k}?", "responses": [f"{k}{c}" for c in "abcd"], "winner": 1 + k % 2}
        for k in range(4)
    ]
    assert problems(write(tmp_path / "d.jsonl", rows))
    last = [{**rows[0], "winner": 4}, *rows]
    assert [row.winner for row in read(write(tmp_path / "e.jsonl", last))] == [3, 0, 1, 0, 1]
    index = [{**row, "best_idx": row["winner"], "winner": None} for row in rows]
    assert [row.winner for row in read(write(tmp_path / "f.jsonl", index))] == [1, 2, 1, 2]


def test_a_flag_for_ties_fills_empty_verdicts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "d.jsonl", pairs(winner=["a", None, "b", ""], is_tied=[False, True, False, True])
    )
    assert [row.winner for row in read(path)] == [0, "tie", 1, "tie"]


@pytest.mark.parametrize(
    "columns",
    [
        {
            "fluency_score_a": [1],
            "fluency_score_b": [2],
            "human_score_a": [3],
            "human_score_b": [1],
        },
        {"helpfulness_a": [4], "helpfulness_b": [2], "honesty_a": [1], "honesty_b": [3]},
    ],
)
def test_scores_of_one_aspect_do_not_decide_against_another_unasked(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    path = write(tmp_path / "d.jsonl", pairs(**columns))
    with pytest.raises(RlaifError, match="different responses best"):
        open_dataset(path, need="verdict")
    overall = pairs(**columns, overall_score_a=[1], overall_score_b=[5])
    assert [row.winner for row in read(write(tmp_path / "e.jsonl", overall))] == [1] * 4


@pytest.mark.parametrize(
    "columns",
    [
        {"status": ["submitted", "discarded"]},
        {"label_withdrawn": [False, True]},
        {"quality_check_passed": [True, False]},
        {"AssignmentStatus": ["Approved", "Rejected"]},
    ],
)
def test_marks_of_verdicts_that_do_not_count_stop_the_run(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    path = write(tmp_path / "d.jsonl", pairs(winner=["a", "b"], **columns))
    with pytest.raises(RlaifError, match="do not count"):
        open_dataset(path, need="verdict")
    open_dataset(path, given={"ignore": list(columns)}, need="verdict")


def test_turns_of_one_conversation_are_no_questions_of_their_own(tmp_path: Path) -> None:
    rows = [
        {**row, "session_id": f"s{k // 2}", "turn": 1 + k % 2}
        for k, row in enumerate(pairs(winner=["a", "b"]))
    ]
    with pytest.raises(RlaifError, match="turns of one conversation"):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")


@pytest.mark.parametrize(
    "columns",
    [
        {"sysprompt_a": ["Be kind."], "sysprompt_b": ["Be rude."]},
        {"persona": ["a pirate"]},
        {"thought_a": ["hm"], "thought_b": ["oh"]},
        {"Long_CoT": ["First, it boils."]},
    ],
)
def test_short_instructions_and_thoughts_are_not_dropped(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    with pytest.raises(RlaifError, match=r"is not used, and looks like (context|thinking)"):
        open_dataset(write(tmp_path / "d.jsonl", pairs(**columns)), need="responses")


def test_short_system_prompts_of_other_names_are_read(tmp_path: Path) -> None:
    for name in ("sysprompt", "developer_message", "meta_prompt"):
        rows = read(write(tmp_path / f"{name}.jsonl", pairs(**{name: ["Be brief."]})))
        assert [m["content"] for m in rows[0].prompt] == ["Be brief.", "What is the number 0?"]


@pytest.mark.parametrize("reaction", ["👎", "✗", "bad", "harmful", "wrong"])
def test_bad_answers_are_no_targets_however_that_is_written(tmp_path: Path, reaction: str) -> None:
    path = write(tmp_path / "d.jsonl", answers(feedback=[reaction, "👍"]))
    try:
        rows = read(path)
    except AssertionError:
        return
    found = [row.completions[0].good for row in rows]
    if found != [False, True, False, True]:
        with pytest.raises(RlaifError):
            open_dataset(path, need="targets")


def test_parts_of_messages_that_belong_to_what_is_asked_are_kept(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "How high?", "context": "The tower is 9 m high."}
    sources = {"role": "user", "content": "How old?", "documents": [{"text": "one"}, "two"]}
    exchange = {"system": "Be kind.", "input": "Hi?", "output": "Hello."}
    rows = [
        {"messages": [asked, {"role": "assistant", "content": "9 m"}]},
        {"messages": [sources, {"role": "assistant", "content": "9"}]},
    ]
    one, two = read(write(tmp_path / "d.jsonl", rows))
    assert one.prompt[0]["content"] == "The tower is 9 m high.\n\nHow high?"
    assert two.prompt[0]["content"] == "one\n\ntwo\n\nHow old?"
    (talk,) = read(write(tmp_path / "e.jsonl", [{"conversation": [exchange]}]))
    assert [m["content"] for m in talk.prompt] == ["Be kind.", "Hi?"]


def test_any_order_and_kind_of_calls_gives_other_messages(tmp_path: Path) -> None:
    """Texts before and behind calls, calls that could not be parsed, doubled keys, failures."""

    def part(name: str) -> Any:
        if name == "text":
            return {"type": "text", "text": "said"}
        return {"type": "tool_use", "id": "t", "name": name, "input": {}}

    def said(*names: str) -> Any:
        return [{"role": "assistant", "content": [part(name) for name in names]}]

    def called(arguments: str, **more: Any) -> Any:
        made = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return [{"role": "assistant", "content": None, "tool_calls": [made], **more}]

    broken = {"name": "f", "args": "{x", "id": "1", "error": "bad"}
    forms = [
        said("text", "f"),
        said("f", "text"),
        said("f", "text", "g"),
        said("f", "g", "text"),
        called('{"x": 1, "x": 2}'),
        called('{"x": 2}'),
        [{"role": "assistant", "content": "", "tool_calls": [], "invalid_tool_calls": [broken]}],
        [*called("{}"), {"role": "tool", "content": "no"}, {"role": "assistant", "content": "k"}],
        [
            *called("{}"),
            {"role": "tool", "content": "no", "status": "error"},
            {"role": "assistant", "content": "k"},
        ],
    ]
    rows = [
        {"prompt": "q", "chosen": form, "rejected": [{"role": "assistant", "content": "x"}]}
        for form in forms
    ]
    found = [
        completion_text(row.completions[0].messages)
        for row in read(write(tmp_path / "d.jsonl", rows))
    ]
    assert len(set(found)) == len(forms)
    assert all(text.strip() for text in found)


def test_a_score_that_is_no_number_rejects_its_row(tmp_path: Path) -> None:
    rows = pairs(8, score_a=[1], score_b=[2])
    rows[5]["score_b"] = "two"
    rows[6]["score_b"] = "n/a"
    path = write(tmp_path / "d.jsonl", rows)
    given = {"scores": ["score_a", "score_b"]}
    found = [row for _, row in open_dataset(path, given=given).read()]
    assert [k for k, row in enumerate(found) if isinstance(row, Rejected)] == [5]
    assert found[6].winner is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("columns", "given"),
    [
        ({"loss_a": [1], "loss_b": [2]}, {"scores": ["loss_a", "loss_b"]}),
        ({"error_a": [0.1], "error_b": [0.2]}, {"scores": ["error_a", "error_b"]}),
        ({"inferior": ["a", "b"]}, {"label": ["inferior"]}),
    ],
)
def test_names_that_say_the_opposite_are_asked_about_though_they_were_named(
    tmp_path: Path, columns: dict[str, list[Any]], given: dict[str, Any]
) -> None:
    with pytest.raises(RlaifError):
        open_dataset(write(tmp_path / "d.jsonl", pairs(**columns)), given=given, need="verdict")
    turned = {"ranks": True} if "scores" in given else {"values": {"a": "b", "b": "a"}}
    found = read(write(tmp_path / "e.jsonl", pairs(**columns)), **given, **turned)
    assert [row.winner for row in found] == ([0] * 4 if "scores" in given else [1, 0, 1, 0])


def test_a_flag_of_bad_answers_named_as_one_of_good_ones_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", answers(is_spam=[True, False]))
    with pytest.raises(RlaifError, match="may mark bad responses"):
        open_dataset(path, given={"good": ["is_spam"]}, need="targets")
    found = read(path, bad=["is_spam"])
    assert [row.completions[0].good for row in found] == [False, True, False, True]


def test_a_flag_inside_a_list_says_of_the_one_answer_whether_it_is_good(tmp_path: Path) -> None:
    notes = [[{"kind": "human", "flagged": flag}] for flag in (True, False)]
    path = write(tmp_path / "d.jsonl", answers(moderation=notes))
    given: dict[str, Any] = {"bad": ["moderation[].flagged"]}
    open_dataset(path, given=given, need="targets")
    found = [row.completions[0].good for row in read(path, **given)]
    assert found == [False, True, False, True]
    with pytest.raises(RlaifError, match="may mark bad responses"):
        open_dataset(path, given={"good": ["moderation[].flagged"]}, need="targets")
    notes = [[{"kind": "human", "approved": flag}] for flag in (True, False)]
    path = write(tmp_path / "e.jsonl", answers(moderation=notes))
    found = [row.completions[0].good for row in read(path, good=["moderation[].approved"])]
    assert found == [True, False, True, False]
