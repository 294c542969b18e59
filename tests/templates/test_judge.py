"""Judge templates: their front matter, and what it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlaif.constitution.schema import Principle
from rlaif.engines.scripted import ByteCodec
from rlaif.errors import RlaifError
from rlaif.judging.questions import Question
from rlaif.judging.rendering import Renderer
from rlaif.records import GenerationResult, Pair
from rlaif.templates.judge import load_judge_template
from rlaif.util.resources import list_shipped

BODY = "{{conversation}}|{{first}}|{{second}}|{{principle}}\n"
PAIR = Pair(
    "p",
    [{"role": "user", "content": "q"}],
    [{"role": "assistant", "content": "x"}],
    [{"role": "assistant", "content": "y"}],
)


def write(path: Path, front: str) -> str:
    path.write_text(f"---\nlabels: [A, B]\n{front}---\n{BODY}")
    return str(path)


def prompt(name: str) -> str:
    codec = ByteCodec()
    question = Question(Principle(id="one", preference="Which is one?"), "ab")
    (request,) = Renderer(load_judge_template(name), codec).requests(PAIR, [question], "r")
    return codec.decode(request.token_ids)


def test_a_prefill_opens_the_answer_and_is_part_of_the_judge(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.txt", "")
    opened = write(tmp_path / "b.txt", "prefill: I prefer Response\n")
    assert prompt(plain).endswith("|Which is one?\nassistant:")
    assert prompt(opened).endswith("|Which is one?\nassistant: I prefer Response")
    assert load_judge_template(plain).hash != load_judge_template(opened).hash


def test_a_judge_that_reasons_goes_on_from_its_prefill(tmp_path: Path) -> None:
    name = write(tmp_path / "r.txt", 'prefill: "Let me see."\nanswer: " So: Response"\n')
    codec, template = ByteCodec(), load_judge_template(name)
    renderer = Renderer(template, codec)
    question = Question(Principle(id="one", preference="Which is one?"), "ab")
    (request,) = renderer.requests(PAIR, [question], "r")
    asked = renderer.reasoning(request, 10)
    assert codec.decode(asked.token_ids).endswith("assistant: Let me see.")
    written = GenerationResult("r/0", tuple(b" A is.."), finished=True)
    after = renderer.after_reasoning(request, written)
    assert codec.decode(after.token_ids).endswith("Let me see. A is.. So: Response")
    assert renderer.text(written) == "Let me see. A is.."
    thought = GenerationResult("r/0", tuple(b"<think>x</think>A"), finished=True)
    assert renderer.text(thought) == "<think>x</think>A"


@pytest.mark.parametrize(
    ("front", "match"),
    [
        ('prefill: "ends in space "\n', "invalid `prefill`"),
        ("prefill: [A]\n", "invalid `prefill`"),
        ("prefil: x\n", "unknown setting 'prefil'"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, front: str, match: str) -> None:
    with pytest.raises(RlaifError, match=match):
        load_judge_template(write(tmp_path / "a.txt", front))


def test_a_template_is_the_same_after_it_is_written(tmp_path: Path) -> None:
    for name in list_shipped("prompts/judge", ".txt"):
        for prefill in ("", "The better response is Response", "Well: 'A' or \"B\" #1\n\nSo"):
            template = replace(load_judge_template(name), prefill=prefill)
            path = tmp_path / f"{name}.txt"
            path.write_text(template.to_text())
            assert load_judge_template(str(path)).hash == template.hash
