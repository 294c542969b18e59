"""What a machine can do, and what a judge needs: matmul rate and floating-point operations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def matmul_rate(dtype: torch.dtype, *, seconds: float = 0.5) -> float:
    """The best rate of square matrix products here, in FLOP/s.

    Args:
        dtype: of the judge's weights.
        seconds: how long each size is tried.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for n in (4096, 8192) if device == "cuda" else (768, 1536, 3072):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        torch.mm(a, b)
        began, rounds = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            for _ in range(8 if device == "cuda" else 1):
                torch.mm(a, b)
            if device == "cuda":
                torch.cuda.synchronize()
            rounds += 1
            spent = time.perf_counter() - start
            best = max(best, (8 if device == "cuda" else 1) * 2 * n**3 / spent)
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
    config: Any = AutoConfig.from_pretrained(folder)
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
