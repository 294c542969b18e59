"""Prompts with pictures: passed to a judge that sees, refused by one that reads text alone."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rlaif.constitution.load import load_constitution
from rlaif.data.infer import infer_layout
from rlaif.data.messages import BadRow
from rlaif.data.pictures import load_pictures
from rlaif.data.reading import Reader
from rlaif.engines.codec import HFCodec
from rlaif.engines.hub import resolve_model
from rlaif.errors import RlaifError
from rlaif.judging.questions import plan_questions
from rlaif.judging.rendering import Renderer
from rlaif.records import Pair, Picture
from rlaif.templates.judge import load_judge_template
from tests.commands import run_command
from tests.data.test_infer import write

DEMO_JUDGE = Path(__file__).parents[2] / "rlaif/demo/models/judge"


def png(color: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def uri(color: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(color)).decode()}"


def parts(text: str, *images: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [*images, {"type": "text", "text": text}]},
    ]


def pair(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response_a": "It is red.", "response_b": "It is blue.", **more}


def read(row: dict[str, Any], folder: str) -> tuple[Picture, ...]:
    return load_pictures(Reader(infer_layout([row]).layout).read(row), folder)


@pytest.mark.parametrize(
    "row",
    [
        pair(parts("Which color?", {"type": "image_url", "image_url": {"url": uri("red")}})),
        pair(parts("Which color?", {"type": "input_image", "image_url": uri("red")})),
        pair(
            parts(
                "Which color?",
                {
                    "type": "image",
                    "source": {
                        "type": "base64",
                        "media_type": "image/png",
                        "data": uri("red").partition(",")[2],
                    },
                },
            )
        ),
        pair("Which color?", images=[{"bytes": png("red"), "path": None}]),
        pair("<image>Which color?", images=["red.png"]),
        pair("Which color?", image={"bytes": None, "path": "red.png"}),
    ],
)
def test_pictures_are_found_in_many_forms(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    (found,) = read(row, str(tmp_path))
    assert found.data == png("red")
    with pytest.raises(BadRow, match="judge takes text alone"):
        read(row, "")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (pair("Which?", images=["https://example.org/a.png"]), "download it"),
        (pair("Which?", images=["none.png"]), "not a file that can be read"),
        (pair("Which?", images=["broken.png"]), "can't be read"),
        (pair("Which?", images=["data:image/png;base64,@@"]), "base64 is broken"),
        (pair("Which?", images=["data:text/plain,hi"]), "not base64"),
        (
            pair("Which?", image=[{"bytes": png("red", (9000, 9000)), "path": None}]),
            "pixels, above",
        ),
        (pair("<image> Which color is it?"), "a mark of one that is not there"),
        (pair("Which?", audio={"bytes": b"x", "path": "a.wav"}), "has content that is no text"),
        (
            pair("Which?")
            | {
                "response_a": [
                    {
                        "role": "assistant",
                        "content": [{"type": "image_url", "image_url": {"url": uri("red")}}],
                    }
                ],
                "response_b": [{"role": "assistant", "content": "No."}],
            },
            "in a response",
        ),
    ],
)
def test_a_picture_that_cannot_be_passed_on_rejects_the_row(
    tmp_path: Path, row: dict[str, Any], why: str
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BadRow, match=why):
        read(row, str(tmp_path))


@pytest.fixture(scope="module")
def seeing_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model with random weights and the demo judge's tokenizer."""
    import torch
    from transformers import (
        AutoTokenizer,
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    path = tmp_path_factory.mktemp("judge")
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_JUDGE)
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{% if m['content'] is string %}"
        "{{ m['content'] }}{% else %}{% for p in m['content'] %}"
        "{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
        "{% endif %}<|end|>{% endfor %}<|assistant|>"
    )
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "pad_token_id": 0,
            "initializer_range": 0.2,
        },
    )
    torch.manual_seed(3)
    Idefics3ForConditionalGeneration(config).save_pretrained(path)
    processor = Idefics3ImageProcessorPil(
        size={"longest_edge": 28}, max_image_size={"longest_edge": 28}, do_image_splitting=False
    )
    Idefics3Processor(
        image_processor=processor, tokenizer=tokenizer, image_seq_len=1
    ).save_pretrained(path)
    return path


