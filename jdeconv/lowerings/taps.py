"""Fused multiply-adds over the taps, for groups with too few channels for a matrix product.

    conv         y[o, q] = sum over c, t of kernel[o, c, t] * x[c, q*s + t*d - low]
    deconv       x[c, m*s + r - low] = sum over o and the t of phase r of kernel[o, c, t] * y[o, m - t*d // s]
    kernel_grad  kernel[o, c, t] = sum over n, q of y[o, q] * x[c, q*s + t*d - low]

Each term is a slice and a multiply-add in one unrolled loop that reads its array from cache. The kernel's
gradient is a single reduction with a result for every c and t: for separate reductions, XLA would make a pass
over memory each.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Iterator
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.axes import edged, padded, reshaped
from jdeconv.problem import Problem
from jdeconv.window import Window

MAX_TERMS, MAX_PHASES = 128, 64  # compile time grows with them
MAX_SUMMED = 1024  # numbers that one reduction adds up


def refuses(p: Problem) -> str | None:
    """Returns the reason why these multiply-adds cannot serve, or None."""
    if p.phases > MAX_PHASES:
        return f"stride {p.window.stride} has {p.phases} phases; taps unrolls up to {MAX_PHASES}"
    terms = p.taps * max(p.c, p.o)
    if terms > MAX_TERMS:
        return (
            f"{terms} products of taps and channels are more than the {MAX_TERMS} that taps unrolls"
        )
    return None


def takes_channels_last(p: Problem) -> bool:
    """Whether it computes with channels last: if a group has one channel.

    XLA's reduction over leading axes is four times slower on a CPU than over the last axes.
    """
    reduces = p.contraction == "kernel_grad" and p.platform == "cpu"
    return p.last and p.c == p.o == 1 and not reduces


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """One sum over channels and taps, fused."""
    w = p.window
    x = edged(_grouped(x, p).astype(p.wide), _space(p), w.padding)
    terms = (
        _slice(channel, p, _start(tap, w), w.small, w.stride) * k
        for channel, numbers in _by_channel(x, kernel, p, "c")
        for tap, k in numbers
    )
    return reduce(operator.add, terms).reshape(p.shape("y"))


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """One sum over channels and the taps of each phase, and the phases interleaved."""
    w = p.window
    # Of objects: sizes of an export may be symbolic.
    fields = w.kernel, w.stride, w.dilation, w.low, w.big, w.small
    k, s, d, low, big, small = (np.array(field, object) for field in fields)
    first = low // s  # the m of x's first cell
    lengths = -(-(low + big) // s) - first
    reach = (k - 1) * d // s
    edges = zip(reach - first, first + lengths - small, strict=True)
    y = edged(_grouped(y, p).astype(p.wide), _space(p), edges)
    phases: dict = dict.fromkeys(_indices(w.stride))
    for channel, numbers in _by_channel(y, kernel, p, "o"):
        for tap, number in numbers:
            shift = np.multiply(tap, d)
            phase = tuple(shift % s)
            term = _slice(channel, p, reach - shift // s, lengths, [1] * w.rank) * number
            phases[phase] = term if phases[phase] is None else phases[phase] + term
    crop = zip(-(low % s), low % s + big - lengths * s, strict=True)
    return edged(_interleaved(phases, p), _space(p), crop).reshape(p.shape("x"))


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """One reduction with a result for each channel of x and each tap, and one over the axes that remain.

    On a CPU there are two reductions. XLA adds one number after the other, so its error grows with the root of
    their count; two short reductions keep it small.
    """
    w, x, y = p.window, _grouped(x, p), _grouped(y, p)
    if p.platform != "cpu":
        x, y = edged(x.astype(p.wide), _space(p), w.padding), y.astype(p.wide)
        sums = [product.sum((0, *_space(p))) for product in _products(x, y, p, w.small)]
        return jnp.stack(sums, 0 if p.last else -1).reshape(p.shape("kernel"))
    rows = -(-w.small[-1] // MAX_SUMMED)  # on the last axis
    length = -(-w.small[-1] // rows)
    more = rows * length - w.small[-1]
    sizes = (*w.small[:-1], rows * length)
    edges = (*w.padding[:-1], (w.low[-1], w.high[-1] + more * w.stride[-1]))
    x, y = edged(x, _space(p), edges), padded(y, _space(p)[-1], 0, more)
    x, y = lax.optimization_barrier((x, y))
    # Cast behind the barrier: of bfloat16 widened, reshaped, multiplied and summed, jaxlib 0.10.2 makes a
    # kernel that adds to memory nobody has cleared.
    x, y = x.astype(p.wide), y.astype(p.wide)
    shape = (*y.shape[:-1], rows, length)
    products = tuple(product.reshape(shape) for product in _products(x, y, p, sizes))
    first = next(i for i in range(3, len(shape)) if math.prod(shape[i:]) <= MAX_SUMMED)
    sums = lax.reduce(
        products,
        tuple(np.zeros((), p.wide) for _ in products),
        lambda a, b: tuple(map(operator.add, a, b)),
        tuple(range(first, len(shape))),
    )
    return jnp.stack(sums, 3).sum((0, *range(4, first + 1))).reshape(p.shape("kernel"))


def _products(x: jax.Array, y: jax.Array, p: Problem, sizes) -> Iterator:
    """y, of these spatial sizes, times what a tap reads, for every channel of x and tap."""
    for channel in _channels(x, p):
        for tap in _indices(p.window.kernel):
            yield _slice(channel, p, _start(tap, p.window), sizes, p.window.stride) * y


def _by_channel(a: jax.Array, kernel: jax.Array, p: Problem, index: str) -> Iterator:
    """Each channel of the array, with the taps and their numbers shaped to multiply it.

    Where the group has more than one channel, a number has the kernel's other channel on its axis.
    """
    kernel, taps = kernel.astype(p.wide), list(_indices(p.window.kernel))
    if p.last:
        numbers = kernel.reshape(1, -1, *[1] * (p.window.rank + 1), p.g)
    else:
        kernel = kernel.reshape(p.g, p.o, p.c, len(taps))
        kernel = jnp.moveaxis(kernel, ("goc".index(index), 3), (0, 1))
        numbers = kernel.reshape(*kernel.shape[:2], 1, *kernel.shape[2:], *[1] * p.window.rank)
    for channel, row in zip(_channels(a, p), numbers, strict=True):
        yield channel, zip(taps, row, strict=True)


def _grouped(a: jax.Array, p: Problem) -> jax.Array:
    """The array x or y with an axis for groups; unchanged with channels last, where a group has one channel."""
    return a if p.last else reshaped(a, 1, 1, (p.g, a.shape[1] // p.g))


def _channels(a: jax.Array, p: Problem) -> list[jax.Array]:
    """One array for each channel, which keeps its axis for broadcasting."""
    return [a] if p.last else jnp.split(a, a.shape[2], 2)


def _indices(sizes: Iterable[int]) -> Iterable[tuple[int, ...]]:
    return itertools.product(*map(range, sizes))


def _start(tap: tuple[int, ...], w: Window) -> list[int]:
    return [t * d for t, d in zip(tap, w.dilation, strict=True)]


def _space(p: Problem) -> range:
    """The spatial axes of x and y."""
    first = 1 if p.last else 3
    return range(first, first + p.window.rank)


def _slice(a: jax.Array, p: Problem, start, sizes, stride) -> jax.Array:
    starts, stops, steps = [0] * a.ndim, list(a.shape), [1] * a.ndim
    for axis, first, size, step in zip(_space(p), start, sizes, stride, strict=True):
        starts[axis], stops[axis], steps[axis] = first, first + (size - 1) * step + 1, step
    return lax.slice(a, starts, stops, steps)


def _interleaved(phases: dict, p: Problem) -> jax.Array:
    """Position m of phase r goes to m*stride + r, on every axis."""
    first = next(phase for phase in phases.values() if phase is not None)
    if len(phases) == 1:
        return first
    stack = jnp.stack([jnp.zeros_like(first) if a is None else a for a in phases.values()])
    stack = stack.reshape(*p.window.stride, *first.shape)
    places = [axis + 1 + i for i, axis in enumerate(_space(p))]  # each behind its axis
    stack = jnp.moveaxis(stack, range(p.window.rank), places)
    sizes = list(first.shape)
    for axis, step in zip(_space(p), p.window.stride, strict=True):
        sizes[axis] *= step
    return stack.reshape(sizes)
