"""Evaluates a contraction: in which order and in which pieces a lowering gets the arrays.

This is the only file that knows about memory. A lowering gets x, kernel and y in one of two orders, in which
the group is the outer part of an axis of channels:

             x               kernel           y
    first    (n, gc, *big)   (go, c, *taps)   (n, go, *small)
    last     (n, *big, gc)   (*taps, c, go)   (n, *small, go)

With an axis of its own for a single group, XLA would choose other layouts for the arrays of a loop, and copy
them.

A lowering makes temporary arrays, such as columns. Loops keep them small, because a large new array costs more
in page faults than the arithmetic on it. Caffe takes one image at a time. Each loop goes over an index of the
form. If the result has the index, its parts are joined. If not, they are added.

    blocks   some images at a time, or some groups of a kernel's gradient
    slabs    some positions of y on its longest axis at a time. Neighboring slabs see some of the same rows of
             x: conv reads these rows twice, deconv adds them up
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv import _jax, window
from jdeconv.axes import padded, reshaped
from jdeconv.choose import choose
from jdeconv.form import CONTRACTIONS, Form, Layout
from jdeconv.lowerings import LOWERINGS, fft, im2col, nhwc, taps
from jdeconv.problem import ACCELERATORS, Problem, items_per_block

MIB = 1 << 20
ACCELERATOR_FACTOR = 128  # large buffers cost nothing there, while a loop leaves the device idle
MAX_BYTES = 32 * MIB  # an image that needs more is cut into slabs
SLAB_BYTES = 12 * MIB  # fewer, so that a slab is smaller than what is cut


@dataclass(frozen=True)
class Memory:
    """In which order a lowering computes, and how much memory it needs.

    Args:
      last: whether it takes channels last.
      temporary_bytes: how many bytes of temporary arrays it makes for one image.
      block_bytes: the most bytes of them at a time, by taking images in blocks.
      takes_slabs: whether an image that needs too many is cut.
      is_scaled: whether block_bytes is larger on accelerators.
      rereads: the contractions in which it reads a position of x or y for more than one tap.
    """

    last: Callable[[Problem], bool] = lambda p: p.last
    temporary_bytes: Callable[[Problem], Any] = lambda p: 0
    block_bytes: int = 0
    takes_slabs: bool = False
    is_scaled: bool = False
    rereads: tuple[str, ...] = ()

    def block(self, p: Problem) -> int:
        """The most bytes of temporary arrays at a time on the problem's platform."""
        return _scaled(p, self.block_bytes) if self.is_scaled else self.block_bytes


MEMORY = {
    "im2col": Memory(
        temporary_bytes=im2col.temporary_bytes,
        block_bytes=4 * MIB,
        takes_slabs=True,
        is_scaled=True,
        rereads=("conv", "kernel_grad"),
    ),
    "taps": Memory(last=taps.takes_channels_last, rereads=tuple(CONTRACTIONS)),
    "fft": Memory(last=lambda p: False, temporary_bytes=fft.temporary_bytes, block_bytes=32 * MIB),
    "nhwc": Memory(
        last=lambda p: True,
        temporary_bytes=nhwc.temporary_bytes,
        block_bytes=nhwc.BLOCK_BYTES,
        takes_slabs=True,
        rereads=("kernel_grad",),
    ),
}
"""A lowering without an entry takes the user's arrays as they are, as `vendor` does."""


def evaluate(
    contraction: str,
    platform: str | None,
    a: jax.Array,
    b: jax.Array,
    *,
    form: Form,
    dtype: np.dtype,
    to: np.dtype | None = None,
) -> jax.Array:
    """The contraction, of the given dtype; one that is added to others is converted `to` a wider one."""
    p = Problem.of(contraction, form, a, b, dtype, platform)
    if any(isinstance(size, int) and size == 0 for size in (*a.shape, *b.shape)):
        return jnp.zeros(p.shape(CONTRACTIONS[contraction][2]), to or dtype)
    name = form.lowering
    # vmap may have made of a form that the named lowering serves one that it refuses.
    if name is None or LOWERINGS[name].refuses(p):
        name = choose(p)
    a, b = a.astype(p.operands), b.astype(p.operands)
    contract = partial(_in_order, name) if name in MEMORY else getattr(LOWERINGS[name], contraction)
    return contract(a, b, p).astype(to or dtype)


