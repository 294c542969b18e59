"""What a machine can do, and what a judge needs: matmul rate and floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlaif.engines.cpu import load_decoder


def matmul_rate(dtype: torch.dtype, *, seconds: float = 0.5) -> float:
    """The best rate of square matrix products here, in FLOP/s.

    On a CPU and in float32 the best of three: MKL, oneDNN, and the packed engine's own.

    Args:
        dtype: of the judge's weights.
        seconds: how long each size is tried.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for n in (4096, 8192) if device == "cuda" else (768, 1536, 3072):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        best = max(best, _best_rate(partial(torch.mm, a, b), 2 * n**3, seconds, device))
        for way in _other_products(b) if device == "cpu" and dtype == torch.float32 else ():
            with suppress(AttributeError, RuntimeError):  # another torch, another processor
                best = max(best, _best_rate(partial(way, a), 2 * n**3, seconds, device))
    return best


def _other_products(weight: torch.Tensor) -> Iterator[Callable[[torch.Tensor], object]]:
    """Ways to multiply with a weight that torch does not take by itself."""
    n = len(weight)
    with suppress(AttributeError, RuntimeError), torch.inference_mode():
        ops = torch.ops.mkldnn  # those that torch's compiler calls
        laid_out = ops._reorder_linear_weight(weight, n)
        yield lambda x: ops._linear_pointwise(x, laid_out, None, "none", [], "")
    if load_decoder() is not None:
        from rlaif.engines.cpu.products import NormedProduct

        yield NormedProduct(weight)


def _best_rate(work: Callable[[], object], flops: float, seconds: float, device: str) -> float:
    """The best FLOP/s of some work, repeated for so long after once to warm up."""
    each = 8 if device == "cuda" else 1
    best = 0.0
    with torch.inference_mode():
        work()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            for _ in range(each):
                work()
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, each * flops / (time.perf_counter() - start))
    return best


@dataclass(frozen=True)
class JudgeCost:
    """What a forward pass costs.

    Attributes:
        parameters: all of them.
        per_token: weights that every token is multiplied with (of a mixture of experts, those of
            the chosen ones); without embeddings and head.
        head: weights of the output head, used where an answer is read.
        attention_width: layers times the width of all query heads.
    """

    parameters: int
    per_token: float
    head: int
    attention_width: int

    def flops(self, tokens: float, attended: float, answers: float) -> float:
        """Floating-point operations of a forward pass.

        Args:
            tokens: computed.
            attended: query-key pairs, summed over the tokens.
            answers: positions with logits.
        """
        dense = 2.0 * (self.per_token * tokens + self.head * answers)
        return dense + 4.0 * self.attention_width * attended


def judge_cost(folder: Path) -> JudgeCost:
    """Counted on the model's skeleton, without loading its weights."""
    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or 1
    chosen = getattr(text, "num_experts_per_tok", None) or experts
    per_token, total = 0.0, 0
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        if parameter.dim() < 2 or parameter is head or parameter is embedding:
            continue
        per_token += parameter.numel() * (chosen / experts if ".experts." in name else 1.0)
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return JudgeCost(total, per_token, head.numel(), text.num_hidden_layers * heads * width)
