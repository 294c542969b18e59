"""Vector instructions as LLVM IR: the inner loops of the kernels, which numba compiles.

Matrices are passed as addresses, with strides in elements; all numbers are float32.  A panel is a
matrix of `PANEL` columns stored row by row, so that one row is a few vectors.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import binding, ir
from numba import carray, config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def _vector_shape() -> tuple[int, int]:
    """Floats in a vector, and vectors in a panel's row: what the registers hold six rows of."""
    has = config.CPU_FEATURES or binding.get_host_cpu_features().flatten()
    if "+avx512f" in has:
        return 16, 4  # 32 registers
    if "+avx" in has:
        return 8, 2  # 16 registers
    return 4, 4


LANES, _VECTORS = _vector_shape()
ROWS = 6
"""Rows of a tile: with `_VECTORS` columns of vectors, sums that stay in registers."""
PANEL = LANES * _VECTORS
NARROW = PANEL // 2
KEYS = 64
"""Keys of a block of attention; a multiple of the panel."""

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)
_INTS = ir.VectorType(_I32, LANES)
_LOG2_E = math.log2(math.e)
_EXP2 = [math.log(2) ** n / math.factorial(n) for n in range(7)]
"""2**x for |x| <= 1/2 as its Taylor series: off by 2e-7 at most."""
_LEAST = -80.0
"""exp of less is nought for a sum in float32; not much less would be denormal, and slow."""


def _constant(x: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [x] * LANES)


def _spread(builder: Any, x: Any) -> Any:
    """A vector of equal numbers."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, x, _I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_INTS, [0] * LANES))


def _floats(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _F32.as_pointer())


def _place(builder: Any, base: Any, index: Any) -> Any:
    """Pointer to the vector that starts at element `index`."""
    return builder.bitcast(builder.gep(base, [index]), _VECTOR.as_pointer())


def _call(builder: Any, name: str, kind: Any, *args: Any) -> Any:
    form = ir.FunctionType(kind, [arg.type for arg in args])
    function = cgutils.get_or_insert_function(builder.module, form, name)
    return builder.call(function, args, fastmath=("fast",))


def _largest(builder: Any, x: Any, y: Any) -> Any:
    return _call(builder, f"llvm.maxnum.v{LANES}f32", _VECTOR, x, y)


def _multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return _call(builder, f"llvm.fma.v{LANES}f32", _VECTOR, x, y, z)


def _exp(builder: Any, x: Any) -> Any:
    """e**x of numbers of at most 0; those under `_LEAST` count as `_LEAST`."""
    x = builder.fmul(_largest(builder, x, _constant(_LEAST)), _constant(_LOG2_E))
    # Conversion cuts toward zero, which rounds x - 1/2 to the integer next to x.
    whole = builder.fptosi(builder.fsub(x, _constant(0.5)), _INTS)
    rest = builder.fsub(x, builder.sitofp(whole, _VECTOR))
    power = _constant(_EXP2[-1])
    for factor in _EXP2[-2::-1]:
        power = _multiply_add(builder, power, rest, _constant(factor))
    exponent = builder.add(whole, ir.Constant(_INTS, [127] * LANES))
    scale = builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))
    return builder.fmul(power, builder.bitcast(scale, _VECTOR))


def _make_tile(columns: int) -> Any:
    """The matrix product of a tile: `ROWS` rows and so many vectors of columns."""

    @intrinsic
    def tile(
        _context: Any, a: Any, lda: Any, b: Any, ldb: Any, c: Any, ldc: Any, depth: Any, fresh: Any
    ) -> Any:
        def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            a, lda, b, ldb, c, ldc, depth, fresh = args
            a, b, c = (_floats(builder, address) for address in (a, b, c))
            cells = [(m, n) for m in range(ROWS) for n in range(columns)]
            places = {
                (m, n): _place(builder, c, builder.add(builder.mul(ldc, _I64(m)), _I64(n * LANES)))
                for m, n in cells
            }
            start = builder.block
            with builder.if_then(builder.not_(fresh)):
                loaded = {at: builder.load(places[at], align=4) for at in cells}
                loading = builder.block
            first = {}
            for at in cells:
                first[at] = builder.phi(_VECTOR)
                first[at].add_incoming(_constant(0.0), start)
                first[at].add_incoming(loaded[at], loading)
            before = builder.block
            loop = builder.append_basic_block("depth")
            done = builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(_I64)
            k.add_incoming(_I64(0), before)
            sums = {at: builder.phi(_VECTOR) for at in cells}
            row = builder.gep(b, [builder.mul(k, ldb)])
            right = [
                builder.load(_place(builder, row, _I64(n * LANES)), align=4) for n in range(columns)
            ]
            new = {}
            for m in range(ROWS):
                at = builder.add(builder.mul(lda, _I64(m)), k)
                left = _spread(builder, builder.load(builder.gep(a, [at]), align=4))
                for n in range(columns):
                    new[m, n] = _multiply_add(builder, left, right[n], sums[m, n])
            following = builder.add(k, _I64(1))
            k.add_incoming(following, loop)
            for cell, total in sums.items():
                total.add_incoming(first[cell], before)
                total.add_incoming(new[cell], loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, done)
            builder.position_at_end(done)
            for cell in cells:
                builder.store(new[cell], places[cell], align=4)
            return context.get_dummy_value()

        size = types.intp
        return types.void(size, size, size, size, size, size, size, types.boolean), emit

    return tile


tile = _make_tile(_VECTORS)
"""`tile(a, lda, b, ldb, c, ldc, depth, fresh)`: C (ROWS, PANEL) = A (ROWS, depth) B (depth, PANEL),
added to what is there unless `fresh`.  The depth is 1 or more."""
narrow_tile = _make_tile(_VECTORS // 2)
"""The same with `NARROW` columns."""


@intrinsic
def largest(_context: Any, row: Any) -> Any:
    """`largest(address)` of `KEYS` numbers."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        base = _floats(builder, args[0])
        found = [
            builder.load(_place(builder, base, _I64(i)), align=4) for i in range(0, KEYS, LANES)
        ]
        while len(found) > 1:
            found = [
                *(_largest(builder, x, y) for x, y in zip(found[::2], found[1::2], strict=False)),
                *(found[-1:] if len(found) % 2 else []),
            ]
        return _call(builder, f"llvm.vector.reduce.fmax.v{LANES}f32", _F32, found[0])

    return types.float32(types.intp), emit


