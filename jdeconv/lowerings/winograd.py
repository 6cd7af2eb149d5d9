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
from jdeconv.problem import Problem


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


def refuses(p: Problem) -> str | None:
    """The reason why no short algorithm serves."""
    w = p.window
    if not jnp.issubdtype(p.wide, jnp.inexact):
        return f"winograd halves sums of the kernel, which {p.wide} cannot hold"
    if p.precision not in (None, lax.Precision.DEFAULT):
        return f"winograd's sums round a little more than the precision {p.precision} that was asked for"
    for k, s, d in zip(w.kernel, w.stride, w.dilation, strict=True):
        if s > 1 and d > 1 and k > 1:
            return f"winograd takes stride or dilation on an axis, not stride {s} with dilation {d}"
        if -(-k // s) not in ALGORITHMS:
            return f"winograd has no algorithm for {-(-k // s)} taps (kernel {k}, stride {s})"
    return None


def products(p: Problem) -> float:
    """Multiplications, as a share of those that the definition takes; the last tile may be half empty."""
    shares = []
    for axis in _Tiling(p).axes:
        taken = axis.tiles * axis.dilation * axis.algorithm.rank * axis.stride
        shares.append(taken / (axis.small * axis.kernel))
    return math.prod(shares)


def tile(p: Problem, axis: int) -> int:
    """The positions of y in a whole tile."""
    tiled = _Tiling(p).axes[axis]
    return tiled.algorithm.positions * tiled.dilation


def laid_out(p: Problem) -> int:
    """The bytes of one image on both sides of the dots."""
    tiling = _Tiling(p)
    numbers = math.prod(tiling.ranks) * math.prod(tiling.spread) * (p.c * p.phases + p.o)
    return p.g * numbers * p.wide.itemsize


def enter_kernel(kernel: jax.Array, p: Problem) -> jax.Array:
    """K kernel, with axes (product, group, channel of x and phase, channel of y)."""
    return _Tiling(p).lift_kernel(jnp.moveaxis(kernel, -2, 0).astype(p.wide))


def leave_kernel(kernel: jax.Array, p: Problem) -> jax.Array:
    """K^T of the same, and the kernel's axes."""
    return jnp.moveaxis(_Tiling(p).drop_kernel(kernel), 0, -2)


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """For every j, one dot over the channels of x: y = Y^T (K kernel * X x)."""
    tiling = _Tiling(p)
    return tiling.drop_y(tiling.dot("jgpc,jgco->jgpo", tiling.lift_x(x), kernel))


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """For every j, one dot over the channels of y: x = X^T (K kernel * Y y)."""
    tiling = _Tiling(p)
    return tiling.drop_x(tiling.dot("jgpo,jgco->jgpc", tiling.lift_y(y), kernel))


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """For every j, one dot over batch and positions: kernel = K^T (X x * Y y)."""
    tiling = _Tiling(p)
    return tiling.dot("jgpc,jgpo->jgco", tiling.lift_x(x), tiling.lift_y(y))


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

    def __init__(self, p: Problem) -> None:
        w = p.window
        dilation = [1 if k == 1 else d for k, d in zip(w.kernel, w.dilation, strict=True)]
        self.p = p
        self.axes = list(map(_Axis, w.low, w.big, w.small, w.kernel, w.stride, dilation))
        self.ranks = [axis.algorithm.rank for axis in self.axes]
        self.spread = [size for axis in self.axes for size in (axis.tiles, axis.dilation)]

    def lift_x(self, x: jax.Array) -> jax.Array:
        """X x. On the way: (*products, g, n, tile, residue, phase, tile, residue, phase, ..., c)."""
        x, rank = self._lift(self._groups_outside(x), "x", first=2), len(self.axes)
        phases = range(rank + 4, 4 * rank + 2, 3)
        positions = [axis for axis in range(rank + 1, 4 * rank + 2) if axis not in phases]
        x = lax.transpose(x, [*range(rank + 1), *positions, *phases, 4 * rank + 2])
        return _merged(x, rank, 1, len(positions))

    def drop_x(self, x: jax.Array) -> jax.Array:
        """X^T x, by the same way back."""
        stride, rank = self.p.window.stride, len(self.axes)
        x = x.reshape(*self.ranks, self.p.g, self.p.n, *self.spread, *stride, self.p.c)
        space = [(rank + 2 + 2 * i, rank + 3 + 2 * i, 3 * rank + 2 + i) for i in range(rank)]
        x = lax.transpose(x, [*range(rank + 2), *itertools.chain(*space), 4 * rank + 2])
        return jnp.moveaxis(self._drop(x, "x", first=2), 0, -2)

    def lift_y(self, y: jax.Array) -> jax.Array:
        """Y y. On the way: (*products, g, n, tile, residue, tile, residue, ..., o)."""
        y, rank = self._lift(self._groups_outside(y), "y", first=2), len(self.axes)
        return _merged(y, rank, 1, 2 * rank + 1)

    def drop_y(self, y: jax.Array) -> jax.Array:
        """Y^T y, by the same way back."""
        y = y.reshape(*self.ranks, self.p.g, self.p.n, *self.spread, self.p.o)
        return jnp.moveaxis(self._drop(y, "y", first=2), 0, -2)

    def lift_kernel(self, kernel: jax.Array) -> jax.Array:
        """K kernel. On the way: (*products, g, *phases, c, o)."""
        rank = len(self.axes)
        return _merged(self._lift(kernel, "kernel", first=1), rank, 1, rank + 1)

    def drop_kernel(self, kernel: jax.Array) -> jax.Array:
        """K^T kernel, by the same way back."""
        shape = *self.ranks, self.p.g, *self.p.window.stride, self.p.c, self.p.o
        return self._drop(kernel.reshape(shape), "kernel", first=1)

    def dot(self, subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
        options = {"precision": self.p.precision, "preferred_element_type": self.p.wide}
        return jnp.einsum(subscripts, a, b, **options)

    def _groups_outside(self, a: jax.Array) -> jax.Array:
        return jnp.moveaxis(a.astype(self.p.wide), -2, 0)

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


def _merged(a: jax.Array, *counts: int) -> jax.Array:
    """Axes in groups of so many, and the rest, each merged into one."""
    starts = [0, *itertools.accumulate(counts), a.ndim]
    return a.reshape([math.prod(a.shape[i:j]) for i, j in itertools.pairwise(starts)])
