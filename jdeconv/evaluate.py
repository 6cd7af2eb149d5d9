"""Evaluates a contraction: in which order and in which pieces a lowering gets the arrays.

This is the only file that makes loops to save memory. A lowering gets x, kernel and y in one of two orders, in
which the group is the outer part of an axis of channels:

             x               kernel           y
    first    (n, gc, *big)   (go, c, *taps)   (n, go, *small)
    last     (n, *big, gc)   (*taps, c, go)   (n, *small, go)

Groups have no axis of their own. XLA would choose other layouts for an axis of size 1, and copy the arrays of a
loop.

A lowering makes temporary arrays, such as columns. Loops keep them small, because a large new array costs more
in page faults than the arithmetic on it. Caffe takes one image at a time. Each loop goes over an index of the
form. If the result has the index, its pieces are joined. If it does not, or if pieces overlap, they are added.

    blocks   some images at a time, or some groups of a kernel's gradient
    slabs    some positions of y on its longest axis at a time. Neighboring slabs see some of the same rows of
             x. A conv reads these rows twice. In a deconv both slabs write them, and the values are added

All are one loop, `_in_pieces`. `_cuts` says for each array on which axis its pieces lie, and how far apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv import _jax, window
from jdeconv.axes import padded, reshaped
from jdeconv.choose import choose
from jdeconv.form import CONTRACTIONS, INDICES, Form, Layout
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
    """The contraction, of the given dtype; `to` is a wider dtype for parts that the caller adds up."""
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
    ordered = dataclasses.replace(p, layout=_layout(p.window.rank, memory.last(p)))
    first, second, result = CONTRACTIONS[p.contraction]
    is_reread = p.contraction in memory.rereads and p.platform == "cpu" and p.overlaps
    if is_reread and _loop(memory, p) is None:  # a loop writes its operands to memory anyway
        a, b = _jax.written(a, b) if p.contraction == "kernel_grad" else (*_jax.written(a), b)
    a, b = _moved(a, first, p, ordered), _moved(b, second, p, ordered)
    if second == "kernel" and hasattr(lowering, "enter_kernel"):
        b = lowering.enter_kernel(b, ordered)
    return _moved(_in_pieces(memory, lowering, a, b, ordered), result, ordered, p)


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


# Loops.


def _scaled(p: Problem, size: int) -> int:
    return size * ACCELERATOR_FACTOR if p.platform in ACCELERATORS else size


def _loop(memory: Memory, p: Problem, is_piece: bool = False) -> tuple[str | int, Any] | None:
    """An index or a spatial axis, and how much of it to take at a time; None if everything fits.

    A piece of another loop is small enough for all groups.
    """
    size, most = memory.temporary_bytes(p), memory.block(p)
    is_large = isinstance(size, int) and size > _scaled(p, MAX_BYTES)
    if memory.takes_slabs and is_large and p.positions > 1:
        # A slab of one position that is still too large is cut along the next axis.
        axis = int(np.argmax(p.window.small))
        return axis, max(p.window.small[axis] * _scaled(p, SLAB_BYTES) // size, 1)
    is_known = isinstance(size, int) and isinstance(p.n, int)  # not symbolic, in an export
    if p.contraction == "kernel_grad" and is_known and size > most and p.n < p.g and not is_piece:
        # With fewer images than groups, blocks of groups can be smaller, and are joined, not added.
        return "g", items_per_block(p.g, p.n * (size // p.g), most)
    images = items_per_block(p.n, size, most)
    return None if images == p.n else ("n", images)


class Cut(NamedTuple):
    """How an array is cut into pieces on one axis.

    Args:
      axis: the axis.
      step: from one piece to the next. It equals the length if pieces lie side by side, is less if they
        overlap, and more if cells between them belong to none. It is 0 if the array lacks the index, and every
        piece is the whole array.
      length: of a piece.
      low, high: the zeros before and behind the array, with which all pieces have one length; negative numbers
        crop.
    """

    axis: int
    step: Any
    length: Any
    low: Any
    high: Any

    def piece(self, a: jax.Array, number: jax.Array) -> jax.Array:
        """The piece of this number of an array that has its zeros."""
        return lax.dynamic_slice_in_dim(a, number * self.step, self.length, self.axis)

    def side_by_side(self, a: jax.Array) -> jax.Array | None:
        """The pieces, stacked on a first axis; None if every piece is the whole array.

        XLA's loops are up to a twentieth faster over stacked pieces.
        """
        if self.step != self.length:
            return None
        return jnp.moveaxis(reshaped(a, self.axis, 1, (-1, self.length)), self.axis, 0)


def _cuts(p: Problem, index: str | int, size: Any) -> tuple[Problem, Any, dict[str, Cut]]:
    """The problem of one piece, which has `size` of an index; the number of pieces; and each array's cut."""
    if isinstance(index, int):
        part = dataclasses.replace(p, window=window.part(p.window, index, size))
        count = -(-p.window.small[index] // size)
    else:
        part = dataclasses.replace(p, **{index: size})
        count = getattr(p, index) // size
    cuts = {}
    for role in INDICES:
        whole, own = p.shape(role), part.shape(role)
        axis = next((i for i, extent in enumerate(own) if extent != whole[i]), 0)
        step = own[axis] if own != whole else 0
        low = 0
        if isinstance(index, int) and role == "x":
            axis = p.layout.x[2 + index]
            step, low = size * p.window.stride[index], p.window.low[index]
        extent = (count - 1) * step + own[axis]
        cuts[role] = Cut(axis, step, own[axis], low, extent - low - whole[axis])
    return part, count, cuts


def _in_pieces(
    memory: Memory, lowering: Any, a: jax.Array, b: jax.Array, p: Problem, is_piece: bool = False
) -> jax.Array:
    """The contraction, one piece after the other if all of it needs too much memory."""
    loop = _loop(memory, p, is_piece)
    if loop is None:
        return getattr(lowering, p.contraction)(a, b, p)
    part, count, cuts = _cuts(p, *loop)
    first, second, result = (cuts[role] for role in CONTRACTIONS[p.contraction])
    operands = [
        (cut, padded(array, cut.axis, cut.low, cut.high))
        for cut, array in ((first, a), (second, b))
    ]
    is_block = isinstance(loop[0], str)  # to stack slabs would copy a large image
    stacks = (cut.side_by_side(array) if is_block else None for cut, array in operands)
    steps = jnp.arange(count), *stacks

    def contracted(step: tuple) -> jax.Array:
        number, *stacked = step
        a, b = (
            cut.piece(array, number) if piece is None else piece
            for (cut, array), piece in zip(operands, stacked, strict=True)
        )
        return _in_pieces(memory, lowering, a, b, part, is_piece=True)

    def added(total: jax.Array, step: tuple) -> tuple[jax.Array, None]:
        sums = result.piece(total, step[0]) + contracted(step).astype(p.wide)
        start = step[0] * result.step
        return lax.dynamic_update_slice_in_dim(total, sums, start, result.axis), None

    axis = result.axis
    if result.step == result.length:
        whole = jnp.moveaxis(lax.map(contracted, steps), 0, axis)
        whole = reshaped(whole, axis, 2, (-1,))
    else:
        zeros = _zeros_of(contracted, jax.tree.map(lambda array: array[0], steps)).astype(p.wide)
        zeros = padded(zeros, axis, 0, (count - 1) * result.step)
        whole, _ = lax.scan(added, zeros, steps)
    return padded(whole, axis, -result.low, -result.high)


def _zeros_of(function: Callable, *args: Any) -> jax.Array:
    """Zeros of the shape and dtype of `function(*args)`, which vary over the same mesh axes in shard_map."""
    result = jax.eval_shape(function, *args)
    zeros = jnp.zeros(result.shape, result.dtype)
    return lax.pcast(zeros, tuple(_jax.varying(result)), to="varying")
