"""The engine's label probabilities equal those computed by hand from plain logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from rlaif.demo.measure import to_pair
from rlaif.demo.world import World
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.judging.questions import plan_questions
from rlaif.judging.rendering import Renderer
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationRequest, GenerationResult
from rlaif.templates.judge import load_judge_template
from rlaif.util.resources import demo_model

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def random_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second architecture: Qwen2 (grouped heads, biases) with random weights."""
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = AutoTokenizer.from_pretrained(demo_model("judge"))
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def requests(engine: Engine, count: int) -> list[ChoiceRequest]:
    from rlaif.constitution.load import load_constitution

    renderer = Renderer(load_judge_template("demo"), engine.codec)
    constitution = load_constitution("demo").constitution
    made = []
    for n, pair in enumerate(World(5, "test").pairs(count)):
        record = to_pair(str(n), pair)
        made += renderer.requests(record, plan_questions(record, constitution.principles), str(n))
    return made


def by_hand(model: Path, asked: list[ChoiceRequest]) -> dict[str, tuple[float, ...]]:
    """Label probabilities from a full softmax, one unpadded prompt at a time."""
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    found = {}
    for request in asked:
        with torch.no_grad():
            logits = lm(torch.tensor([list(request.token_ids)])).logits[0, -1].double()
        p = (logits - logits.max()).exp()
        p = p / p.sum()
        found[request.id] = tuple(float(p[list(ids)].sum()) for ids in request.label_ids)
    return found


def compare(engine: Engine, model: Path) -> None:
    asked = requests(engine, 12)
    expected = by_hand(model, asked)
    seen = {}
    for results in engine.run(iter(asked)):
        for result in results:
            assert isinstance(result, ChoiceResult)
            seen[result.id] = result.logprobs
    assert seen.keys() == expected.keys()
    for name, logprobs in seen.items():
        for logprob, p in zip(logprobs, expected[name], strict=True):
            assert math.exp(logprob) == pytest.approx(p, abs=TOLERANCE, rel=1e-3)
    shares = [a / (a + b) for a, b in expected.values()]
    assert max(shares) - min(shares) > 1e-3, "all answers alike: the comparison would be empty"


@pytest.fixture(scope="session")
def qwen_engine(random_qwen: Path) -> Iterator[Engine]:
    engine = create_engine(EngineSettings(model=str(random_qwen)))
    yield engine
    engine.close()


def test_vllm_llama_equals_hand_computation(demo_judge: Engine) -> None:
    compare(demo_judge, demo_model("judge"))


def test_vllm_qwen_equals_hand_computation(qwen_engine: Engine, random_qwen: Path) -> None:
    compare(qwen_engine, random_qwen)


@pytest.mark.parametrize("batch", [1, 7])
def test_reference_engine_equals_hand_computation(batch: int) -> None:
    engine = create_engine(
        EngineSettings(engine="transformers", model="demo", options={"batch_size": batch})
    )
    compare(engine, demo_model("judge"))


def test_random_weights_put_almost_no_mass_on_labels_and_are_invalid(qwen_engine: Engine) -> None:
    from rlaif.judging.verdicts import read_verdict

    asked = requests(qwen_engine, 1)
    (result,) = [r for batch in qwen_engine.run(asked[:1]) for r in batch]
    verdict = read_verdict(result, principle="p", order="ab", floor=0.5)
    assert verdict.invalid.startswith("low label mass")


def test_too_long_prompt_is_a_failure_and_the_rest_goes_on(demo_judge: Engine) -> None:
    good = requests(demo_judge, 1)[0]
    long = ChoiceRequest("long", [5] * 1024, good.label_ids)
    mixed = [long, good, None, ChoiceRequest("none", [], good.label_ids)]
    found = {r.id: r for batch in demo_judge.run(mixed) for r in batch}
    assert isinstance(found["long"], Failure)
    assert found["long"].reason == "prompt has 1024 tokens; the limit is 1023"
    assert isinstance(found["none"], Failure)
    assert isinstance(found[good.id], ChoiceResult)


def test_generation_agrees_between_engines(demo_judge: Engine) -> None:
    reference = create_engine(EngineSettings(engine="transformers", model="demo"))
    ids = demo_judge.codec.encode_chat([{"role": "user", "content": "How do I clean a pan?"}])
    request = GenerationRequest("g", ids, max_tokens=8)
    (one,) = [r for batch in demo_judge.run([request]) for r in batch]
    (two,) = [r for batch in reference.run([request]) for r in batch]
    assert isinstance(one, GenerationResult)
    assert one == two


def test_engine_counts_tokens_and_shares_prefixes(demo_judge: Engine) -> None:
    asked = requests(demo_judge, 30)[-12:]
    before = demo_judge.stats()
    list(demo_judge.run(asked))
    after = demo_judge.stats()
    assert after.requests - before.requests == 12
    assert after.prompt_tokens - before.prompt_tokens == sum(len(r.token_ids) for r in asked)
    assert after.cached_tokens > before.cached_tokens
