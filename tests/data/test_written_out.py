"""Conversations written out as one text: forms that are found by their marks, and doubts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import open_dataset
from rlaif.data.infer import infer_layout
from rlaif.data.reading import Reader
from rlaif.data.row_model import DataRow
from rlaif.data.transcripts import find_form, infer_form, read_transcript
from rlaif.errors import RlaifError
from tests.data.test_infer import write

ASKED = ("What is the capital of Peru?", "Why do cats purr?", "Name two rivers in Asia.")
BEFORE = ("Good morning", "Good morning to you")
FORMS = {
    "<{role}>:": "<human>: {0}\n<bot>: {1}\n<human>: {2}\n<bot>:",
    "{ROLE}:": "An exchange between a user and a helper. USER: {0} ASSISTANT: {1}</s>"
    "USER: {2} ASSISTANT:",
    "### {role}:": "Below is a task. Do it well.\n\n### Instruction:\n{0}\n\n### Response:\n{1}\n\n"
    "### Instruction:\n{2}\n\n### Response:\n",
    "{role}:": "Human: {0}\nAI: {1}\nHuman: {2}\nAI:",
    "**{role}:**": "**Customer:** {0}\n\n**Agent:** {1}\n\n**Customer:** {2}\n\n**Agent:**",
    "GPT4 Correct {role}:": "GPT4 Correct User: {0}<|end_of_turn|>GPT4 Correct Assistant: {1}"
    "<|end_of_turn|>GPT4 Correct User: {2}<|end_of_turn|>GPT4 Correct Assistant:",
    "<\uff5c{role}\uff5c>": "<\uff5cbegin▁of▁sentence\uff5c><\uff5cUser\uff5c>{0}"
    "<\uff5cAssistant\uff5c>{1}<\uff5cend▁of▁sentence\uff5c><\uff5cUser\uff5c>{2}"
    "<\uff5cAssistant\uff5c>",
    "<{role}>": "<user>{0}</user>\n<assistant>{1}</assistant>\n<user>{2}</user>\n<assistant>",
    "[{role}]": "[USER] {0} [ASSISTANT] {1} [USER] {2} [ASSISTANT]",
    "zephyr": "<|prompter|>{0}<|endoftext|><|assistant|>{1}<|endoftext|><|prompter|>{2}"
    "<|endoftext|><|assistant|>",
    "command-r": "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>{0}<|END_OF_TURN_TOKEN|>"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{1}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>"
    "<|USER_TOKEN|>{2}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "granite": "<|start_of_role|>user<|end_of_role|>{0}<|end_of_text|>\n<|start_of_role|>assistant"
    "<|end_of_role|>{1}<|end_of_text|>\n<|start_of_role|>user<|end_of_role|>{2}<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>",
    "harmony": "<|start|>user<|message|>{0}<|end|><|start|>assistant<|channel|>final<|message|>{1}"
    "<|end|><|start|>user<|message|>{2}<|end|><|start|>assistant",
}


def read_all(rows: list[dict[str, Any]]) -> list[DataRow]:
    reader = Reader(infer_layout(rows).layout)
    return [reader.read(row) for row in rows]


def said(turns: list[Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in turns if turn["role"] != "system"]


@pytest.mark.parametrize("name", FORMS)
def test_a_prompt_in_any_form_is_its_turns(name: str) -> None:
    texts = [FORMS[name].format(*BEFORE, asked) for asked in ASKED]
    form = infer_form(texts)
    assert form is not None
    assert form.name == name
    rows = [{"prompt": text, "chosen": "Good.", "rejected": "Bad."} for text in texts]
    for row, asked in zip(read_all(rows), ASKED, strict=True):
        turns = [("user", BEFORE[0]), ("assistant", BEFORE[1]), ("user", asked)]
        assert said(row.prompt) == turns
        assert row.completions[0].messages[-1]["content"] == "Good."


@pytest.mark.parametrize("name", FORMS)
def test_whole_conversations_in_any_form_are_split_where_they_part(name: str) -> None:
    texts = [FORMS[name].format(*BEFORE, asked) for asked in ASKED]
    rows = [{"chosen": f"{text} Good.", "rejected": f"{text} Bad."} for text in texts]
    if name == "harmony":  # the channel and the mark of the message are part of an answer
        rows = [
            {side: text.replace("assistant ", "assistant<|message|>") for side, text in row.items()}
            for row in rows
        ]
    for row, asked in zip(read_all(rows), ASKED, strict=True):
        assert said(row.prompt)[-1] == ("user", asked)
        assert [c.messages[-1]["content"].strip() for c in row.completions] == ["Good.", "Bad."]


def test_a_preface_is_the_system_prompt_and_an_input_belongs_to_the_question() -> None:
    text = "You are kind.\n\n### Instruction:\nSum up.\n\n### Input:\nA text.\n\n### Response:\n"
    (row,) = read_all([{"prompt": text, "chosen": "Yes.", "rejected": "No."}])
    assert [(m["role"], m["content"]) for m in row.prompt] == [
        ("system", "You are kind."),
        ("user", "Sum up.\n\nA text."),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Translate: {0}\nStyle: short\nOutput:",
        "Write a play. Alice: {0} Bob:",
        "Question: {0}\nAnswer:",
        "Is `user: {0}` valid YAML?",
    ],
)
def test_a_task_about_a_dialogue_stays_one_question(text: str) -> None:
    texts = [text.format(asked) for asked in ASKED]
    assert infer_form(texts, prompt=True) is None
    rows = [{"prompt": t, "chosen": "Good.", "rejected": "Bad."} for t in texts]
    assert [said(row.prompt) for row in read_all(rows)] == [[("user", t)] for t in texts]
    assert not infer_layout(rows).unread


@pytest.mark.parametrize(
    "text",
    [
        "User: {0}\nFalcon:",
        "Q: How many is two?\nA: Two.\nQ: {0}\nA:",
        "<|im_sep|>{0}<|im_sep|>",
        "### User: {0}\n### Oracle:",
        "Sum up this talk.\nUser: Hello\nAssistant: Hi\nUser: Bye\nAssistant: See you",
        "User: hello\nAssistant: hi\nUser: {0}\n\nSum up the talk above.",
        "用户：你好\n助手：您好\n用户：{0}\n助手：",
        "[12:01] Student: Hello\n[12:02] Tutor: Hi\n[12:03] Student: {0}\n[12:04] Tutor:",
        "## User\nHello\n\n## Assistant\nHi\n\n## User\n{0}",
        "User 1: Hello\nAssistant 1: Hi\nUser 2: {0}\nAssistant 2:",
        "Hello __eou__ Hi __eou__ {0} __eou__",
    ],
)
def test_what_looks_like_a_conversation_and_is_not_read_stops_the_run(
    tmp_path: Path, text: str
) -> None:
    rows = [{"prompt": text.format(q), "chosen": "Good.", "rejected": "Bad."} for q in ASKED]
    path = write(tmp_path / "d.jsonl", rows)
    with pytest.raises(RlaifError, match="read as plain text, and seems to hold") as error:
        open_dataset(path, need="responses")
    assert "--transcript prompt=text" in str(error.value)
    given = {"transcripts": {"prompt": "text"}}
    read = [row for _, row in open_dataset(path, given=given, need="responses").read()]
    assert [row.prompt[-1]["content"] for row in read] == [r["prompt"] for r in rows]  # type: ignore[union-attr]


def test_a_form_can_be_given_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"(user) {q} (model)", "chosen": "a", "rejected": "b"} for q in ASKED]
    path = write(tmp_path / "d.jsonl", rows)
    given = {"transcripts": {"prompt": "({role})"}}
    read = [row for _, row in open_dataset(path, given=given, need="responses").read()]
    assert [said(row.prompt) for row in read] == [[("user", q)] for q in ASKED]  # type: ignore[union-attr]
    with pytest.raises(RlaifError, match="'vicunna' is no form of a transcript"):
        infer_layout(rows, {"transcripts": {"prompt": "vicunna"}})


@pytest.mark.parametrize("bad", ["", "{role}", "{role} {role}", "role:"])
def test_names_that_are_no_forms(bad: str) -> None:
    with pytest.raises(ValueError, match="is no form of a transcript"):
        find_form(bad)


def test_thinking_of_a_harmony_model_is_not_taken_for_an_answer() -> None:
    form = find_form("harmony")
    assert form is not None
    text = "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>{}<|message|>Hello"
    assert len(read_transcript(text.format("final"), form)) == 2
    assert read_transcript(text.format("analysis"), form) == []


@pytest.mark.parametrize(
    ("asks", "answers"),
    [
        ({"type": "human", "content": "Q"}, {"type": "ai", "content": "A"}),
        ({"type": "human", "data": {"content": "Q"}}, {"type": "ai", "data": {"content": "A"}}),
        ({"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"text": "A"}]}),
        ({"speaker": "USER", "text": "Q"}, {"speaker": "SYSTEM", "text": "A"}),
        ({"sender": "customer", "message": "Q"}, {"sender": "agent", "message": "A"}),
        (
            {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Q"]}},
            {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["A"]}},
        ),
    ],
)
def test_messages_name_who_speaks_in_many_ways(asks: Any, answers: Any) -> None:
    rows = [{"messages": [asks, answers, asks], "chosen": "Good.", "rejected": "Bad."}] * 2
    turns = [("user", "Q"), ("assistant", "A"), ("user", "Q")]
    assert [said(row.prompt) for row in read_all(rows)] == [turns, turns]


def test_calls_and_pictures_of_gemini_are_kept() -> None:
    call = {"functionCall": {"name": "look_up", "args": {"city": "Lima"}}}
    answer = {"functionResponse": {"name": "look_up", "response": {"sun": True}}}
    rows = [
        {
            "contents": [
                {"role": "user", "parts": [{"text": "Is it sunny?"}]},
                {"role": "model", "parts": [call]},
                {"role": "user", "parts": [answer]},
            ],
            "chosen": {"role": "model", "parts": [{"text": "Yes."}]},
            "rejected": {"role": "model", "parts": [{"text": "No."}]},
        }
    ]
    (row,) = read_all(rows)
    assert row.prompt[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Lima"}
    assert row.prompt[2] == {"role": "tool", "content": '{"sun": true}', "name": "look_up"}
    rows[0]["contents"][0]["parts"].append({"inlineData": {"mimeType": "image/png", "data": ""}})
    assert read_all(rows)[0].media == ("image",)
