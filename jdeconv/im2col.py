"""im2col and col2im: the matrix of all windows, and its adjoint, one spatial axis at a time.

A conv is a matrix product once every window lies in a column of its own:

    im2col:  columns[n, c, t, q] = x[n, c, q*stride + t*dilation - low]
    col2im:  x[n, c, b] = sum of columns[n, c, t, q] over the (q, t) with b = q*stride + t*dilation - low

Both factor over the axes: a window of rank r is r windows of rank 1 in turn, which costs the sum of the
kernel's sizes in copies where all taps at once would cost their product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jdeconv.checks import Ints, Padding, array, refused
from jdeconv.form import Axes, array_axes
from jdeconv.window import Window


def im2col(
    x: ArrayLike,
    kernel_size: Sequence[int],
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    dimension_numbers: str | None = None,
) -> jax.Array:
    """The columns of x: every window laid out along the channel axis.

    Formula: ``columns[n, (c, t), q] = x[n, c, q*stride + t*dilation - low]``, zero outside of x. The rows
    (c, t) are in Caffe's order: channel first, then the kernel's axes, the last one fastest.

    Shapes (n batch, c channels, i input, k kernel, q windows, one of each per axis):
      x (n, c, *i) -> columns (n, c*prod(k), *q).

    Args:
      x: the array; the batch axis may be absent, in the result then too.
      kernel_size: one int per spatial axis; their count is the rank.
      stride, padding, dilation: as in `jdeconv.conv`.
      dimension_numbers: the layout of x and of the columns, such as "NHWC"; None is "NCHW" of that rank.

    Returns:
      The columns, in x's dtype.

    Raises:
      TypeError, ValueError: for arguments that do not fit, as in `jdeconv.conv`.

    Differentiation: a `jax.custom_vjp` function, to any order; the backward pass is col2im.

    Example:
      >>> im2col(jnp.array([[[1, 2, 3, 4]]]), (2,)).tolist()
      [[[1, 2, 3], [2, 3, 4]]]

    Source: Caffe's im2col_nd_cpu.
    """
    kernel_size, axes, x, batched = _read("im2col", "x", x, kernel_size, dimension_numbers)
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    window = Window.of_conv([x.shape[a] for a in axes[2:]], kernel_size, **steps, call="im2col")
    columns = _im2col(x, window, axes)
    return columns if batched else jnp.squeeze(columns, axes[0])


def col2im(
    columns: ArrayLike,
    output_size: Ints,
    kernel_size: Sequence[int],
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    dimension_numbers: str | None = None,
) -> jax.Array:
    """The adjoint of `im2col`: every column added back to where its window lay.

    Formula: ``x[n, c, b] = sum of columns[n, (c, t), q] over the (q, t) with b = q*stride + t*dilation - low``.

    Shapes: columns (n, c*prod(k), *q) -> x (n, c, *output_size), in the letters of `im2col`.

    Args:
      columns: the array; the batch axis may be absent, in the result then too.
      output_size: the spatial size of the result, an int or one per axis.
      kernel_size, stride, padding, dilation, dimension_numbers: those of the `im2col` that this reverses.

    Returns:
      The array x, in the columns' dtype.

    Raises:
      TypeError, ValueError: for arguments that do not fit, and columns that are not those of this size.

    Differentiation: a `jax.custom_vjp` function, to any order; the backward pass is im2col.

    Example: the windows overlap in the middle, which therefore counts twice.
      >>> col2im(jnp.array([[[1, 2, 3], [2, 3, 4]]]), 4, (2,)).tolist()
      [[[1, 4, 6, 4]]]

    Source: Caffe's col2im_nd_cpu; PyTorch calls it fold, ONNX Col2Im.
    """
    kernel_size, axes, columns, batched = _read(
        "col2im", "columns", columns, kernel_size, dimension_numbers
    )
    small = [columns.shape[a] for a in axes[2:]]
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    window = Window.of_deconv(small, kernel_size, **steps, output_size=output_size, call="col2im")
    if columns.shape[axes[1]] % math.prod(window.kernel):
        reason = (
            f"its channel axis must hold a multiple of the kernel's {math.prod(window.kernel)} taps"
        )
        raise refused("col2im", "columns", columns, reason)
    x = _col2im(columns, window, axes)
    return x if batched else jnp.squeeze(x, axes[0])


def _read(call: str, name: str, a: Any, kernel_size: Any, dimension_numbers: Any):
    """Kernel size, axes, the array with a batch axis, and whether it came with one."""
    if not isinstance(kernel_size, tuple | list) or not kernel_size:
        reason = "expected a tuple with one int for each spatial axis"
        raise refused(call, "kernel_size", kernel_size, reason, TypeError)
    rank = len(kernel_size)
    axes = array_axes(call, dimension_numbers, rank)
    a = array(call, name, a)
    if a.ndim not in (rank + 1, rank + 2):
        reason = f"{rank} spatial axes need {rank + 2} axes, or {rank + 1} without a batch"
        raise refused(call, name, a, reason)
    batched = a.ndim == rank + 2
    return kernel_size, axes, a if batched else jnp.expand_dims(a, axes[0]), batched


def _plain_im2col(x: jax.Array, window: Window, axes: Axes) -> jax.Array:
    columns = unfold(lax.transpose(x, axes), window, channels_last=False)
    shape = (x.shape[axes[0]], x.shape[axes[1]] * math.prod(window.kernel), *window.small)
    return lax.transpose(columns.reshape(shape), np.argsort(axes))


def _plain_col2im(columns: jax.Array, window: Window, axes: Axes) -> jax.Array:
    columns = lax.transpose(columns, axes)
    channels = columns.shape[1] // math.prod(window.kernel)
    columns = columns.reshape(columns.shape[0], channels, *window.kernel, *window.small)
    return lax.transpose(fold(columns, window, channels_last=False), np.argsort(axes))


def _dual(forward: Callable, backward: Callable) -> Callable:
    """A linear function whose backward pass is its adjoint, by name."""
    function = jax.custom_vjp(forward, nondiff_argnums=(1, 2))
    function.defvjp(
        lambda a, window, axes: (forward(a, window, axes), None),
        lambda window, axes, _, a_bar: (backward(a_bar, window, axes),),
    )
    return function


_im2col = _dual(_plain_im2col, _plain_col2im)
_col2im = _dual(_plain_col2im, _plain_im2col)


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
    x = jnp.stack(
        [jnp.broadcast_to(jnp.asarray(p, columns.dtype), shape) for p in phases], axis + 1
    )
    x = x.reshape(*shape[:axis], length * stride, *shape[axis + 1 :])
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (-w.low[i], w.low[i] + w.big[i] - length * stride, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)
