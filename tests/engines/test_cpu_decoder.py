"""The decoder for CPUs against models of the `transformers` library, prompt by prompt."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from torch import nn
from transformers import (
    AutoModel,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from rlaif.benchmark.limits import matmul_rate
from rlaif.engines.cpu import decoder, kernels, threads, vectors
from rlaif.engines.cpu.products import NormedProduct
from rlaif.engines.tree_attention import Forest, pack
from rlaif.errors import RlaifError
from rlaif.judging.prefix_order import common_length

pytestmark = pytest.mark.slow

SIZES = {
    "vocab_size": 50,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
    "head_dim": 32,
}


def made(config, seed: int = 0) -> nn.Module:
    """A model with random weights, biases and norms."""
    torch.manual_seed(seed)
    model = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
            elif name.endswith("bias"):
                weight.copy_(0.5 * torch.randn_like(weight))
    return model


@torch.inference_mode()
def test_a_channel_that_is_thousands_of_times_larger_costs_no_precision() -> None:
    """As real models have them: what a layer adds must not be rounded to what it is added to."""
    model = made(LlamaConfig(**SIZES))
    model.embed_tokens.weight[:, 5] = 26_000.0
    ids = torch.randint(50, (1, 40), generator=torch.Generator().manual_seed(1))
    places = torch.arange(40)[None]
    x = model.embed_tokens(ids)
    cos, sin = model.rotary_emb(x, places)
    layer = model.layers[0]
    mask = torch.full((1, 1, 40, 40), float("-inf"), dtype=torch.float64).triu(1)
    exact = copy.deepcopy(layer).double()(
        x.double(), attention_mask=mask, position_embeddings=(cos.double(), sin.double())
    )
    exact = exact[0] if isinstance(exact, tuple) else exact
    forest = Forest()
    forest.add(range(40), (), 0)
    forest.close()
    way = decoder.ForestPass(forest, np.empty(0, np.int32), cos[0], sin[0])
    found, _ = way.layer(decoder._read(layer), decoder._padded(x[0]), None, last=False)
    error = (found[:40].double() - exact.view(40, -1)).abs().amax(0)
    assert float(error[5]) <= 2 * 26_000 * torch.finfo(torch.float32).eps
    assert isinstance(decoder.build_decoder(model, 2048), decoder.CpuDecoder)


@torch.inference_mode()
def ends_of(model: nn.Module, prompts: list[tuple[int, ...]]) -> torch.Tensor:
    """Last hidden states of prompts, each by itself."""
    found = [model(input_ids=torch.tensor([p]), use_cache=False).last_hidden_state for p in prompts]
    return torch.stack([hidden[0, -1] for hidden in found])


@torch.inference_mode()
def in_forests(layers: decoder.CpuDecoder, prompts: list, cuts: list[int]) -> torch.Tensor:
    """The same from forests that go on from each other, cut at `cuts`."""
    layers.forget()
    found = []
    last: tuple[int, ...] = ()
    for start, stop in pairwise([0, *cuts, len(prompts)]):
        part = prompts[start:stop]
        if not part:
            continue
        shared = [common_length(last, part[0]), *(common_length(a, b) for a, b in pairwise(part))]
        past = part[0][: min(shared[0], len(part[0]) - 1)]
        found.append(layers.hidden(pack(zip(part, shared, strict=True), past)))
        last = part[-1]
    return torch.cat(found)


def family(name: str):
    wide = SIZES | {"head_dim": 64}
    return {
        "llama": LlamaConfig(**SIZES),
        "llama, wide heads": LlamaConfig(**(wide | {"num_key_value_heads": 4})),
        "llama, long positions": LlamaConfig(
            **SIZES,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        ),
        "mistral": MistralConfig(**(SIZES | {"num_key_value_heads": 4})),
        "qwen2": Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"}),
        "qwen3": Qwen3Config(**(wide | {"num_key_value_heads": 1})),
        "odd widths": LlamaConfig(**(SIZES | {"hidden_size": 192, "intermediate_size": 64})),
    }[name]


LONGEST = 1000
FAMILIES = (
    "llama",
    "llama, wide heads",
    "llama, long positions",
    "mistral",
    "qwen2",
    "qwen3",
    "odd widths",
)
TREES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple), min_size=1, max_size=12
)


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest) -> tuple[nn.Module, decoder.CpuDecoder]:
    original = made(family(request.param))
    layers = decoder.build_decoder(made(family(request.param)), LONGEST)
    assert layers is not None, request.param
    return original, layers


def long_tree(lengths: tuple[int, ...], seed: int = 1) -> list[tuple[int, ...]]:
    """Prompts of two contexts and several endings, and some that end within others."""
    draw = np.random.default_rng(seed)
    text = [tuple(draw.integers(0, 50, 400).tolist()) for _ in range(2)]
    prompts = []
    for context, n in zip(text, (230, 131), strict=True):
        prompts += [context[:3], context[:64], context[:n]]
        prompts += [context[:n] + tuple(draw.integers(0, 50, k).tolist()) for k in lengths]
        prompts += [context[: n - 20] + tuple(draw.integers(0, 50, 70).tolist())]
    return prompts


def test_hidden_states_are_those_of_the_original(both) -> None:
    original, layers = both
    prompts = long_tree((26, 1, 63, 64, 65, 26))
    expected = ends_of(original, prompts)
    for cuts in ([], [4], [1, 2, 3, 9, 11, 15]):
        found = in_forests(layers, prompts, cuts)
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@settings(max_examples=150, deadline=None)
@given(TREES, st.lists(st.integers(0, 12), max_size=4))
def test_any_tree_in_any_pieces(prompts, cuts: list[int]) -> None:
    original, layers = SMALL
    prompts = sorted(prompts)
    found = in_forests(layers, prompts, sorted(min(c, len(prompts)) for c in cuts))
    torch.testing.assert_close(found, ends_of(original, prompts), rtol=2e-4, atol=2e-4)


SMALL = made(family("llama")), decoder.build_decoder(made(family("llama")), LONGEST)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_change_nothing(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a bit, whether they are torch's own or not."""
    layers = SMALL[1]
    prompts = long_tree((26, 9, 40))
    expected = in_forests(layers, prompts, [5])
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        assert torch.equal(in_forests(layers, prompts, [5]), expected)
        monkeypatch.setattr(threads, "_torch_team", lambda: None)
        assert torch.equal(in_forests(layers, prompts, [5]), expected)
    finally:
        torch.set_num_threads(before)


