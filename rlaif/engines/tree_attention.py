"""Attention over a forest of prefixes packed into one sequence.

Tokens stand in depth-first order and each prefix once.  `end[j]` is where the subtree under
token j ends; token i may look at token j exactly if `j <= i < end[j]`: the prefixes of i, and
i itself.  (Tree masks: SpecInfer, Miao et al. 2023, arXiv:2305.09781, section 4.)

A forest may go on from the last prompt of the forest before it: the tokens that the two have in
common stand first, and their keys and values are kept from then instead of computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

NAME = "rlaif_tree"
QUERY_BLOCK = 128
_WORTH_GATHERING = 1.25


class Forest:
    """Prompts packed as a forest, in the order in which they are added.

    Args:
        past: leading tokens of the first prompt whose keys and values are at hand.

    Attributes:
        tokens, positions: one entry per distinct prefix token, those of the past first.
        ends: for each token, where its subtree ends.
        answers: for each prompt, the index of its last token.
        past: how many tokens are not to be computed.
        path: indices of the tokens of the last prompt, in order.
    """

    def __init__(self, past: Sequence[int] = ()) -> None:
        self.past = len(past)
        self.tokens: list[int] = list(past)
        self.positions: list[int] = list(range(len(past)))
        self.ends: list[int] = [0] * len(past)
        self.answers: list[int] = []
        self.path: list[int] = list(range(len(past)))
        self._prompt: Sequence[int] = past

    def add(self, prompt: Sequence[int], shared: int) -> None:
        """Add a prompt of at least one token; its last token is computed in any case.

        Args:
            shared: how many leading tokens the prompt before it has too, as far as known; a
                number that does not hold is not believed.
        """
        shared = min(shared, len(prompt), len(self._prompt))
        if list(prompt[:shared]) != list(self._prompt[:shared]):
            shared = 0
        if shared and shared == len(prompt) and self.path[shared - 1] < self.past:
            shared -= 1
        here = len(self.tokens)
        for index in self.path[shared:]:
            self.ends[index] = here
        new = range(here, here + len(prompt) - shared)
        self.tokens += prompt[shared:]
        self.positions += range(shared, len(prompt))
        self.ends += [0] * len(new)
        self.path = [*self.path[:shared], *new]
        self._prompt = prompt
        self.answers.append(self.path[-1])

    def close(self) -> None:
        """Close the subtrees that are still open; call it once, after the last prompt."""
        for index in self.path:
            self.ends[index] = len(self.tokens)


@dataclass(frozen=True)
class QueryBlock:
    """Queries from `start` to `stop`, the keys they need, and which of these each may see.

    Attributes:
        keys: a range, or indices where the keys lie apart.
        mask: (queries, keys), True where a query sees a key.
    """

    start: int
    stop: int
    keys: slice | torch.Tensor
    mask: torch.Tensor


class TreePlan:
    """What the attention function needs to know about one forest, and what it keeps of it.

    Args:
        forest: closed.
        kept: keys and values of the past by layer, each (1, heads, past, width).
        device: of the model.
    """

    def __init__(
        self, forest: Forest, kept: dict[int, tuple[torch.Tensor, torch.Tensor]], device: str
    ) -> None:
        ends = torch.tensor(forest.ends)
        self.blocks: tuple[QueryBlock, ...] = ()
        self.block_mask: Any = None
        if device == "cuda":
            self.block_mask = plan_flex(ends.cuda(), forest.past)
        else:
            self.blocks = plan_blocks(ends, forest.past)
        self._past = forest.past
        self._kept = kept
        self._path = torch.tensor(forest.path, device=device)
        self.keep: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def with_past(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the whole forest; those of its last prompt are kept."""
        if self._past:
            old_key, old_value = self._kept[layer]
            key = torch.cat((old_key[:, :, : self._past], key), 2)
            value = torch.cat((old_value[:, :, : self._past], value), 2)
        self.keep[layer] = key[:, :, self._path], value[:, :, self._path]
        return key, value


def plan_blocks(ends: torch.Tensor, past: int = 0) -> tuple[QueryBlock, ...]:
    """Cut the queries into blocks that skip the keys which none of their queries sees.

    Args:
        ends: (tokens,) integers, see `Forest.ends`.
        past: leading tokens that ask nothing.
    """
    total = len(ends)
    index = torch.arange(total)
    blocks = []
    for start in range(past, total, QUERY_BLOCK):
        stop = min(total, start + QUERY_BLOCK)
        needed = (ends[:stop] > start).nonzero().squeeze(1)
        queries = index[start:stop, None]
        low, high = int(needed[0]), int(needed[-1]) + 1
        keys: slice | torch.Tensor = needed
        if high - low <= _WORTH_GATHERING * len(needed):
            # A range can be read where it lies; a few keys too many cost less than copying all.
            keys, needed = slice(low, high), index[low:high]
        mask = (needed[None] <= queries) & (queries < ends[needed][None])
        blocks.append(QueryBlock(start - past, stop - past, keys, mask))
    return tuple(blocks)


def plan_flex(ends: torch.Tensor, past: int = 0) -> Any:
    """The `flex_attention` block mask of a forest.

    Args:
        ends: (tokens,) integers on the device of the queries.
        past: leading tokens that ask nothing.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        return (key <= query + past) & (query + past < ends[key])

    total = len(ends)
    return create_block_mask(
        sees, B=None, H=None, Q_LEN=total - past, KV_LEN=total, device=ends.device
    )


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
        module: tells its layer by `layer_idx`.
        query: (1, heads, tokens, width), of the tokens to compute; key and value may have
            fewer heads.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    assert _plan is not None, "no plan was set"
    key, value = _plan.with_past(module.layer_idx, key, value)
    grouped = query.shape[1] != key.shape[1]
    if _plan.block_mask is not None:
        out = compiled_flex()(
            query, key, value, block_mask=_plan.block_mask, scale=scaling, enable_gqa=grouped
        )
        return out.transpose(1, 2).contiguous(), None
    shape = (query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    out = torch.empty(shape, dtype=query.dtype, device=query.device)
    for block in _plan.blocks:
        found = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, block.start : block.stop],
            key[:, :, block.keys],
            value[:, :, block.keys],
            attn_mask=block.mask,
            scale=scaling,
            enable_gqa=grouped,
        )
        out[:, block.start : block.stop] = found.transpose(1, 2)
    return out, None


AttentionInterface.register(NAME, attend)


def pack(prompts: Iterable[tuple[Sequence[int], int]], past: Sequence[int] = ()) -> Forest:
    """The forest of prompts, each with how many tokens it shares with the one before it."""
    forest = Forest(past)
    for prompt, shared in prompts:
        forest.add(prompt, shared)
    forest.close()
    return forest
