"""The columns of public data sets, in small: each is read rightly, or refused with the way out.

Markers in the texts say what each is: `Qn`, `SYSn`, `CTXn` and `HISTn` belong to the prompt,
`GOODn`, `BESTn` and `TOPn` are what people preferred, `BADn` and `POORn` what they liked less, and
`Tn` two that people found equally good.  They are looked for in the rows as they stand, so that
they know nothing of the reader.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.dataset import check_use, open_dataset
from rlaif.data.row_model import DataRow
from rlaif.errors import RlaifError
from rlaif.records import Rejected

FOLDER = Path(__file__).parent / "public_layouts"
FILES = sorted(p for p in FOLDER.rglob("data.*") if p.is_file())
ASKED = re.compile(r"(?<!-side )\b(?:Q\d+(?:\.\d+)?b?|SYS\d+|CTX\d+|HIST\d+)\b")
BETTER, WORSE = re.compile(r"\b(?:GOOD|BEST|TOP)\d+"), re.compile(r"\b(?:BAD|POOR|MID)\d+")

REFUSED = {
    "arena-hard-answers-v01": "no column looks like a prompt",
    "openai-batch-output": "hold no prompts",
    "math-shepherd-trl": "the steps of one answer",
    "math-step-dpo": "'initial_reason_steps' is not used, and looks like the beginning",
    "choice-only-second": "can count the responses from 0 or from 1",
    "n-responses-with-best-index": "can count the responses from 0 or from 1",
    "label-bool": "true and false do not say",
    "own-tldr": "can count the responses from 0 or from 1",
}
"""What is refused where a verdict is wanted, and why."""
NO_VERDICT = {"csv-json-prompt", "sft-pair-columns-and-messages", "own-multi-annot"}
TIES = {("ultrafeedback_binarized-h4", 2)}
"""Rows whose scores are equal, though one response stands in `chosen`."""
LATER = {"mt_bench_human_judgments"}
"""Verdicts about the first of two turns: what was asked later is not part of them."""
PICTURES = {"rlaif-v", "rlhf-v-llamafactory", "own-mmpr"}
TURNED_AWAY = {
    "hh-rlhf": {3},  # a mark of a turn inside an answer
    "arena-55k": {3},  # an answer that is null
}
"""Rows that are rejected, by number."""


def text_of(messages: list[Any]) -> str:
    return "\n".join(json.dumps(message, ensure_ascii=False) for message in messages)


def asked_in(row: DataRow) -> str:
    """The prompt, and what the user says later in conversations that part ways."""
    later = [m for c in row.completions for m in c.messages if m["role"] == "user"]
    return text_of([*row.prompt, *row.tools, *later])


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_mark_stands_where_it_belongs(path: Path) -> None:
    name = path.parent.name
    if name in REFUSED:
        with pytest.raises(RlaifError, match=REFUSED[name]) as error:
            open_dataset(str(path), need="verdict")
        assert re.search(r"--map|--ignore|inspect|Use data|batch:REQUESTS", str(error.value))
        return
    data = open_dataset(str(path))
    check_use(str(path), data.found, "prompt")
    if data.layout.label or data.layout.scores or data.layout.chosen:
        check_use(str(path), data.found, "verdict")
    count = 0
    for number, ((_, raw), (_, read)) in enumerate(
        zip(data.source.rows(), data.read(), strict=True), 1
    ):
        if number in TURNED_AWAY.get(name, ()):
            assert isinstance(read, Rejected)
            continue
        assert isinstance(read, DataRow), read
        count += 1
        whole = json.dumps(raw, ensure_ascii=False, default=str)
        for mark in set(ASKED.findall(whole)) if name not in LATER else ():
            assert mark in asked_in(read), f"row {number}: {mark} is not asked"
        said = [text_of([m for m in c.messages if m["role"] != "user"]) for c in read.completions]
        assert not any(ASKED.search(text) for text in said), said
        assert bool(read.media) == (name in PICTURES)
        better = [k for k, text in enumerate(said) if BETTER.search(text)]
        if (name, number) in TIES:
            assert read.winner == "tie"
        elif name not in NO_VERDICT and better and any(WORSE.search(text) for text in said):
            assert read.winner == better[0], f"row {number}"
        if len(said) == 2 and all(re.search(r"\bT\d", text) for text in said):
            assert read.winner == "tie", f"row {number}"
    assert count


def rows_of(name: str, file: str = "") -> list[DataRow]:
    path = next(p for p in FILES if p.parent.name == name and p.name.endswith(file))
    return [row for _, row in open_dataset(str(path)).read() if isinstance(row, DataRow)]


def test_strengths_keep_sign_and_size() -> None:
    rows = rows_of("helpsteer2-preference-strengths")
    assert [row.strength for row in rows] == [-3, -2, -1, 0, 1, 2, 3]
    assert [row.winner for row in rows] == [0, 0, 0, "tie", 1, 1, 1]


def test_annotators_of_a_pair_are_votes() -> None:
    (row,) = rows_of("multipref", ".jsonl")
    assert row.votes == [1, 1, 1, "tie"]
    assert row.winner == 1
    (row,) = rows_of("argilla-v2-flat", ".json")
    assert (row.votes, row.winner) == ([1, 1, 0], 1)


def test_rows_of_one_prompt_are_joined() -> None:
    first, second = rows_of("helpsteer2", ".jsonl")
    assert [c.score for c in first.completions] == [4, 1]
    assert [m["role"] for m in second.prompt] == ["user", "assistant", "user"]


def test_threads_become_prompts_with_replies() -> None:
    for name in ("oasst1-flat", "oasst1-trees"):
        (row,) = rows_of(name, ".jsonl")
        assert row.winner == 0
        assert len(row.completions) == 2


def test_what_nobody_liked_is_known() -> None:
    for name in ("kto-false-strings", "kto-mix-14k-trl", "kto-llamafactory"):
        for row in rows_of(name):
            (completion,) = row.completions
            if "BAD" in completion.messages[-1]["content"]:
                assert completion.good is False or row.unrated, name


def test_writers_are_known() -> None:
    (row,) = rows_of("chosen-model-dash")
    assert [c.origin for c in row.completions] == ["gpt-4", "llama-2-7b-chat"]
    (row,) = rows_of("alpacaeval-outputs")
    assert row.completions[0].origin == "gpt-4"


def test_calls_and_tools_are_kept() -> None:
    first, second = rows_of("tool-pref")
    assert first.completions[0].messages[0]["tool_calls"][0]["function"]["name"] == "w"
    assert second.prompt[1]["tool_calls"][0]["function"] == {"name": "w", "arguments": {}}
    (row,) = rows_of("xlam-60k")
    assert row.tools == [{"name": "w"}]
    assert row.completions[0].messages[0]["tool_calls"][0]["function"]["name"] == "w"