def test_what_lies_in_memory_before_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare rows, rooms and what no token fills hold anything."""
    layers = SMALL[1]
    prompts = long_tree((26, 9, 40))
    expected = in_forests(layers, prompts, [5])
    empty = torch.empty

    def soiled(*size: int, **kind) -> torch.Tensor:
        return empty(*size, **kind).fill_(float("nan"))

    monkeypatch.setattr(torch, "empty", soiled)
    assert torch.equal(in_forests(layers, prompts, [5]), expected)


@pytest.mark.parametrize(
    "features", ["+avx,+avx2,+fma", "+sse2"], ids=["eight lanes", "four lanes"]
)
def test_narrower_processors(features: str) -> None:
    """What machines without AVX-512 compile, in a process of its own."""
    script = (
        "import tests.engines.test_cpu_decoder as t; from rlaif.engines.cpu import vectors;"
        "print(vectors.LANES);"
        "prompts = t.long_tree((26, 9));"
        "f = [t.decoder.build_decoder(t.made(t.family(n)), t.LONGEST) for n in t.FAMILIES];"
        "[t.torch.testing.assert_close(t.in_forests(l, prompts, [4]),"
        " t.ends_of(t.made(t.family(n)), prompts), rtol=2e-4, atol=2e-4)"
        " for n, l in zip(t.FAMILIES, f)]"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8" if "avx" in features else "4"]


class Louder(nn.Module):
    """A layer that is like another, but does a little more."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, child in layer.named_children():
            setattr(self, name, child)
        object.__setattr__(self, "whole", layer)

    def forward(self, x, **options):
        return self.whole(x, **options) * 1.01


class Scaled(nn.Embedding):
    def forward(self, ids):
        return super().forward(ids) * 2


