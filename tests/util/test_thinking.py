"""What a model says after it thought, and what only quotes the marks of thinking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.codec import HFCodec
from rlaif.util.thinking import MARKS, after_thinking, may_end_thinking, open_thinking
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


@pytest.mark.parametrize(
    "text",
    [
        "I think it over.\n</think>\n\nAnswer.",
        "> He wrote\n> </think>\n\nand left.",
        "Close it:\n\n    </think>\n\nThen go on.",
        "~~~\n</think>\n~~~\n\nThen go on.",
        "End your turn with <|end|>\n\nand wait.",
    ],
)
def test_an_end_alone_takes_nothing_away(text: str) -> None:
    """Whether a server's template opened a block is not guessed from a text."""
    assert after_thinking(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>x</think><answer>Four.</answer>", "Four."),
        ("<answer>Four.</answer>", "<answer>Four.</answer>"),
        ("<think>x</think>It is <answer>Four.</answer>", "It is <answer>Four.</answer>"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final "
            "<|constrain|>json<|message|>{}",
            "{}",
        ),
        ("<|channel|>analysis <|message|>a<|end|><|channel|>final<|message|>Hi.", "Hi."),
    ],
)
def test_forms_around_what_is_said(text: str, said: str) -> None:
    assert after_thinking(text) == said


@pytest.mark.parametrize(
    "text", ["I'll go with 4.</think>The answer is 4.", "4.</think>\nThe answer", "x[/THINK]y"]
)
def test_an_end_without_a_beginning_may_be_one(text: str) -> None:
    assert may_end_thinking(text)
    assert not may_end_thinking(f"<think>{text}")
    assert not may_end_thinking("Use `</think>` or '</think>' to close it.")


def test_what_a_server_s_template_opened_is_closed_by_its_own_mark() -> None:
    assert after_thinking(open_thinking("hm\n</think>\n\nAnswer </think>.")) == "Answer </think>."
    assert after_thinking(open_thinking("hm[/THINK]Answer.")) == "Answer."
    assert after_thinking(open_thinking("hm and on")) is None
    assert may_end_thinking("hm</think>\n\nYes.") == "</think>"
    assert may_end_thinking("<think>hm</think>\n\nYes.") == ""
    assert may_end_thinking("The tag `</think>` ends it.") == ""


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


@pytest.mark.parametrize(
    ("tokens", "template", "before", "after"),
    [
        (
            ["<|channel|>", "<|message|>", "<|start|>"],
            PLAIN,
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        (["<|channel>", "<channel|>"], PLAIN, "<|channel>thought\n", "<channel|>"),
        (["<|reason|>", "<|/reason|>"], PLAIN, "<|reason|>", "<|/reason|>"),
        (["<|begin_cot|>", "<|end_cot|>"], PLAIN, "<|begin_cot|>", "<|end_cot|>"),
        (
            ["<M1>", "</M1>"],
            PLAIN.replace(
                "{{ m['content'] }}",
                "{% if m.thinking is defined %}<M1> {{ m.thinking }} </M1>{% endif %}"
                "{{ m['content'] }}",
            ),
            "<M1>",
            "</M1>",
        ),
        (
            ["<M2>", "</M2>"],
            PLAIN.replace("m['content']", "m['content'].split('</M2>')[-1]") + "{# <M2> #}",
            "<M2>",
            "</M2>",
        ),
    ],
)
def test_a_model_s_own_marks_are_known(
    tmp_path: Path, tokens: list[str], template: str, before: str, after: str
) -> None:
    found: Any = tokenizer(template)
    found.add_special_tokens({"additional_special_tokens": tokens})
    found.save_pretrained(tmp_path)
    codec = HFCodec(_files(tmp_path))

    def read(text: str) -> str | None:
        return after_thinking(codec.decode(found(text, add_special_tokens=False)["input_ids"]))

    assert read(f"{before}hm{after}Use warm water.<|end|>") == "Use warm water."
    assert read(f"<|user|>{before}hm{after}Use warm water.<|end|>") == "Use warm water."
    assert read(f"{before}hm") is None
    assert read(f"{before}{after}") == ""
    assert read("Use warm water.") == "Use warm water."
    assert read(f"Use warm water. {before}hm{after}") != "hm"


def test_a_turn_may_open_before_the_channel() -> None:
    opened = "<|start|>assistant<|channel|>analysis<|message|>hm<|end|>Yes."
    assert after_thinking(opened) == "Yes."


def test_many_blocks_are_skipped_in_one_pass() -> None:
    """Each one once: to cut the text again for every block would take hours."""
    assert after_thinking("<think></think>" * 300_000 + "Yes.") == "Yes."
