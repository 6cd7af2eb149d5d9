"""XLA's own forward convolution with channels last and no group: the form that its CPU backend compiles well.

    conv         lax's convolution over the last two axes; the taps of the axes before them are channels
    deconv       the same of y with the reversed kernel, its channels swapped
    kernel_grad  im2col on both sides: x unfolds by the taps of all axes but the last, y by those of the
                 last, so that both have few columns and the dot between them is nearly square

On CPU, XLA hands this form to a library that needs no columns, in loops too, where the same convolution with
channels first takes 20 to 40 times as long (jax #12868). So arrays are transposed to it, groups go one
after the other, and the kernel is reversed in memory: a reversed window would leave the fast path.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.im2col import unfold
from jdeconv.lowerings.vendor import cropped
from jdeconv.problem import Problem
from jdeconv.window import Window, only, turned

MAX_GROUPS = 16  # compile time grows with them


def refuses(p: Problem) -> str | None:
    """The reason why there is no such form."""
    if p.g > MAX_GROUPS:
        return f"nhwc unrolls up to {MAX_GROUPS} groups, not {p.g}"
    if max(p.window.stride) > 1:
        return f"nhwc needs stride 1, not {p.window.stride}"
    return None


def laid_out(p: Problem) -> int:
    """The bytes of one image's columns on both sides."""
    if p.contraction == "kernel_grad":
        sides = [*zip(_sides(p.window), (p.c, p.o), strict=True)]
    elif p.window.rank <= 2:
        sides = []
    else:
        read = (p.window, p.c) if p.contraction == "conv" else (turned(p.window), p.o)
        sides = [(only(read[0], range(p.window.rank - 2)), read[1])]
    numbers = sum(math.prod((*side.kernel, *side.small, channels)) for side, channels in sides)
    return p.g * numbers * p.wide.itemsize


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution."""
    return _by_groups(lambda x, k: _convolution(x, k, p, p.window), p, x, kernel)


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution of y with the reversed kernel, whose channels are swapped."""

    def one(y: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = lax.optimization_barrier(jnp.flip(kernel, range(p.window.rank)))
        return _convolution(y, kernel.swapaxes(-1, -2), p, turned(p.window))

    return _by_groups(one, p, y, kernel)


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The dot of x's columns for the taps of all axes but the last, and y's for the taps of the last."""
    across, along = _sides(p.window)

    def columns(a: jax.Array, window: Window) -> jax.Array:
        a = unfold(a, window, space=1, tap=1 + window.rank)
        return a.reshape(-1, math.prod(window.kernel), a.shape[-1])

    def one(x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = columns(x, across), jnp.flip(columns(y, along), 1)
        options = {"precision": p.precision, "preferred_element_type": p.wide}
        kernel = jnp.einsum("ptc,puo->tuco", x, y, **options)
        return kernel.reshape(*p.window.kernel, p.c, p.o)

    return _by_groups(one, p, x, y)


def _sides(w: Window) -> tuple[Window, Window]:
    """The windows by which x and y unfold. A single axis stays with x."""
    n = max(1, w.rank - 1)
    return only(w, range(n)), only(turned(w), range(n, w.rank))


def _by_groups(one: Callable, p: Problem, a: jax.Array, b: jax.Array) -> jax.Array:
    """`one` of each group's channels; the group is the last axis but one of both operands and of the result."""
    if p.g == 1:
        return jnp.expand_dims(one(jnp.squeeze(a, -2), jnp.squeeze(b, -2)), -2)
    return jnp.stack([one(a[..., i, :], b[..., i, :]) for i in range(p.g)], -2)


def _convolution(a: jax.Array, kernel: jax.Array, p: Problem, w: Window) -> jax.Array:
    """XLA's convolution over the last two axes; the taps of the axes before them join the channels."""
    lead, rank = max(0, w.rank - 2), min(2, w.rank)
    if lead:
        a = unfold(a, only(w, range(lead)), space=1, tap=1 + w.rank)
        a = a.reshape(-1, *w.big[lead:], math.prod(w.kernel[:lead]) * kernel.shape[-2])
        kernel = kernel.reshape(-1, *kernel.shape[lead:])
        kernel = jnp.moveaxis(kernel, 0, rank)
        kernel = kernel.reshape(*w.kernel[lead:], -1, kernel.shape[-1])
    last = (0, rank + 1, *range(1, rank + 1))
    a, padding = cropped(a, last[2:], w.padding[lead:])
    out = lax.conv_general_dilated(
        lax.optimization_barrier(a),
        kernel,
        (1,) * rank,
        padding,
        rhs_dilation=w.dilation[lead:],
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        precision=p.precision,
        preferred_element_type=p.answer,
    )
    return out.reshape(-1, *w.small, out.shape[-1]) if lead else out