def odd(kind: str) -> nn.Module:
    if kind == "other parts":
        return made(Gemma2Config(**SIZES))
    if kind == "merged weights":
        return made(Phi3Config(**SIZES, pad_token_id=0))
    if kind == "scaled residuals":
        return made(
            GraniteConfig(
                **{k: v for k, v in SIZES.items() if k != "head_dim"}, residual_multiplier=0.5
            )
        )
    if kind == "scaled embeddings":
        return made(
            GraniteConfig(
                **{k: v for k, v in SIZES.items() if k != "head_dim"}, embedding_multiplier=12.0
            )
        )
    if kind == "biases":
        return made(LlamaConfig(**SIZES, mlp_bias=True, attention_bias=True))
    if kind == "sizes":
        return made(LlamaConfig(**(SIZES | {"intermediate_size": 100})))
    if kind == "other gate":
        return made(LlamaConfig(**SIZES, hidden_act="gelu"))
    if kind == "queries scaled by position":
        config = Ministral3Config(
            **SIZES,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 4.0,
                "original_max_position_embeddings": 512,
                "llama_4_scaling_beta": 0.1,
            },
        )
        return made(config)
    if kind == "a layer without positions":
        model = made(SmolLM3Config(**(SIZES | {"num_hidden_layers": 4}), pad_token_id=0))
        with torch.no_grad():  # massive activations, as large models have
            model.layers[0].mlp.down_proj.weight[7] *= 3e4
        return model
    if kind == "another epsilon":
        model = made(LlamaConfig(**SIZES))
        model.layers[2].post_attention_layernorm.variance_epsilon = 1e-3
        return model
    if kind == "a norm without weight":
        model = made(LlamaConfig(**SIZES))
        model.layers[1].input_layernorm.weight = None
        model.layers[1].input_layernorm.forward = lambda x: x
        return model
    if kind == "no layers":
        return made(LlamaConfig(**(SIZES | {"num_hidden_layers": 0})))
    if kind == "half precision":
        return made(LlamaConfig(**SIZES)).bfloat16()
    model = made(LlamaConfig(**SIZES))
    model.layers[1] = Louder(model.layers[1])
    return model


@pytest.mark.parametrize(
    "kind",
    [
        "other parts",
        "merged weights",
        "scaled residuals",
        "scaled embeddings",
        "biases",
        "sizes",
        "other gate",
        "half precision",
        "one layer that differs",
        "queries scaled by position",
        "a layer without positions",
        "another epsilon",
        "a norm without weight",
        "no layers",
    ],
)
def test_other_models_are_left_as_they_are(kind: str) -> None:
    model = odd(kind)
    prompt = [(3, 1, 4, 1, 5)]
    before = ends_of(model, prompt)
    assert decoder.build_decoder(model, LONGEST) is None
    assert torch.equal(ends_of(model, prompt), before)


def test_a_model_without_layers_is_none_of_ours() -> None:
    assert decoder.build_decoder(nn.Linear(3, 3), LONGEST) is None


def test_a_past_that_was_not_kept_is_an_error() -> None:
    """Its keys would be read from wherever memory ends."""
    layers = SMALL[1]
    layers.forget()
    with pytest.raises(ValueError, match="2 tokens of the past, and 0 kept"):
        layers.hidden(pack([((1, 2, 3), 2)], (1, 2)))


def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = decoder._read, []

    def full(layer):
        calls.append(layer)
        if len(calls) > 7:  # three layers are looked at twice, then the second is taken
            raise RuntimeError("not enough memory")
        return read(layer)

    monkeypatch.setattr(decoder, "_read", full)
    with pytest.raises(RlaifError, match=r"memory ran out .*not enough memory"):
        decoder.build_decoder(made(family("llama")), LONGEST)


def test_an_interruption_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They write into memory that would be another's."""
    calm, interrupted = threads.wait, []

    def wait(others):
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return calm(others)

    monkeypatch.setattr(threads, "wait", wait)
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(time.sleep, 0.2) for _ in range(2)]
        with pytest.raises(KeyboardInterrupt):
            threads._wait_for(work)
        assert all(other.done() for other in work)


