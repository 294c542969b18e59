"""Attention over a forest of prefixes packed into one sequence.

Tokens stand in depth-first order and each prefix once.  `end[j]` is where the subtree under
token j ends; token i may look at token j exactly if `j <= i < end[j]`: the prefixes of i, and
i itself.  (Tree masks: SpecInfer, Miao et al. 2023, arXiv:2305.09781, section 4.)

A forest may go on from the last prompt of the forest before it: the tokens that the two have in
common stand first, and their keys and values are kept from then instead of computed again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

from rlaif.engines.masked_attention import attend_masked

NAME = "rlaif_tree"
QUERY_BLOCK, CHAIN = 64, 192  # torch's kernel does 192 queries and more in larger blocks
_MOST_RANGES = 4


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
        self._context: Sequence[int] = past
        self._tail: Sequence[int] = ()

    def add(self, context: Sequence[int], tail: Sequence[int], shared: int) -> None:
        """Add a prompt of at least one token: `context`, then `tail`.

        Its last token is computed in any case.

        Args:
            shared: how many leading tokens the prompt before it has too, as far as known; a
                number that does not hold is not believed.
        """
        length = len(context) + len(tail)
        shared = min(shared, length, len(self._context) + len(self._tail))
        if context is self._context and shared >= len(context):
            more = shared - len(context)
            if list(tail[:more]) != list(self._tail[:more]):
                shared = len(context)
        elif _leading(context, tail, shared) != _leading(self._context, self._tail, shared):
            shared = 0
        if shared and shared == length and self.path[shared - 1] < self.past:
            shared -= 1
        here = len(self.tokens)
        for index in self.path[shared:]:
            self.ends[index] = here
        new = range(here, here + length - shared)
        self.tokens += context[shared:]
        self.tokens += tail[max(0, shared - len(context)) :]
        self.positions += range(shared, length)
        self.ends += [0] * len(new)
        del self.path[shared:]
        self.path += new
        self._context, self._tail = context, tail
        self.answers.append(self.path[-1])

    def close(self) -> None:
        """Close the subtrees that are still open; call it once, after the last prompt."""
        for index in self.path:
            self.ends[index] = len(self.tokens)


def _leading(context: Sequence[int], tail: Sequence[int], count: int) -> list[int]:
    return [*context[:count], *tail[: max(0, count - len(context))]]


@dataclass(frozen=True)
class NearBlock:
    """Queries from `start` to `stop` and the keys around them, of which each sees some.

    Attributes:
        keys: a range that ends at the last of the queries, or indices.
        bias: (queries, keys), 0 where a query sees a key and -inf elsewhere; None for a chain,
            where queries and keys are the same tokens and each sees those before it.
    """

    start: int
    stop: int
    keys: slice | torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True)
class FarBlock:
    """Queries from `start` to `stop` that all see all of `keys`: a part of their prefix."""

    start: int
    stop: int
    keys: slice | torch.Tensor


@dataclass(frozen=True)
class CachedPrefix:
    """Keys and values of a forest, and where its last prompt lies in it.

    Attributes:
        layers: by layer, each (1, heads, tokens, width).
        path: (length,) indices.
    """

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]
    path: torch.Tensor


KEPT_NOTHING = CachedPrefix({}, torch.empty(0, dtype=torch.long))


class TreePlan:
    """What the attention function needs to know about one forest, and what it keeps of it.

    Args:
        forest: closed.
        kept: of the forest before it.
        device: of the model.

    Attributes:
        ends, positions: (tokens,), as the forest's.
        windows: for each layer that was computed, how far back it looks; None for all the way.
    """

    def __init__(self, forest: Forest, kept: CachedPrefix, device: str) -> None:
        ends = torch.tensor(forest.ends)
        self.ends, self.positions = ends.to(device), torch.tensor(forest.positions, device=device)
        self._longest = 1 + max(forest.positions)
        self.windows: dict[int, int | None] = {}
        self.near: list[NearBlock] = []
        self.far: list[FarBlock] = []
        self.block_mask: Any = None
        if device == "cuda":
            self.block_mask = plan_flex(ends, forest.past, device)
        else:
            self.near, self.far = plan_parts(ends, forest.past)
        self._kept = kept
        self._past = _range_or_indices(kept.path[: forest.past]) if forest.past else None
        self._path = torch.tensor(forest.path)
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def with_past(
        self, layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the whole forest, which are kept."""
        if self._past is not None:
            old_key, old_value = self._kept.layers[layer]
            key = torch.cat((old_key[:, :, self._past], key), 2)
            value = torch.cat((old_value[:, :, self._past], value), 2)
        self._layers[layer] = key, value
        return key, value

    def window(self, layer: int, size: int | None) -> int | None:
        """How far back a layer looks, if that is less than the longest prompt."""
        self.windows[layer] = size
        return size if size is not None and size < self._longest else None

    def keep(self) -> CachedPrefix:
        """For the next forest."""
        return CachedPrefix(self._layers, self._path)