@pytest.mark.slow
def test_a_judge_that_sees_answers_by_the_picture(seeing_judge: Path, tmp_path: Path) -> None:
    rows = [
        pair(
            parts("Which color?", {"type": "image_url", "image_url": {"url": uri(color)}}),
            id=f"{color}{k}",
        )
        for k in (0, 1)
        for color in ("red", "blue", "yellow")
    ]
    rows += [pair("Which color?", id="blind"), pair(parts("Which?", {"type": "input_audio"}))]
    rows += [pair("Which?", images=["none.png"])]
    data = write(tmp_path / "d.jsonl", rows)
    command = ["label", data, "-c", "demo", "-o"]
    judge = ["--judge", str(seeing_judge), "--template", "demo", "--label-mass-floor", "0"]
    seen = run_command(*command, str(tmp_path / "seen"), "--engine", "vllm", *judge)
    assert seen.returncode == 0, seen.stderr
    held: dict[str, Any] = {}
    for name in ("preferences.jsonl", "undecided.jsonl"):
        lines = (tmp_path / "seen" / name).read_text(encoding="utf-8").splitlines()
        for line in lines:
            row = json.loads(line)
            held[row["provenance"]["id"]] = row
    assert len(held) == 7
    answers = {
        name: tuple(tuple(s.items()) for s in row["provenance"]["principles"])
        for name, row in held.items()
    }
    for color in ("red", "blue", "yellow"):
        assert answers[f"{color}0"] == answers[f"{color}1"]
    assert len(set(answers.values())) == 4  # each picture its own answer, and none without one
    assert held["red0"]["images"] == [uri("red").replace("image/png", "image/*")]
    assert "[image]" in held["red0"]["prompt"][0]["content"]
    assert "images" not in held["blind"]
    rejected = [
        json.loads(line)["reason"]
        for line in (tmp_path / "seen/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rejected) == 2

    blind = run_command(*command, str(tmp_path / "blind"), "--judge", "demo", "--engine", "packed")
    assert blind.returncode == 0, blind.stderr
    lines = (tmp_path / "blind/rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8
    assert "the judge takes text alone" in lines[0]


@pytest.mark.slow
def test_a_template_says_where_pictures_stand(seeing_judge: Path, tmp_path: Path) -> None:
    """The prompt with a place is the prompt without pictures, and their marks at that place."""
    codec = HFCodec(resolve_model(str(seeing_judge), None), {}, 2048)
    seen = Pair(
        "1",
        [{"role": "user", "content": "What is on [image]? \0 <image>"}],
        [{"role": "assistant", "content": "A red cat."}],
        [{"role": "assistant", "content": "A dog."}],
        pictures=(Picture(b"x", "x"), Picture(b"y", "y")),
    )
    layout = (
        "---\nlabels: [A, B]\n---\nSaid: {{conversation}}\n\nPictures: {{image}} (end)\n\n"
        "A: {{first}}\n\nB: {{second}}\n\n{{principle}}\n"
    )
    asked = load_constitution("demo").constitution.principles[:2]
    questions = plan_questions(seen, asked, orders="one")

    def prompts(body: str, of: Pair) -> list[list[int]]:
        path = tmp_path / "t.txt"
        path.write_text(body, encoding="utf-8")
        renderer = Renderer(load_judge_template(str(path)), codec)
        return [list(r.token_ids) for r in renderer.requests(of, questions, "q")]

    mark = codec.encode_text("<image>")
    assert len(mark) == 1
    told = [codec.decode(row) for row in prompts(layout, replace(seen, pictures=()))]
    for row, text in zip(prompts(layout, seen), told, strict=True):
        places = [i for i, token in enumerate(row) if token == mark[0]]
        assert places == [places[0], places[0] + 1]  # what a row writes is no mark
        before, after = codec.decode(row[: places[0]]), codec.decode(row[places[1] + 1 :])
        assert before.rstrip().endswith("Pictures:")
        assert after.lstrip().startswith("(end)")
        assert (before + after).split() == text.split()
    for row in prompts(layout.replace("Pictures: {{image}} (end)", ""), seen):
        assert codec.decode(row[: row.index(mark[0])]).strip() in ("", "<|user|>")
    for wrong in (
        layout.replace("{{principle}}", "{{principle}} {{image}}"),
        layout.replace("{{first}}", "{{first}} {{image}}"),
        layout.replace("{{image}}", "") + "{{image}}",
    ):
        with pytest.raises(RlaifError, match="image"):
            prompts(wrong, seen)
