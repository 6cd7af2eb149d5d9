"""Fewer multiplications: Winograd's form of short windows, for all three contractions at once.

On one axis, and for m positions of y under r taps, the trilinear form has a decomposition of rank
m + r - 1 instead of m*r:

    sum over i, t of y[i] k[t] x[i + t]  =  sum over j of (X x)[j] (K k)[j] (Y y)[j]

with small matrices X, K and Y whose entries are 0, 1, -1 and 1/2. Axes multiply: 3x3 taps take 16 products
for 4 positions instead of 36. Each j is one dot over channels, whichever array is left out; leaving one out
applies the transpose of its matrix, so that conv, deconv and kernel_grad share all of this file.

Strides and dilations reduce to steps of one. Under stride s, tap s*a + b reads phase b of x at q + a, so the
phases join the channels and r = ceil(k / s). Under dilation d, the residues modulo d never meet, so they
join the batch.

Sums of values of x come before the products. So an infinite or nearly infinite value makes its whole tile NaN,
where the definition would leave some positions infinite and others untouched.

Source: Winograd, Arithmetic Complexity of Computations (1980); Lavin and Gray, arXiv:1509.09308.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.axes import padded, reshaped
from jdeconv.form import Form
from jdeconv.lowerings.arrange import arrange, restore
from jdeconv.lowerings.blocks import items_per_block, map_blocks, sum_blocks
from jdeconv.lowerings.slabs import in_slabs

# Of what a block of images lays out on both sides of the dots. Half of it makes the dots too small; with more,
# the call's memory often passes 32 MiB, beyond which malloc asks for fresh pages every time.
BLOCK_BYTES = 13 << 20


@dataclass(frozen=True)
class Algorithm:
    """F(m, r): the matrices of m positions under r taps, each of m + r - 1 rows."""

    x: np.ndarray
    kernel: np.ndarray
    y: np.ndarray

    @property
    def positions(self) -> int:
        """m, the positions of y that go together."""
        return self.y.shape[1]

    @property
    def taps(self) -> int:
        """r, the taps of the window."""
        return self.kernel.shape[1]

    @property
    def rank(self) -> int:
        """The products that it takes."""
        return len(self.x)


# Toom and Cook's construction at the points 0, 1, -1 and infinity.
_FOUR = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_LINE, _PARABOLA = (
    np.array([[1, 0], [1, 1], [1, -1], [0, -1]]),
    np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
)
ALGORITHMS = {
    1: Algorithm(np.eye(1), np.eye(1), np.eye(1)),
    2: Algorithm(
        np.array([[1, -1, 0], [0, 1, 0], [0, 1, -1]]),
        np.array([[1, 0], [1, 1], [0, 1]]),
        np.array([[1, 0], [1, 1], [0, -1]]),
    ),
    3: Algorithm(_FOUR, _PARABOLA, _LINE),
}
"""By the number of taps r: F(1, 1), F(2, 2) and F(2, 3)."""


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """The reason why no short algorithm serves."""
    w = form.window
    if not jnp.issubdtype(dtype, jnp.inexact):
        return f"winograd halves sums of the kernel, which {np.dtype(dtype)} cannot hold"
    if form.precision not in (None, lax.Precision.DEFAULT):
        return f"winograd's sums round a little more than the precision {form.precision} that was asked for"
    for k, s, d in zip(w.kernel, w.stride, w.dilation, strict=True):
        if s > 1 and d > 1 and k > 1:
            return f"winograd takes stride or dilation on an axis, not stride {s} with dilation {d}"
        if -(-k // s) not in ALGORITHMS:
            return f"winograd has no algorithm for {-(-k // s)} taps (kernel {k}, stride {s})"
    return None


def products(form: Form) -> float:
    """Multiplications, as a share of those that the definition takes; the last tile may be half empty."""
    shares = []
    for axis in _Tiling(form).axes:
        taken = axis.tiles * axis.dilation * axis.algorithm.rank * axis.stride
        shares.append(taken / (axis.small * axis.kernel))
    return math.prod(shares)


def _rows(form: Form, axis: int) -> int:
    """Of a whole tile."""
    tiled = _Tiling(form).axes[axis]
    return tiled.algorithm.positions * tiled.dilation


def _image_bytes(form: Form, c: int, o: int, dtype: np.dtype) -> int:
    return form.groups * _Tiling(form).group_bytes(c * math.prod(form.window.stride), o, dtype)


@in_slabs(_image_bytes, _rows)
def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """For every j, one dot over the channels of x: y = Y^T (K kernel * X x)."""
    tiling = _Tiling(form)
    kernel = tiling.lift_kernel(_enter(kernel, form, "kernel", dtype))

    def block(x):
        return tiling.drop_y(
            tiling.dot("jgpc,jgco->jgpo", tiling.lift_x(x), kernel, dtype), x.shape[0]
        )

    x = _enter(x, form, "x", dtype)
    c, o = kernel.shape[2:]
    size = tiling.images_per_block(x.shape[0], c, o, dtype)
    return _leave(map_blocks(block, x, size), form, "y")


@in_slabs(_image_bytes, _rows)
def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """For every j, one dot over the channels of y: x = X^T (K kernel * Y y)."""
    tiling = _Tiling(form)
    kernel = tiling.lift_kernel(_enter(kernel, form, "kernel", dtype))

    def block(y):
        return tiling.drop_x(
            tiling.dot("jgpo,jgco->jgpc", tiling.lift_y(y), kernel, dtype), y.shape[0]
        )

    y = _enter(y, form, "y", dtype)
    c, o = kernel.shape[2:]
    size = tiling.images_per_block(y.shape[0], c, o, dtype)
    return _leave(map_blocks(block, y, size), form, "x")


@in_slabs(_image_bytes, _rows)
def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """For every j, one dot over batch and positions: kernel = K^T (X x * Y y)."""
    tiling, (c, o) = _Tiling(form), form.channels("kernel_grad", x.shape, y.shape)

    def block(x, y):
        return tiling.dot("jgpc,jgpo->gjco", tiling.lift_x(x), tiling.lift_y(y), dtype)

    pair = _enter(x, form, "x", dtype), _enter(y, form, "y", dtype)
    channels, n = (c * math.prod(form.window.stride), o), pair[0].shape[0]
    if (
        isinstance(n, int) and n < form.groups
    ):  # blocks of groups are the finer ones, and need no sum
        pair = tuple(map(_turned, pair))
        size = tiling.groups_per_block(n, *channels, dtype)
        kernel = map_blocks(lambda pair: block(*map(_turned, pair)), pair, size)
    else:
        kernel = sum_blocks(block, pair, tiling.images_per_block(n, *channels, dtype))
    return _leave(tiling.drop_kernel(kernel.swapaxes(0, 1)), form, "kernel")


def _enter(a: jax.Array, form: Form, role: str, dtype: np.dtype) -> jax.Array:
    """Channels last, whatever the user's order, for long rows in dots; groups behind images, in front of space.

    x and y: (n, g, *space, channel), the kernel: (g, *space, c, o).
    """
    a = arrange(a, form, role, last=True).astype(dtype)
    place = 0 if role == "kernel" else 1
    if form.groups == 1:
        return jnp.expand_dims(a, place)
    a = a.reshape(*a.shape[:-1], form.groups, -1)
    return jnp.moveaxis(a, -2, place)


def _leave(a: jax.Array, form: Form, role: str) -> jax.Array:
    """The inverse of `_enter`."""
    place = 0 if role == "kernel" else 1
    if form.groups == 1:
        return restore(jnp.squeeze(a, place), form, role, last=True)
    a = jnp.moveaxis(a, place, -2)
    return restore(a.reshape(*a.shape[:-2], -1), form, role, last=True)


@dataclass(frozen=True)
class _Axis:
    """One spatial axis in tiles of m positions, on which it splits arrays and joins them again.

    The big side's position is (tile, i, residue of the dilation, phase of the stride), the small side's
    (tile, i, residue), and a kernel's tap (a, phase). A piece is what is left when i, or a, is fixed.
    """

    low: int
    big: int
    small: int
    kernel: int
    stride: int
    dilation: int

    @property
    def algorithm(self) -> Algorithm:
        return ALGORITHMS[-(-self.kernel // self.stride)]

    @property
    def tiles(self) -> int:
        return -(-self.small // (self.algorithm.positions * self.dilation))

    def split_x(self, x: jax.Array, axis: int) -> list[jax.Array]:
        """Piece i starts at position i of every tile; past the tile's end it lies in the next one."""
        m, tiles = self.algorithm.positions, self.tiles
        reach = (self.algorithm.rank - 1) // m
        length = (tiles + reach) * m * self.dilation * self.stride
        x = padded(x, axis, self.low, length - self.low - self.big)
        x = reshaped(x, axis, 1, (tiles + reach, m, self.dilation, self.stride))
        return [
            lax.index_in_dim(lax.slice_in_dim(x, u, u + tiles, axis=axis), i, axis + 1, False)
            for u, i in (divmod(i, m) for i in range(self.algorithm.rank))
        ]

    def join_x(self, pieces: Sequence[jax.Array], axis: int) -> jax.Array:
        """The adjoint of `split_x`: pieces that share a position add up there."""
        m = self.algorithm.positions
        reach = (self.algorithm.rank - 1) // m
        rows = [
            functools.reduce(
                operator.add, (padded(p, axis, u, reach - u) for u, p in enumerate(pieces[i::m]))
            )
            for i in range(m)
        ]
        x = reshaped(jnp.stack(rows, axis + 1), axis, 4, (-1,))
        return padded(x, axis, -self.low, self.low + self.big - x.shape[axis])

    def split_y(self, y: jax.Array, axis: int) -> list[jax.Array]:
        m = self.algorithm.positions
        y = padded(y, axis, 0, self.tiles * m * self.dilation - self.small)
        y = reshaped(y, axis, 1, (self.tiles, m, self.dilation))
        return [lax.index_in_dim(y, i, axis + 1, False) for i in range(m)]

    def join_y(self, pieces: Sequence[jax.Array], axis: int) -> jax.Array:
        y = reshaped(jnp.stack(pieces, axis + 1), axis, 3, (-1,))
        return lax.slice_in_dim(y, 0, self.small, axis=axis)

    def split_kernel(self, kernel: jax.Array, axis: int) -> list[jax.Array]:
        taps = self.algorithm.taps
        kernel = padded(kernel, axis, 0, taps * self.stride - self.kernel)
        kernel = reshaped(kernel, axis, 1, (taps, self.stride))
        return [lax.index_in_dim(kernel, a, axis, False) for a in range(taps)]

    def join_kernel(self, pieces: Sequence[jax.Array], axis: int) -> jax.Array:
        kernel = reshaped(jnp.stack(pieces, axis), axis, 2, (-1,))
        return lax.slice_in_dim(kernel, 0, self.kernel, axis=axis)


