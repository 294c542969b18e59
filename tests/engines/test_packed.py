"""The packed engine: its forest against a plain construction, its answers against the reference."""

from __future__ import annotations

import itertools
import math
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from rlaif.demo.measure import to_pair
from rlaif.demo.world import World
from rlaif.engines import tree_attention
from rlaif.engines.base import Engine, EngineSettings
from rlaif.engines.registry import create_engine
from rlaif.errors import RlaifError
from rlaif.judging.prefix_order import common_length
from rlaif.judging.questions import plan_questions
from rlaif.judging.rendering import Renderer
from rlaif.records import ChoiceRequest, ChoiceResult, Failure, GenerationRequest
from rlaif.templates.judge import load_judge_template
from rlaif.util.resources import demo_model

pytestmark = pytest.mark.slow

PACKED = EngineSettings(engine="packed", model="demo")
PROMPTS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=9
)


def chained(prompts: list) -> list[int]:
    return [0, *(common_length(a, b) for a, b in itertools.pairwise(prompts))]


@settings(max_examples=300, deadline=None)
@given(PROMPTS)
def test_every_token_sees_exactly_its_own_prefix(prompts: list[tuple[int, ...]]) -> None:
    prompts = sorted(prompts)
    forest = tree_attention.pack(zip(prompts, chained(prompts), strict=True))
    prefixes = {p[:n] for p in prompts for n in range(1, len(p) + 1)}
    assert len(forest.tokens) == len(prefixes), "each prefix once, and no other token"

    def seen(i: int) -> list[int]:
        return [j for j in range(len(forest.tokens)) if j <= i < forest.ends[j]]

    for prompt, answer in zip(prompts, forest.answers, strict=True):
        path = seen(answer)
        assert tuple(forest.tokens[j] for j in path) == prompt
        assert [forest.positions[j] for j in path] == list(range(len(prompt)))


def test_wrong_hint_about_what_is_shared_is_not_believed() -> None:
    forest = tree_attention.pack([((1, 2, 3), 2), ((9, 2, 3), 2), ((9, 2, 4), 7)])
    assert forest.tokens == [1, 2, 3, 9, 2, 3, 9, 2, 4]
    assert forest.answers == [2, 5, 8]


@settings(max_examples=200, deadline=None)
@given(PROMPTS, st.integers(1, 8))
def test_a_forest_that_goes_on_computes_only_what_is_new(prompts, cut: int) -> None:
    prompts = sorted(set(prompts))
    shared = chained(prompts)
    one = tree_attention.pack(zip(prompts[:cut], shared[:cut], strict=True))
    rest = prompts[cut:]
    if not rest:
        return
    past = rest[0][: min(shared[cut], len(rest[0]) - 1)]
    two = tree_attention.pack(zip(rest, shared[cut:], strict=True), past)
    prefixes = {p[:n] for p in prompts for n in range(1, len(p) + 1)}
    assert len(one.tokens) + len(two.tokens) - two.past == len(prefixes)
    for prompt, answer in zip(rest, two.answers, strict=True):
        assert answer >= two.past
        path = [j for j in range(len(two.tokens)) if j <= answer < two.ends[j]]
        assert tuple(two.tokens[j] for j in path) == prompt


def attended(forest: tree_attention.Forest, q, k, v, *, scaling: float, kept=None):
    made = tree_attention.TreePlan(forest, kept or tree_attention.KEPT_NOTHING, "cpu")
    tree_attention.set_plan(made)
    out, _ = tree_attention.attend(
        module=SimpleNamespace(layer_idx=0),
        query=q,
        key=k,
        value=v,
        attention_mask=None,
        scaling=scaling,
    )
    tree_attention.set_plan(None)
    return out, made.keep()


@pytest.mark.parametrize(("block", "chain"), [(1, 1), (3, 4), (2, 100), (64, 192)])
def test_parts_equal_one_dense_mask(
    block: int, chain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(tree_attention, "QUERY_BLOCK", block)
    monkeypatch.setattr(tree_attention, "CHAIN", chain)
    prompts = sorted(tuple(torch.randint(3, (n,)).tolist()) for n in (4, 5, 6, 6, 7, 7, 7))
    shared = chained(prompts)
    forest = tree_attention.pack(zip(prompts, shared, strict=True))
    ends, n = torch.tensor(forest.ends), len(forest.tokens)
    q, k, v = torch.randn(3, 1, 4, n, 8).unbind(0)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None]
    dense = torch.nn.functional.scaled_dot_product_attention(
        q,
        k[:, :2].repeat_interleave(2, 1),
        v[:, :2].repeat_interleave(2, 1),
        attn_mask=(j <= i) & (i < ends[None]),
        scale=0.3,
    ).transpose(1, 2)
    whole, _ = attended(forest, q, k[:, :2], v[:, :2], scaling=0.3)
    assert torch.allclose(whole, dense, atol=1e-5)
    # The same in two forests, the second of which keeps keys and values of the first.
    one = tree_attention.pack(zip(prompts[:4], shared[:4], strict=True))
    past = prompts[4][: shared[4]]
    two = tree_attention.pack(zip(prompts[4:], shared[4:], strict=True), past)
    m = len(one.tokens)
    first, kept = attended(one, q[:, :, :m], k[:, :2, :m], v[:, :2, :m], scaling=0.3)
    second, _ = attended(two, q[:, :, m:], k[:, :2, m:], v[:, :2, m:], scaling=0.3, kept=kept)
    assert m + len(two.tokens) - two.past == n
    assert torch.allclose(torch.cat((first, second), 1), dense, atol=1e-5)


