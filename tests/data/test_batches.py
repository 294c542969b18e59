"""Files of the OpenAI batch API, joined by `custom_id`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import open_dataset
from rlaif.errors import RlaifError
from rlaif.records import Rejected
from tests.data.test_infer import write


def request(name: str, asked: str, **more: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": asked}], **more}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def result(name: str, *texts: str, model: str = "m-2026") -> dict[str, Any]:
    choices = [
        {"index": k, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for k, text in enumerate(texts)
    ]
    body = {"id": "x", "model": model, "choices": choices}
    return {"id": "b", "custom_id": name, "response": {"status_code": 200, "body": body}}


def failed(name: str, why: str) -> dict[str, Any]:
    return {"custom_id": name, "response": None, "error": {"code": "e", "message": why}}


def test_answers_of_two_runs_are_pairs_in_the_order_of_the_requests(tmp_path: Path) -> None:
    asked = write(tmp_path / "in.jsonl", [request(f"r{k}", f"Q{k}?") for k in range(4)])
    one = write(tmp_path / "one.jsonl", [result(f"r{k}", f"One {k}.") for k in (2, 0, 1, 3)])
    rows = [result("r1", "Two 1.", model="n"), result("r0", "Two 0.", model="n")]
    rows += [failed("r2", "too many tokens"), result("r9", "Nobody asked.")]
    two = write(tmp_path / "two.jsonl", rows)
    found = list(open_dataset(f"batch:{asked},{one},{two}", need="responses").read())
    pairs = [row for _, row in found if not isinstance(row, Rejected)]
    assert [row.id for row in pairs] == ["r0", "r1"]
    assert [row.prompt[0]["content"] for row in pairs] == ["Q0?", "Q1?"]
    assert [[c.messages[0]["content"] for c in row.completions] for row in pairs] == [
        ["One 0.", "Two 0."],
        ["One 1.", "Two 1."],
    ]
    assert [c.origin for c in pairs[0].completions] == ["m-2026", "n"]
    reasons = [row.reason for _, row in found if isinstance(row, Rejected)]
    assert "too many tokens" in reasons[0]
    assert "two.jsonl holds no answer" in reasons[1]
    assert "answers no request of in.jsonl" in reasons[2]


def test_several_choices_and_the_responses_api_are_candidates(tmp_path: Path) -> None:
    body = {"model": "m", "input": "Q?", "instructions": "Be brief."}
    sent = {"custom_id": "r0", "url": "/v1/responses", "body": body}
    said = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Yes.", "annotations": []}],
    }
    answer = {
        "custom_id": "r0",
        "response": {
            "status_code": 200,
            "body": {"model": "m", "output": [{"type": "reasoning", "summary": []}, said]},
        },
    }
    asked = write(tmp_path / "in.jsonl", [sent])
    chosen = write(tmp_path / "out.jsonl", [answer])
    other = write(tmp_path / "two.jsonl", [result("r0", "No.", "Maybe.")])
    ((_, row),) = open_dataset(f"batch:{asked},{chosen},{other}").read()
    assert not isinstance(row, Rejected)
    assert [(m["role"], m["content"]) for m in row.prompt] == [
        ("system", "Be brief."),
        ("user", "Q?"),
    ]
    assert [c.messages[0]["content"] for c in row.completions] == ["Yes.", "No.", "Maybe."]


def test_tools_of_a_request_are_kept(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    asked = write(tmp_path / "in.jsonl", [request("r0", "Q?", tools=[tool])])
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = result("r0", "")
    message = answer["response"]["body"]["choices"][0]["message"]
    message.update(content=None, tool_calls=[call])
    out = write(tmp_path / "out.jsonl", [answer])
    ((_, row),) = open_dataset(f"batch:{asked},{out}").read()
    assert not isinstance(row, Rejected)
    assert row.tools == [tool]
    assert row.completions[0].messages[0]["tool_calls"][0]["function"]["name"] == "f"


def test_wrong_batches_are_one_line(tmp_path: Path) -> None:
    asked = write(tmp_path / "in.jsonl", [request("r0", "Q?")])
    out = write(tmp_path / "out.jsonl", [result("r0", "A.")])
    packed = tmp_path / "out.jsonl.gz"
    packed.write_bytes(b"")
    for names, why in (
        (asked, "names one file"),
        (f"{asked},{tmp_path}/none.jsonl", "does not exist"),
        (f"{asked},{packed}", "is compressed"),
    ):
        with pytest.raises(RlaifError, match=why):
            open_dataset(f"batch:{names}")
    with pytest.raises(RlaifError, match="hold no prompts") as error:
        open_dataset(out, need="responses")
    assert "batch:REQUESTS.jsonl,RESULTS.jsonl" in str(error.value)


def test_broken_lines_and_doubled_ids_are_rejected(tmp_path: Path) -> None:
    asked = tmp_path / "in.jsonl"
    lines = [json.dumps(request("r0", "Q?")), json.dumps(request("r0", "Q?")), "{", '{"body": {}}']
    asked.write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    out.write_text("null\n{\n" + json.dumps(result("r0", "A.")) + "\n", encoding="utf-8")
    found = [row for _, row in open_dataset(f"batch:{asked},{out}").read()]
    assert [isinstance(row, Rejected) for row in found] == [False, True, True, True]
