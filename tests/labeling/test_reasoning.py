"""A judge that writes first: the label is read after its words, cached and kept."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rlaif.data.single_rows import read_p_chosen
from rlaif.engines.base import EngineSettings
from rlaif.engines.openai_engine import MessageCodec
from rlaif.engines.registry import codec_for
from rlaif.engines.scripted import ScriptedEngine, hashed_rule
from rlaif.errors import RlaifError
from rlaif.exporting.export import export_run
from rlaif.judging.rendering import Renderer
from rlaif.judging.verdicts import mean_of_samples
from rlaif.labeling import job
from rlaif.labeling.in_flight import JudgeReply
from rlaif.labeling.load_calibration import made_for
from rlaif.labeling.reasoning import ReasoningSampler
from rlaif.labeling.settings import LabelSettings
from rlaif.labeling.task import describe_manner
from rlaif.records import CUT, ChoiceRequest, ChoiceResult, Failure, GenerationResult
from rlaif.templates.judge import load_judge_template
from rlaif.training.data import find_labels, read_preferences
from rlaif.util.hashing import digest
from rlaif.util.thinking import after_thinking, find_open_block, find_spoken
from tests.labeling.helpers import contents, label, rows, write_inputs


def test_label_is_read_after_the_reasoning_as_it_is(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 40)
    label(data, constitution, tmp_path / "run", template="reasoned")
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    assert {v["reasoning"] for v in verdicts} == {"scripted"}
    template = load_judge_template("reasoned")
    pair = next(r for r in rows(tmp_path / "run", "preferences.jsonl"))
    seen = 0
    for verdict in verdicts:
        if verdict["pair"] != pair["provenance"]["id"]:
            continue
        texts = {pair[side][0]["content"] for side in ("chosen", "rejected")}
        for first in texts:
            (second,) = texts - {first}
            prompt = template.render(
                conversation=f"User: {pair['prompt'][0]['content']}",
                first=first,
                second=second,
                principle=f"Which response is {verdict['principle']}?",
            )
            words = f"user: {prompt}\nassistant:scripted\n\nThe better response is Response"
            logit, mass = hashed_rule(words)
            p = 1 / (1 + math.exp(-logit))
            share = mass * p / (mass * p + mass * (1 - p))
            seen += verdict["p_first"] == pytest.approx(share, abs=2e-5)
    assert seen == 4


@pytest.mark.parametrize("reasoned", [True, False])
def test_a_judge_that_reasons_decides_as_one_that_does_not(tmp_path: Path, reasoned: bool) -> None:
    """The clamp is for what is learned: margins, tiers and winners are those of the judge."""
    data, constitution = write_inputs(tmp_path, 200)
    template = "reasoned" if reasoned else "pairwise"
    summary = label(data, constitution, tmp_path / "run", template=template)
    counts = summary.tally
    assert counts.decided > 150
    by_tier = sum(n for tier, n in counts.tiers.items() if tier != "all")
    assert by_tier > 0.6 * counts.decided, counts.tiers
    assert counts.self_agreement is not None
    probabilities, learned = [], []
    for row in rows(tmp_path / "run", "preferences.jsonl"):
        probabilities.append(row["p_chosen"])
        learned.append(read_p_chosen(row))
        assert row["provenance"].get("target_clamp") == (0.6 if reasoned else None)
        assert row["provenance"]["margin"] == pytest.approx(2 * row["p_chosen"] - 1, abs=2e-5)
    assert max(probabilities) > 0.9
    expected = [min(p, 0.6) for p in probabilities] if reasoned else probabilities
    assert learned == expected
    export_run(tmp_path / "run", tmp_path / "export", "parquet")
    exported = pq.read_table(tmp_path / "export" / "train.parquet")["p_chosen"].to_pylist()
    assert exported == pytest.approx(expected)


def test_the_least_margin_is_that_of_the_label(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 60)
    label(data, constitution, tmp_path / "run", template="reasoned")
    labels = rows(tmp_path / "run", "preferences.jsonl")
    sure = [r for r in labels if r["provenance"]["margin"] >= 0.5]
    kept = [r for r in read_preferences(find_labels(tmp_path / "run")) if r.margin >= 0.5]
    assert 5 < len(kept) == len(sure) < len(labels)
    assert {r.p_chosen for r in kept} == {0.6}


def test_what_people_said_of_a_reasoned_pair_is_learned_as_they_said_it() -> None:
    row = {"p_chosen": 0.95, "provenance": {"target_clamp": 0.6, "status": "decided"}}
    assert read_p_chosen(row) == 0.6
    row["provenance"] = {"target_clamp": 0.6, "status": "human"}
    assert read_p_chosen(row) == 0.95


def test_resume_takes_answer_and_reasoning_from_the_cache(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 40)
    cache = tmp_path / "c.sqlite"
    one = label(data, constitution, tmp_path / "one", template="reasoned", cache=cache)
    two = label(data, constitution, tmp_path / "two", template="reasoned", cache=cache)
    assert one.manifest["last_process"]["verdicts_asked"] > 0
    assert two.manifest["last_process"]["verdicts_asked"] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    # Other limits are another manner of judging: nothing is shared with it.
    three = label(
        data,
        constitution,
        tmp_path / "three",
        template="reasoned",
        cache=cache,
        reasoning_tokens=9,
    )
    assert three.manifest["last_process"]["verdicts_from_cache"] == 0


def test_answer_text_must_not_end_in_white_space(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    body = "{{conversation}}{{first}}{{second}}{{principle}}"
    path.write_text(f"---\nlabels: [A, B]\nanswer: 'So: '\n---\n{body}")
    with pytest.raises(RlaifError, match="whitespace"):
        load_judge_template(str(path))


def test_several_samples_are_averaged(tmp_path: Path) -> None:
    """Each sample's words and label by hand from the scripted rules; then their mean."""
    data, constitution = write_inputs(tmp_path, 30)
    label(
        data,
        constitution,
        tmp_path / "run",
        template="reasoned",
        reasoning_samples=3,
        reasoning_clamp=1.0,
        max_in_flight=5,
    )
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    template = load_judge_template("reasoned")
    pairs = {r["provenance"]["id"]: r for r in rows(tmp_path / "run", "preferences.jsonl")}
    checked = 0
    for verdict in verdicts:
        words = verdict["reasoning"].split("\n\n")
        assert len(words) == len(set(words)) == 3, "three draws, and they differ"
        if verdict["pair"] not in pairs:
            continue
        pair = pairs[verdict["pair"]]
        matches = 0
        for first, second in (("chosen", "rejected"), ("rejected", "chosen")):
            prompt = template.render(
                conversation=f"User: {pair['prompt'][0]['content']}",
                first=pair[first][0]["content"],
                second=pair[second][0]["content"],
                principle=f"Which response is {verdict['principle']}?",
            )
            shares = []
            for written in words:
                asked = f"user: {prompt}\nassistant:{written}\n\nThe better response is Response"
                logit, mass = hashed_rule(asked)
                shares.append(mass / (1 + math.exp(-logit)))
            mean = sum(shares) / 3 / 0.99
            matches += verdict["p_first"] == pytest.approx(mean, abs=2e-5)
        assert matches == 1
        checked += 1
    assert checked > 40


