"""What a template's layout costs is found, counted and placed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.engines.scripted import ByteCodec
from rlaif.evaluation.constitutions.layout_cost import layout_advice, tokens_per_order
from rlaif.templates.judge import load_judge_template

QUESTIONS = ["Which response is one?", "Which response is two?", "Which response is three?"]


def write(folder: Path, body: str) -> str:
    (folder / "t.txt").write_text(f"---\nlabels: [A, B]\n---\n{body}")
    return str(folder / "t.txt")


@pytest.mark.parametrize("name", ["pairwise", "demo", "reasoned"])
def test_shipped_templates_cost_nothing_more_than_they_must(name: str) -> None:
    assert layout_advice(name, ByteCodec(), QUESTIONS) == []


def test_principle_first_is_reported_with_its_place_and_cost(tmp_path: Path) -> None:
    name = write(tmp_path, "Hello.\nBy {{principle}}:\n{{conversation}}\n{{first}}\n{{second}}")
    (advice,) = layout_advice(name, ByteCodec(), QUESTIONS)
    assert advice.startswith(f"{name}:5:4: ")
    now = tokens_per_order(load_judge_template(name), ByteCodec(), QUESTIONS)
    assert f"{now} tokens for a sample pair and 3 principles" in advice
    assert "{{conversation}}, {{first}}, {{second}}" in advice


def test_long_text_after_the_principle_is_reported_and_a_few_words_are_not(tmp_path: Path) -> None:
    body = "{{conversation}}\n{{first}}\n{{second}}\n{{principle}}\n"
    assert layout_advice(write(tmp_path, body + "A/B?"), ByteCodec(), QUESTIONS) == []
    (advice,) = layout_advice(
        write(tmp_path, body + "Answer A or B, and mind that order is of no matter."),
        ByteCodec(),
        QUESTIONS,
    )
    assert "recomputed for every judge call" in advice


def test_tokens_are_counted_as_the_tree_of_prefixes_has_them(tmp_path: Path) -> None:
    name = write(tmp_path, "{{conversation}}{{first}}{{second}}{{principle}}")
    template = load_judge_template(name)
    from rlaif.evaluation.constitutions.layout_cost import _SAMPLE

    context = len(f"user: {_SAMPLE['conversation']}{_SAMPLE['first']}{_SAMPLE['second']}")
    ends = sum(len(q) + len("\nassistant:") for q in QUESTIONS)
    assert tokens_per_order(template, ByteCodec(), QUESTIONS) == context + ends
