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
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jdeconv._jax import transposed
from jdeconv.axes import padded, reshaped
from jdeconv.checks import (
    Ints,
    Padding,
    array,
    cells,
    has_batch,
    integers,
    refused,
    reporting,
    sizes,
    space,
)
from jdeconv.form import Axes, accumulator, axes_of
from jdeconv.window import Window

# Blocks of taps on one axis. Beyond them it is a gather, because compile time grows with the number of slices.
MAX_BLOCKS = 128


@reporting()
def im2col(
    x: ArrayLike,
    kernel_size: Sequence[int],
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    dimension_numbers: str | None = None,
) -> jax.Array:
    """Returns the columns of x: every window, written along the channel axis.

    Formula: ``columns[n, (c, t), q] = x[n, c, q*stride + t*dilation - low]``, zero outside of x. The rows
    (c, t) are in Caffe's order: channel first, then the kernel's axes, the last one fastest.

    Shapes (n batch, c channels, i input, k kernel, q windows, one of each per axis):
      x (n, c, *i) -> columns (n, c*prod(k), *q).

    Args:
      x: the array. The batch axis may be absent; the result then has none either.
      kernel_size: one int for each spatial axis.
      stride, padding, dilation: as in `jdeconv.conv`.
      dimension_numbers: the layout of x and of the columns, such as "NHWC"; None means channels first.

    Returns:
      The columns, in x's dtype.

    Raises:
      TypeError, ValueError: if arguments do not fit, as in `jdeconv.conv`.

    Differentiation: this is a `jax.custom_vjp` function with derivatives of any order. The backward pass is
    col2im.

    Example:
      >>> im2col(jnp.array([[[1, 2, 3, 4]]]), (2,)).tolist()
      [[[1, 2, 3], [2, 3, 4]]]

    Source: Caffe's im2col_nd_cpu.
    """
    kernel_size, axes, a, batched = _read("x", x, kernel_size, dimension_numbers)
    steps: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    window = Window.of_conv(space("x", a, axes[2:]), kernel_size, **steps)
    batch, channels = (a.shape[axis] for axis in axes[:2])
    cells("kernel_size", (batch, channels * math.prod(window.kernel), *window.small))
    columns = _im2col(a, window, axes)
    return columns if batched else jnp.squeeze(columns, axes[0])


@reporting(small="columns")
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
    """Returns the array to which every column is added at its window: the adjoint of `im2col`.

    Formula: ``x[n, c, b] = sum of columns[n, (c, t), q] over the (q, t) with b = q*stride + t*dilation - low``.

    Shapes: columns (n, c*prod(k), *q) -> x (n, c, *output_size), in the letters of `im2col`.

    Args:
      columns: the array. The batch axis may be absent; the result then has none either.
      output_size: the spatial size of the result, an int or one per axis.
      kernel_size, stride, padding, dilation, dimension_numbers: those of the `im2col`.

    Returns:
      The array x, in the columns' dtype.

    Raises:
      TypeError, ValueError: if arguments do not fit, or the columns do not have the shape for this size.

    Differentiation: this is a `jax.custom_vjp` function with derivatives of any order. The backward pass is
    im2col.

    Example: the windows overlap in the middle, and these cells are counted twice.
      >>> col2im(jnp.array([[[1, 2, 3], [2, 3, 4]]]), 4, (2,)).tolist()
      [[[1, 4, 6, 4]]]

    Source: Caffe's col2im_nd_cpu; PyTorch calls it fold, ONNX Col2Im.
    """
    kernel_size, axes, a, batched = _read("columns", columns, kernel_size, dimension_numbers)
    output_size = integers("output_size", output_size, len(kernel_size), symbolic=True)
    steps: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    small = space("columns", a, axes[2:])
    window = Window.of_deconv(small, kernel_size, **steps, output_size=output_size)
    rows, taps = a.shape[axes[1]], math.prod(window.kernel)
    if rows % taps:
        reason = f"needs a multiple of the kernel's {taps} taps on the channel axis, got {rows}"
        raise refused("columns", reason)
    x = _col2im(a, window, axes)
    return x if batched else jnp.squeeze(x, axes[0])