def test_samples_that_never_come_to_an_answer_are_left_out_or_make_it_invalid() -> None:
    came, cut = ChoiceResult("1/0", (math.log(0.6), math.log(0.3))), Failure("1/1", "cut at 5")
    found = mean_of_samples("1", [came, cut, came])
    assert isinstance(found, ChoiceResult)
    assert found.logprobs == pytest.approx(came.logprobs)
    none = mean_of_samples("1", [cut, cut, came])
    assert none == Failure("1", "2 of 3 reasoning samples failed: cut at 5")


def test_thinking_that_never_ends_is_an_invalid_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writer(text: str, request: object) -> str:
        return "<think>so far" if "response is two" in text else "<think>done</think> well"

    monkeypatch.setattr(job, "create_engine", lambda settings: ScriptedEngine(writer=writer))
    data, constitution = write_inputs(tmp_path, 20)
    more = {"template": "reasoned", "cache": tmp_path / "cache.sqlite"}
    label(data, constitution, tmp_path / "run", reasoning_cut="invalid", **more)
    verdicts = rows(tmp_path / "run", "verdicts.jsonl")
    reasons = {(v["principle"], v["invalid"]) for v in verdicts}
    assert reasons == {("one", ""), ("two", "the judge's thinking did not end")}
    # By default it is ended there, and answers.
    summary = label(data, constitution, tmp_path / "ended", **more)
    ended = rows(tmp_path / "ended", "verdicts.jsonl")
    assert {v["invalid"] for v in ended} == {""}
    assert {(v["principle"], CUT in v["reasoning"]) for v in ended} == {
        ("one", False),
        ("two", True),
    }
    assert summary.tally.cut_reasonings == sum(v["principle"] == "two" for v in ended)
    # What was answered after a cut is no answer to who calls it invalid, nor the other way round.
    again = label(data, constitution, tmp_path / "again", reasoning_cut="invalid", **more)
    assert {v["invalid"] for v in rows(tmp_path / "again", "verdicts.jsonl")} == {
        "",
        "the judge's thinking did not end",
    }
    assert again.manifest["last_process"]["verdicts_from_cache"] == sum(
        v["principle"] == "one" for v in ended
    )