def test_mask_of_the_gpu_kernel_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flex_attention` in its slow form, which runs anywhere, on the block mask for GPUs."""
    from torch.nn.attention.flex_attention import flex_attention

    torch.manual_seed(1)
    prompts = sorted(tuple(torch.randint(3, (n,)).tolist()) for n in (30, 31, 40, 40, 41))
    forest = tree_attention.pack(zip(prompts, chained(prompts), strict=True))
    ends, n = torch.tensor(forest.ends), len(forest.tokens)
    past = forest.past = 5  # the first tokens ask nothing
    q, k, v = torch.randn(3, 1, 2, n, 16).unbind(0)
    kept = tree_attention.CachedPrefix({0: (k[:, :, :past], v[:, :, :past])}, torch.arange(past))
    expected, _ = attended(
        forest, q[:, :, past:], k[:, :, past:], v[:, :, past:], scaling=0.25, kept=kept
    )
    found = flex_attention(
        q[:, :, past:], k, v, block_mask=tree_attention.plan_flex(ends, past), scale=0.25
    )
    assert torch.allclose(found.transpose(1, 2), expected, atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles this with a C++ compiler")
def test_the_gpu_kernel_compiles_for_any_length_and_past() -> None:
    """Compiled here for a CPU, which follows the same mask; the fourth shape compiles nothing."""
    from torch._dynamo.utils import counters

    torch.manual_seed(2)
    compiled = []
    for length, past in ((300, 0), (300, 77), (411, 77), (150, 20)):
        prompts = [(*range(length), 1000 + n, n) for n in range(6)]
        forest = tree_attention.pack(zip(prompts, chained(prompts), strict=True))
        ends, n = torch.tensor(forest.ends), len(forest.tokens)
        q, k, v = torch.randn(1, 8, n - past, 64), *torch.randn(2, 1, 2, n, 64).unbind(0)
        i, j = torch.arange(past, n)[:, None], torch.arange(n)[None]
        with torch.inference_mode():
            dense = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=(j <= i) & (i < ends[None]), scale=0.125, enable_gqa=True
            )
            found = tree_attention.compiled_flex()(
                q,
                k,
                v,
                block_mask=tree_attention.plan_flex(ends, past),
                scale=0.125,
                enable_gqa=True,
            )
        torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-5)
        compiled.append(counters["stats"]["unique_graphs"])
    assert compiled[-1] == compiled[-2], compiled


@settings(max_examples=60, deadline=None)
@given(PROMPTS, st.integers(0, 6), st.sampled_from([1, 2, 3, 8]))
def test_blocks_of_the_gpu_kernel_are_those_of_torch(prompts, past: int, size: int) -> None:
    """As `create_block_mask` finds them, which looks at every pair of a query and a key."""
    from torch.nn.attention.flex_attention import create_block_mask

    prompts = sorted(set(prompts))
    forest = tree_attention.pack(zip(prompts, chained(prompts), strict=True))
    ends, n = torch.tensor(forest.ends), len(forest.tokens)
    past = min(past, n - 1)
    ours = tree_attention.plan_flex(ends, past, size=size)
    theirs = create_block_mask(
        ours.mask_mod, B=None, H=None, Q_LEN=n - past, KV_LEN=n, device="cpu", BLOCK_SIZE=size
    )
    assert ours.shape == theirs.shape
    for kind in ("kv", "full_kv", "q", "full_q"):
        counts = getattr(theirs, f"{kind}_num_blocks")
        assert torch.equal(getattr(ours, f"{kind}_num_blocks"), counts), kind
        for row, count in enumerate(counts[0, 0].tolist()):
            both = (getattr(m, f"{kind}_indices")[0, 0, row, :count] for m in (ours, theirs))
            assert torch.equal(*both), kind


@pytest.fixture(scope="module")
def packed() -> Engine:
    return create_engine(
        EngineSettings(engine="packed", model="demo", options={"batch_tokens": 300})
    )


def demo_requests(engine: Engine, count: int) -> list[ChoiceRequest]:
    from rlaif.constitution.load import load_constitution

    renderer = Renderer(load_judge_template("demo"), engine.codec)
    principles = load_constitution("demo").constitution.principles
    made: list[ChoiceRequest] = []
    for n, pair in enumerate(World(6, "test").pairs(count)):
        record = to_pair(str(n), pair)
        for request in renderer.requests(record, plan_questions(record, principles), str(n)):
            shared = common_length(made[-1].token_ids, request.token_ids) if made else 0
            made.append(ChoiceRequest(request.id, request.token_ids, request.label_ids, shared))
    return made


def answers(engine: Engine, asked: list[ChoiceRequest]) -> dict[str, tuple[float, ...]]:
    found = {}
    for results in engine.run(iter(asked)):
        for result in results:
            assert isinstance(result, ChoiceResult), result
            found[result.id] = result.logprobs
    return found


def test_agrees_with_vllm_and_the_reference_verdict_by_verdict(
    packed: Engine, demo_judge: Engine
) -> None:
    asked = demo_requests(packed, 12)
    ours = answers(packed, asked)
    reference = create_engine(EngineSettings(engine="transformers", model="demo"))
    for other in (answers(demo_judge, asked), answers(reference, asked)):
        assert ours.keys() == other.keys()
        for name, logprobs in ours.items():
            assert logprobs == pytest.approx(other[name], abs=1e-3), name
            a, b = (math.tanh((x[0] - x[1]) / 2) for x in (logprobs, other[name]))
            assert abs(a - b) < 1e-4


def test_without_its_kernels_it_says_the_same(
    packed: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba, which compiles them, may be missing."""
    asked = demo_requests(packed, 4)
    expected = answers(packed, asked)
    monkeypatch.setitem(sys.modules, "rlaif.engines.cpu.decoder", None)
    plain = create_engine(PACKED)
    assert plain.fingerprint == packed.fingerprint
    for name, logprobs in answers(plain, asked).items():
        assert logprobs == pytest.approx(expected[name], abs=1e-3)


def test_computes_each_shared_token_once_over_all_passes(packed: Engine) -> None:
    before = packed.stats()
    asked = demo_requests(packed, 6)
    answers(packed, asked)
    after = packed.stats()
    computed = (after.prompt_tokens - before.prompt_tokens) - (
        after.cached_tokens - before.cached_tokens
    )
    new = sum(len(r.token_ids) - r.shared for r in asked)
    assert computed == new, "though a pass of 300 tokens cuts the trees"


def test_generation_and_odd_prompts_are_failures_and_the_rest_goes_on(packed: Engine) -> None:
    good = demo_requests(packed, 1)[0]
    odd = [
        GenerationRequest("write", [5, 6], 4),
        ChoiceRequest("long", [5] * 1024, good.label_ids),
        ChoiceRequest("none", [], good.label_ids),
        None,
        good,
    ]
    found = {r.id: r for batch in packed.run(odd) for r in batch}
    assert isinstance(found["write"], Failure)
    assert "cannot generate" in found["write"].reason
    assert isinstance(found["long"], Failure)
    assert isinstance(found["none"], Failure)
    assert isinstance(found[good.id], ChoiceResult)


def _save(folder: Path, model) -> EngineSettings:
    from transformers import AutoTokenizer

    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(demo_model("judge")).save_pretrained(folder)
    return EngineSettings(engine="packed", model=str(folder))


SHAPE = {
    "vocab_size": 1536,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def test_grouped_heads_and_bfloat16_are_reproduced(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.3))
    create_engine(_save(tmp_path / "f32", model))
    saved = _save(tmp_path / "bf16", model.to(torch.bfloat16))
    create_engine(saved.model_copy(update={"dtype": "bfloat16"}))
    create_engine(saved)  # in float32, as on vLLM's CPU build


@pytest.mark.parametrize("kind", ["recurrent", "other code"])
def test_attention_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    """Neither layers that read token by token nor a model's own attention code is reproduced."""
    torch.manual_seed(3)
    if kind == "recurrent":
        shape = SHAPE | {"layer_types": ["conv", "full_attention"]}
        model = Lfm2ForCausalLM(Lfm2Config(**shape))
    else:
        model = BloomForCausalLM(BloomConfig(vocab_size=1536, hidden_size=64, n_layer=2, n_head=4))
    saved = _save(tmp_path / "m", model)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(RlaifError, match="cannot reproduce the attention"):
            create_engine(saved.model_copy(update={"dtype": dtype}))


def test_a_deep_model_in_bfloat16_is_not_refused_for_its_noise(tmp_path: Path) -> None:
    torch.manual_seed(5)
    deep = LlamaForCausalLM(
        LlamaConfig(**(SHAPE | {"num_hidden_layers": 28}), initializer_range=0.2)
    )
    saved = _save(tmp_path / "m", deep).model_copy(update={"dtype": "bfloat16"})
    assert create_engine(saved).max_prompt_tokens > 300


def test_prompts_longer_than_a_sliding_window_are_computed(tmp_path: Path) -> None:
    """The kernels know no windows: layers with a shorter one than prompts do without them."""
    torch.manual_seed(3)
    config = MistralConfig(**SHAPE, sliding_window=400)
    model = MistralForCausalLM(config).eval()
    engine = create_engine(_save(tmp_path / "m", model))
    assert engine.max_prompt_tokens == 511
    ids = torch.randint(1536, (500,), generator=torch.Generator().manual_seed(1)).tolist()
    (result,) = [r for b in engine.run([ChoiceRequest("q", ids, ((5,), (6,)))]) for r in b]
    assert isinstance(result, ChoiceResult)
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    assert list(result.logprobs) == pytest.approx([float(logs[5]), float(logs[6])], abs=1e-4)


def test_linear_layers_that_are_called_convolutions_are_none(tmp_path: Path) -> None:
    """GPT-2's: the library calls them `Conv1D`."""
    shape = {"n_positions": 512, "n_embd": 64, "n_layer": 2, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=1536, **shape))
    assert create_engine(_save(tmp_path / "m", model)).max_prompt_tokens == 511


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_depend_on_the_longest_prompt_of_a_pass(tmp_path: Path, kind: str) -> None:
    """Such a model is asked about no longer prompts, or about one at a time."""
    torch.manual_seed(6)
    positions = {
        "rope_type": kind,
        "rope_theta": 1e4,
        "factor": 2.0,
        "original_max_position_embeddings": 400,
    }
    if kind == "longrope":
        positions |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    config = LlamaConfig(
        **(SHAPE | {"max_position_embeddings": 800}),
        rope_parameters=positions,
        initializer_range=0.3,
    )
    saved = _save(tmp_path / "m", LlamaForCausalLM(config))
    assert create_engine(saved).max_prompt_tokens == 399
    plain = create_engine(saved.model_copy(update={"engine": "transformers"}))
    short, long = (ChoiceRequest(str(n), list(range(n)), ((65,), (66,))) for n in (200, 700))
    alone = answers(plain, [short])
    assert answers(plain, [short, long])["200"] == pytest.approx(alone["200"], abs=1e-4)


def test_an_error_in_a_pass_leaves_nothing_half_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked next does not go on from what was never finished."""
    engine = create_engine(PACKED.model_copy(update={"options": {"batch_tokens": 300}}))
    asked = demo_requests(engine, 3)
    expected = answers(engine, asked)
    layers = engine._layers
    hidden, calls = layers.hidden, []

    def failing(forest):
        calls.append(forest)
        if len(calls) == 2:
            hidden(forest)
            raise KeyboardInterrupt
        return hidden(forest)

    monkeypatch.setattr(layers, "hidden", failing)
    with pytest.raises(KeyboardInterrupt):
        answers(engine, asked)
    for name, logprobs in answers(engine, asked).items():
        assert logprobs == pytest.approx(expected[name], abs=1e-5)
    assert len(calls) > 3


def test_made_up_weights_for_timing_and_options_that_make_no_sense(tmp_path: Path) -> None:
    settings_ = _save(tmp_path / "m", LlamaForCausalLM(LlamaConfig(**SHAPE)))
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(RlaifError, match="could not be loaded"):
        create_engine(settings_)
    engine = create_engine(settings_.model_copy(update={"options": {"load_format": "dummy"}}))
    asked = demo_requests(engine, 1)
    assert answers(engine, asked).keys() == {r.id for r in asked}
    for options in ({"load_format": "gguf"}, {"batch_tokens": 0}, {"color": "red"}):
        with pytest.raises(RlaifError, match="option"):
            create_engine(settings_.model_copy(update={"options": options}))
    with pytest.raises(RlaifError, match="does not support quantization"):
        create_engine(settings_.model_copy(update={"quantization": "fp8"}))


@pytest.mark.parametrize("which", ["packed", "vllm"])
def test_time_without_requests_is_idle(which: str, request: pytest.FixtureRequest) -> None:
    """A planner that stalls is waited for, and said to be."""
    engine = create_engine(PACKED) if which == "packed" else request.getfixturevalue("demo_judge")

    def slow():
        for asked in demo_requests(engine, 2):
            time.sleep(0.02)
            yield asked

    before, began = engine.stats().idle_seconds, time.perf_counter()
    count = sum(len(results) for results in engine.run(slow()))
    idle = engine.stats().idle_seconds - before
    assert 0.02 * count <= idle <= time.perf_counter() - began
