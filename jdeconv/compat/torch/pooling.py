"""The pooling functions of `torch.nn.functional`.

Both kinds reduce one axis after the other, the last one first, so that a window of k x k takes 2k steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jdeconv.checks import (
    Ints,
    array,
    flag,
    has_batch,
    integer,
    integers,
    refused,
    reporting,
    shown,
    space,
)
from jdeconv.compat.torch.convolutions import named
from jdeconv.form import accumulator
from jdeconv.window import Window


def _max_pool(rank: int):
    @reporting()
    def max_pool(
        input: ArrayLike,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        """Returns what `torch.nn.functional.max_poolRANKd` returns: the largest number of each window.

        Shapes: input (n, c, *i) or without n -> (n, c, *q), where
        q = (i + 2*padding - dilation*(kernel_size - 1) - 1) // stride + 1, one of each per axis.

        Args:
          stride: None is kernel_size.
          padding: cells on both sides, at most half of the window. A padding cell is never the maximum.
          ceil_mode: whether q rounds up. A window that would start in the padding at the end is left out.
          return_indices: whether to also return the index of each number in the flattened spatial axes of
            input.

        Differentiation: if several numbers are the largest, the first one gets the gradient, as in PyTorch.

        Example:
          >>> import jax.numpy as jnp
          >>> max_poolRANKd(jnp.arange(4**RANK).reshape(1, *[4] * RANK), 2).ravel()[0] == (4**RANK - 1) // 3
          Array(True, dtype=bool)
        """
        a, window = _read(rank, input, kernel_size, stride, padding, dilation, ceil_mode)
        if jnp.iscomplexobj(a):
            raise refused("input", f"needs real numbers, got {shown(a)}", TypeError)
        is_floating = jnp.issubdtype(a.dtype, jnp.floating)
        least: Any = -jnp.inf if is_floating else jnp.iinfo(a.dtype).min
        if not flag("return_indices", return_indices):
            return _reduced(_better, [a], [least], window)[0]
        indices = np.arange(np.prod(window.big), dtype=np.int32).reshape(window.big)
        indices = jnp.broadcast_to(indices, a.shape)
        return tuple(_reduced(_better, [a, indices], [least, 0], window))

    return named(max_pool, rank)


def _avg_pool(rank: int):
    @reporting()
    def avg_pool(
        input: ArrayLike,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> jax.Array:
        """Returns what `torch.nn.functional.avg_poolRANKd` returns: the mean of each window.

        Shapes: as in `max_poolRANKd`.

        Args:
          stride, ceil_mode: as in `max_poolRANKd`.
          padding: zeros on both sides, at most half of the window.
          count_include_pad: whether the sum is divided by the number of all cells of the window, or only by
            the number of those that are not padding.
          divisor_override: a number by which to divide instead.

        Example:
          >>> import jax.numpy as jnp
          >>> avg_poolRANKd(jnp.ones((1, *[4] * RANK)), 2).shape == (1, *[2] * RANK)
          True
        """
        a, window = _read(rank, input, kernel_size, stride, padding, 1, ceil_mode)
        if not jnp.issubdtype(a.dtype, jnp.inexact):
            raise refused("input", f"needs floats, got {shown(a)}", TypeError)
        wide = a.astype(accumulator(a.dtype))
        (sums,) = _reduced(lambda a, b: [a[0] + b[0]], [wide], [0], window)
        edges = window.low if flag("count_include_pad", count_include_pad) else (0,) * rank
        if divisor_override is None:
            counts = _counts(window, edges)
        else:
            counts = np.array(integer("divisor_override", divisor_override, 1))
        counts = jnp.broadcast_to(jnp.asarray(counts, sums.dtype), sums.shape)
        return (sums / counts).astype(a.dtype)

    return named(avg_pool, rank)


max_pool1d, max_pool2d, max_pool3d = _max_pool(1), _max_pool(2), _max_pool(3)
avg_pool1d, avg_pool2d, avg_pool3d = _avg_pool(1), _avg_pool(2), _avg_pool(3)


def _read(rank: int, input: ArrayLike, kernel_size: Ints, stride, padding, dilation, ceil_mode):
    """The array, and the window over its spatial axes, whose high padding follows from the rounding."""
    a = array("input", input)
    has_batch("input", a, rank)
    big = space("input", a, range(a.ndim - rank, a.ndim))
    kernel = integers("kernel_size", kernel_size, rank, 1)
    stride = kernel if stride is None else integers("stride", stride, rank, 1)
    low, dilation = integers("padding", padding, rank, 0), integers("dilation", dilation, rank, 1)
    flag("ceil_mode", ceil_mode)
    small = []
    for i, k, s, p, d in zip(big, kernel, stride, low, dilation, strict=True):
        span = d * (k - 1) + 1
        if p > span // 2:
            raise refused(
                "padding", f"must be at most half of the {span} cells of a window, got {p}"
            )
        room = i + 2 * p - span
        if room < 0:
            reason = f"must span at most the {i + 2 * p} cells of the padded input, got {span}"
            raise refused("kernel_size", reason)
        q = room // s + 1
        if ceil_mode and room % s and q * s < i + p:
            q += 1
        small.append(q)
    return a, Window(big, tuple(small), kernel, stride, dilation, low)


def _reduced(
    combine: Callable[[list, list], list], arrays: list[jax.Array], fills: list, w: Window
) -> list[jax.Array]:
    """The taps of each window combined, first to last, the last axis first; `fills` are the padding."""
    for i in reversed(range(w.rank)):
        axis = arrays[0].ndim - w.rank + i
        edges = [(0, 0, 0)] * arrays[0].ndim
        edges[axis] = (w.low[i], w.high[i], 0)
        arrays = [
            lax.pad(a, jnp.asarray(fill, a.dtype), edges)
            for a, fill in zip(arrays, fills, strict=True)
        ]
        extent = (w.small[i] - 1) * w.stride[i] + 1
        taps = [
            [lax.slice_in_dim(a, t, t + extent, w.stride[i], axis) for a in arrays]
            for t in range(0, w.span[i], w.dilation[i])
        ]
        arrays = reduce(combine, taps)
    return arrays


def _better(best: list[jax.Array], new: list[jax.Array]) -> list[jax.Array]:
    """Of two lists the one that begins with the larger numbers, or with NaN; the first where they are equal."""
    is_better = (new[0] > best[0]) | (new[0] != new[0])
    return [jnp.where(is_better, b, a) for a, b in zip(best, new, strict=True)]


def _counts(w: Window, edges: tuple[int, ...]) -> np.ndarray:
    """How many cells each window has of the array and so many more on both of its sides."""
    counts = np.ones(())
    for i in range(w.rank):
        start = np.arange(w.small[i]) * w.stride[i] - w.low[i]
        last, first = w.big[i] + edges[i], -edges[i]
        cells = np.minimum(start + w.kernel[i], last) - np.maximum(start, first)
        counts = np.multiply.outer(counts, cells)
    return counts