def test_an_answer_after_a_cut_is_read_behind_the_closed_thinking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the thinking and after it, by the number of tokens; the prompts by hand."""
    asked = []

    def rule(text: str) -> tuple[float, float]:
        asked.append(text)
        return 1.0, 0.9

    def writer(text: str, request: object) -> str:
        return "<think>so far, so good" if "response is two" in text else "well, the first one"

    monkeypatch.setattr(job, "create_engine", lambda settings: ScriptedEngine(rule, writer=writer))
    data, constitution = write_inputs(tmp_path, 6)
    label(data, constitution, tmp_path / "run", template="reasoned", reasoning_tokens=12)
    answer = "\n\nThe better response is Response"
    ends = {text[text.rindex("assistant:") :] for text in asked}
    begun = ("<think>so fa\n</think>", "well, the fi")
    assert ends == {f"assistant:{said}{answer}" for said in begun}
    assert {v["invalid"] for v in rows(tmp_path / "run", "verdicts.jsonl")} == {""}


@pytest.mark.parametrize(
    ("written", "close"),
    [
        ("<think>a</think><reasoning>more", "\n</reasoning>"),
        ("<think>a</think> so it is the first", ""),
        (
            "<|start|>assistant<|channel|>analysis<|message|>so far",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
        ),
        ("no thinking", ""),
        ("  <think>", "\n</think>"),
    ],
)
def test_the_block_that_is_open_is_closed(written: str, close: str) -> None:
    found = find_open_block(written)
    assert found == close
    assert (find_spoken(written) is None) == bool(close)
    assert find_spoken(written + found) is not None


def test_a_token_that_begins_every_text_hides_no_open_thinking() -> None:
    codec = codec_for(EngineSettings(model="demo", engine="packed"))
    written = codec.encode_text("<think> it is")
    for special in codec._special:
        ids = [special, *written]
        assert codec.close_thinking(ids) == codec.close_thinking(written) != []


def test_answers_of_before_are_kept_where_they_still_hold() -> None:
    """A mean of samples that left out what was cut is no answer now; what came to an end is."""
    task = SimpleNamespace(template=load_judge_template("reasoned"))

    def manner(**more: Any) -> str:
        task.settings = LabelSettings(judge=EngineSettings(model="x"), **more)
        return describe_manner("f", task, True)  # type: ignore[arg-type]

    ways = [
        manner(reasoning_samples=n, reasoning_cut=cut)
        for n in (1, 3)
        for cut in ("answer", "invalid")
    ]
    assert len(set(ways)) == 4
    template = load_judge_template("reasoned")
    before = ["f", template.answer, 512, "up to its answer"]
    assert ways[0] == digest(before)
    assert ways[3] == digest([*before, 3, 0.7, 0])


def test_runs_without_reasoning_are_as_they_were(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 4)
    label(data, constitution, tmp_path / "plain")
    assert "reasoning_cut" not in (tmp_path / "plain" / "run.yaml").read_text()
    label(data, constitution, tmp_path / "reasoned", template="reasoned")
    config = yaml.safe_load((tmp_path / "reasoned" / "run.yaml").read_text())
    assert config["reasoning_cut"] == "answer"
    # Another length, or another end, is another judge to a calibration.
    fits = made_for(config)
    assert made_for({**config, "reasoning_tokens": 512, "reasoning_cut": "answer"}) == fits
    for more in ({"reasoning_tokens": 12}, {"reasoning_cut": "invalid"}):
        assert made_for({**config, **more}) != fits


def test_a_chat_server_s_cut_reasoning_is_invalid() -> None:
    """Nobody knows there whether its thinking is closed."""
    renderer = Renderer(load_judge_template("reasoned"), MessageCodec())
    assert not renderer.ends_reasoning
    asked = ChoiceRequest("1", [1], ((1,), (2,)))
    settings = LabelSettings(judge=EngineSettings(model="x"))
    flying = SimpleNamespace(request=lambda name: asked)
    sampler = ReasoningSampler(renderer, settings, flying)  # type: ignore[arg-type]
    reply = sampler.advance(GenerationResult("1", tuple(b"so far"), finished=False))
    assert isinstance(reply, JudgeReply)
    assert reply.result == Failure("1", "reasoning was truncated at 512 generated tokens")


def test_a_tokenizer_closes_thinking_by_its_own_marks(tmp_path: Path) -> None:
    """Where the template opened the block, where the model did, and where nothing is open."""
    settings = EngineSettings(model="demo", engine="packed")
    codec = codec_for(settings)
    open_ids = codec.encode_text("<think> it is")
    close = codec.close_thinking(open_ids)
    assert "</think>" in codec.decode([*open_ids, *close])
    assert after_thinking(codec.decode([*open_ids, *close, *codec.encode_text("one")])) is not None
    assert codec.close_thinking(codec.encode_text("it is one")) == []
    assert codec.close_thinking([*open_ids, *close]) == []


def test_resume_with_several_samples(tmp_path: Path) -> None:
    data, constitution = write_inputs(tmp_path, 30)
    cache, more = tmp_path / "c.sqlite", {"template": "reasoned", "reasoning_samples": 3}
    one = label(data, constitution, tmp_path / "one", cache=cache, **more)
    two = label(data, constitution, tmp_path / "two", cache=cache, **more)
    assert one.manifest["last_process"]["verdicts_asked"] > 0
    assert two.manifest["last_process"]["verdicts_asked"] == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    other = label(
        data, constitution, tmp_path / "three", cache=cache, reasoning_temperature=0.1, **more
    )
    assert other.manifest["last_process"]["verdicts_from_cache"] == 0
