"""Makes a model of the `transformers` library faster on a CPU; results stay the same."""

from __future__ import annotations

import ctypes
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>


def _plain(x: torch.Tensor, layer: nn.Linear, after: str = "none") -> torch.Tensor:
    found = nn.functional.linear(x, layer.weight, layer.bias)
    return nn.functional.silu(found, inplace=True) if after == "swish" else found


class PackedLinear(nn.Module):
    """A linear layer by oneDNN, its weight laid out once for the machine's vector width.

    On processors whose width MKL does not use (AVX-512 of other makers) it is more than twice as
    fast.  The operators are those that torch's own compiler calls.

    Args:
        layer: float32, on a CPU.
        rows: of a typical input.
    """

    def __init__(self, layer: nn.Linear, rows: int = 1024) -> None:
        super().__init__()
        weight = layer.weight.detach().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, x: torch.Tensor, after: str = "none") -> torch.Tensor:
        """The layer; `after` "swish" applies SiLU to it."""
        ops = torch.ops.mkldnn
        found: torch.Tensor = ops._linear_pointwise(x, self._weight, self._bias, after, [], "")
        return found

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """The layer, multiplied element by element."""
        ops = torch.ops.mkldnn
        found: torch.Tensor = ops._linear_pointwise.binary(
            x, factor, self._weight, self._bias, "mul"
        )
        return found


def packing_pays(layer: nn.Linear, rows: int = 1024, rounds: int = 5) -> bool:
    """Whether oneDNN is clearly faster here than `torch.nn.functional.linear`; measured."""
    if layer.weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return False
    x = torch.randn(rows, layer.in_features)
    try:
        packed = PackedLinear(layer, rows)
        ways = (lambda: packed(x), lambda: _plain(x, layer))
        seconds = [[_seconds(way) for way in ways] for _ in range(rounds + 1)][1:]
    except (AttributeError, RuntimeError):  # another torch, another processor
        return False
    best = [min(column) for column in zip(*seconds, strict=True)]
    return bool(best[0] < 0.95 * best[1])


def _seconds(way: Callable[[], object]) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


class GatedFeedForward(nn.Module):
    """`down(silu(gate(x)) * up(x))` in two buffers instead of four.

    Args:
        layer: see `is_gated`.
        pack: whether its weights are packed.
    """

    def __init__(self, layer: Any, *, pack: bool) -> None:
        super().__init__()
        kind: Callable[[Any], Any] = PackedLinear if pack else lambda part: part
        self.gate_proj, self.up_proj = kind(layer.gate_proj), kind(layer.up_proj)
        self.down_proj = kind(layer.down_proj)
        self._packed = pack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The feed-forward of a decoder layer."""
        if self._packed:
            inner = self.up_proj.times(x, self.gate_proj(x, "swish"))
        else:
            inner = _plain(x, self.gate_proj, "swish").mul_(self.up_proj(x))
        found: torch.Tensor = self.down_proj(inner)
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


def fit_to_cpu(module: nn.Module) -> None:
    """Replace the layers below `module` by faster ones, where those are.  For inference only."""
    linear = [part for part in module.modules() if type(part) is nn.Linear]
    pack = bool(linear) and packing_pays(max(linear, key=lambda part: part.weight.numel()))
    del linear  # else every weight would be held twice until the last is packed
    _replace(module, pack=pack)


def _replace(module: nn.Module, *, pack: bool) -> None:
    for name, child in module.named_children():
        if is_gated(child):
            setattr(module, name, GatedFeedForward(child, pack=pack))
        elif pack and type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        else:
            _replace(child, pack=pack)


def keep_freed_memory() -> None:
    """Let glibc keep what a forward pass freed: the next needs it again, and pages cost time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