def _read(
    name: str, a: Any, kernel_size: Any, dimension_numbers: Any
) -> tuple[tuple[int, ...], Axes, jax.Array, bool]:
    """Kernel size, axes, the array with a batch axis, and whether it came with one."""
    kernel_size = sizes("kernel_size", kernel_size)
    if not kernel_size:
        raise refused("kernel_size", "needs at least one spatial axis, got ()")
    axes = axes_of(dimension_numbers, "NC", len(kernel_size))
    a = array(name, a)
    batched = has_batch(name, a, len(kernel_size))
    return kernel_size, axes, a if batched else jnp.expand_dims(a, axes[0]), batched


@partial(jax.jit, static_argnums=(1, 2))
def _plain_im2col(x: jax.Array, window: Window, axes: Axes) -> jax.Array:
    columns = unfold(lax.transpose(x, axes), window, space=2, tap=2)
    shape = (x.shape[axes[0]], x.shape[axes[1]] * math.prod(window.kernel), *window.small)
    return lax.transpose(columns.reshape(shape), np.argsort(axes))


@partial(jax.jit, static_argnums=(1, 2))
def _plain_col2im(columns: jax.Array, window: Window, axes: Axes) -> jax.Array:
    columns = lax.transpose(columns, axes)
    channels = columns.shape[1] // math.prod(window.kernel)
    columns = columns.reshape(columns.shape[0], channels, *window.kernel, *window.small)
    x = fold(columns.astype(accumulator(columns.dtype)), window, space=2, tap=2)
    return lax.transpose(x.astype(columns.dtype), np.argsort(axes))


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


def unfold(x: jax.Array, window: Window, *, space: int, tap: int) -> jax.Array:
    """Columns of x: each spatial axis, from `space` on, yields one of taps, from `tap` on.

    From (N, C, *big), space=2 and tap=2 give (N, C, *kernel, *small); from (N, *big, C), space=1 and
    tap=1+rank give (N, *small, *kernel, C).
    """
    rank = window.rank
    for i in reversed(range(rank)):  # so that larger copies move longer runs of memory
        # Taps that are out stand in front of space, or behind it.
        axis = space + rank - 1 if tap <= space else space + i
        x = _gather(x, window, i, axis, tap)
    return x


def fold(columns: jax.Array, window: Window, *, space: int, tap: int) -> jax.Array:
    """The adjoint of `unfold`: every column added back to where its window lay."""
    axes = [axis for axis in range(columns.ndim) if not 0 <= axis - tap < window.rank]
    shape = [columns.shape[axis] for axis in axes]
    shape[space : space + window.rank] = window.big
    return transposed(partial(unfold, window=window, space=space, tap=tap), columns, shape, axes)


def _gather(x: jax.Array, w: Window, i: int, axis: int, tap: int) -> jax.Array:
    """Rank-1 im2col of spatial axis i: one slice for each block of taps, stacked.

    Tap t = r*stride + b of position q reads x[(q + r)*stride + b]. So a block r, which has a tap for each phase
    b, is a slice without gaps of the phases of x. Such blocks of a dilated kernel would also hold the cells
    between its taps. So each of its taps is a block by itself, and its slice takes every stride-th cell.
    """
    k, s, d = w.kernel[i], w.stride[i], w.dilation[i]
    phases, hop, step, blocks = (s, 1, 1, -(-k // s)) if d == 1 else (1, s, d, k)
    length = -(-w.full[i] // phases)
    x = padded(x, axis, w.low[i], length * phases - w.low[i] - w.big[i])
    if phases > 1:
        x = reshaped(x, axis, 1, (length, phases))
    is_behind = tap > axis and phases > 1
    if blocks > MAX_BLOCKS:
        # Counted in the program: as a table of numbers it would be as large as the columns of one channel.
        r, q = (lax.broadcasted_iota(np.int32, (blocks, w.small[i]), j) for j in (0, 1))
        columns = jnp.take(x, r * step + q * hop, axis, mode="clip")
        columns = jnp.moveaxis(columns, axis, tap + is_behind)
    else:
        extent = (w.small[i] - 1) * hop + 1
        # The transpose adds them up from the last one that was made: on each axis in the order of the taps.
        starts = [r * step for r in reversed(range(blocks))]
        slices = [lax.slice_in_dim(x, r, r + extent, hop, axis) for r in starts]
        columns = jnp.stack(slices[::-1], tap + is_behind)
    if phases == 1:
        return columns
    columns = jnp.moveaxis(columns, axis + 2 - is_behind, tap + 1)  # phases behind blocks
    columns = reshaped(columns, tap, 2, (blocks * phases,))
    return lax.slice_in_dim(columns, 0, k, axis=tap)
