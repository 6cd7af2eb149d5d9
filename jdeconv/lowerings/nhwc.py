"""XLA's own forward convolution with channels last and no group: the form that its CPU backend compiles well.

    conv         lax's convolution over the last two axes; the taps of the axes before them are channels
    deconv       the same, of y with zeros between its cells and the reversed kernel with its channels swapped
    kernel_grad  the same, of x with y as the kernel; images become channels. If `_is_convolution` is False,
                 it is a dot: x unfolds by the taps of all axes but the last, and y by those of the last. So
                 both have few columns, and their matrix product is nearly square

On CPU, XLA hands this form to a library that needs no columns, in loops too, where the same convolution with
channels first takes 20 to 40 times as long (jax #12868). So arrays are transposed to it, groups are
evaluated one after the other, and the kernel is reversed in memory: XLA has no fast routine for a reversed
window.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.axes import edged
from jdeconv.im2col import unfold
from jdeconv.lowerings.vendor import cropped
from jdeconv.problem import Problem, items_per_block
from jdeconv.window import Window, exchanged, gapped, only, turned

MAX_GROUPS = 16  # compile time grows with them
BLOCK_BYTES = 5 << 20  # of one block of images
MIN_IMAGES = 4  # of a kernel's gradient by XLA's convolution


def refuses(p: Problem) -> str | None:
    """Returns the reason why there is no such form, or None."""
    if p.g > MAX_GROUPS:
        return f"nhwc unrolls up to {MAX_GROUPS} groups, not {p.g}"
    return None


def temporary_bytes(p: Problem) -> int:
    """The bytes of one image's columns on both sides, or those that XLA's convolution has in a cache."""
    if p.contraction == "kernel_grad":
        if _is_convolution(p):
            return 0 if p.window.rank == 1 else _image_bytes(p)
        sides = [*zip(_sides(p.window), (p.c, p.o), strict=True)]
    elif p.window.rank <= 2:
        sides = []
    else:
        read = (p.window, p.c) if p.contraction == "conv" else (turned(gapped(p.window)), p.o)
        sides = [(only(read[0], range(p.window.rank - 2)), read[1])]
    numbers = sum(math.prod((*side.kernel, *side.small, channels)) for side, channels in sides)
    return p.g * numbers * p.wide.itemsize


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution."""
    return _by_groups(lambda x, k: _convolution(x, k, p, p.window), p, x, kernel)


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution of y with the reversed kernel, whose channels are swapped."""
    w = p.window
    if p.phases > 1:
        gaps = ((0, 0, 0), *((0, 0, s - 1) for s in w.stride), (0, 0, 0))
        y, w = lax.pad(y, jnp.zeros((), y.dtype), gaps), gapped(w)

    def one(y: jax.Array, kernel: jax.Array) -> jax.Array:
        kernel = lax.optimization_barrier(jnp.flip(kernel, range(w.rank)))
        return _convolution(y, kernel.swapaxes(-1, -2), p, turned(w))

    return _by_groups(one, p, y, kernel)


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution of x with y as the kernel, or a dot of columns."""
    return _by_groups(lambda x, y: (_over_y if _is_convolution(p) else _dot)(x, y, p), p, x, y)


def _is_convolution(p: Problem) -> bool:
    """Whether a kernel's gradient is XLA's convolution too.

    Over more than two axes it is not. Under a stride it is, since the dot unfolds all taps of x there.
    Without a stride, it takes 0.6 to 1.1 times as long as the dot for 4 images or more, 0.6 to 1.3 times for
    fewer images of 32 to 64 channels over two axes, and up to four times for other few images. Over two axes
    it takes two to three times as long if a block of images leaves the cache.
    """
    rank = p.window.rank
    if rank > 2 or max(p.window.stride) > 1:
        return rank <= 2
    if p.is_symbolic:
        return False
    if rank == 1:
        return isinstance(p.n, int) and p.n >= MIN_IMAGES
    size = _image_bytes(p)
    is_middle = min(p.c, p.o) >= 32 and max(p.c, p.o) <= 64
    images = items_per_block(p.n, size, BLOCK_BYTES)
    return size <= BLOCK_BYTES and images >= (1 if is_middle else MIN_IMAGES)


def _image_bytes(p: Problem) -> int:
    """The bytes of one image of x and y, and of their copies in which images are channels."""
    numbers = p.c * math.prod(p.window.big) + p.o * p.positions
    return 2 * p.g * numbers * p.wide.itemsize


def _over_y(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution that has x's channels as images, and images as channels."""
    w = p.window
    if math.prod(w.small) > math.prod(w.big):  # XLA would exchange x and y, and leave the fast path
        x, w = edged(x, range(1, 1 + w.rank), w.padding), w.padded
    x = x.swapaxes(0, -1)
    kernel = lax.optimization_barrier(jnp.moveaxis(y, 0, -2))
    return jnp.moveaxis(_convolution(x, kernel, p, exchanged(w)), 0, -2)


def _dot(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The dot of x's columns for the taps of all axes but the last, and y's for the taps of the last."""
    across, along = _sides(p.window)

    def columns(a: jax.Array, window: Window) -> jax.Array:
        a = unfold(a, window, space=1, tap=1 + window.rank)
        return a.reshape(-1, math.prod(window.kernel), a.shape[-1])

    x, y = columns(x, across), jnp.flip(columns(y, along), 1)
    options = {"precision": p.precision, "preferred_element_type": p.wide}
    kernel = jnp.einsum("ptc,puo->tuco", x, y, **options)
    return kernel.reshape(*p.window.kernel, p.c, p.o)


def _sides(w: Window) -> tuple[Window, Window]:
    """The windows by which x and y unfold. With a single axis or a stride, all taps unfold x."""
    n = max(1, w.rank - 1) if w.stride[-1] == 1 else w.rank
    return only(w, range(n)), only(turned(w), range(n, w.rank))


def _by_groups(one: Callable, p: Problem, a: jax.Array, b: jax.Array) -> jax.Array:
    """`one` of each group's channels, one group after the other."""
    groups = zip(jnp.split(a, p.g, -1), jnp.split(b, p.g, -1), strict=True)
    return jnp.concatenate([one(*group) for group in groups], -1)


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
        w.stride[lead:],
        padding,
        rhs_dilation=w.dilation[lead:],
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        precision=p.precision,
        preferred_element_type=p.answer,
    )
    return out.reshape(-1, *w.small, out.shape[-1]) if lead else out
