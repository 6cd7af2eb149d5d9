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
import numpy as np
from jax import lax

from jdeconv.form import Form
from jdeconv.im2col import unfold
from jdeconv.lowerings.arrange import arrange, restore
from jdeconv.lowerings.blocks import BLOCK_BYTES, items_per_block, sum_blocks
from jdeconv.lowerings.slabs import in_slabs
from jdeconv.lowerings.vendor import cropped

MAX_GROUPS = 16  # compile time grows with them


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """The reason why there is no such form."""
    if form.groups > MAX_GROUPS:
        return f"nhwc unrolls up to {MAX_GROUPS} groups, not {form.groups}"
    if max(form.window.stride) > 1:
        return f"nhwc needs stride 1, not {form.window.stride}"
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The forward convolution."""
    x, kernel = arrange(x, form, "x", last=True), arrange(kernel, form, "kernel", last=True)

    def one(x, kernel):
        return _convolution(x, kernel, form, dtype, form.window.padding)

    return restore(_by_groups(one, form.groups, x, kernel), form, "y", last=True)


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The forward convolution of y with the reversed kernel, padded by what of the span the padding leaves."""
    w = form.window
    y, kernel = arrange(y, form, "y", last=True), arrange(kernel, form, "kernel", last=True)
    edges = zip(w.span, w.padding, strict=True)
    padding = [(span - 1 - low, span - 1 - high) for span, (low, high) in edges]
    kernel = lax.optimization_barrier(jnp.flip(kernel, range(w.rank)))

    def one(y, kernel):
        return _convolution(y, kernel.swapaxes(-1, -2), form, dtype, padding)

    return restore(_by_groups(one, form.groups, y, kernel), form, "x", last=True)


def _columns_bytes(form: Form, c: int, o: int, dtype: np.dtype) -> int:
    """Of both sides, of one image."""
    sides = _Sides(form)
    widths = math.prod(sides.x.kernel) * c + math.prod(sides.y.kernel) * o
    return form.groups * widths * math.prod(sides.x.small) * np.dtype(dtype).itemsize


@in_slabs(_columns_bytes)
def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The dot of x's columns for the taps of all axes but the last, and y's for the taps of the last."""
    sides, shapes = _Sides(form), (x.shape, y.shape)
    x, y = arrange(x, form, "x", last=True), arrange(y, form, "y", last=True)

    def one(x, y):
        x, y = sides.unfold(x, sides.x), jnp.flip(sides.unfold(y, sides.y), 1)
        options = {"precision": form.precision, "preferred_element_type": dtype}
        return jnp.einsum("ptc,puo->tuco", x, y, **options)

    def block(x, y):
        kernel = _by_groups(one, form.groups, x, y)
        return kernel.reshape(*form.window.kernel, *kernel.shape[2:])

    per_image = _columns_bytes(form, *form.channels("kernel_grad", *shapes), dtype)
    size = items_per_block(x.shape[0], per_image, BLOCK_BYTES)
    return restore(sum_blocks(block, (x, y), size), form, "kernel", last=True)


class _Sides:
    """The windows by which x and y unfold. On the last axis, y's window is the transpose of the form's."""

    def __init__(self, form: Form) -> None:
        w, ones, zeros = form.window, (1,) * form.window.rank, (0,) * form.window.rank
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


def _by_groups(one: Callable, groups: int, a: jax.Array, b: jax.Array) -> jax.Array:
    """`one` of each group's channels, which are the last axis of both operands and of the result."""
    if groups == 1:
        return one(a, b)
    pairs = zip(jnp.split(a, groups, -1), jnp.split(b, groups, -1), strict=True)
    return jnp.concatenate([one(*pair) for pair in pairs], -1)


def _convolution(a: jax.Array, kernel: jax.Array, form: Form, dtype, padding) -> jax.Array:
    rank = form.window.rank
    last = (0, rank + 1, *range(1, rank + 1))
    a, padding = cropped(a, last[2:], padding)
    return lax.conv_general_dilated(
        lax.optimization_barrier(a),
        kernel,
        (1,) * rank,
        padding,
        rhs_dilation=form.window.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        precision=form.precision,
        preferred_element_type=form.answer(a.dtype, dtype),
    )
