"""Rewrites contractions that cuDNN runs slowly into equal ones that it runs fast.

The times are those of single trials on an H100, in bfloat16 with channels last: 31 taps over
128 x 1024 cells of 256 channels, and 3x3 taps over 512 x 28 x 28 cells of 64 channels.

depthwise over one axis               over a plane with one row: forward 0.26 ms instead of 2.75, the kernel's
                                      gradient 0.68 instead of 2.29 (31 taps; XLA makes a plane of one column)
the kernel's gradient under dilation  the phases of the dilation as images of the batch, without dilation:
                                      0.17 ms instead of 0.56 (3x3; XLA has a forward call for it otherwise)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.axes import padded, reshaped
from jdeconv.form import CONTRACTIONS, Axes, Layout
from jdeconv.problem import Problem

SHORTEST = 4  # positions of a phase


def is_slow_line(p: Problem) -> bool:
    """Whether the problem is depthwise over one axis, on an NVIDIA GPU."""
    is_line = p.platform == "cuda" and p.window.rank == 1
    return is_line and not p.is_symbolic and (p.c, p.o) == (1, 1)


def on_plane(evaluate: Callable, a: jax.Array, b: jax.Array, p: Problem) -> jax.Array:
    """The contraction over one axis, evaluated over a plane with one row."""
    layout = Layout(*map(_with_row, dataclasses.astuple(p.layout)))
    first, second, result = (getattr(p.layout, role)[2] for role in CONTRACTIONS[p.contraction])
    a, b = lax.expand_dims(a, [first]), lax.expand_dims(b, [second])
    p = dataclasses.replace(p, window=p.window.with_row, layout=layout)
    return lax.squeeze(evaluate(a, b, p), [result])


def _with_row(axes: Axes) -> Axes:
    """The axes of an array that has one more, of its rows, in front of its spatial axis."""
    outer, inner, space = axes
    return *(axis + (axis >= space) for axis in (outer, inner)), space, space + 1


def has_phases(p: Problem) -> bool:
    """Whether a dilation divides the positions into phases of some length, on an NVIDIA GPU.

    With groups XLA has a forward call either way.
    """
    window = p.window
    axes = [*zip(window.dilation, window.stride, window.small, strict=True)]
    return (
        p.platform == "cuda"
        and p.g == 1
        and any(d > 1 for d, _, _ in axes)
        and all(d == 1 or (s == 1 and q >= SHORTEST * d) for d, s, q in axes)
    )


def in_phases(evaluate: Callable, x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The kernel's gradient with the phases of the dilation as images of the batch.

    On an axis without stride, a product has a position of x and one of y with the same remainder.
    """
    window, layout = p.window, p.layout
    shifts = [low % d for low, d in zip(window.low, window.dilation, strict=True)]
    x = _phases(x, layout.x, window.dilation, shifts)
    y = _phases(y, layout.y, window.dilation, [0] * window.rank)
    n = p.n * math.prod(window.dilation)
    return evaluate(x, y, dataclasses.replace(p, window=window.phase, n=n))


def _phases(a: jax.Array, axes: Axes, steps: Axes, shifts: list[int]) -> jax.Array:
    """The array with the phases of its spatial axes as further images; `shifts` zeros come first on each axis.

    The phases of x and of y are in the same order, that of the window.
    """
    batch, _, *space = axes
    for axis, step, shift in zip(space, steps, shifts, strict=True):
        a = padded(a, axis, shift, -(shift + a.shape[axis]) % step)
    for axis, step in sorted(zip(space, steps, strict=True), reverse=True):
        a = reshaped(a, axis, 1, (a.shape[axis] // step, step))
    phases = [axis + 1 + sum(other < axis for other in space) for axis in space]
    a = jnp.moveaxis(a, phases, range(batch + 1, batch + 1 + len(space)))
    return reshaped(a, batch, 1 + len(space), (a.shape[batch] * math.prod(steps),))
