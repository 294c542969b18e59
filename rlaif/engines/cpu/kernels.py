"""What a decoder layer does with a forest, as four kernels for threads that share the work.

A job is a record of addresses and sizes; every thread calls the kernel with it, takes a room to
write in, and then pieces of work by number until none is left.  All matrices are float32 in rows;
a weight is laid out in panels of `PANEL` columns (see `vectors`).  Buffers have `ROWS` rows to
spare, which are read and written without meaning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, cfunc, config, from_dtype, njit, types

from rlaif.engines.cpu.vectors import (
    KEYS,
    LANES,
    NARROW,
    PANEL,
    ROWS,
    floats,
    gate,
    ints,
    largest,
    narrow_tile,
    take_number,
    tile,
    transpose,
    weigh,
)

KEPT = bool(config.CACHE_DIR)
"""Whether compiled kernels are kept for other processes (see `engines.cpu`)."""
MOST_ROWS = 96
"""Rows of a piece of work: what, with its results, stays in a core's cache."""
QUERIES = 48
"""Queries of a piece of attention."""
CHUNK = 4 * PANEL
"""Columns of the inner layer of a feed-forward that are done together."""
_UNSEEN, _LOW = np.float32(-1e30), np.float32(-1e20)
_ZERO, _ONE = np.float32(0), np.float32(1)


def _record(numbers: str, reals: str = "") -> Any:
    """Fields of a job.

    Those of all: `next` and `entered`, addresses of counters at 0; `items`, how many pieces of
    work there are; `rooms`, the address of one room after the other, of `room` floats each.
    """
    fields = [(name, np.int64) for name in f"next entered items rooms room {numbers}".split()]
    return np.dtype([*fields, *((name, np.float32) for name in reals.split())], align=True)


PROJECT = _record(
    "x width rows block norm panels outputs bias "
    "out out_stride out_panels more more_stride heads more_heads head head_norms cos sin",
    "eps",
)
"""`project`: normalized rows times a weight, with rotary positions.

items: pieces of `block` rows.  x: (rows, width).  norm: (width,).
panels: the weight, of `outputs` columns.  bias: (outputs,) or 0.  out, more: results, the first
`out_panels` panels in one and the others in the other.  heads, more_heads: how many heads of size
`head`, from the first column of each, are rotated by cos and sin, (rows, head), after a norm of
their own (head_norms: (heads + more_heads, head) or 0).
"""

LAY_OUT = _record("kv old stride path past tokens heads head keys")
"""`lay_out`: keys in blocks of `KEYS`, transposed, for `attend`.

items: blocks.  kv: (items * KEYS, 2 * heads * head), rows `stride` apart, keys before values; the
first `past` rows are filled from those of `old` that `path`, int32, names, and those from `tokens`
on with 0.  keys: (heads, items, KEYS / PANEL, head, PANEL).
"""

ATTEND = _record(
    "queries index q q_stride group head ends least most blocks keys values stride "
    "out out_stride pieces",
    "scale",
)
"""`attend`: attention of some tokens of a forest.

items: heads x pieces of `QUERIES`.  index: (queries,) int32, ascending: their places in the forest.
q, out: (queries, heads * head).  group: query heads to a key head.  ends: int32, see
`Forest.ends`, padded with 0 to whole blocks.  least, most: of `ends` in each of the blocks.  keys:
of `lay_out`.  values: (blocks * KEYS, key heads * head), rows `stride` apart.
"""

FEED = _record("x width rows block attended attended_width mix norm inner up_gate down", "eps")
"""`feed`: what comes after attention in a layer.

x: (rows, width), becomes x + a + f(norm(x + a)); a is `attended`, (rows, attended_width), times
`mix`, and f a SwiGLU.  up_gate: panels of `gate` and `up` in turn.
"""


def _form(record: Any) -> Any:
    """Of a C function of a pointer to its job."""
    return types.void(types.CPointer(from_dtype(record)))