def plan_parts(ends: torch.Tensor, past: int = 0) -> tuple[list[NearBlock], list[FarBlock]]:
    """Cut attention into what queries see alone and the prefixes that neighbors see together.

    The second kind, most of the work, needs no mask.  Both together cover each query and each
    key that it sees once: their results are to be merged.

    Args:
        ends: (tokens,) integers, see `Forest.ends`.
        past: leading tokens that ask nothing.
    """
    total = len(ends)
    index = torch.arange(total)
    near: list[NearBlock] = []
    far: list[FarBlock] = []
    growing: dict[tuple[int, int], int] = {}
    for start, stop, is_chain in _cut(ends, past):
        open_ = ((ends[:start] > start) & (ends[:start] < stop)).nonzero().squeeze(1)
        around = torch.cat((open_, index[start:stop]))
        low = int(around[0])
        if stop - low <= 2 * len(around):  # a few keys more cost less than copying them all
            around = index[low:stop]
        bias = None
        if not is_chain:
            sees = (around <= index[start:stop, None]) & (index[start:stop, None] < ends[around])
            bias = torch.zeros(sees.shape).masked_fill_(~sees, float("-inf"))
        near.append(NearBlock(start - past, stop - past, _range_or_indices(around), bias))
        # A block that sees what the one before it sees is added to it: few large products.
        before, growing = growing, {}
        for keys in _runs((ends[:start] >= stop).nonzero().squeeze(1)):
            name = (keys.start, keys.stop) if isinstance(keys, slice) else (-1, len(far))
            growing[name] = before.get(name, len(far))
            if growing[name] == len(far):
                far.append(FarBlock(start - past, stop - past, keys))
            else:
                far[growing[name]] = FarBlock(far[growing[name]].start, stop - past, keys)
    return near, far


def _cut(ends: torch.Tensor, past: int) -> Iterator[tuple[int, int, bool]]:
    """Blocks of queries, and which are chains (each token follows the one before it).

    A long chain is cut into blocks of its own; short ones share a block.
    """
    total = len(ends)
    leaves = (ends == torch.arange(total) + 1).nonzero().squeeze(1).add(1).tolist()
    start = past
    while start < total:
        stop = leaves[bisect_right(leaves, start)]
        is_chain = True
        if stop - start >= QUERY_BLOCK:
            stop = min(stop, start + CHAIN)
        while stop - start < QUERY_BLOCK and stop < total:
            following = leaves[bisect_right(leaves, stop)]
            if following - stop >= QUERY_BLOCK:
                break
            stop, is_chain = min(following, start + QUERY_BLOCK), False
        yield start, stop, is_chain
        start = stop


def _runs(indices: torch.Tensor) -> list[slice | torch.Tensor]:
    """Sorted indices as ranges; as they are where those would be many."""
    breaks = (indices.diff() != 1).nonzero().squeeze(1).add(1).tolist()
    if len(breaks) > _MOST_RANGES - 1:
        return [indices]
    parts = indices.tensor_split(breaks)
    return [_range_or_indices(part) for part in parts if len(part)]


def _range_or_indices(indices: torch.Tensor) -> slice | torch.Tensor:
    """Sorted indices as a range where they are one: it can be read where it lies."""
    low, high = int(indices[0]), int(indices[-1]) + 1
    return slice(low, high) if high - low == len(indices) else indices


def plan_flex(ends: torch.Tensor, past: int = 0, device: str = "cpu", size: int = 128) -> Any:
    """The `flex_attention` block mask of a forest.

    It is what `create_block_mask` makes, which looks at every pair of tokens for it; here one look
    at the earliest and the latest end in each block of keys says as much.

    Args:
        ends: (tokens,) integers, see `Forest.ends`.
        past: leading tokens that ask nothing.
        device: of the queries.
        size: tokens of a block.
    """
    from torch.nn.attention.flex_attention import BlockMask

    here, before = (
        ends.to(device),
        torch.tensor(past, device=device),
    )  # a number would be compiled in

    def sees(_batch: Any, _head: Any, query: Any, key: Any) -> Any:
        return (key <= query + before) & (query + before < here[key])

    total = len(ends)
    padded = torch.nn.functional.pad(ends, (0, -total % size)).view(-1, size)
    low = torch.arange(len(padded)) * size
    first = torch.arange(past, total, size)[:, None]
    last = first + size - 1
    seen = (low <= last.clamp(max=total - 1)) & (padded.amax(1) > first)
    whole = (low + size - 1 <= first) & (padded.amin(1) > last)
    blocks = [
        part[None, None].to(device) for kind in (seen & ~whole, whole) for part in _lists(kind)
    ]
    return BlockMask.from_kv_blocks(
        *blocks, BLOCK_SIZE=size, mask_mod=sees, seq_lengths=(total - past, total)
    )