@intrinsic
def weigh(_context: Any, row: Any, most: Any, total: Any) -> Any:
    """`weigh(address, most, total)`: x becomes exp(x - most) for `KEYS` numbers of at most `most`.

    `total` is the address of `LANES` sums, which grow by the results.
    """

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        base, most = _floats(builder, args[0]), _spread(builder, args[1])
        place = _place(builder, _floats(builder, args[2]), _I64(0))
        total = builder.load(place, align=4)
        for i in range(0, KEYS, LANES):
            here = _place(builder, base, _I64(i))
            weight = _exp(builder, builder.fsub(builder.load(here, align=4), most))
            builder.store(weight, here, align=4)
            total = builder.fadd(total, weight)
        builder.store(total, place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), emit


@intrinsic
def gate(_context: Any, row: Any, other: Any, out: Any) -> Any:
    """`gate(g, u, out)`, addresses of `PANEL` numbers: out = silu(g) * u."""

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        g, u, out = (_floats(builder, address) for address in args)
        zero, one = _constant(0.0), _constant(1.0)
        for i in range(0, PANEL, LANES):
            x = builder.load(_place(builder, g, _I64(i)), align=4)
            small = _exp(
                builder,
                _call(builder, f"llvm.minnum.v{LANES}f32", _VECTOR, x, builder.fsub(zero, x)),
            )
            # sigmoid(x) = 1 / (1 + e) for x of 0 or more and e / (1 + e) below, e = exp(-|x|).
            upper = builder.select(builder.fcmp_ordered(">=", x, zero), one, small)
            sigmoid = builder.fdiv(upper, builder.fadd(one, small))
            y = builder.load(_place(builder, u, _I64(i)), align=4)
            builder.store(
                builder.fmul(builder.fmul(x, sigmoid), y), _place(builder, out, _I64(i)), align=4
            )
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def transpose(_context: Any, a: Any, lda: Any, out: Any, ldo: Any) -> Any:
    """`transpose(a, lda, out, ldo)` of `LANES` rows and columns.

    Blocks that lie across from each other change places, of half the size, a quarter, and so on
    (Eklundh 1972, "A fast computer method for matrix transposing").
    """

    def emit(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        a, lda, out, ldo = args
        a, out = _floats(builder, a), _floats(builder, out)
        rows = [
            builder.load(_place(builder, a, builder.mul(lda, _I64(i))), align=4)
            for i in range(LANES)
        ]
        size = LANES // 2
        while size:
            for i in (i for i in range(LANES) if not i & size):
                # Lanes of the second vector of a shuffle are numbered from LANES on.
                upper = [n + LANES - size if n & size else n for n in range(LANES)]
                lower = [n + LANES if n & size else n + size for n in range(LANES)]
                pair = rows[i], rows[i + size]
                rows[i], rows[i + size] = (
                    builder.shuffle_vector(*pair, ir.Constant(_INTS, lanes))
                    for lanes in (upper, lower)
                )
            size //= 2
        for i in range(LANES):
            place = _place(builder, out, builder.mul(ldo, _I64(i)))
            builder.store(rows[i], place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), emit


@intrinsic
def take_number(_context: Any, counter: Any) -> Any:
    """`take_number(address)`: 0, 1, 2, ... to whichever thread asks."""

    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, _I64(1), "monotonic")

    return types.int64(types.intp), emit


@intrinsic
def _float_pointer(_context: Any, address: Any) -> Any:
    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return _floats(builder, args[0])

    return types.CPointer(types.float32)(types.intp), emit


@intrinsic
def _int_pointer(_context: Any, address: Any) -> Any:
    def emit(_target: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _I32.as_pointer())

    return types.CPointer(types.int32)(types.intp), emit


@njit(inline="always")
def floats(address: Any, size: Any) -> Any:
    """The float32 numbers at an address, as an array."""
    return carray(_float_pointer(address), size)


@njit(inline="always")
def ints(address: Any, size: Any) -> Any:
    """The int32 numbers at an address, as an array."""
    return carray(_int_pointer(address), size)