class _Tiling:
    """All axes together: arrays into the factors of the products, and back.

    The factors of x and y have axes (product, group, batch and position, channel), where x's channels carry
    the phases; the kernel's has (product, group, channel of x, channel of y).
    """

    def __init__(self, form: Form) -> None:
        w = form.window
        dilation = [1 if k == 1 else d for k, d in zip(w.kernel, w.dilation, strict=True)]
        self.form = form
        self.axes = list(map(_Axis, w.low, w.big, w.small, w.kernel, w.stride, dilation))
        self.ranks = [axis.algorithm.rank for axis in self.axes]
        self.spread = [size for axis in self.axes for size in (axis.tiles, axis.dilation)]

    def lift_x(self, x: jax.Array) -> jax.Array:
        """X x. On the way: (*products, g, n, tile, residue, phase, tile, residue, phase, ..., c)."""
        x, rank = self._lift(_turned(x), "x", first=2), len(self.axes)
        phases = range(rank + 4, 4 * rank + 2, 3)
        positions = [axis for axis in range(rank + 1, 4 * rank + 2) if axis not in phases]
        x = lax.transpose(x, [*range(rank + 1), *positions, *phases, 4 * rank + 2])
        return _merged(x, rank, 1, len(positions))

    def drop_x(self, x: jax.Array, n: int) -> jax.Array:
        """X^T x, by the same way back."""
        stride, rank = self.form.window.stride, len(self.axes)
        channels = x.shape[-1] // math.prod(stride)
        x = x.reshape(*self.ranks, self.form.groups, n, *self.spread, *stride, channels)
        space = [(rank + 2 + 2 * i, rank + 3 + 2 * i, 3 * rank + 2 + i) for i in range(rank)]
        x = lax.transpose(x, [*range(rank + 2), *itertools.chain(*space), 4 * rank + 2])
        return _turned(self._drop(x, "x", first=2))

    def lift_y(self, y: jax.Array) -> jax.Array:
        """Y y. On the way: (*products, g, n, tile, residue, tile, residue, ..., o)."""
        y, rank = self._lift(_turned(y), "y", first=2), len(self.axes)
        return _merged(y, rank, 1, 2 * rank + 1)

    def drop_y(self, y: jax.Array, n: int) -> jax.Array:
        """Y^T y, by the same way back."""
        y = y.reshape(*self.ranks, self.form.groups, n, *self.spread, y.shape[-1])
        return _turned(self._drop(y, "y", first=2))

    def lift_kernel(self, kernel: jax.Array) -> jax.Array:
        """K kernel. On the way: (*products, g, *phases, c, o)."""
        rank = len(self.axes)
        return _merged(self._lift(kernel, "kernel", first=1), rank, 1, rank + 1)

    def drop_kernel(self, kernel: jax.Array) -> jax.Array:
        """K^T kernel, by the same way back."""
        stride, o = self.form.window.stride, kernel.shape[-1]
        kernel = kernel.reshape(*self.ranks, self.form.groups, *stride, -1, o)
        return self._drop(kernel, "kernel", first=1)

    def dot(self, subscripts: str, a: jax.Array, b: jax.Array, dtype: np.dtype) -> jax.Array:
        precision = self.form.precision
        return jnp.einsum(subscripts, a, b, precision=precision, preferred_element_type=dtype)

    def images_per_block(self, n: int, c: int, o: int, dtype: np.dtype) -> int:
        """As many images as lay out no more than BLOCK_BYTES on both sides of the dots."""
        return items_per_block(n, self.form.groups * self.group_bytes(c, o, dtype), BLOCK_BYTES)

    def groups_per_block(self, n: int, c: int, o: int, dtype: np.dtype) -> int:
        """As many groups, each of all images, as lay out no more."""
        return items_per_block(self.form.groups, n * self.group_bytes(c, o, dtype), BLOCK_BYTES)

    def group_bytes(self, c: int, o: int, dtype: np.dtype) -> int:
        """What one group of one image lays out on both sides of the dots."""
        return math.prod(self.ranks) * math.prod(self.spread) * (c + o) * np.dtype(dtype).itemsize

    def _lift(self, a: jax.Array, role: str, first: int) -> jax.Array:
        """An axis of products for every spatial axis, in front; spatial axes begin at `first`.

        The last axis goes first, so that the others stay where they are.
        """
        for axis in reversed(self.axes):
            matrix, split = getattr(axis.algorithm, role), getattr(axis, f"split_{role}")
            a = jnp.stack(_combined(matrix, split(a, len(self.axes) - 1 + first)))
        return a

    def _drop(self, a: jax.Array, role: str, first: int) -> jax.Array:
        """The transpose of `_lift`."""
        for axis in self.axes:
            matrix, join = getattr(axis.algorithm, role).T, getattr(axis, f"join_{role}")
            pieces = [lax.index_in_dim(a, j, 0, False) for j in range(axis.algorithm.rank)]
            a = join(_combined(matrix, pieces), len(self.axes) - 1 + first)
        return a


def _combined(matrix: np.ndarray, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The matrix times the arrays; it is mostly zeros and ones."""

    def term(factor: float, a: jax.Array) -> jax.Array:
        return a if factor == 1 else -a if factor == -1 else a * np.asarray(factor, a.dtype)

    return [
        functools.reduce(
            operator.add,
            (term(f, a) for f, a in zip(row, arrays, strict=True) if f != 0),
        )
        for row in matrix
    ]


def _turned(a: jax.Array) -> jax.Array:
    """Images and groups in each other's place."""
    n, g, *rest = a.shape
    return a.reshape(g, n, *rest) if 1 in (n, g) else a.swapaxes(0, 1)


def _merged(a: jax.Array, *counts: int) -> jax.Array:
    """Axes in groups of so many, and the rest, each merged into one."""
    starts = [0, *itertools.accumulate(counts), a.ndim]
    return a.reshape([math.prod(a.shape[i:j]) for i, j in itertools.pairwise(starts)])
