"""Few channels in a group: too little for a dot, so the taps are fused multiply-adds.

    conv         y[o, q] = sum over c, t of kernel[o, c, t] * x[c, q*s + t*d - low]
    deconv       x[c, m*s + r - low] = sum over o and the t of phase r of kernel[o, c, t] * y[o, m - t*d // s]
    kernel_grad  kernel[o, c, t] = sum over n, q of y[o, q] * x[c, q*s + t*d - low]

Each term is a slice and a multiply-add in one unrolled loop that reads its array from cache. The kernel's
gradient is one reduction with a result for every c and t, since XLA would make a pass over memory for each
of many.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.form import Form
from jdeconv.lowerings.arrange import arrange, channels_last, restore
from jdeconv.window import Window

MAX_TERMS, MAX_PHASES = 128, 64  # compile time grows with them
MAX_SUMMED = 1024  # numbers in a row


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """The reason why these multiply-adds cannot serve."""
    phases = math.prod(form.window.stride)
    if phases > MAX_PHASES:
        return f"stride {form.window.stride} has {phases} phases; taps unrolls up to {MAX_PHASES}"
    terms = math.prod(form.window.kernel) * max(c, o)
    if terms > MAX_TERMS:
        return (
            f"{terms} products of taps and channels are more than the {MAX_TERMS} that taps unrolls"
        )
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """One sum over channels and taps, fused."""
    w, (c, o) = form.window, form.channels("conv", x.shape, kernel.shape)
    last = channels_last(form) and c == o == 1
    x = _padded(_split(x, form, "x", last).astype(dtype), last, w.padding)
    terms = (
        _slice(channel, last, _start(tap, w), w.small, w.stride) * k
        for channel, numbers in zip(
            _channels(x, last), _numbers(kernel, form, 2, last, dtype), strict=True
        )
        for tap, k in numbers
    )
    return _joined(_sum(terms), form, "y", last)


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """One sum over channels and the taps of each phase, and the phases interleaved."""
    w, (c, o) = form.window, form.channels("deconv", y.shape, kernel.shape)
    last = channels_last(form) and c == o == 1
    first = [low // s for low, s in zip(w.low, w.stride, strict=True)]  # the m of x's first cell
    lengths = [
        -(-(low + big) // s) - m
        for low, big, s, m in zip(w.low, w.big, w.stride, first, strict=True)
    ]
    reach = [(k - 1) * d // s for k, d, s in zip(w.kernel, w.dilation, w.stride, strict=True)]
    edges = [
        (r - m, m + length - q)
        for r, m, length, q in zip(reach, first, lengths, w.small, strict=True)
    ]
    y = _padded(_split(y, form, "y", last).astype(dtype), last, edges)
    phases: dict = dict.fromkeys(_indices(w.stride))
    for channel, numbers in zip(
        _channels(y, last), _numbers(kernel, form, 1, last, dtype), strict=True
    ):
        for tap, k in numbers:
            steps = [divmod(t * d, s) for t, d, s in zip(tap, w.dilation, w.stride, strict=True)]
            start = [r - shift for r, (shift, _) in zip(reach, steps, strict=True)]
            term = _slice(channel, last, start, lengths, [1] * w.rank) * k
            phase = tuple(residue for _, residue in steps)
            phases[phase] = term if phases[phase] is None else phases[phase] + term
    x = _interleaved(phases, last, w)
    crop = [
        (-(low % s), low % s + big - length * s)
        for low, big, length, s in zip(w.low, w.big, lengths, w.stride, strict=True)
    ]
    return _joined(_padded(x, last, crop), form, "x", last)


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """One reduction over positions, with a result for every channel of x and tap; then one over the rest.

    On a CPU there are two reductions, over arrays with channels first. XLA's reduction over leading axes is
    four times slower there than over the last axes. XLA adds one number after the other, so its error grows
    with the root of their count; two short reductions keep it small.
    """
    if form.platform != "cpu":
        return _sums(x, y, form, dtype)
    w = form.window
    x, y = _split(x, form, "x", False), _split(y, form, "y", False)
    rows = -(-w.small[-1] // MAX_SUMMED)  # on the last axis
    length = -(-w.small[-1] // rows)
    more = rows * length - w.small[-1]
    sizes = (*w.small[:-1], rows * length)
    x = _padded(x, False, (*w.padding[:-1], (w.low[-1], w.high[-1] + more * w.stride[-1])))
    y = _padded(y, False, [(0, 0)] * (w.rank - 1) + [(0, more)])
    x, y = lax.optimization_barrier((x, y))
    # Cast behind the barrier: of bfloat16 widened, reshaped, multiplied and summed, jaxlib 0.10.2 makes a
    # kernel that adds to memory nobody has cleared.
    x, y = x.astype(dtype), y.astype(dtype)
    products = tuple(
        (_slice(channel, False, _start(tap, w), sizes, w.stride) * y).reshape(
            *y.shape[:-1], rows, length
        )
        for channel in _channels(x, False)
        for tap in _indices(w.kernel)
    )
    shape = products[0].shape
    first = next(i for i in range(3, len(shape)) if math.prod(shape[i:]) <= MAX_SUMMED)
    sums = lax.reduce(
        products,
        tuple(np.zeros((), dtype) for _ in products),
        lambda a, b: tuple(map(operator.add, a, b)),
        tuple(range(first, len(shape))),
    )
    kernel = jnp.stack(sums, 3).sum((0, *range(4, first + 1)))
    kernel = kernel.reshape(form.groups * y.shape[2], x.shape[2], *w.kernel)
    return restore(kernel, form, "kernel", last=False)


def _sums(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The kernel's gradient by a reduction for every channel of x and tap, in the order in which x lies."""
    w, (c, o) = form.window, form.channels("kernel_grad", x.shape, y.shape)
    last = channels_last(form) and c == o == 1
    x, y = _split(x, form, "x", last).astype(dtype), _split(y, form, "y", last).astype(dtype)
    x = _padded(x, last, w.padding)
    sums = jnp.stack(
        [
            (_slice(channel, last, _start(tap, w), w.small, w.stride) * y).sum(
                (0, *_space(y, last))
            )
            for channel in _channels(x, last)
            for tap in _indices(w.kernel)
        ],
        axis=-1,
    )  # (g, o, c and taps); (g, taps) with channels last
    if last:
        kernel = jnp.moveaxis(sums, -1, 0).reshape(*w.kernel, 1, form.groups)
    else:
        kernel = sums.reshape(form.groups * y.shape[2], x.shape[2], *w.kernel)
    return restore(kernel, form, "kernel", last=last)


