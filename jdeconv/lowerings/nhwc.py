"""XLA's own forward convolution with channels last and no group: the form that its CPU backend compiles well.

    conv         lax's convolution
    deconv       lax's convolution of y with the reversed kernel, its channels swapped
    kernel_grad  im2col on both sides: x unfolds by the taps of all axes but the last, y by those of the
                 last, so that both have few columns and the dot between them is nearly square

On CPU, XLA hands this form to a library that needs no columns, in loops too, where the same convolution with
channels first takes 20 to 40 times as long (jax #12868). So arrays are transposed to it, groups go one
after the other, and the kernel is reversed in memory: a reversed window would leave the fast path.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.im2col import unfold
from jdeconv.lowerings.vendor import cropped
from jdeconv.problem import Problem
from jdeconv.window import Window

MAX_GROUPS = 16  # compile time grows with them


def refuses(p: Problem) -> str | None:
    """The reason why there is no such form."""
    if p.g > MAX_GROUPS:
        return f"nhwc unrolls up to {MAX_GROUPS} groups, not {p.g}"
    if max(p.window.stride) > 1:
        return f"nhwc needs stride 1, not {p.window.stride}"
    return None


def laid_out(p: Problem) -> int:
    """The bytes of one image's columns on both sides, in a kernel's gradient."""
    if p.contraction != "kernel_grad":
        return 0
    sides = _Sides(p.window)
    widths = math.prod(sides.x.kernel) * p.c + math.prod(sides.y.kernel) * p.o
    return p.g * widths * math.prod(sides.x.small) * p.wide.itemsize


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution."""
    return _by_groups(lambda x, k: _convolution(x, k, p, p.window.padding), p, x, kernel)


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution of y with the reversed kernel, padded by what of the span the padding leaves."""
    w = p.window
    edges = zip(w.span, w.padding, strict=True)
    padding = [(span - 1 - low, span - 1 - high) for span, (low, high) in edges]

    def one(y: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = lax.optimization_barrier(jnp.flip(kernel, range(w.rank)))
        return _convolution(y, kernel.swapaxes(-1, -2), p, padding)

    return _by_groups(one, p, y, kernel)


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The dot of x's columns for the taps of all axes but the last, and y's for the taps of the last."""
    sides = _Sides(p.window)

    def one(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = sides.unfold(x, sides.x), jnp.flip(sides.unfold(y, sides.y), 1)
        options = {"precision": p.precision, "preferred_element_type": p.wide}
        kernel = jnp.einsum("ptc,puo->tuco", x, y, **options)
        return kernel.reshape(*p.window.kernel, p.c, p.o)

    return _by_groups(one, p, x, y)


class _Sides:
    """The windows by which x and y unfold. On the last axis, y's window is the transpose of the form's."""

    def __init__(self, w: Window) -> None:
        ones, zeros = (1,) * w.rank, (0,) * w.rank
        n = max(1, w.rank - 1)  # axes of x; a single one stays with x
        between = (*w.small[:n], *w.big[n:])  # positions that both sides share
        self.x = dataclasses.replace(
            w, small=between, kernel=(*w.kernel[:n], *ones[n:]), low=(*w.low[:n], *zeros[n:])
        )
        turned = [span - 1 - low for span, low in zip(w.span[n:], w.low[n:], strict=True)]
        self.y = dataclasses.replace(
            w,
            big=w.small,
            small=between,
            kernel=(*ones[:n], *w.kernel[n:]),
            low=(*zeros[:n], *turned),
        )

    def unfold(self, a: jax.Array, window) -> jax.Array:
        """Columns (batch and position, tap, channel)."""
        columns = unfold(a, window, space=1, tap=1 + window.rank)
        return columns.reshape(-1, math.prod(window.kernel), columns.shape[-1])


def _by_groups(one: Callable, p: Problem, a: jax.Array, b: jax.Array) -> jax.Array:
    """`one` of each group's channels; the group is the last axis but one of both operands and of the result."""
    if p.g == 1:
        return jnp.expand_dims(one(jnp.squeeze(a, -2), jnp.squeeze(b, -2)), -2)
    return jnp.stack([one(a[..., i, :], b[..., i, :]) for i in range(p.g)], -2)


def _convolution(a: jax.Array, kernel: jax.Array, p: Problem, padding) -> jax.Array:
    rank = p.window.rank
    last = (0, rank + 1, *range(1, rank + 1))
    a, padding = cropped(a, last[2:], padding)
    return lax.conv_general_dilated(
        lax.optimization_barrier(a),
        kernel,
        (1,) * rank,
        padding,
        rhs_dilation=p.window.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        precision=p.precision,
        preferred_element_type=p.answer,
    )
