"""Layers that are faster on a CPU give what those of the `transformers` library give."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP

from rlaif.engines import cpu_layers

CONFIG = LlamaConfig(
    hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
    vocab_size=300, mlp_bias=True, attention_bias=True,
)  # fmt: skip


@pytest.mark.parametrize("bias", [False, True])
def test_packed_linear_is_the_linear_layer(bias: bool) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(48, 80, bias=bias)
    packed = cpu_layers.PackedLinear(layer)
    for shape in ((1, 1, 48), (1, 7, 48), (2, 300, 48)):  # rows that it was not laid out for, too
        x, factor = torch.randn(shape), torch.randn(*shape[:-1], 80)
        with torch.inference_mode():
            plain = layer(x)
            torch.testing.assert_close(packed(x), plain)
            torch.testing.assert_close(packed(x, "swish"), nn.functional.silu(plain))
            torch.testing.assert_close(packed.times(x, factor), plain * factor)


@pytest.mark.parametrize("pack", [False, True])
def test_gated_feed_forward_is_that_of_the_library(pack: bool) -> None:
    torch.manual_seed(2)
    layer = LlamaMLP(CONFIG)
    assert cpu_layers.is_gated(layer)
    x = torch.randn(1, 33, 64)
    with torch.inference_mode():
        expected = layer(x)
        found = cpu_layers.GatedFeedForward(layer, pack=pack)(x)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pays", [False, True])
def test_a_model_says_the_same_before_and_after(
    pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    model = LlamaForCausalLM(CONFIG).eval()
    ids = torch.randint(300, (1, 50))
    with torch.inference_mode():
        before = model(ids).logits
        monkeypatch.setattr(cpu_layers, "packing_pays", lambda layer: pays)
        cpu_layers.fit_to_cpu(model.model)
        after = model(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    kinds = [type(part) for part in model.model.modules()]
    assert (cpu_layers.PackedLinear in kinds) == pays
    assert (nn.Linear in kinds) != pays
    assert kinds.count(cpu_layers.GatedFeedForward) == 2


def test_what_can_not_be_packed_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(32, 32)
    assert not cpu_layers.packing_pays(layer.bfloat16())

    def broken(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(cpu_layers, "PackedLinear", broken)
    assert not cpu_layers.packing_pays(nn.Linear(32, 32))