def _split(a: jax.Array, form: Form, role: str, last: bool) -> jax.Array:
    """(n, g, channel, *space); with channels last only where they are one: (n, *space, g)."""
    a = arrange(a, form, role, last=last)
    if last:
        return a
    return a.reshape(a.shape[0], form.groups, a.shape[1] // form.groups, *a.shape[2:])


def _joined(a: jax.Array, form: Form, role: str, last: bool) -> jax.Array:
    """The inverse of `_split`."""
    a = a if last else a.reshape(a.shape[0], -1, *a.shape[3:])
    return restore(a, form, role, last=last)


def _channels(a: jax.Array, last: bool) -> list[jax.Array]:
    """One array a channel, each with its axis, to be broadcast."""
    return [a] if last else jnp.split(a, a.shape[2], 2)


def _numbers(kernel: jax.Array, form: Form, axis: int, last: bool, dtype: np.dtype) -> list:
    """For every channel on `axis` of (g, o, c): each tap, with its numbers shaped to multiply arrays."""
    rank, taps = form.window.rank, list(_indices(form.window.kernel))
    kernel = arrange(kernel, form, "kernel", last=last).astype(dtype)
    if last:
        numbers = kernel.reshape(-1, *[1] * (rank + 1), kernel.shape[-1])
        return [list(zip(taps, numbers, strict=True))]
    kernel = kernel.reshape(form.groups, -1, kernel.shape[1], len(taps))
    kernel = jnp.moveaxis(kernel, (axis, 3), (0, 1))  # (channel, tap, g, the other channel)
    numbers = kernel.reshape(*kernel.shape[:2], 1, *kernel.shape[2:], *[1] * rank)
    return [list(zip(taps, channel, strict=True)) for channel in numbers]


def _indices(sizes: Iterable[int]) -> Iterable[tuple[int, ...]]:
    return itertools.product(*map(range, sizes))


def _start(tap: tuple[int, ...], w: Window) -> list[int]:
    return [t * d for t, d in zip(tap, w.dilation, strict=True)]


def _sum(terms: Iterable[jax.Array]) -> jax.Array:
    return reduce(operator.add, terms)


def _space(a: jax.Array, last: bool) -> range:
    return range(1, a.ndim - 1) if last else range(3, a.ndim)


def _padded(a: jax.Array, last: bool, edges) -> jax.Array:
    config = [(0, 0, 0)] * a.ndim
    for axis, (low, high) in zip(_space(a, last), edges, strict=True):
        config[axis] = (low, high, 0)
    return lax.pad(a, jnp.zeros((), a.dtype), config)


def _slice(a: jax.Array, last: bool, start, sizes, stride) -> jax.Array:
    starts, stops, steps = [0] * a.ndim, list(a.shape), [1] * a.ndim
    for axis, first, size, step in zip(_space(a, last), start, sizes, stride, strict=True):
        starts[axis], stops[axis], steps[axis] = first, first + (size - 1) * step + 1, step
    return lax.slice(a, starts, stops, steps)


def _interleaved(phases: dict, last: bool, w: Window) -> jax.Array:
    """Position m of phase r goes to m*stride + r, on every axis."""
    first = next(p for p in phases.values() if p is not None)
    if len(phases) == 1:
        return first
    stack = jnp.stack([jnp.zeros_like(first) if p is None else p for p in phases.values()])
    stack = stack.reshape(*w.stride, *first.shape)
    for i, axis in reversed(list(enumerate(_space(first, last)))):
        # The i-th phase axis is always the last of those left in front.
        stack = jnp.moveaxis(stack, i, i + axis + 1)
        shape = stack.shape
        merged = shape[i + axis] * shape[i + axis + 1]
        stack = stack.reshape(*shape[: i + axis], merged, *shape[i + axis + 2 :])
    return stack
