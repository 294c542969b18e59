"""Spares a model of the `transformers` library memory traffic on a CPU; results stay the same."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>


class GatedFeedForward(nn.Module):
    """`down(silu(gate(x)) * up(x))` in two buffers instead of four.

    Args:
        layer: see `is_gated`.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = layer.gate_proj, layer.up_proj
        self.down_proj = layer.down_proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The feed-forward of a decoder layer."""
        gate = nn.functional.silu(self.gate_proj(x), inplace=True)
        found: torch.Tensor = self.down_proj(gate.mul_(self.up_proj(x)))
        return found


class RotatedAttention(nn.Module):
    """Attention of the Llama kind: one product for queries, keys and values, which are rotated in
    two passes instead of nine.

    Args:
        layer: see `is_rotated`.
        attend: what computes it, as `transformers` calls it.
    """

    def __init__(self, layer: Any, attend: Callable[..., Any]) -> None:
        super().__init__()
        parts = (layer.q_proj, layer.k_proj, layer.v_proj)
        self.layer_idx, self.scaling, self._width = layer.layer_idx, layer.scaling, layer.head_dim
        self._weight = torch.cat([part.weight.detach() for part in parts])
        biases = [part.bias for part in parts if part.bias is not None]
        self._bias = torch.cat([bias.detach() for bias in biases]) if len(biases) == 3 else None
        heads, groups = (part.weight.shape[0] // layer.head_dim for part in parts[:2])
        self._heads, self._groups = heads, groups
        self.o_proj = layer.o_proj
        self._attend = attend

    def forward(
        self, hidden_states: torch.Tensor, position_embeddings: Any, **others: Any
    ) -> tuple[torch.Tensor, None]:
        """Attention of a decoder layer.

        Args:
            hidden_states: (1, tokens, hidden).
            position_embeddings: cosines and sines, each (1, tokens, width of a head), in whose
                second half the first is repeated.
        """
        cos, sin = (part[0, :, None, : self._width // 2] for part in position_embeddings)
        found = nn.functional.linear(hidden_states[0], self._weight, self._bias)
        found = found.view(len(found), -1, self._width)
        turning = self._heads + self._groups
        first, second = found[:, :turning].chunk(2, -1)
        turned = torch.empty_like(found[:, :turning])
        left, right = turned.chunk(2, -1)
        torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
        torch.mul(second, cos, out=right).addcmul_(first, sin)
        query, key = turned.split((self._heads, self._groups), 1)
        sides = (part.transpose(0, 1)[None] for part in (query, key, found[:, turning:]))
        seen, _ = self._attend(self, *sides, None, scaling=self.scaling)
        return self.o_proj(seen.reshape(1, len(found), -1)), None


def is_rotated(layer: Any) -> bool:
    """Whether it is attention as Llama, Mistral and Qwen2 have it, in float32, and no more."""
    children = dict(layer.named_children())
    return (
        type(layer).__name__ in ("LlamaAttention", "MistralAttention", "Qwen2Attention")
        and sorted(children) == ["k_proj", "o_proj", "q_proj", "v_proj"]
        and all(type(child) is nn.Linear for child in children.values())
        and layer.q_proj.weight.dtype == torch.float32
    )


class RootMeanSquareNorm(nn.Module):
    """`weight * x / sqrt(mean(x ** 2) + epsilon)` in three passes instead of seven; float32.

    Args:
        layer: see `is_norm`.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight, self._epsilon = layer.weight, layer.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes the last dimension."""
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = size.square_().div_(x.shape[-1]).add_(self._epsilon).rsqrt_()
        return (x * scale).mul_(self.weight)


def is_norm(layer: nn.Module) -> bool:
    """Whether it is the norm of Llama and its relatives, in float32."""
    return (
        type(layer).__name__ in ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")
        and getattr(layer, "weight", torch.empty(0, dtype=torch.half)).dtype == torch.float32
        and isinstance(getattr(layer, "variance_epsilon", None), float)
    )


def is_gated(layer: nn.Module) -> bool:
    """Whether it looks like a SwiGLU and has nothing else in it."""
    children = dict(layer.named_children())
    activation = children.pop("act_fn", None)
    return (
        sorted(children) == ["down_proj", "gate_proj", "up_proj"]
        and type(activation).__name__ in ("SiLU", "SiLUActivation")
        and all(type(child) is nn.Linear for child in children.values())
    )


def spare_memory(module: nn.Module, attend: Callable[..., Any]) -> None:
    """Replace the layers below `module` that this knows.  For inference only.

    Args:
        attend: what computes attention, as `transformers` calls it.
    """
    for name, child in module.named_children():
        if is_gated(child):
            setattr(module, name, GatedFeedForward(child))
        elif is_rotated(child):
            setattr(module, name, RotatedAttention(child, attend))
        elif is_norm(child):
            setattr(module, name, RootMeanSquareNorm(child))
        else:
            spare_memory(child, attend)


def keep_freed_memory() -> None:
    """Let glibc keep what a forward pass freed: the next needs it again, and pages cost time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
