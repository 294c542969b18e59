"""Spares a model of the `transformers` library memory traffic on a CPU; results stay the same."""

from __future__ import annotations

import ctypes
import platform
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


def is_gated(layer: nn.Module) -> bool:
    """Whether it looks like a SwiGLU and has nothing else in it."""
    children = dict(layer.named_children())
    activation = children.pop("act_fn", None)
    return (
        sorted(children) == ["down_proj", "gate_proj", "up_proj"]
        and type(activation).__name__ in ("SiLU", "SiLUActivation")
        and all(type(child) is nn.Linear for child in children.values())
    )


def spare_memory(module: nn.Module) -> None:
    """Replace the layers below `module` that this knows.  For inference only."""
    for name, child in module.named_children():
        if is_gated(child):
            setattr(module, name, GatedFeedForward(child))
        else:
            spare_memory(child)


def keep_freed_memory() -> None:
    """Let glibc keep what a forward pass freed: the next needs it again, and pages cost time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
