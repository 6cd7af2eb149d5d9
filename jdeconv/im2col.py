"""im2col and col2im: the matrix of all windows, and its adjoint, one spatial axis at a time.

A conv is a matrix product once every window lies in a column of its own:

    im2col:  columns[n, c, t, q] = x[n, c, q*stride + t*dilation - low]
    col2im:  x[n, c, b] = sum of columns[n, c, t, q] over the (q, t) with b = q*stride + t*dilation - low

Both factor over the axes: a window of rank r is r windows of rank 1 in turn, which costs the sum of the
kernel's sizes in copies where all taps at once would cost their product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.checks import Ints, Padding, integers, refused
from jdeconv.window import Window


def unfold(x: jax.Array, window: Window, *, channels_last: bool) -> jax.Array:
    """Columns of x: (N, C, *big) -> (N, C, *kernel, *small); last: (N, *big, C) -> (N, *small, *kernel, C)."""
    for i in reversed(range(window.rank)):
        x = _gather(x, window, i, *_axis_and_tap(window.rank, i, channels_last))
    return x


def fold(columns: jax.Array, window: Window, *, channels_last: bool) -> jax.Array:
    """The adjoint of `unfold`: every column added back to where its window lay."""
    for i in range(window.rank):
        columns = _scatter(columns, window, i, *_axis_and_tap(window.rank, i, channels_last))
    return columns


def _axis_and_tap(rank: int, i: int, channels_last: bool) -> tuple[int, int]:
    """Where spatial axis i stands when it unfolds, and where its taps go.

    The last axis unfolds first, so that later and larger copies move longer runs of memory.
    """
    return (1 + i, 1 + rank) if channels_last else (1 + rank, 2)


def _gather(x: jax.Array, w: Window, i: int, axis: int, tap: int) -> jax.Array:
    """Rank-1 im2col of spatial axis i: one strided slice for each tap, stacked."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (w.low[i], w.high[i], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    extent = (w.small[i] - 1) * w.stride[i] + 1
    starts = [t * w.dilation[i] for t in range(w.kernel[i])]
    slices = [lax.slice_in_dim(x, t, t + extent, w.stride[i], axis) for t in starts]
    return jnp.stack(slices, tap)


def _scatter(columns: jax.Array, w: Window, i: int, axis: int, tap: int) -> jax.Array:
    """Rank-1 col2im of spatial axis i, by phases.

    Tap t lands on positions q*s + t*d, all of one residue modulo s. So each residue is a sum of shifted
    slices without gaps, and the residues interleave into the array: no zero is ever inserted or added.
    """
    stride, dilation = w.stride[i], w.dilation[i]
    length = -(-w.full[i] // stride)
    phases: list = [0] * stride
    for t in range(w.kernel[i]):
        shift, phase = divmod(t * dilation, stride)
        piece = lax.index_in_dim(columns, t, tap, keepdims=False)
        edges = [(0, 0, 0)] * piece.ndim
        edges[axis] = (shift, length - shift - w.small[i], 0)
        phases[phase] += lax.pad(piece, jnp.zeros((), piece.dtype), edges)
    shape = next(p.shape for p in phases if not isinstance(p, int))
    x = jnp.stack([jnp.broadcast_to(jnp.asarray(p, columns.dtype), shape) for p in phases], axis + 1)
    x = x.reshape(*shape[:axis], length * stride, *shape[axis + 1 :])
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (-w.low[i], w.low[i] + w.big[i] - length * stride, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
