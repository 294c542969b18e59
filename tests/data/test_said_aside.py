"""What rows say beside texts: names of responses, parts of messages, marks of each of a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import SAMPLE, open_dataset
from rlaif.data.pairing import make_pairs
from rlaif.data.single_rows import BadRow, taught
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from tests.data.test_infer import write
from tests.data.test_nothing_in_silence import answers, pairs
from tests.data.test_orders import lists
from tests.data.test_outside_shapes import problems, read, said

CALL = {"name": "book", "arguments": {"day": "monday"}}


def entries(count: int = 4, *, names: tuple[Any, Any] = ("y", "x"), **more: Any) -> list[Any]:
    """Pairs as entries with names of their own, the second one called `x`."""
    key = more.pop("key", "id")
    return [
        {
            "prompt": f"Which is number {k}?",
            "responses": [
                {key: names[0], "text": f"It is one of {k}."},
                {key: names[1], "text": f"It is two of {k}."},
            ],
            **more,
        }
        for k in range(count)
    ]


@pytest.mark.parametrize(
    ("names", "verdict", "winner"),
    [
        (("B", "A"), {"winner": "A"}, 1),
        (("b", "a"), {"winner": "B"}, 0),
        ((2, 1), {"winner_id": 1}, 1),
        ((1, 2), {"winner": 1}, 0),
        (("u-7", "u-3"), {"preferred": "u-3"}, 1),
        (("B", "A"), {"ranking": ["A", "B"]}, 1),
        ((2, 1), {"ranking": [1, 2]}, 1),
    ],
)
def test_a_verdict_goes_by_the_names_that_responses_have(
    tmp_path: Path, names: tuple[Any, Any], verdict: dict[str, Any], winner: int
) -> None:
    path = write(tmp_path / "d.jsonl", entries(names=names, **verdict))
    assert problems(path) == []
    assert [row.winner for row in read(path)] == [winner] * 4


@pytest.mark.parametrize(
    "columns",
    [
        {"responses": [["It is it.", "It is not."]], "chosen": ["A"], "rejected": ["B"]},
        {"completions": [{"gpt-x": "It is it.", "llm-y": "It is not."}], "chosen": ["gpt-x"]},
        {
            "candidates": [[{"id": "c7", "text": "It is it."}, {"id": "c9", "text": "It is not."}]],
            "chosen": ["c7"],
            "rejected": ["c9"],
        },
        {"gpt_x": ["It is it."], "mistral_y": ["It is not."], "chosen": ["gpt_x"]},
    ],
)
def test_chosen_may_name_a_response_and_is_none(tmp_path: Path, columns: dict[str, Any]) -> None:
    rows = [
        {"prompt": f"Is it {k}?", **{name: values[0] for name, values in columns.items()}}
        for k in range(4)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    for row in read(path):
        assert row.winner == 0
        assert said(row) == ["It is it.", "It is not."]


@pytest.mark.parametrize(
    "columns",
    [
        {"ranking_worst_to_best": [["b", "a"]]},
        {"toxicity_ranking": [["b", "a"]]},
        {"human_ranking": [["b", "a"]], "gpt_ranking": [["a", "b"]]},
        {"ranking": [["a", "b"]], "scores": [[1, 5]]},
        {"annotations": [[{"by": "x", "ranking": ["A", "B"]}, {"by": "y", "ranking": ["A", "B"]}]]},
        {"ranking_scores": [[0.9, 0.2]]},
        {"rank_score_a": [9.1], "rank_score_b": [2]},
        {"elo_ranking": [[1210, 1100]]},
        {"vote_counts": [[2, 1]]},
        {"a_wins": [2], "b_wins": [1]},
        {"votes_a": [3, 1], "votes_b": [1, 1], "votes_tie": [0, 5]},
        {"verdict": ["about the same, leaning A", "tie (slightly B)"]},
        {"winner": ["second"], "display_order": [["response_b", "response_a"]]},
        {"winner": ["1", "2"], "order": ["BA", "AB"]},
    ],
)
def test_what_can_mean_the_contrary_is_asked_about(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    path = write(tmp_path / "d.jsonl", pairs(**columns))
    with pytest.raises(RlaifError):
        open_dataset(path, need="verdict")


def test_scores_that_name_their_responses_in_another_order_are_asked_about(tmp_path: Path) -> None:
    scores = [{"id": "x", "rating": 5}, {"id": "y", "rating": 1}]
    path = write(tmp_path / "d.jsonl", entries(ratings=scores))
    with pytest.raises(RlaifError, match="in another order"):
        open_dataset(path, need="verdict")
    same = write(tmp_path / "e.jsonl", entries(ratings=scores[::-1]))
    assert [row.winner for row in read(same)] == [1] * 4


def test_the_third_of_three_is_no_tie(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", lists(3, winner=["a", "C", "b"]))
    assert [row.winner for row in read(path)] == [0, 2, 1]
    two = write(tmp_path / "e.jsonl", pairs(winner=["a", "C", "b"]))
    assert [row.winner for row in read(two)] == [0, "tie", 1, 0]


def test_the_best_of_ranks_is_paired_with_the_rest(tmp_path: Path) -> None:
    for column in ({"ranking": [["c", "a", "b"]]}, {"ranks": [[2, 3, 1]]}):
        (row,) = read(write(tmp_path / "d.jsonl", lists(1, **column)))
        firsts = {pair.a[0]["content"] for pair in make_pairs(row, "r", mode="best")}
        assert firsts == {"It is three of 0."}


@pytest.mark.parametrize(
    "part",
    [
        {"retrieved_context": "The office opens at nine."},
        {"file_content": "x = 1"},
        {"search_results": ["one", "two"]},
        {"system_prompt": "Be brief."},
        {"instruction": "Answer in Dutch."},
    ],
)
def test_a_part_of_a_message_that_nothing_reads_is_named(
    tmp_path: Path, part: dict[str, Any]
) -> None:
    (key,) = part
    rows = [
        {
            "messages": [{"role": "user", "content": f"When {k}?", **part}],
            "chosen": f"At nine, {k}.",
            "rejected": f"I do not know {k}.",
        }
        for k in range(3)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    found = [row for _, row in open_dataset(path).read()]
    assert all(isinstance(row, Rejected) for row in found)
    assert isinstance(found[0], Rejected)
    assert f"--ignore 'messages[].{key}'" in found[0].reason
    assert len(read(path, ignore=(f"messages[].{key}",))) == 3


@pytest.mark.parametrize(
    "part",
    [
        {"toolCalls": [CALL]},
        {"tool_call": CALL},
        {"additional_kwargs": {"tool_calls": [{"type": "function", "function": CALL}]}},
        {"calls": [CALL]},
        {"action": {"tool": "book", "args": {"day": "monday"}}},
    ],
)
def test_calls_of_a_message_are_read_by_any_name(tmp_path: Path, part: dict[str, Any]) -> None:
    turn = {"role": "assistant", "content": "", **part}
    rows = [{"prompt": f"Book {k}?", "chosen": [turn], "rejected": "No."} for k in range(2)]
    (row, _) = read(write(tmp_path / "d.jsonl", rows))
    assert row.completions[0].messages[0]["tool_calls"][0]["function"] == CALL


def test_what_a_model_refused_or_thought_is_kept(tmp_path: Path) -> None:
    refused = [{"role": "assistant", "content": None, "refusal": "I can't do that."}]
    thought = [{"role": "assistant", "content": "Yes.", "thought": "It is easy."}]
    rows = [{"prompt": f"Do {k}?", "chosen": thought, "rejected": refused} for k in range(2)]
    (row, _) = read(write(tmp_path / "d.jsonl", rows))
    assert row.completions[0].messages[0]["reasoning_content"] == "It is easy."
    assert row.completions[1].messages[0]["content"] == "I can't do that."


@pytest.mark.parametrize(
    "mark", [{"is_correct": False}, {"loss": False}, {"thumbs": "down"}, {"reaction": "👎"}]
)
def test_a_message_that_is_marked_as_bad_is_no_target(tmp_path: Path, mark: dict[str, Any]) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q {k}?"},
                {"role": "assistant", "content": f"It is {k}.", **(mark if k else {})},
            ]
        }
        for k in range(2)
    ]
    good, bad = read(write(tmp_path / "d.jsonl", rows))
    assert good.completions[0].good is not False
    assert bad.completions[0].good is False


@pytest.mark.parametrize(
    "marks",
    [
        {"is_correct": [True, False, True]},
        {"verdicts": ["correct", "incorrect", "correct"]},
        {"accepted": ["yes", "no", "yes"]},
    ],
)
def test_only_the_good_ones_of_a_list_are_learned(tmp_path: Path, marks: dict[str, Any]) -> None:
    (row,) = read(write(tmp_path / "d.jsonl", lists(1, **{k: [v] for k, v in marks.items()})))
    assert said(taught(row, {})) == ["It is one of 0.", "It is three of 0."]
    (key, values), *_ = marks.items()
    own = [{"text": f"It is {k}.", key: value} for k, value in enumerate(values)]
    (row,) = read(write(tmp_path / "e.jsonl", [{"prompt": "q?", "generations": own}]))
    assert said(taught(row, {})) == ["It is 0.", "It is 2."]


@pytest.mark.parametrize(
    "rows",
    [
        lists(3, quality=[["high", "mid", "low"]]),
        answers(status=["submitted", "discarded"]),
        answers(decision=["keep", "drop"]),
        answers(kind=["preferred", "dispreferred"]),
        answers(test_results=[["pass"], ["fail"]]),
    ],
)
def test_marks_of_bad_answers_stop_their_training(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(RlaifError):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="targets")


def test_moderation_that_flags_an_answer_is_never_praise(tmp_path: Path) -> None:
    flags = [{"flagged": False}, {"flagged": True}]
    good, bad, *_ = read(write(tmp_path / "d.jsonl", answers(moderation=flags)))
    assert (good.completions[0].good, bad.completions[0].good) == (True, False)


@pytest.mark.parametrize(
    "columns",
    [
        {"A": ["Rome", "Oslo"], "B": ["Bern", "Bonn"]},
        {"choices": [["Rome", "Bern"], ["Oslo", "Bonn"]]},
        {"options": [{"A": "Rome", "B": "Bern"}]},
        {"target_language": ["Dutch", "Thai"]},
        {"table": [[["a", "b"], ["1", "2"]]]},
        {"word": ["bank", "lead", "tear", "wind"]},
    ],
)
def test_short_parts_of_the_question_are_accounted_for(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    rows = [
        {
            "question": f"Which city is it, {k}?",
            "chosen": f"It is that city {k}.",
            "rejected": f"It is no city {k}.",
            **{name: values[k % len(values)] for name, values in columns.items()},
        }
        for k in range(4)
    ]
    with pytest.raises(RlaifError, match="is not used, and looks like"):
        open_dataset(write(tmp_path / "d.jsonl", rows), need="responses")


def test_records_and_tables_can_be_context(tmp_path: Path) -> None:
    documents = [
        {"title": "Hours", "text": "Nine to five."},
        {"title": "Place", "text": "Main St."},
    ]
    table = [["day", "open"], ["monday", 9]]
    rows = pairs(documents=[documents], table=[table], winner=["a"])
    given = {"context": ("documents", "table")}
    row = read(write(tmp_path / "d.jsonl", rows), **given)[0]
    asked = row.prompt[0]["content"]
    assert "title: Hours\ntext: Nine to five.\n\ntitle: Place\ntext: Main St." in asked
    assert "day | open\nmonday | 9" in asked


def test_pictures_of_responses_are_not_passed_on_as_the_question_s(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"Draw {k}.",
            "response_a": {"text": "Here it is.", "image": f"a{k}.png"},
            "response_b": {"text": "There it is.", "image": f"b{k}.png"},
        }
        for k in range(3)
    ]
    (row, *_) = read(write(tmp_path / "d.jsonl", rows))
    assert row.media == ("image",)
    assert row.images == ()
    written = write(tmp_path / "w.jsonl", pairs(figure=["iVBORw0KGgoAAAANSUhEUgAA"]))
    assert read(written)[0].media == ("image",)
    text = pairs(winner=["a"])
    for mark in ("<img>pics/1.jpg</img>", "<|image_1|>", "<image_1>"):
        text[0]["prompt"] = f"{mark}\nWhat is it?"
        (first, *_) = read(write(tmp_path / "t.jsonl", text))
        assert first.media == ("image",)
        assert first.prompt[0]["content"] == "[image]\nWhat is it?"


@pytest.mark.parametrize(
    ("columns", "late"),
    [
        ({"winner": ["a", "b"], "is_tie": [False]}, {"is_tie": True}),
        ({"winner": ["a", "b"], "status": ["submitted"]}, {"status": "discarded"}),
        (
            {"winner": ["a", "b"]},
            {"response_a": '[{"role": "assistant", "content": "It is it."}]'},
        ),
    ],
)
def test_what_comes_late_and_changes_a_row_is_rejected(
    tmp_path: Path, columns: dict[str, list[Any]], late: dict[str, Any]
) -> None:
    rows = pairs(SAMPLE + 3, **columns)
    rows[-1].update(late)
    *_, fine, last = [row for _, row in open_dataset(write(tmp_path / "d.jsonl", rows)).read()]
    assert not isinstance(fine, Rejected)
    assert isinstance(last, Rejected)


def test_calls_of_one_side_alone_are_that_side_s(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Book {k}?", "response_a": "I can't.", "response_b": "", "tool_calls_b": [CALL]}
        for k in range(3)
    ]
    rows[0]["response_b"] = "Done."
    for row in read(write(tmp_path / "d.jsonl", rows)):
        assert "tool_calls" not in row.completions[0].messages[0]
        assert row.completions[1].messages[0]["tool_calls"][0]["function"] == CALL
    single = [{"prompt": f"Book {k}?", "chosen": CALL, "rejected": "No."} for k in range(2)]
    (row, _) = read(write(tmp_path / "e.jsonl", single))
    assert row.completions[0].messages[0]["tool_calls"][0]["function"] == CALL


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("response_harm_label", "unharmful", "harmful"),
        ("unsafe_label", "safe", "unsafe"),
        ("toxic", "nontoxic", "toxic"),
        ("toxicity_label", "non-toxic", "toxic"),
        ("bias_label", "unbiased", "biased"),
        ("harmful", "no", "yes"),
        ("is_toxic", False, True),
        ("is_safe", True, False),
    ],
)
@pytest.mark.parametrize("role", ["", "good", "bad"])
def test_a_word_says_what_it_means_whatever_the_column_asks(
    tmp_path: Path, name: str, good: Any, bad: Any, role: str
) -> None:
    path = write(tmp_path / "d.jsonl", answers(**{name: [good, bad]}))
    plain = str(good).lower() in ("no", "yes", "true", "false")
    if role and plain:
        return  # what `yes` means is for the user to say
    given: dict[str, Any] = {role: (name,)} if role else {}
    found = [row.completions[0].good for row in read(path, **given)]
    assert found == [True, False, True, False]
    open_dataset(path, given=given, need="targets")


def test_labels_of_the_prompt_say_nothing_of_the_response(tmp_path: Path) -> None:
    rows = answers(prompt_harm_label=["harmful"], response_harm_label=["unharmful", "harmful"])
    path = write(tmp_path / "d.jsonl", rows)
    assert [row.completions[0].good for row in read(path)] == [True, False, True, False]
    rows = answers(prompt_safety=["unsafe"], response_safety=["safe", "unsafe"])
    path = write(tmp_path / "e.jsonl", rows)
    assert [row.completions[0].good for row in read(path)] == [True, False, True, False]


def test_a_better_response_that_is_unsafe_is_no_target(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"How {k}?",
            "response_0": f"First do {k}.",
            "response_1": f"I can't help with {k}.",
            "is_response_0_safe": False,
            "is_response_1_safe": True,
            "better_response_id": k % 2,
        }
        for k in range(4)
    ]
    unsafe, safe, *_ = read(write(tmp_path / "d.jsonl", rows))
    with pytest.raises(BadRow, match="labeled as bad"):
        taught(unsafe, {})
    assert said(taught(safe, {}))[0] == "I can't help with 1."


def test_words_beside_the_responses_of_a_list_are_read(tmp_path: Path) -> None:
    own = [
        {"response": "Bad.", "response_harm_label": "harmful"},
        {"response": "Good.", "response_harm_label": "unharmful"},
    ]
    (row, _) = read(write(tmp_path / "d.jsonl", [{"prompt": "q?", "responses": own}] * 2))
    assert said(taught(row, {})) == ["Good."]


def test_inputs_and_targets_are_a_question_and_its_answer(tmp_path: Path) -> None:
    rows = [{"inputs": f"Translate {k}.", "targets": f"Vertaal {k}."} for k in range(3)]
    path = write(tmp_path / "d.jsonl", rows)
    open_dataset(path, need="targets")
    row = read(path)[1]
    assert row.prompt[-1]["content"] == "Translate 1."
    assert said(row) == ["Vertaal 1."]


def test_messages_in_lists_of_their_own_are_a_conversation(tmp_path: Path) -> None:
    def talk(answer: str) -> list[Any]:
        asked = {"role": "user", "content": "What is it?"}
        return [[asked], [{"role": "assistant", "content": answer}]]

    rows = [
        {
            "conversation_a": talk(f"One {k}."),
            "conversation_b": talk(f"Two {k}."),
            "winner": "ab"[k],
        }
        for k in range(2)
    ]
    one, two = read(write(tmp_path / "d.jsonl", rows))
    assert one.prompt == [{"role": "user", "content": "What is it?"}]
    assert said(two) == ["One 1.", "Two 1."]
    assert (one.winner, two.winner) == (0, 1)


def test_one_message_is_an_answer_whoever_speaks(tmp_path: Path) -> None:
    rows = [
        {
            "conversations": [{"from": "human", "value": f"What is it, {k}?"}],
            "output_1": {"from": "llava", "value": f"A cat {k}."},
            "output_2": {"from": "llava", "value": f"A dog {k}."},
            "preference": 1,
        }
        for k in range(3)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    assert said(read(path, values={"1": "a", "2": "b"})[0]) == ["A cat 0.", "A dog 0."]


def test_the_system_s_message_may_hold_its_prompt_aside(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": None, "system_prompt": "Be a coder."},
        {"role": "user", "content": "Fix it."},
        {"role": "assistant", "content": "Done."},
    ]
    (row, _) = read(write(tmp_path / "d.jsonl", [{"messages": turns}] * 2))
    assert row.prompt[0] == {"role": "system", "content": "Be a coder."}


def test_systems_that_translated_are_who_wrote(tmp_path: Path) -> None:
    rows = [
        {
            "src": f"Das ist der Satz {k}.",
            "mt_a": f"This is the sentence number {k}.",
            "mt_b": f"That be sentence number {k}.",
            "system_a": "Online-A",
            "system_b": "Online-B",
            "score_a": 4.0,
            "score_b": 1.0,
        }
        for k in range(3)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    found = read(path, prompt=("src",))
    assert [row.winner for row in found] == [0, 0, 0]
    assert said(found[0])[0] == "This is the sentence number 0."
