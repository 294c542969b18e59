"""A decoder of the Llama family that computes forests on a CPU, from a `transformers` model.

Norms, rotations and gates are done where their rows already lie in a core's cache, so that nearly
all time goes into matrix products.  Of the last layer only the answers are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rlaif.engines.cpu import kernels, threads
from rlaif.engines.cpu.products import panels, piece
from rlaif.engines.cpu.vectors import KEYS, NARROW, PANEL, ROWS
from rlaif.engines.tree_attention import Forest
from rlaif.errors import RlaifError

_TOLERANCE = 1e-3
"""Largest difference to what the original layer adds to a channel, as a share of the most that it
adds there (or to the middle one of the channels, where that is more)."""
_ROUNDING = 1e-6
"""And as a share of the channel's largest value, which the addition rounds."""

_PROBE = 40
"""Tokens of the prompt that original layers are compared on."""
_APART = 16
"""Numbers between the rows of keys and values: rows a power of two apart share a cache's lines."""


@dataclass(frozen=True)
class Layer:
    """Weights of a layer as the kernels take them.

    Attributes:
        heads, groups, head: query heads, key heads, and their size.
        qkv, mix, up_gate, down: panels.
        bias: of queries, keys and values.
        head_norms: (heads + groups, head), of queries and keys.
    """

    heads: int
    groups: int
    head: int
    width: int
    inner: int
    scale: float
    norm: torch.Tensor
    qkv: torch.Tensor
    bias: torch.Tensor | None
    head_norms: torch.Tensor | None
    mix: torch.Tensor
    feed_norm: torch.Tensor
    up_gate: torch.Tensor
    down: torch.Tensor
    eps: float


def _vector(norm: Any) -> torch.Tensor:
    weight: torch.Tensor = norm.weight.detach()
    return weight.contiguous()


def _read(layer: Any) -> Layer:
    """Lay out the weights of a decoder layer.

    Raises:
        ValueError: it has parts that the kernels don't know.

    Long because it names every weight of a layer once.
    """
    parts = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
    attention, mlp = layer.self_attn, layer.mlp
    linear = {"q_proj", "k_proj", "v_proj", "o_proj"}
    inside = set(dict(attention.named_children())) - {"rotary_emb"}
    gated = set(dict(mlp.named_children())) - {"act_fn"}
    if (
        set(dict(layer.named_children())) != parts
        or inside not in (linear, linear | {"q_norm", "k_norm"})
        or gated != {"gate_proj", "up_proj", "down_proj"}
        or any(p.dtype != torch.float32 for p in layer.parameters())
        or any(m.bias is not None for m in (attention.o_proj, *(getattr(mlp, n) for n in gated)))
    ):
        raise ValueError("it has other parts")
    q, k, v = attention.q_proj, attention.k_proj, attention.v_proj
    head = int(attention.head_dim)
    width, inner = q.in_features, mlp.up_proj.out_features
    if head % NARROW or any(n % PANEL for n in (q.out_features, k.out_features, width, inner)):
        raise ValueError("its sizes do not fit the vectors")
    gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
    shapes = [
        (part.in_features, part.out_features) for part in (k, v, attention.o_proj, gate, up, down)
    ]
    of_kv = (width, k.out_features)
    if shapes != [of_kv, of_kv, (q.out_features, width), *2 * [(width, inner)], (inner, width)]:
        raise ValueError("its sizes do not fit together")
    normed = [layer.input_layernorm, layer.post_attention_layernorm]
    if "q_norm" in inside:
        normed += [attention.q_norm, attention.k_norm]
    eps = {float(norm.variance_epsilon) for norm in normed}
    if len(eps) > 1:
        raise ValueError("its norms differ")
    heads, groups = q.out_features // head, k.out_features // head
    norms = None
    if "q_norm" in inside:
        of_q, of_k = (
            _vector(n).expand(c, head)
            for n, c in ((attention.q_norm, heads), (attention.k_norm, groups))
        )
        norms = torch.cat((of_q, of_k)).contiguous()
    biases = [m.bias for m in (q, k, v)]
    bias = None if biases[0] is None else torch.cat([b.detach() for b in biases])
    up_gate = torch.stack((panels(gate.weight), panels(up.weight)), 1)
    return Layer(
        heads=heads,
        groups=groups,
        head=head,
        width=width,
        inner=inner,
        scale=float(attention.scaling),
        norm=_vector(layer.input_layernorm),
        qkv=panels(q.weight, k.weight, v.weight),
        bias=bias,
        head_norms=norms,
        mix=panels(attention.o_proj.weight),
        feed_norm=_vector(layer.post_attention_layernorm),
        up_gate=up_gate.contiguous(),
        down=panels(down.weight),
        eps=eps.pop(),
    )


