"""What a model says after it thought, and what only quotes the marks of thinking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.codec import HFCodec
from rlaif.util.thinking import MARKS, after_thinking
from tests.engines.test_chat_template import PLAIN, _files, tokenizer


@pytest.mark.parametrize(("before", "after"), MARKS)
def test_a_block_that_opens_the_text_is_thinking(before: str, after: str) -> None:
    assert after_thinking(f"{before}hm{after}Answer.") == "Answer."
    assert after_thinking(f"\n{before}\nhm\n{after}\n\nAnswer.") == "Answer."
    assert after_thinking(f"{before}one{after}{before}two{after}Answer.") == "Answer."
    assert after_thinking(f"{before}never ends") is None
    assert after_thinking(f"{before}{after}") == ""


@pytest.mark.parametrize(("before", "after"), MARKS)
def test_an_answer_may_quote_the_marks(before: str, after: str) -> None:
    for text in (
        f"The closing tag is written {after} and it ends the block.",
        f"Write {before}like this{after} in your prompt.",
        f"Answer: use `{after}`.",
    ):
        assert after_thinking(text) == text
        assert after_thinking(f"{before}hm{after}{text}") == text


def test_a_block_that_the_server_s_template_opened_shows_its_end_alone() -> None:
    assert after_thinking("I think it over.\n</think>\n\nAnswer.") == "Answer."
    assert after_thinking("I think it over.</think>\n\nAnswer.") == "Answer."
    assert after_thinking("Hm\n[/THINK]\nAnswer.") == "Answer."


def test_channels_of_harmony() -> None:
    text = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes."
    )
    assert after_thinking(text) == "Yes."
    assert after_thinking("<|channel|>final<|message|>Yes.") == "Yes."


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("opened", [True, False])
def test_marks_that_are_special_tokens_survive_decoding(
    tmp_path: Path, special: bool, opened: bool
) -> None:
    template = PLAIN.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
    found: Any = tokenizer(template if opened else PLAIN)
    marks = {"additional_special_tokens": ["<think>", "</think>"]}
    if special:
        found.add_special_tokens(marks)
    else:
        found.add_tokens(marks["additional_special_tokens"])
    found.save_pretrained(tmp_path)
    codec = HFCodec(_files(tmp_path))
    start = "" if opened else "<think>"
    ids = found(f"{start}hm</think>Use warm water.<|end|>", add_special_tokens=False)["input_ids"]
    assert after_thinking(codec.decode(ids)) == "Use warm water."
    cut = found(f"{start}hm", add_special_tokens=False)["input_ids"]
    assert after_thinking(codec.decode(cut)) is None
    if not opened:
        plain = found("Use warm water.", add_special_tokens=False)["input_ids"]
        assert codec.decode(plain) == "Use warm water."


def test_an_end_that_stands_in_code_is_quoted() -> None:
    text = "Close it so:\n\n```\n</think>\n```\n\nThen go on."
    assert after_thinking(text) == text


def test_a_turn_may_open_before_the_channel() -> None:
    opened = "<|start|>assistant<|channel|>analysis<|message|>hm<|end|>Yes."
    assert after_thinking(opened) == "Yes."


def test_many_blocks_are_skipped_in_one_pass() -> None:
    """Each one once: to cut the text again for every block would take hours."""
    assert after_thinking("<think></think>" * 300_000 + "Yes.") == "Yes."
