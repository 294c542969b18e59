"""Published answer forms of critics: their own answer is found, and scores become a verdict."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from rlaif import Judge
from rlaif.engines.base import EngineSettings
from rlaif.engines.codec import HFCodec
from rlaif.engines.hub import resolve_model
from rlaif.engines.scripted import ByteCodec
from rlaif.errors import RlaifError
from rlaif.judging.rendering import Renderer
from rlaif.judging.verdicts import compare_scores, read_verdict
from rlaif.labeling.job import prepare, run_label
from rlaif.labeling.settings import LabelSettings
from rlaif.records import ChoiceRequest, ChoiceResult, GenerationResult
from rlaif.templates.judge import JudgeTemplate, load_judge_template
from rlaif.util.resources import list_shipped
from tests.labeling.helpers import rows, write_inputs

CRITICS = [name for name in list_shipped("prompts/judge", ".txt") if name.startswith("critic-")]
ENDS = {
    "critic-mt-bench": "[[{}]]",
    "critic-prometheus": " [RESULT] {}",
    "critic-rm-r1": "</eval>\n<answer>[[{}]]</answer>",
    "critic-auto-j": "\nSo, the final decision is Response {}.",
}


def after(renderer: Renderer, codec: Any, text: str) -> str:
    """What the label is read after, where a judge wrote a text."""
    asked = ChoiceRequest("q", [1], renderer.label_ids)
    written = GenerationResult("q", tuple(codec.encode_text(text)), True)
    found = renderer.after_reasoning(asked, written)
    assert list(found.token_ids[:1]) == [1]
    return str(codec.decode(found.token_ids[1:]))


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("tokens", ["bytes", "words"])
def test_what_a_critic_wrote_is_kept_up_to_its_answer(name: str, tokens: str) -> None:
    codec: Any = ByteCodec() if tokens == "bytes" else HFCodec(resolve_model("demo"))
    template = load_judge_template(name)
    renderer = Renderer(template, codec)
    for label in template.labels:
        thought = "the first is better. I might say [[B]] or <answer>[[B]] or [RESULT] B; but no,"
        whole = f"{thought} it is not{ENDS[name].format(label)}"
        begun = whole[: whole.rindex(template.answer.strip())] + template.answer.strip()
        assert after(renderer, codec, whole) == begun
        # One that did not write its answer is asked for it.
        assert after(renderer, codec, "it is not clear.") == "it is not clear." + template.answer


@pytest.mark.parametrize(
    "remark",
    [
        "Verdict: [[A]], because only A follows the rule; a stricter reader might say [[B]], too.",
        "Verdict: [[A]]\n\nNote: B should have returned [[1, 2], [3, 4]].",
        "I would write [[A]] or [[B]] at the end, but cannot.",
    ],
)
def test_a_form_in_a_remark_is_no_answer(remark: str) -> None:
    """Then the judge is asked for its answer after all that it wrote."""
    renderer = Renderer(load_judge_template("critic-mt-bench"), ByteCodec())
    assert after(renderer, ByteCodec(), remark) == f"{remark}[["


def test_scores_that_close_a_text_are_read_there_and_others_are_asked_for() -> None:
    renderer = Renderer(load_judge_template("critic-scores"), ByteCodec())
    told = "Both are fine. <score_A>7</score_A> <score_B>4</score_B>"
    assert after(renderer, ByteCodec(), told) == "Both are fine. <score_A>"
    remark = f"{told}\nI gave <score_A> 8 since it is correct."
    assert after(renderer, ByteCodec(), remark) == f"{remark}<score_A>"


def test_a_form_inside_a_thought_is_no_answer() -> None:
    renderer = Renderer(load_judge_template("critic-mt-bench"), ByteCodec())
    text = "<think>I will end in [[A]].</think>The second one is better."
    assert after(renderer, ByteCodec(), text) == f"{text}[["


SHARES = st.lists(st.floats(0.001, 1), min_size=3, max_size=3)


@given(SHARES, SHARES, st.floats(0.5, 1), st.floats(0.5, 1))
def test_the_verdict_is_the_chance_of_the_higher_score(
    one: list[float], two: list[float], mass_one: float, mass_two: float
) -> None:
    scores = (1, 4, 9)
    p, q = ([w / sum(ws) for w in ws] for ws in (one, two))
    by_hand = sum(
        p[i] * q[j] * (1 if scores[i] > scores[j] else 0.5 if i == j else 0)
        for i, j in itertools.product(range(3), repeat=2)
    )
    first, second = (
        ChoiceResult("q", tuple(math.log(m * w) for w in ws))
        for m, ws in ((mass_one, p), (mass_two, q))
    )
    found = compare_scores("q", first, second, scores)
    verdict = read_verdict(found, principle="x", order="ab", floor=0.2)
    assert verdict.label_mass == pytest.approx(mass_one * mass_two)
    assert 1 / (1 + math.exp(-verdict.logit)) == pytest.approx(by_hand, abs=1e-9)
    turned = compare_scores("q", second, first, scores)
    assert turned.logprobs[::-1] == pytest.approx(found.logprobs, abs=1e-9)


@pytest.mark.slow
def test_scores_are_read_one_after_the_other(tmp_path: Path) -> None:
    """On a real model without reasoning: both distributions by hand, from plain passes."""
    template = tmp_path / "scored.txt"
    body = load_judge_template("critic-scores").body
    front = {"scores": [1, 2, 3], "prefill": "A: score", "then": ", B: score"}
    template.write_text(f"---\n{json.dumps(front)}\n---\n{body}\n")
    data, constitution = write_inputs(tmp_path, 6)
    judge = EngineSettings(engine="transformers", model="demo")
    settings = LabelSettings(judge=judge, template=str(template), label_mass_floor=0.0)
    run_label(prepare(str(data), str(constitution), settings), tmp_path / "run")
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    assert len(verdicts) > 6
    loaded = load_judge_template(str(template))
    codec = HFCodec(resolve_model("demo"))
    model: Any = AutoModelForCausalLM.from_pretrained(
        resolve_model("demo").path, dtype=torch.float32
    )
    labels = [codec.spellings(label) for label in loaded.labels]

    def read(ids: list[int]) -> list[float]:
        with torch.no_grad():
            p = model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
        return [float(p[list(spelled)].sum()) for spelled in labels]

    pair = next(
        r
        for r in rows(tmp_path / "run", "undecided.jsonl")
        + rows(tmp_path / "run", "preferences.jsonl")
        if r["provenance"]["id"] == verdicts[0]["pair"]
    )
    asked = [v for v in verdicts if v["pair"] == verdicts[0]["pair"]]
    texts = [
        m[0]["content"]
        for m in (pair.get("a") or pair["chosen"], pair.get("b") or pair["rejected"])
    ]
    found = {round(v["p_first"], 5) for v in asked}
    by_hand = set()
    for verdict, (first, second) in itertools.product(asked, (texts, texts[::-1])):
        prompt = loaded.render(
            conversation=f"User: {pair['prompt'][0]['content']}",
            first=first,
            second=second,
            principle=f"Which response is {verdict['principle']}?",
        )
        context, (tail,) = codec.encode_branches(prompt, [""], prefill="A: score")
        p = read(context + tail)
        said = loaded.labels[p.index(max(p))] + loaded.then
        q = read(context + tail + codec.encode_text(said))
        over = sum(
            x * y * (1 if n > m else 0.5 if n == m else 0)
            for n, x in enumerate(p)
            for m, y in enumerate(q)
        )
        by_hand.add(round(over / (sum(p) * sum(q)), 5))
    assert all(min(abs(p - other) for other in by_hand) < 2e-5 for p in found)
    assert all("scores" in v["reasoning"] for v in asked)


def test_wrong_scores_and_where_they_can_not_be_read_are_told(tmp_path: Path) -> None:
    body = load_judge_template("critic-scores").body

    def load(front: dict[str, Any]) -> JudgeTemplate:
        path = tmp_path / "t.txt"
        path.write_text(f"---\n{json.dumps(front)}\n---\n{body}\n")
        return load_judge_template(str(path))

    good = {"scores": [1, 2], "then": ", B:", "answer": "A:"}
    assert load(good).scores == (1, 2)
    assert load_judge_template(str(tmp_path / "t.txt")).to_text().startswith("---\nscores: [1, 2]")
    for wrong, said in (
        ({**good, "scores": [2, 1]}, "invalid `scores`"),
        ({**good, "scores": [1]}, "invalid `scores`"),
        ({**good, "scores": ["1", "2"]}, "invalid `scores`"),
        ({**good, "scores": [True, 2]}, "invalid `scores`"),
        ({**good, "labels": ["A", "B"]}, "and no `labels`"),
        ({"scores": [1, 2], "answer": "A:"}, "needs `then`"),
        ({"scores": [1, 2], "then": ", B:"}, "before the first"),
    ):
        with pytest.raises(RlaifError, match=said):
            load(wrong)
    load(good | {"prefill": "A:", "answer": ""})
    with pytest.raises(RlaifError, match="reads scores, which only"):
        Judge("demo", "hashed", engine="scripted", template=str(tmp_path / "t.txt"))
    data, constitution = write_inputs(tmp_path, 2)
    settings = LabelSettings(
        judge=EngineSettings(engine="openai", model="m", options={"base_url": "http://x/v1"}),
        template="critic-scores",
    )
    with pytest.raises(RlaifError, match="reads scores, which engine 'openai' can't read"):
        prepare(str(data), str(constitution), settings)


def test_every_critic_names_its_source_and_reads_as_a_template() -> None:
    assert len(CRITICS) == 6
    for name in CRITICS:
        template = load_judge_template(name)
        assert template.answer or template.prefill
        text = (Path(__file__).parents[2] / "prompts" / "judge" / f"{name}.txt").read_text()
        assert "arXiv:" in text or "Skywork" in text