class QueryTokens:
    """Some tokens of a forest, and what they need to know to find the keys that they see.

    Args:
        forest: closed.
        asking: ascending places of the tokens in it.
    """

    def __init__(self, forest: Forest, asking: np.ndarray[Any, Any]) -> None:
        self.queries = len(asking)
        self.pieces = -(-self.queries // kernels.QUERIES)
        self.blocks = -(-len(forest.tokens) // KEYS)
        self.index = np.ascontiguousarray(asking, np.int32)
        self.ends = np.zeros(self.blocks * KEYS, np.int32)
        self.ends[: len(forest.ends)] = forest.ends
        grid = self.ends.reshape(-1, KEYS)
        self.least, self.most = grid.min(1), grid.max(1)


def _buffer(rows: int, columns: int) -> torch.Tensor:
    """Rows, and those that the kernels may touch beyond them."""
    return torch.empty(rows + ROWS, columns, dtype=torch.float32)


def _padded(x: torch.Tensor) -> torch.Tensor:
    return torch.cat((x, x.new_zeros(ROWS, x.shape[1])))


class ForestPass:
    """One forest on its way through the layers.

    Args:
        forest: closed.
        path: indices of the prompt, in the forest before it, that it goes on from.
        cos, sin: rotary positions of the new tokens, (tokens, head).

    Raises:
        ValueError: the forest's past is longer than the path.
    """

    def __init__(
        self,
        forest: Forest,
        path: np.ndarray[Any, Any],
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> None:
        if forest.past > len(path):
            raise ValueError(f"{forest.past} tokens of the past, and {len(path)} kept")
        self._tokens, self._past = len(forest.tokens), forest.past
        self._path = np.ascontiguousarray(path[: forest.past], np.int32)
        self._rotary = cos.contiguous(), sin.contiguous()
        new = np.arange(forest.past, self._tokens)
        answers, self.place = np.unique(forest.answers, return_inverse=True)
        self._answers = torch.from_numpy(answers - forest.past)
        self._all, self._last = QueryTokens(forest, new), QueryTokens(forest, answers)

    def layer(
        self, layer: Layer, x: torch.Tensor, old: torch.Tensor | None, *, last: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute a layer.

        Args:
            x: (new tokens + ROWS, width); overwritten.
            old: keys and values that were kept of the forest before.
            last: whether only answers are wanted.

        Returns:
            The layer's output, of the new tokens or of the answers that differ, and its keys and
            values.

        Long because it is one decoder layer, step by step, sharing its buffers.
        """
        new = self._tokens - self._past
        half = layer.groups * layer.head
        asking = self._last if last else self._all
        kv = _buffer(asking.blocks * KEYS, 2 * half + _APART)
        q_panels, kv_panels = layer.heads * layer.head // PANEL, 2 * half // PANEL
        q = _buffer(asking.queries, layer.heads * layer.head)
        cos, sin = self._rotary
        if last:
            self._project(
                layer=layer,
                x=x,
                rows=new,
                rotary=(cos, sin),
                q=None,
                kv=kv[self._past :],
                first=q_panels,
                count=kv_panels,
            )
            x = _padded(x[self._answers])
            rotary = cos[self._answers], sin[self._answers]
            self._project(
                layer=layer,
                x=x,
                rows=asking.queries,
                rotary=rotary,
                q=q,
                kv=None,
                first=0,
                count=q_panels,
            )
        else:
            self._project(
                layer=layer,
                x=x,
                rows=new,
                rotary=(cos, sin),
                q=q,
                kv=kv[self._past :],
                first=0,
                count=q_panels + kv_panels,
            )
        keys = torch.empty(asking.blocks * KEYS * half, dtype=torch.float32)
        threads.run(
            kernels.lay_out,
            kernels.LAY_OUT,
            asking.blocks,
            kv=kv,
            old=kv if old is None else old,
            stride=kv.shape[1],
            path=self._path,
            past=self._past,
            tokens=self._tokens,
            heads=layer.groups,
            head=layer.head,
            keys=keys,
        )
        out = _buffer(asking.queries, layer.heads * layer.head)
        threads.run(
            kernels.attend_blocks,
            kernels.ATTEND,
            layer.heads * asking.pieces,
            kernels.attend_room(layer.head),
            queries=asking.queries,
            index=asking.index,
            q=q,
            q_stride=q.shape[1],
            group=layer.heads // layer.groups,
            head=layer.head,
            ends=asking.ends,
            least=asking.least,
            most=asking.most,
            blocks=asking.blocks,
            keys=keys,
            values=kv[0, half:],
            stride=kv.shape[1],
            out=out,
            out_stride=out.shape[1],
            pieces=asking.pieces,
            scale=layer.scale,
        )
        block = piece(asking.queries)
        threads.run(
            kernels.feed,
            kernels.FEED,
            -(-asking.queries // block),
            kernels.feed_room(block, layer.width),
            x=x,
            width=layer.width,
            rows=asking.queries,
            block=block,
            attended=out,
            attended_width=out.shape[1],
            mix=layer.mix,
            norm=layer.feed_norm,
            inner=layer.inner,
            up_gate=layer.up_gate,
            down=layer.down,
            eps=layer.eps,
        )
        return x, kv

    def _project(
        self,
        layer: Layer,
        x: torch.Tensor,
        rows: int,
        rotary: tuple[torch.Tensor, torch.Tensor],
        q: torch.Tensor | None,
        kv: torch.Tensor | None,
        first: int,
        count: int,
    ) -> None:
        """Queries, keys and values of some rows, from `count` panels beginning with `first`."""
        block = piece(rows)
        q_panels = layer.heads * layer.head // PANEL if q is not None else 0
        bias, norms = layer.bias, layer.head_norms
        if q is None:
            norms = None if norms is None else norms[layer.heads :]
        threads.run(
            kernels.project,
            kernels.PROJECT,
            -(-rows // block),
            kernels.project_room(block, layer.width),
            x=x,
            width=layer.width,
            rows=rows,
            block=block,
            norm=layer.norm,
            panels=layer.qkv[first:],
            outputs=count * PANEL,
            bias=0 if bias is None else bias[first * PANEL :],
            out=0 if q is None else q,
            out_stride=0 if q is None else q.shape[1],
            out_panels=q_panels,
            more=0 if kv is None else kv,
            more_stride=0 if kv is None else kv.shape[1],
            heads=0 if q is None else layer.heads,
            more_heads=0 if kv is None else layer.groups,
            head=layer.head,
            head_norms=0 if norms is None else norms,
            cos=rotary[0],
            sin=rotary[1],
            eps=layer.eps,
        )


class CpuDecoder:
    """The layers of a `transformers` model, taken out of it; use `fit` to make one.

    Args:
        base: with `embed_tokens`, `rotary_emb`, `norm`, and no `layers` any more.
        layers: its layers.
    """

    def __init__(self, base: Any, layers: list[Layer]) -> None:
        self._base, self._layers = base, layers
        self.forget()

    def forget(self) -> None:
        """Drop keys and values of the forest before."""
        self._path: np.ndarray[Any, Any] = np.empty(0, np.int32)
        self._kept: list[torch.Tensor] = []

    def hidden(self, forest: Forest) -> torch.Tensor:
        """Final hidden states (prompts, width) at the answers of a forest.

        If it has a past, that is the beginning of the last prompt of the forest before it.
        """
        new = slice(forest.past, None)
        x = self._base.embed_tokens(torch.tensor(forest.tokens[new]))
        cos, sin = self._base.rotary_emb(x[None], torch.tensor([forest.positions[new]]))
        x = _padded(x)
        way = ForestPass(forest, self._path, cos[0], sin[0])
        kept: list[torch.Tensor] = []
        for n, layer in enumerate(self._layers):
            x, kv = way.layer(
                layer, x, self._kept[n] if self._kept else None, last=n == len(self._layers) - 1
            )
            kept.append(kv)
        self._kept, self._path = kept, np.asarray(forest.path, np.int32)
        found: torch.Tensor = self._base.norm(x[torch.from_numpy(way.place)])
        return found


@torch.inference_mode()
def build_decoder(base: Any, longest: int) -> CpuDecoder | None:
    """Take the layers out of a model, if they are such as the kernels know.

    Each is compared with the original first, and the model stays as it is if one differs.

    Args:
        base: a decoder of the `transformers` library without its head, in float32.
        longest: prompt, in tokens.

    Raises:
        RlaifError: memory ran out; the model is of no use any more.
    """
    try:
        starts = {0, max(0, longest - _PROBE)}
        if not all(_agrees(base, start, min(_PROBE, longest)) for start in starts):
            return None
    except (
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        return None  # made of other parts
    layers = []
    try:
        for n in range(len(base.layers)):
            layers.append(_read(base.layers[n]))
            base.layers[n] = nn.Identity()
    except (MemoryError, RuntimeError) as error:
        raise RlaifError(
            f"memory ran out while the judge's weights were laid out ({error})",
            hint="Use a smaller judge, or --engine vllm.",
        ) from None
    del base.layers
    return CpuDecoder(base, layers)


def _agrees(base: Any, start: int, tokens: int) -> bool:
    """Whether a model is embeddings, layers as the kernels do them, and a norm.

    Found out on one prompt of so many tokens, whose positions begin with `start`.
    """
    given: list[torch.Tensor] = []
    made: list[torch.Tensor] = []

    def note(_layer: Any, args: Any, kwargs: Any, out: Any) -> None:
        given.append(args[0] if args else kwargs["hidden_states"])
        made.append(out[0] if isinstance(out, tuple) else out)

    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(base.embed_tokens.num_embeddings, (1, tokens), generator=draw)
    positions = torch.arange(start, start + tokens)[None]
    hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in base.layers]
    try:
        final = base(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    if len(made) != len(base.layers):
        return False
    between = zip([base.embed_tokens(ids), *made], [*given, final], strict=True)
    *inputs, (last, normed) = between
    if not all(torch.equal(x, y) for x, y in [*inputs, (base.norm(last), normed)]):
        return False
    forest = Forest()
    forest.add(range(tokens), (), 0)
    forest.close()
    cos, sin = base.rotary_emb(given[0], positions)
    way = ForestPass(forest, np.empty(0, np.int32), cos[0], sin[0])
    for original, x, expected in zip(base.layers, given, made, strict=True):
        layer = _read(original)
        if cos.shape != (1, tokens, layer.head):
            return False
        found, _ = way.layer(layer, _padded(x[0]), None, last=False)
        answer, _ = way.layer(layer, _padded(x[0]), None, last=True)
        whole = torch.cat((expected[0], expected[0, -1:]))
        error = (torch.cat((found[:tokens], answer[:1])) - whole).abs().amax(0)
        added = (expected - x)[0].abs().amax(0)
        allowed = _TOLERANCE * added.clamp(min=added.median()) + _ROUNDING * whole.abs().amax(0)
        if not bool((error <= allowed).all()):
            return False
    return True