def project_room(block: int, width: int) -> int:
    """Floats that a thread writes to in `project`."""
    return block * width


def attend_room(head: int) -> int:
    """Floats that a thread writes to in `attend`."""
    return QUERIES * (2 * head + LANES + 1) + ROWS * KEYS


def feed_room(block: int, width: int) -> int:
    """Floats that a thread writes to in `feed`."""
    return block * (2 * width + CHUNK + 2 * PANEL)


@njit(inline="always")
def _enter(job: Any) -> Any:
    """The address of a room of one's own."""
    return job.rooms + 4 * job.room * take_number(job.entered)


@njit(inline="always", fastmath=True)
def _normalize(x: Any, weight: Any, out: Any, eps: Any) -> None:
    """Root-mean-square norm of a row (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    total = _ZERO
    for i in range(x.size):
        total += x[i] * x[i]
    scale = _ONE / np.sqrt(total / np.float32(x.size) + eps)
    for i in range(x.size):
        out[i] = x[i] * scale * weight[i]


@njit(inline="always", fastmath=True)
def _rotate(row: Any, cos: Any, sin: Any) -> None:
    """Rotary positions (Su et al. 2021, arXiv:2104.09864), halves apart as in Llama."""
    half = row.size // 2
    for i in range(half):
        a, b = row[i], row[i + half]
        row[i] = a * cos[i] - b * sin[i]
        row[i + half] = b * cos[i + half] + a * sin[i + half]


@njit(fastmath=True, error_model="numpy")
def _finish_heads(
    out: Any, heads: Any, head: Any, norms: Any, cos: Any, sin: Any, eps: Any
) -> None:
    c, s = floats(cos, head), floats(sin, head)
    for h in range(heads):
        row = floats(out + 4 * h * head, head)
        if norms:
            _normalize(row, floats(norms + 4 * h * head, head), row, eps)
        _rotate(row, c, s)


@cfunc(_form(PROJECT), fastmath=True, error_model="numpy", cache=KEPT)
def project(raw: Any) -> None:
    """Queries, keys and values of rows; see `PROJECT`."""
    job = carray(raw, 1)[0]
    width, head = job.width, job.head
    a = _enter(job)
    panels = job.outputs // PANEL
    while True:
        item = take_number(job.next)
        if item >= job.items:
            return
        start = item * job.block
        count = min(job.block, job.rows - start)
        weight = floats(job.norm, width)
        for i in range(count):
            x = floats(job.x + 4 * (start + i) * width, width)
            _normalize(x, weight, floats(a + 4 * i * width, width), job.eps)
        for p in range(panels):
            w = job.panels + 4 * p * width * PANEL
            if p < job.out_panels:
                c, stride = job.out + 4 * p * PANEL, job.out_stride
            else:
                c, stride = job.more + 4 * (p - job.out_panels) * PANEL, job.more_stride
            for i in range(0, count, ROWS):
                at = c + 4 * (start + i) * stride
                tile(a + 4 * i * width, width, w, PANEL, at, stride, width, True)
        for i in range(start, start + count):
            one, two = job.out + 4 * i * job.out_stride, job.more + 4 * i * job.more_stride
            if job.bias:
                split = job.out_panels * PANEL
                bias = floats(job.bias, job.outputs)
                left, right = floats(one, split), floats(two, job.outputs - split)
                for n in range(split):
                    left[n] += bias[n]
                for n in range(job.outputs - split):
                    right[n] += bias[split + n]
            cos, sin = job.cos + 4 * i * head, job.sin + 4 * i * head
            _finish_heads(one, job.heads, head, job.head_norms, cos, sin, job.eps)
            norms = job.head_norms + 4 * job.heads * head if job.head_norms else 0
            _finish_heads(two, job.more_heads, head, norms, cos, sin, job.eps)


@cfunc(_form(LAY_OUT), fastmath=True, error_model="numpy", cache=KEPT)
def lay_out(raw: Any) -> None:
    """Keys in blocks; see `LAY_OUT`."""
    job = carray(raw, 1)[0]
    head, half, stride = job.head, job.heads * job.head, job.stride
    path = ints(job.path, max(1, job.past))
    while True:
        block = take_number(job.next)
        if block >= job.items:
            return
        first = block * KEYS
        for token in range(first, first + KEYS):
            row = floats(job.kv + 4 * token * stride, 2 * half)
            if token < job.past:
                old = floats(job.old + 4 * path[token] * stride, 2 * half)
                for d in range(2 * half):
                    row[d] = old[d]
            elif token >= job.tokens:  # seen by none, but multiplied with nought
                for d in range(2 * half):
                    row[d] = _ZERO
        for h in range(job.heads):
            keys = job.keys + 4 * (h * job.items + block) * KEYS * head
            for j in range(0, KEYS, LANES):
                rows = job.kv + 4 * ((first + j) * stride + h * head)
                out = keys + 4 * ((j // PANEL) * head * PANEL + j % PANEL)
                for d in range(0, head, LANES):
                    transpose(rows + 4 * d, stride, out + 4 * d * PANEL, PANEL)


@njit(inline="always")
def _hide(scores: Any, query: Any, low: Any, ends: Any) -> None:
    """Take out of a row of scores the keys, from `low` on, that a query does not see."""
    for j in range(KEYS):
        key = np.int32(low + j)
        if key > query or query >= ends[key]:
            scores[j] = _UNSEEN


@cfunc(_form(ATTEND), fastmath=True, error_model="numpy", cache=KEPT)
def attend_blocks(raw: Any) -> None:
    """Attention, block by block with a running maximum (Dao et al. 2022, arXiv:2205.14135).

    Long because it is one compiled kernel: calls across it would cost what it saves.
    """
    job = carray(raw, 1)[0]
    head = job.head
    wide = head % PANEL == 0
    across = PANEL if wide else NARROW
    stride = job.stride
    a = _enter(job)
    o = a + 4 * QUERIES * head
    s = o + 4 * QUERIES * head
    sums = s + 4 * ROWS * KEYS
    asking, sum_ = floats(a, QUERIES * head), floats(o, QUERIES * head)
    scores, totals = floats(s, ROWS * KEYS), floats(sums, QUERIES * LANES)
    most = floats(sums + 4 * QUERIES * LANES, QUERIES)
    index, ends = ints(job.index, job.queries), ints(job.ends, job.blocks * KEYS)
    least, most_end = ints(job.least, job.blocks), ints(job.most, job.blocks)
    while True:
        item = take_number(job.next)
        if item >= job.items:
            return
        h, piece = item // job.pieces, job.pieces - 1 - item % job.pieces
        first = piece * QUERIES
        count = min(QUERIES, job.queries - first)
        padded = (count + ROWS - 1) // ROWS * ROWS
        for i in range(count):
            row = floats(job.q + 4 * ((first + i) * job.q_stride + h * head), head)
            for d in range(head):
                asking[i * head + d] = row[d] * job.scale
        asking[count * head : padded * head] = _ZERO
        most[:padded] = _LOW
        totals[: padded * LANES] = _ZERO
        sum_[: padded * head] = _ZERO
        for block in range(index[first + count - 1] // KEYS + 1):
            if most_end[block] <= index[first]:
                continue
            low, high = block * KEYS, block * KEYS + KEYS - 1
            at = 4 * ((h // job.group) * job.blocks + block) * KEYS * head
            for i0 in range(0, padded, ROWS):
                one, other = index[first + i0], index[first + min(i0 + ROWS, count) - 1]
                if low > other or most_end[block] <= one:
                    continue
                for part in range(KEYS // PANEL):
                    keys = job.keys + at + 4 * part * head * PANEL
                    here = s + 4 * part * PANEL
                    tile(a + 4 * i0 * head, head, keys, PANEL, here, KEYS, head, True)
                if high > one or least[block] <= other:
                    for i in range(i0, min(i0 + ROWS, count)):
                        _hide(scores[(i - i0) * KEYS :], index[first + i], low, ends)
                for i in range(i0, i0 + ROWS):
                    scores_here = s + 4 * (i - i0) * KEYS
                    highest = max(most[i], largest(scores_here))
                    if highest > most[i]:
                        # e**(most - highest); no weight was given yet where most is _LOW.
                        shrink = np.exp(max(most[i] - highest, np.float32(-80)))
                        for d in range(LANES):
                            totals[i * LANES + d] *= shrink
                        for d in range(head):
                            sum_[i * head + d] *= shrink
                        most[i] = highest
                    weigh(scores_here, highest, sums + 4 * i * LANES)
                for c in range(head // across):
                    values = job.values + 4 * (low * stride + (h // job.group) * head + c * across)
                    there = o + 4 * (i0 * head + c * across)
                    if wide:
                        tile(s, KEYS, values, stride, there, head, KEYS, False)
                    else:
                        narrow_tile(s, KEYS, values, stride, there, head, KEYS, False)
        for i in range(count):
            total = _ZERO
            for d in range(LANES):
                total += totals[i * LANES + d]
            out = floats(job.out + 4 * ((first + i) * job.out_stride + h * head), head)
            for d in range(head):
                out[d] = sum_[i * head + d] / total


@cfunc(_form(FEED), fastmath=True, error_model="numpy", cache=KEPT)
def feed(raw: Any) -> None:
    """The rest of a layer; see `FEED`."""
    job = carray(raw, 1)[0]
    width, inner, block = job.width, job.inner, job.block
    y = _enter(job)
    z = y + 4 * block * width
    chunk = z + 4 * block * width
    g = chunk + 4 * block * CHUNK
    u = g + 4 * block * PANEL
    weight = floats(job.norm, width)
    while True:
        item = take_number(job.next)
        if item >= job.items:
            return
        start = item * block
        count = min(block, job.rows - start)
        attended = job.attended + 4 * start * job.attended_width
        depth = job.attended_width
        for p in range(width // PANEL):
            w = job.mix + 4 * p * depth * PANEL
            for i in range(0, count, ROWS):
                at = y + 4 * (i * width + p * PANEL)
                tile(attended + 4 * i * depth, depth, w, PANEL, at, width, depth, True)
        for i in range(count):
            row = floats(y + 4 * i * width, width)
            x = floats(job.x + 4 * (start + i) * width, width)
            # The sum waits in `x`: products that are added to it one by one would lose what it
            # is too large to hold, in models with channels in the thousands.
            for d in range(width):
                row[d] += x[d]
                x[d] = row[d]
            _normalize(row, weight, floats(z + 4 * i * width, width), job.eps)
        for left in range(0, inner, CHUNK):
            columns = min(CHUNK, inner - left)
            for p in range(columns // PANEL):
                w = job.up_gate + 8 * (left // PANEL + p) * width * PANEL
                for i in range(0, count, ROWS):
                    tile(z + 4 * i * width, width, w, PANEL, g + 4 * i * PANEL, PANEL, width, True)
                w += 4 * width * PANEL
                for i in range(0, count, ROWS):
                    tile(z + 4 * i * width, width, w, PANEL, u + 4 * i * PANEL, PANEL, width, True)
                for i in range(count):
                    gate(g + 4 * i * PANEL, u + 4 * i * PANEL, chunk + 4 * (i * CHUNK + p * PANEL))
            for p in range(width // PANEL):
                w = job.down + 4 * (p * inner + left) * PANEL
                for i in range(0, count, ROWS):
                    at = y + 4 * (i * width + p * PANEL)
                    tile(chunk + 4 * i * CHUNK, CHUNK, w, PANEL, at, width, columns, left == 0)
        for i in range(count):
            row = floats(y + 4 * i * width, width)
            x = floats(job.x + 4 * (start + i) * width, width)
            for d in range(width):
                x[d] += row[d]