def test_a_numba_that_does_not_fit_is_said_and_done_without(tmp_path: Path) -> None:
    stub = tmp_path / "numba"
    stub.mkdir()
    (stub / "__init__.py").write_text("raise ImportError('Numba needs NumPy 2.2 or less.')")
    script = (
        "from rlaif.engines.base import EngineSettings;"
        "from rlaif.engines.registry import create_engine;"
        "from rlaif.benchmark.limits import matmul_rate; import torch;"
        "print(type(create_engine(EngineSettings(engine='packed', model='demo'))._layers).__name__,"
        " matmul_rate(torch.float32, seconds=0.01) > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.split() == ["TreeModel", "True"], done.stderr
    assert "can't be compiled, so it is slower (Numba needs NumPy" in done.stderr


def test_layers_are_taken_out_of_the_model() -> None:
    """Weights are not held twice."""
    model = made(family("llama"))
    assert decoder.build_decoder(model, LONGEST) is not None
    left = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert left == {"embed_tokens", "norm"}


@njit
def _weighed(row, most, sums):
    vectors.weigh(row.ctypes.data, most, sums.ctypes.data)
    row[0] += 0  # keeps the array until here


@njit
def _gated(g, u, out):
    vectors.gate(g.ctypes.data, u.ctypes.data, out.ctypes.data)
    g[0] += 0
    u[0] += 0


@njit
def _largest(row):
    found = vectors.largest(row.ctypes.data)
    row[0] += 0
    return found


def test_exponentials_in_single_precision() -> None:
    draw = np.random.default_rng(0)
    for low in (1.0, 20.0, 79.0):
        scores = draw.uniform(-low, 0, vectors.KEYS).astype(np.float32)
        row, sums = scores + np.float32(3), np.zeros(vectors.LANES, np.float32)
        _weighed(row, np.float32(3), sums)
        exact = np.exp((scores + np.float32(3)).astype(np.float64) - 3)
        assert np.abs(row / exact - 1).max() < 6e-6
        assert sums.sum() == pytest.approx(exact.sum(), rel=1e-6)
    row = np.full(vectors.KEYS, -1e30, np.float32)
    row[1] = 0
    _weighed(row, np.float32(0), np.zeros(vectors.LANES, np.float32))
    assert row[1] == pytest.approx(1, abs=1e-6)
    assert 0 <= np.delete(row, 1).max() < 1e-34


def test_gates_and_maxima_in_single_precision() -> None:
    g = np.resize(
        np.array([-1e4, -90, -10, -1, -1e-3, 0, 1e-3, 1, 10, 90, 1e4], np.float32), vectors.PANEL
    )
    u = np.linspace(-2, 2, vectors.PANEL, dtype=np.float32)
    out = np.empty_like(g)
    _gated(g, u, out)
    wide = g.astype(np.float64)
    expected = np.where(wide < -700, 0.0, wide / (1 + np.exp(-np.maximum(wide, -700)))) * u
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-30)
    for n in range(vectors.KEYS):
        row = np.full(vectors.KEYS, -5, np.float32)
        row[n] = -4
        assert _largest(row) == -4


def test_products_for_the_matmul_rate_are_products() -> None:
    torch.manual_seed(4)
    x, weight = torch.randn(77, 96), torch.randn(2 * vectors.PANEL, 96)
    expected = x / x.square().mean(-1, keepdim=True).sqrt() @ weight.T
    torch.testing.assert_close(NormedProduct(weight)(x), expected, rtol=1e-4, atol=1e-4)
    assert matmul_rate(torch.float32, seconds=0.01) > 1e8


def test_vllm_may_look_at_a_process_that_uses_numba() -> None:
    """vLLM's CPU build takes `vars` of what modules hold, and asks for a `kernel` in it."""
    from llvmlite.binding import ffi

    from rlaif.engines.vllm_start import _spare_llvmlite

    _spare_llvmlite()
    assert vars(ffi.lib).get("kernel") is None
    assert njit(lambda x: x + 1)(1) == 2, "and numba compiles as before"


def test_records_hold_what_the_kernels_ask_for() -> None:
    """Every field of a job that the source names exists, and every field is named in it."""
    import inspect
    import re

    source = inspect.getsource(kernels)
    named = set(re.findall(r"job\.(\w+)", source))
    records = (kernels.PROJECT, kernels.LAY_OUT, kernels.ATTEND, kernels.FEED)
    assert named == {name for record in records for name in record.names}


def test_a_second_process_finds_the_kernels_compiled(tmp_path: Path) -> None:
    code = (
        "import numba.core.codegen as codegen, numba.core.compiler as compiler\n"
        "seen = []\n"
        "real = compiler.compile_extra\n"
        "compiler.compile_extra = lambda *a, **k: seen.append(1) or real(*a, **k)\n"
        "import numba.core.ccallback as ccallback\n"
        "ccallback.compiler.compile_extra = compiler.compile_extra\n"
        "from rlaif.engines.cpu import load_decoder\n"
        "assert load_decoder() is not None\n"
        "print(len(seen))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / folder)},
        ).stdout.strip()
        for folder in ("one", "one")
    ]
    assert int(found[0]) >= 4
    assert int(found[1]) == 0
    read_only = tmp_path / "file"
    read_only.write_text("")  # no folder can be made in it
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(read_only)},
    )
    assert int(done.stdout) >= 4
