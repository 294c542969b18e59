"""Attention of a packed forest for layers that do more than look at their prefix.

Some models cap attention logits (Gemma 2), add a learned sink to every softmax (GPT-OSS) or look
back over a window only (Gemma, GPT-OSS, Mistral 0.1).  Fused kernels know some of this on some
devices; here it is plain products with a mask, block by block: slower, and right everywhere.
"""

from __future__ import annotations

import math

import torch

QUERY_BLOCK = 192


def attend_masked(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    ends: torch.Tensor,
    positions: torch.Tensor,
    scaling: float | None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of the last tokens of a forest to all of it.

    Args:
        query: (1, heads, tokens, width), of the last tokens.
        key, value: (1, key heads, all tokens, width).
        ends: (all tokens,), see `tree_attention.Forest.ends`.
        positions: (all tokens,), the place of each in its prompt.
        window: a token sees this many positions, its own included; None for all before it.
        softcap: logits are bent to stay within it (Gemma 2, arXiv:2408.00118, section 2).
        sinks: (heads,), logits that take part in the softmax and have no value (Xiao et al. 2024,
            arXiv:2309.17453, section 3.2; learned, as in GPT-OSS).

    Returns:
        (1, tokens, heads, width).
    """
    heads, tokens, width = query.shape[1:]
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    total = key.shape[2]
    past = total - tokens
    scale = 1.0 / math.sqrt(width) if scaling is None else scaling
    index = torch.arange(total, device=query.device)
    out = query.new_empty(1, tokens, heads, value.shape[3])
    for start in range(0, tokens, QUERY_BLOCK):
        stop = min(tokens, start + QUERY_BLOCK)
        asking = index[past + start : past + stop, None]
        sees = (index <= asking) & (asking < ends)
        if window is not None:
            sees &= positions[asking] - positions < window
        seen = sees.any(0).nonzero().squeeze(1)
        logits = (query[:, :, start:stop] @ key[:, :, seen].transpose(2, 3)).float() * scale
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        logits = logits.masked_fill(~sees[:, seen], -math.inf)
        if sinks is not None:
            sink = sinks.float().reshape(1, heads, 1, 1).expand(1, heads, stop - start, 1)
            logits = torch.cat((logits, sink), 3)
        weights = logits.softmax(3)[..., : len(seen)].to(value.dtype)
        out[:, start:stop] = (weights @ value[:, :, seen]).transpose(1, 2)
    return out