# Order.


def _in_order(name: str, a: jax.Array, b: jax.Array, p: Problem) -> jax.Array:
    memory, lowering = MEMORY[name], LOWERINGS[name]
    size = _groups_per_block(p, memory)
    if size < p.g:
        return _by_groups(partial(_in_order, name), a, b, p, size)
    ordered = dataclasses.replace(p, layout=_layout(p.window.rank, memory.last(p)))
    first, second, result = CONTRACTIONS[p.contraction]
    if p.contraction in memory.rereads and _is_at_once(memory, p):
        a, b = _jax.written(a, b) if p.contraction == "kernel_grad" else (*_jax.written(a), b)
    a, b = _moved(a, first, p, ordered), _moved(b, second, p, ordered)
    if second == "kernel" and hasattr(lowering, "enter_kernel"):
        b = lowering.enter_kernel(b, ordered)
    return _moved(_in_slabs(memory, lowering, a, b, ordered), result, ordered, p)


def _layout(rank: int, last: bool) -> Layout:
    """The layout of an array in one of the two orders, groups and channels on one axis."""
    if not last:
        return Layout(*[tuple(range(rank + 2))] * 3)
    side = (0, rank + 1, *range(1, rank + 1))
    return Layout(side, (rank + 1, rank, *range(rank)), side)


def _moved(a: jax.Array, role: str, source: Problem, target: Problem) -> jax.Array:
    """The array of this role, brought from one problem's layout to the other's."""
    axes = getattr(source.layout, role)
    return lax.transpose(a, [axes[i] for i in np.argsort(getattr(target.layout, role))])


def _group_axis(p: Problem, role: str) -> int:
    """The axis that holds both groups and channels."""
    return getattr(p.layout, role)[0 if role == "kernel" else 1]


def _is_at_once(memory: Memory, p: Problem) -> bool:
    """Whether this is a CPU, windows overlap, and one call evaluates all images.

    A loop over blocks or slabs writes its operands to memory anyway.
    """
    is_whole = _images_per_block(memory, p) == p.n and not _takes_slabs(memory, p)
    return p.platform == "cpu" and p.overlaps and is_whole


# Blocks.


def _scaled(p: Problem, size: int) -> int:
    return size * ACCELERATOR_FACTOR if p.platform in ACCELERATORS else size


