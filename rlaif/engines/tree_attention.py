"""Attention over a forest of prefixes packed into one sequence.

Tokens stand in depth-first order and each prefix once.  `end[j]` is where the subtree under
token j ends; token i may look at token j exactly if `j <= i < end[j]`: the prefixes of i, and
i itself.  (Tree masks: SpecInfer, Miao et al. 2023, arXiv:2305.09781, section 4.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

NAME = "rlaif_tree"
QUERY_BLOCK = 128


class Forest:
    """Prompts packed as a forest, in the order in which they are added.

    Attributes:
        tokens, positions: one entry per distinct prefix token.
        ends: for each token, where its subtree ends.
        answers: for each prompt, the index of its last token.
    """

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.answers: list[int] = []
        self._path: list[int] = []
        self._prompt: Sequence[int] = ()

    def add(self, prompt: Sequence[int], shared: int) -> None:
        """Add a prompt of at least one token.

        Args:
            shared: how many leading tokens the prompt before it has too, as far as known; a
                number that does not hold is not believed.
        """
        if list(prompt[:shared]) != list(self._prompt[:shared]) or shared > len(self._prompt):
            shared = 0
        shared = min(shared, len(prompt))
        here = len(self.tokens)
        for index in self._path[shared:]:
            self.ends[index] = here
        new = range(here, here + len(prompt) - shared)
        self.tokens += prompt[shared:]
        self.positions += range(shared, len(prompt))
        self.ends += [0] * len(new)
        self._path = [*self._path[:shared], *new]
        self._prompt = prompt
        self.answers.append(self._path[-1])

    def close(self) -> None:
        """Close the subtrees that are still open; call it once, after the last prompt."""
        for index in self._path:
            self.ends[index] = len(self.tokens)


@dataclass(frozen=True)
class QueryBlock:
    """Queries from `start` to `stop`, the keys they need, and which of these each may see.

    Attributes:
        keys: a range, or indices where the keys lie apart.
        mask: (queries, keys), True where a query sees a key; None if the keys are all before
            the queries and end with them in causal order.
    """

    start: int
    stop: int
    keys: slice | torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class TreePlan:
    """What the attention function needs to know about one packed sequence.

    Attributes:
        blocks: for devices without a fused kernel.
        block_mask: for `flex_attention`, on a GPU.
    """

    blocks: tuple[QueryBlock, ...]
    block_mask: Any = None


def plan_blocks(ends: torch.Tensor, size: int = QUERY_BLOCK) -> tuple[QueryBlock, ...]:
    """Cut the queries into blocks of `size` that skip the keys none of their queries sees.

    Args:
        ends: (tokens,) integers, see `Forest.ends`.
    """
    total = len(ends)
    index = torch.arange(total)
    blocks = []
    for start in range(0, total, size):
        stop = min(total, start + size)
        needed = (ends[:stop] > start).nonzero().squeeze(1)
        queries = index[start:stop, None]
        mask = (needed[None] <= queries) & (queries < ends[needed][None])
        keys: slice | torch.Tensor = needed
        if len(needed) == int(needed[-1]) - int(needed[0]) + 1:
            keys = slice(int(needed[0]), int(needed[-1]) + 1)
        blocks.append(QueryBlock(start, stop, keys, mask))
    return tuple(blocks)


def plan_flex(ends: torch.Tensor) -> Any:
    """The `flex_attention` block mask of a forest.

    Args:
        ends: (tokens,) integers on the device of the queries.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        return (key <= query) & (query < ends[key])

    total = len(ends)
    return create_block_mask(sees, B=None, H=None, Q_LEN=total, KV_LEN=total, device=ends.device)


_plan: TreePlan | None = None
_flex: Any = None


def set_plan(plan: TreePlan | None) -> None:
    """Choose the plan of the next forward pass."""
    global _plan
    _plan = plan


def compiled_flex() -> Any:
    """`flex_attention`, compiled once."""
    global _flex
    if _flex is None:
        from torch.nn.attention.flex_attention import flex_attention

        _flex = torch.compile(flex_attention, dynamic=True)
    return _flex


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a packed forest, as `transformers` calls it.

    Args:
        query: (1, heads, tokens, width); key and value may have fewer heads.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    assert _plan is not None, "no plan was set"
    grouped = query.shape[1] != key.shape[1]
    if _plan.block_mask is not None:
        out = compiled_flex()(
            query, key, value, block_mask=_plan.block_mask, scale=scaling, enable_gqa=grouped
        )
        return out.transpose(1, 2).contiguous(), None
    out = torch.empty(
        (query.shape[0], query.shape[1], query.shape[2], value.shape[3]),
        dtype=query.dtype, device=query.device,
    )  # fmt: skip
    for block in _plan.blocks:
        out[:, :, block.start : block.stop] = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, block.start : block.stop],
            key[:, :, block.keys],
            value[:, :, block.keys],
            attn_mask=block.mask,
            scale=scaling,
            enable_gqa=grouped,
        )
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)


def pack(prompts: Iterable[tuple[Sequence[int], int]]) -> Forest:
    """The forest of prompts, each with how many tokens it shares with the one before it."""
    forest = Forest()
    for prompt, shared in prompts:
        forest.add(prompt, shared)
    forest.close()
    return forest
