"""What annotation tools, evaluation logs and servers write: people and models, objects as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import open_dataset
from rlaif.errors import RlaifError
from tests.data.test_infer import write
from tests.data.test_nothing_in_silence import answers, pairs
from tests.data.test_outside_shapes import problems, read, said

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "people",
    [
        {"responses": {"preference": [{"value": "response_b", "user_id": "u"}]}},
        {"human_annotations": [{"winner": "b", "who": "u"}, {"winner": "b", "who": "v"}]},
        {"annotations": [{"preference": "b"}]},
    ],
)
@pytest.mark.parametrize(
    "model",
    [
        {"suggestions": {"preference": {"value": "response_a", "agent": "m"}}},
        {"llm_judge": {"winner": "a", "why": "x"}},
        {"predictions": [{"preference": "a"}]},
    ],
)
def test_what_people_said_counts_and_not_what_a_model_said(
    tmp_path: Path, people: dict[str, Any], model: dict[str, Any]
) -> None:
    for order in ((people, model), (model, people)):
        more = {key: [value] for part in order for key, value in part.items()}
        path = write(tmp_path / "d.jsonl", pairs(**more))
        assert problems(path) == []
        assert {row.winner for row in read(path)} == {1}


@pytest.mark.parametrize(
    ("given", "taken_back"),
    [
        ({"valid": True}, {"valid": False}),
        ({"excluded": False}, {"excluded": True}),
        ({}, {"is_spam": True}),
        ({"qa": "pass"}, {"qa": "fail"}),
        ({"status": "approved"}, {"status": "rejected"}),
        ({"attention_check": "passed"}, {"attention_check": "failed"}),
    ],
)
def test_votes_that_were_taken_back_do_not_count(
    tmp_path: Path, given: dict[str, Any], taken_back: dict[str, Any]
) -> None:
    votes = [{"winner": "a", **given}, {"winner": "b", **taken_back}, {"winner": "b", **taken_back}]
    path = write(tmp_path / "d.jsonl", pairs(annotations=[votes]))
    assert problems(path) == []
    assert {row.winner for row in read(path)} == {0}
    votes = [{"winner": "a", **given}, {"winner": "b", **given}, {"winner": "b", **given}]
    assert {r.winner for r in read(write(tmp_path / "e.jsonl", pairs(annotations=[votes])))} == {1}


@pytest.mark.parametrize("column", ["metadata", "extra", "gen_config", "row_info"])
@pytest.mark.parametrize("python", [False, True], ids=["json", "python"])
def test_objects_as_text_are_opened(tmp_path: Path, column: str, *, python: bool) -> None:
    held = {"system_prompt": "Be brief.", "tools": [TOOL], "seed": 3}
    text = repr(held) if python else json.dumps(held)
    path = write(tmp_path / "d.jsonl", pairs(**{column: [text], "winner": ["a", "b"]}))
    for row in read(path):
        assert row.prompt[0] == {"role": "system", "content": "Be brief."}
        assert row.tools == [TOOL]
    pictured = json.dumps({"images": ["a.png"], "seed": 1})
    (row, *_) = read(write(tmp_path / "e.jsonl", pairs(**{column: [pictured]})))
    assert row.media
    flags = [json.dumps({"is_correct": flag, "by": "x"}) for flag in (True, False)]
    rows = read(write(tmp_path / "f.jsonl", answers(**{column: flags})))
    assert [row.completions[0].good for row in rows] == [True, False, True, False]


def test_an_answer_in_json_stays_a_text(tmp_path: Path) -> None:
    for name in ("response", "output", "completion"):
        rows = [{"prompt": f"Give {k}.", name: json.dumps({"tools": [], "k": k})} for k in range(4)]
        found = read(write(tmp_path / f"{name}.jsonl", rows))
        assert said(found[0]) == ['{"tools": [], "k": 0}']


def test_requests_and_answers_of_a_server_are_opened(tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "S"}, {"role": "user", "content": "q?"}]
    answer = {"choices": [{"message": {"role": "assistant", "content": "Because."}}]}
    row = {"request": json.dumps({"messages": asked, "tools": [TOOL]})}
    row["response"] = json.dumps(answer)
    (found, _) = read(write(tmp_path / "d.jsonl", [row, row]))
    assert [m["role"] for m in found.prompt] == ["system", "user"]
    assert found.tools == [TOOL]
    assert said(found) == ["Because."]


@pytest.mark.parametrize(
    "judged",
    [
        {"annotations": [[{"annotator": "x", "label": mark}] for mark in ("good", "bad")]},
        {"evaluations": [[{"metric": "help", "score": n}] for n in (5, 1)]},
        {"checks": [[{"name": "runs", "ok": ok}] for ok in (True, False)]},
        {"qa_review": [[{"decision": d}] for d in ("approve", "reject")]},
        {"passed": [5, 1]},
        {"test_results": [{"passed": 5, "failed": 0}, {"passed": 0, "failed": 5}]},
        {"llama_guard": ["safe", "unsafe\nS2"]},
        {"scores": [{"match": {"value": v}} for v in ("C", "I")]},
        # a second opinion, beside a flag that says yes to all
        {"is_safe": [True], "reward": [2.5, -4.0]},
        {"verified": [True], "guard": ["safe", "unsafe"]},
        {"valid": [True], "issues": [[], ["wrong fact"]]},
        {"good": [True], "is_wrong": [False, True]},
    ],
)
def test_what_is_said_of_an_answer_aside_stops_training(
    tmp_path: Path, judged: dict[str, Any]
) -> None:
    path = write(tmp_path / "d.jsonl", answers(**judged))
    try:
        open_dataset(path, need="targets")
    except RlaifError:
        return
    assert [row.completions[0].good for row in read(path)] == [True, False, True, False]


def test_a_flag_on_which_all_agree_is_enough(tmp_path: Path) -> None:
    more = {"is_safe": [True, False], "issues": [[], ["rude"]], "category_flag": [False]}
    open_dataset(write(tmp_path / "d.jsonl", answers(**more)), need="targets")


def test_counts_are_no_flags(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", answers(correct=[8, 2]))
    given = {"scores": ("correct",), "good_from": 8}
    found = [row.completions[0].good for row in read(path, **given)]
    assert found == [True, False, True, False]
    with pytest.raises(RlaifError, match="score"):
        open_dataset(path, need="targets")


def test_the_right_one_of_several_answers_is_a_verdict(tmp_path: Path) -> None:
    row = {
        "question": "How warm is it?",
        "correct_answer": "call",
        "answers": {"refuse": "I can't.", "call": "Let me look.", "ask": "Where are you?"},
    }
    path = write(tmp_path / "d.jsonl", [row] * 3)
    with pytest.raises(RlaifError, match="'correct_answer' is not used, and looks like a verdict"):
        open_dataset(path, need="targets")
    assert {r.winner for r in read(path, label=("correct_answer",))} == {1}


def test_a_log_with_the_whole_conversation_keeps_its_system_prompt(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "q {k}?"}]
    whole = [{"role": "system", "content": "Be brief."}, *asked]
    whole += [{"role": "assistant", "content": "It is {k}."}]
    for question in ("q {k}?", asked):
        row = {"input": question, "messages": whole, "output": {"completion": "It is {k}."}}
        rows = [json.loads(json.dumps(row).replace("{k}", str(k))) for k in range(3)]
        found = read(write(tmp_path / "d.jsonl", rows))
        assert [m["role"] for m in found[0].prompt] == ["system", "user"]
        assert said(found[2]) == ["It is 2."]


@pytest.mark.parametrize("name", ["reference_files", "file_name", "Attachment"])
def test_files_that_a_question_is_about_are_not_left_out(tmp_path: Path, name: str) -> None:
    for value in ("a/b/Budget 2024.xlsx", ["notes.docx"]):
        (row, *_) = read(write(tmp_path / "d.jsonl", pairs(**{name: [value]})))
        assert row.media


def test_a_label_of_the_prompt_is_none_of_the_answer(tmp_path: Path) -> None:
    more = {"prompt_label": ["safe", "unsafe"], "response_label": ["safe", "unsafe"]}
    with pytest.raises(RlaifError, match="'response_label' is not used"):
        open_dataset(write(tmp_path / "d.jsonl", answers(**more)), need="targets")


def test_data_may_name_its_layout(tmp_path: Path) -> None:
    rows = [{"ask": f"What is {k}, and why?", "tell": f"It is {k}, as is known."} for k in range(3)]
    path = write(tmp_path / "d.jsonl", rows)
    (tmp_path / "l.yaml").write_text("prompt: ask\nresponses: tell\n")
    found = open_dataset(f"{path},layout={tmp_path / 'l.yaml'}", need="targets")
    assert found.layout.responses == ("tell",)
    plain, named = open_dataset(path).source, found.source
    assert plain.fingerprint() != named.fingerprint()
    with pytest.raises(RlaifError, match="nosuch"):
        open_dataset(f"{path},layout={tmp_path / 'nosuch.yaml'}")