def _groups_per_block(p: Problem, memory: Memory) -> int:
    """How many groups to take at a time: some, for a kernel's gradient of fewer images than groups; else all.

    Blocks of groups can be smaller than blocks of images then, and need no sum.
    """
    size, most = memory.temporary_bytes(p), memory.block(p)
    is_symbolic = p.is_symbolic or not (isinstance(p.n, int) and isinstance(size, int))
    if p.contraction != "kernel_grad" or is_symbolic or p.n >= p.g or size <= most:
        return p.g
    if _takes_slabs(memory, p):
        return p.g  # a slab is small enough for all groups
    return items_per_block(p.g, p.n * (size // p.g), most)


def _by_groups(contract: Callable, a: jax.Array, b: jax.Array, p: Problem, size: int) -> jax.Array:
    """A kernel's gradient in blocks of `size` groups, one after the other."""
    part = dataclasses.replace(p, g=size)

    def blocks(a: jax.Array, role: str) -> jax.Array:
        axis = _group_axis(p, role)
        a = reshaped(a, axis, 1, (p.g // size, -1))
        return jnp.moveaxis(a, axis, 0)

    kernel = lax.map(lambda pair: contract(*pair, part), (blocks(a, "x"), blocks(b, "y")))
    axis = _group_axis(p, "kernel")
    return reshaped(jnp.moveaxis(kernel, 0, axis), axis, 2, (-1,))


def _images_per_block(memory: Memory, p: Problem) -> Any:
    """How many images to take at a time."""
    return items_per_block(p.n, memory.temporary_bytes(p), memory.block(p))


def _in_blocks(memory: Memory, lowering: Any, a: jax.Array, b: jax.Array, p: Problem) -> jax.Array:
    """The contraction, in blocks of images whose temporary arrays are no larger than a block."""
    contract = getattr(lowering, p.contraction)
    size = _images_per_block(memory, p)
    if size == p.n:
        return contract(a, b, p)
    part = dataclasses.replace(p, n=size)
    a = reshaped(a, 0, 1, (-1, size))
    if p.contraction != "kernel_grad":
        return reshaped(lax.map(lambda a: contract(a, b, part), a), 0, 2, (p.n,))
    b = reshaped(b, 0, 1, (-1, size))
    return _summed(lambda pair: contract(pair[0], pair[1], part), (a, b))


def _summed(function: Callable, pieces: Any) -> jax.Array:
    """The sum of `function` over the pieces along their first axes."""
    zeros = _zeros_of(function, jax.tree.map(lambda a: a[0], pieces))
    return lax.scan(lambda total, piece: (total + function(piece), None), zeros, pieces)[0]


def _zeros_of(function: Callable, *args: Any) -> jax.Array:
    """What `function` makes of `args`, but zero; in shard_map it varies as that does."""
    result = jax.eval_shape(function, *args)
    zeros = jnp.zeros(result.shape, result.dtype)
    return lax.pcast(zeros, tuple(_jax.varying(result)), to="varying")


# Slabs.


def _takes_slabs(memory: Memory, p: Problem) -> bool:
    """Whether one image needs too much memory, and can be cut."""
    size = memory.temporary_bytes(p)
    is_large = isinstance(size, int) and size > _scaled(p, MAX_BYTES)
    return memory.takes_slabs and is_large and p.positions > 1


def _in_slabs(memory: Memory, lowering: Any, a: jax.Array, b: jax.Array, p: Problem) -> jax.Array:
    """The contraction, in slabs where one image needs too much memory."""
    if not _takes_slabs(memory, p):
        return _in_blocks(memory, lowering, a, b, p)
    axis = int(np.argmax(p.window.small))
    rows = p.window.small[axis] * _scaled(p, SLAB_BYTES) // memory.temporary_bytes(p)
    # A slab of one position that is still too large is cut along the next axis.
    return _slab_by_slab(partial(_in_slabs, memory, lowering), a, b, p, axis, max(rows, 1))


def _slab_by_slab(
    contract: Callable, a: jax.Array, b: jax.Array, p: Problem, i: int, rows: int
) -> jax.Array:
    """The contraction in slabs of so many positions of y on spatial axis `i`, one after the other."""
    w = p.window
    low, big, small = w.low[i], w.big[i], w.small[i]
    count, step = -(-small // rows), rows * w.stride[i]
    part = dataclasses.replace(p, window=window.part(w, i, rows))
    length = part.window.big[i]
    full = window.part(w, i, count * rows).big[i]
    axis = p.layout.x[2 + i]  # and of y
    slabs = jnp.arange(count)

    def seen(x: jax.Array, slab: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, slab * step, length, axis)

    def own(y: jax.Array, slab: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(y, slab * rows, rows, axis)

    if p.contraction == "conv":
        x = padded(a, axis, low, full - low - big)
        y = lax.map(lambda slab: contract(seen(x, slab), b, part), slabs)
        y = reshaped(jnp.moveaxis(y, 0, axis), axis, 2, (count * rows,))
        return lax.slice_in_dim(y, 0, small, axis=axis)

    if p.contraction == "kernel_grad":
        x = padded(a, axis, low, full - low - big)
        y = padded(b, axis, 0, count * rows - small)
        return _summed(lambda slab: contract(seen(x, slab), own(y, slab), part), slabs)

    y = padded(a, axis, 0, count * rows - small)

    def add(x: jax.Array, slab: jax.Array) -> tuple[jax.Array, None]:
        sums = seen(x, slab) + contract(own(y, slab), b, part)
        return lax.dynamic_update_slice_in_dim(x, sums, slab * step, axis), None

    x = _zeros_of(lambda: contract(own(y, slabs[0]), b, part))
    x, _ = lax.scan(add, padded(x, axis, 0, full - length), slabs)
    return padded(x, axis, -low, low + big - full)
