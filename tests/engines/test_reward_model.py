"""Reward models as judges: probabilities by hand from plain forward passes, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from rlaif import Judge
from rlaif.cli.main import cli
from rlaif.demo.measure import to_pair
from rlaif.demo.world import World
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.judging.questions import plan_questions
from rlaif.judging.rendering import Renderer
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationRequest, Pair
from rlaif.templates.judge import load_judge_template
from tests.engines.test_causal_model import folder_of

pytestmark = pytest.mark.slow


def make(folder: Path, *, outputs: int = 1, pad: int | None = 0) -> str:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=1536,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        num_labels=outputs,
        pad_token_id=pad,
    )
    return str(folder_of(LlamaForSequenceClassification(config), folder))


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("reward") / "model")


def pairs(count: int) -> list[Pair]:
    return [to_pair(str(n), pair) for n, pair in enumerate(World(8, "test").pairs(count))]


def by_hand(model: str, pair: Pair, temperature: float) -> float:
    """p(a is better), as a model card tells one to compute it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    scorer: Any = AutoModelForSequenceClassification.from_pretrained(model).float().eval()
    rewards = []
    for side in (pair.a, pair.b):
        text = tokenizer.apply_chat_template([*pair.prompt, *side], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            rewards.append(float(scorer(ids).logits[0, 0]))
    return 1 / (1 + math.exp(-(rewards[0] - rewards[1]) / temperature))


def asked(engine: Engine, some: list[Pair]) -> list[ChoiceRequest]:
    from rlaif.constitution.load import load_constitution

    principles = load_constitution("overall").constitution.principles
    renderer = Renderer(load_judge_template("reward"), engine.codec)
    return [
        request
        for pair in some
        for request in renderer.requests(pair, plan_questions(pair, principles), pair.id)
    ]


@pytest.mark.parametrize(
    ("backend", "temperature"), [("transformers", 1.0), ("transformers", 2.5), ("vllm", 0.5)]
)
def test_probabilities_are_those_by_hand(reward: str, backend: str, temperature: float) -> None:
    some = pairs(7)
    settings = EngineSettings(
        engine="reward-model",
        model=reward,
        kv_cache_gib=0.25,
        options={"backend": backend, "temperature": temperature, "batch_size": 4},
    )
    with closing(create_engine(settings)) as engine:
        found = {r.id: r for batch in engine.run(asked(engine, some)) for r in batch}
        tokens = engine.stats()
    spread = []
    for pair in some:
        first, second = found[f"{pair.id}/0"], found[f"{pair.id}/1"]
        assert isinstance(first, ChoiceResult)
        assert isinstance(second, ChoiceResult)
        # The order in which responses are shown changes nothing.
        assert first.logprobs == second.logprobs[::-1]
        assert math.exp(first.logprobs[0]) == pytest.approx(
            by_hand(reward, pair, temperature), abs=2e-4
        )
        assert "rewards" in first.evidence
        spread.append(first.logprobs[0])
    assert max(spread) - min(spread) > 0.1
    assert tokens.cached_tokens >= tokens.prompt_tokens // 2  # the second order costs nothing


def test_a_model_without_a_token_to_pad_with_is_scored_one_by_one(tmp_path: Path) -> None:
    model = make(tmp_path / "model", pad=None)
    some = pairs(3)
    with closing(create_engine(EngineSettings(engine="reward-model", model=model))) as engine:
        found = {r.id: r for batch in engine.run(asked(engine, some)) for r in batch}
    for pair in some:
        result = found[f"{pair.id}/0"]
        assert isinstance(result, ChoiceResult)
        assert math.exp(result.logprobs[0]) == pytest.approx(by_hand(model, pair, 1.0), abs=1e-5)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_what_shares_a_pass_changes_no_reward(tmp_path: Path, kind: str) -> None:
    """Some positions depend on the longest conversation of a pass."""
    import transformers

    torch.manual_seed(7)
    shape = {
        "vocab_size": 1536,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 48 if kind == "dynamic" else 512,
        "initializer_range": 0.3,
        "num_labels": 1,
        "pad_token_id": 0,
    }
    positions: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        positions |= {"short_factor": [1.0] * 16, "long_factor": [4.0] * 16}
        positions["original_max_position_embeddings"] = 48
        shape["original_max_position_embeddings"] = 48
    name = "Llama" if kind == "dynamic" else "Phi3"
    config = getattr(transformers, f"{name}Config")(**shape, rope_parameters=positions)
    made = getattr(transformers, f"{name}ForSequenceClassification")(config)
    model = str(folder_of(made, tmp_path / "model"))
    settings = EngineSettings(engine="reward-model", model=model, max_model_len=512)
    some = pairs(12)
    with closing(create_engine(settings)) as engine:
        found = {r.id: r for batch in engine.run(asked(engine, some)) for r in batch}
    for pair in some:
        result = found[f"{pair.id}/0"]
        assert isinstance(result, ChoiceResult)
        assert math.exp(result.logprobs[0]) == pytest.approx(by_hand(model, pair, 1.0), abs=1e-4)


def test_what_it_can_not_read_is_refused(reward: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    row = {"prompt": "Hi", "responses": ["Hello", "Go"], "rubric": ["Kind."], "gold": "Hello"}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    data.write_text(json.dumps(row) + "\n" + json.dumps({**row, "tools": tools}) + "\n")
    flags = ["label", str(data), "-j", reward, "--engine", "reward-model", "-c", "overall"]
    flags += ["--cache-dir", str(tmp_path / "cache")]
    for more, said in (
        (["--map", "rubric=rubric"], "reads no rubric"),
        (["--shots", "1"], "reads no examples"),
        (["--map", "reference=gold"], "has no place for the reference"),
        (["--quantization", "fp8"], "does not support quantization"),
    ):
        done = CliRunner().invoke(cli, [*flags, *more, "-o", str(tmp_path / "no")])
        assert isinstance(done.exception, RlaifError), done.output
        assert said in str(done.exception)
    ignored = ["--ignore", "rubric", "--ignore", "gold", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(cli, [*flags, *ignored])
    assert done.exit_code == 0, done.exception or done.output
    (left,) = [json.loads(line) for line in (tmp_path / "run" / "undecided.jsonl").open()]
    assert "not told of tools" in left["provenance"]["reason"]


def test_long_conversations_and_texts_are_failures_and_the_rest_goes_on(reward: str) -> None:
    settings = EngineSettings(engine="reward-model", model=reward)
    with closing(create_engine(settings)) as engine:
        good = asked(engine, pairs(1))[0]
        odd = [
            ChoiceRequest("long", [600, *[5] * 600, 6, 7], good.label_ids),
            GenerationRequest("write", [5], 4),
            good,
        ]
        found = {r.id: r for batch in engine.run(odd) for r in batch}
    assert isinstance(found["long"], Failure)
    assert found["long"].reason == "a conversation has 600 tokens; the limit is 512"
    assert isinstance(found["write"], Failure)
    assert isinstance(found[good.id], ChoiceResult)


def test_what_is_no_reward_model_is_refused(tmp_path: Path, reward: str) -> None:
    def start(model: str, **options: Any) -> None:
        create_engine(EngineSettings(engine="reward-model", model=model, options=options))

    with pytest.raises(RlaifError, match="is a LlamaForCausalLM: it has no reward"):
        start("demo")
    with pytest.raises(RlaifError, match="has 3 outputs; a reward model has one"):
        start(make(tmp_path / "three", outputs=3))
    for wrong in ({"temperature": 0}, {"temperature": True}, {"backend": "x"}, {"batch_size": 0}):
        with pytest.raises(RlaifError, match="invalid value"):
            start(reward, **wrong)
    with pytest.raises(RlaifError, match="has no option 'speed'"):
        start(reward, speed=1)
    headless = tmp_path / "headless"
    shutil.copytree(reward, headless)
    from safetensors.torch import load_file, save_file

    weights = load_file(headless / "model.safetensors")
    del weights["score.weight"]
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RlaifError, match=r"lack 1 weights \(score.weight\)"):
        start(str(headless))


def test_it_labels_a_file_as_any_judge_and_reads_no_principle(reward: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [
        {
            "id": pair.id,
            "prompt": pair.prompt[-1]["content"],
            "responses": [pair.a[0]["content"], pair.b[0]["content"]],
        }
        for pair in pairs(6)
    ]
    rows.append({"id": "tools", "messages": []})
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["-j", reward, "--engine", "reward-model", "--cache-dir", str(tmp_path / "cache")]
    flags += ["--tie-margin", "0", "--clear-margin", "0"]
    several = ["-c", "helpful-honest-harmless", "-o", str(tmp_path / "no")]
    many = CliRunner().invoke(cli, ["label", str(data), *flags, *several])
    assert isinstance(many.exception, RlaifError)
    assert "reads no principle" in many.exception.message
    out = tmp_path / "run"
    done = CliRunner().invoke(cli, ["label", str(data), *flags, "-c", "overall", "-o", str(out)])
    assert done.exit_code == 0, done.exception or done.output
    labels = [json.loads(line) for line in (out / "preferences.jsonl").open()]
    known = {pair.id: by_hand(reward, pair, 1.0) for pair in pairs(6)}
    assert len(labels) == len(known)
    verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").open()]
    assert {v["principle"] for v in verdicts} == {"overall"}
    for row in labels:
        by_pair = known[row["provenance"]["id"]]
        best = max(by_pair, 1 - by_pair)
        assert row["p_chosen"] == pytest.approx(best, abs=2e-4)
    config = (out / "run.yaml").read_text()
    assert "name: reward" in config


def test_python_users_compare_and_score_with_it(reward: str, tmp_path: Path) -> None:
    (pair,) = pairs(1)
    with Judge("overall", reward, engine="reward-model", cache_dir=tmp_path / "cache") as judge:
        texts = pair.prompt[-1]["content"], pair.a[0]["content"], pair.b[0]["content"]
        found = judge.compare(*texts)
        assert found.p_a == pytest.approx(by_hand(reward, pair, 1.0), abs=2e-4)