def _lists(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row of booleans how many are chosen, and their indices before those of others."""
    order = chosen.int().argsort(stable=True, dim=1, descending=True)
    return chosen.sum(1, dtype=torch.int32), order.int()


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
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of a packed forest, as `transformers` calls it.

    Args:
        module: tells its layer by `layer_idx`.
        query: (1, heads, tokens, width), of the tokens to compute; key and value may have
            fewer heads.
        sliding_window, softcap, s_aux: see `attend_masked`.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    assert _plan is not None, "no plan was set"
    key, value = _plan.with_past(module.layer_idx, key, value)
    window = _plan.window(module.layer_idx, sliding_window)
    wide = query.shape[3] != value.shape[3]  # DeepSeek's: the kernels take one width alone
    if window is not None or softcap is not None or s_aux is not None or wide:
        out = attend_masked(
            query,
            key,
            value,
            ends=_plan.ends,
            positions=_plan.positions,
            scaling=scaling,
            window=window,
            softcap=softcap,
            sinks=s_aux,
        )
        return out, None
    grouped = query.shape[1] != key.shape[1]
    if _plan.block_mask is not None:
        out = compiled_flex()(
            query, key, value, block_mask=_plan.block_mask, scale=scaling, enable_gqa=grouped
        )
        return out.transpose(1, 2).contiguous(), None
    return _attend_on_cpu(plan=_plan, query=query, key=key, value=value, scaling=scaling), None


def _attend_on_cpu(
    plan: TreePlan,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
) -> torch.Tensor:
    """Both parts by torch's CPU kernel, merged by their log-sum-exps (flash attention's rule).

    Flash attention: Dao et al. 2022, arXiv:2205.14135, section 3.1.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    _, heads, tokens, _ = query.shape
    out = query.new_empty(1, tokens, heads, value.shape[3]).transpose(1, 2)
    weight = torch.empty(1, heads, tokens)
    for near in plan.near:
        part = slice(near.start, near.stop)
        bias = None if near.bias is None else near.bias.to(query.dtype)
        out[:, :, part], weight[:, :, part] = kernel(
            query[:, :, part],
            key[:, :, near.keys],
            value[:, :, near.keys],
            is_causal=bias is None,
            attn_mask=bias,
            scale=scaling,
        )
    for far in plan.far:
        part = slice(far.start, far.stop)
        found, theirs = kernel(
            query[:, :, part], key[:, :, far.keys], value[:, :, far.keys], scale=scaling
        )
        ours = weight[:, :, part]
        share = torch.sigmoid(theirs - ours)[..., None].to(query.dtype)
        out[:, :, part] = torch.lerp(out[:, :, part], found, share)
        weight[:, :, part] = torch.logaddexp(ours, theirs)
    return out.transpose(1, 2)


AttentionInterface.register(NAME, attend)


class TreeModel:
    """A model of the library, asked forest by forest.

    Args:
        model: its attention is changed to this one.
        device: that it is on.

    Attributes:
        dtype: of its weights.
        windows: for each layer, how far back it said it looks; None for all the way.  Empty
            before the first forest.
    """

    def __init__(self, model: Any, device: str) -> None:
        model.set_attn_implementation(NAME)
        base = model.base_model
        # Llama 4's text model calls itself its base.
        self._base = model.model if base is model and hasattr(model, "model") else base
        self._device, self.dtype = device, model.dtype
        self._layers = int(model.config.get_text_config().num_hidden_layers)
        self.windows: dict[int, int | None] = {}
        self.forget()

    def forget(self) -> None:
        """Drop keys and values of the forest before."""
        self._kept = KEPT_NOTHING

    def hidden(self, forest: Forest) -> torch.Tensor:
        """Final hidden states (prompts, width) where the prompts of a forest end.

        Raises:
            ValueError: the model has attention, or layers, of its own.
        """
        plan = TreePlan(forest, self._kept, self._device)
        new = slice(forest.past, None)
        set_plan(plan)
        try:
            hidden: torch.Tensor = self._base(
                input_ids=torch.tensor([forest.tokens[new]], device=self._device),
                position_ids=torch.tensor([forest.positions[new]], device=self._device),
                use_cache=False,
            ).last_hidden_state[0, [i - forest.past for i in forest.answers]]
        finally:
            set_plan(None)
        self._kept = plan.keep()
        if not self._kept.layers:
            raise ValueError("its layers do not call the attention function")
        if len(self._kept.layers) < self._layers:
            missing = self._layers - len(self._kept.layers)
            raise ValueError(f"{missing} of its {self._layers} layers are no attention")
        self.windows = plan.windows
        return hidden


def pack(prompts: Iterable[tuple[Sequence[int], int]], past: Sequence[int] = ()) -> Forest:
    """The forest of prompts, each with how many tokens it shares with the one before it."""
    return pack_branches(((prompt, (), shared) for prompt, shared in prompts), past)


def pack_branches(
    prompts: Iterable[tuple[Sequence[int], Sequence[int], int]], past: Sequence[int] = ()
) -> Forest:
    """The forest of prompts, each as its context, its tail, and how many tokens it shares with the
    one before it.  Contexts that are the same object are not compared.
    """
    forest = Forest(past)
    for context, tail, shared in prompts:
        forest.add(context, tail, shared)
    forest.close()
    return forest
