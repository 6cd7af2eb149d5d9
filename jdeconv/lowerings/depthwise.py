"""One channel in and out of every group: no sum over channels, so no dot; taps as fused multiply-adds.

    conv         y[q] = sum over t of kernel[t] * x[q*s + t*d - low]
    deconv       x[m*s + r - low] = sum over the t of phase r of kernel[t] * y[m - t*d // s]
    kernel_grad  kernel[t] = sum over n, q of y[q] * x[q*s + t*d - low]

Each tap is a slice and a multiply-add in one unrolled loop that reads x from cache. The kernel's gradient
is one reduction with a result for every tap, since XLA would make a pass over memory for each of many.
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.form import Form, Layout
from jdeconv.lowerings.arrange import arrange, channels_last, restore, space
from jdeconv.window import Window

MOST_TAPS = 128


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """The reason why these multiply-adds cannot serve."""
    if c != 1 or o != 1:
        return f"depthwise needs one channel in and out of every group, not {c} and {o}"
    if (taps := math.prod(form.window.kernel)) > MOST_TAPS:
        return f"{taps} taps are more than the {MOST_TAPS} that depthwise unrolls"
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """One sum over the taps, fused."""
    w = form.window
    x = _padded(arrange(x, form, "x").astype(dtype), form, w.padding)
    taps = _taps(arrange(kernel, form, "kernel").astype(dtype), form)
    starts = [[t * d for t, d in zip(tap, w.dilation, strict=True)] for tap in _indices(w.kernel)]
    slices = (_slice(x, form, start, w.small, w.stride) for start in starts)
    return restore(sum(s * k for s, k in zip(slices, taps, strict=True)), form, "y")


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """One sum over the taps of each phase, and the phases interleaved."""
    w = form.window
    lengths = [-(-full // s) for full, s in zip(w.full, w.stride, strict=True)]
    reach = [(k - 1) * d // s for k, d, s in zip(w.kernel, w.dilation, w.stride, strict=True)]
    edges = [(r, length - q) for r, length, q in zip(reach, lengths, w.small, strict=True)]
    y = _padded(arrange(y, form, "y").astype(dtype), form, edges)
    phases = dict.fromkeys(_indices(w.stride))
    for tap, k in zip(
        _indices(w.kernel), _taps(arrange(kernel, form, "kernel").astype(dtype), form), strict=True
    ):
        steps = [divmod(t * d, s) for t, d, s in zip(tap, w.dilation, w.stride, strict=True)]
        start = [r - shift for r, (shift, _) in zip(reach, steps, strict=True)]
        term = _slice(y, form, start, lengths, [1] * w.rank) * k
        phase = tuple(residue for _, residue in steps)
        phases[phase] = term if phases[phase] is None else phases[phase] + term
    x = _interleaved(phases, form, w)
    crop = [
        (-low, low + big - length * s)
        for low, big, length, s in zip(w.low, w.big, lengths, w.stride, strict=True)
    ]
    return restore(_padded(x, form, crop), form, "x")


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """One reduction over images and positions, with a result for every tap.

    Always with channels first: XLA's reduction over leading axes is four times slower than over the last ones.
    """
    w, first = (
        form.window,
        dataclasses.replace(form, layout=Layout.of("conv", None, form.window.rank)),
    )
    x = _padded(arrange(x, form, "x", last=False).astype(dtype), first, w.padding)
    x, y = lax.optimization_barrier((x, arrange(y, form, "y", last=False).astype(dtype)))
    starts = [[t * d for t, d in zip(tap, w.dilation, strict=True)] for tap in _indices(w.kernel)]
    products = tuple(_slice(x, first, start, w.small, w.stride) * y for start in starts)
    sums = lax.reduce(
        products,
        tuple(np.zeros((), dtype) for _ in products),
        lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)),
        (0, *space(first)),
    )
    kernel = jnp.stack(sums, 1).reshape(-1, 1, *w.kernel)
    return restore(kernel, form, "kernel", last=False)


def _indices(sizes) -> itertools.product:
    return itertools.product(*map(range, sizes))


def _taps(kernel: jax.Array, form: Form) -> list[jax.Array]:
    """For every tap a number a channel, shaped to multiply an arranged array."""
    rank = form.window.rank
    if channels_last(form):
        taps = kernel.reshape(-1, *[1] * (rank + 1), kernel.shape[-1])
    else:
        taps = kernel.reshape(kernel.shape[0], -1).T.reshape(-1, 1, kernel.shape[0], *[1] * rank)
    return list(taps)


def _padded(a: jax.Array, form: Form, edges) -> jax.Array:
    config = [(0, 0, 0)] * a.ndim
    for axis, (low, high) in zip(space(form), edges, strict=True):
        config[axis] = (low, high, 0)
    return lax.pad(a, jnp.zeros((), a.dtype), config)


def _slice(a: jax.Array, form: Form, start, sizes, stride) -> jax.Array:
    starts, stops, steps = [0] * a.ndim, list(a.shape), [1] * a.ndim
    for axis, first, size, step in zip(space(form), start, sizes, stride, strict=True):
        starts[axis], stops[axis], steps[axis] = first, first + (size - 1) * step + 1, step
    return lax.slice(a, starts, stops, steps)


def _interleaved(phases: dict, form: Form, w: Window) -> jax.Array:
    """Position m of phase r goes to m*stride + r, on every axis."""
    first = next(p for p in phases.values() if p is not None)
    if len(phases) == 1:
        return first
    stack = jnp.stack([jnp.zeros_like(first) if p is None else p for p in phases.values()])
    stack = stack.reshape(*w.stride, *first.shape)
    for i, axis in reversed(list(enumerate(space(form)))):
        # The i-th phase axis is always the last of those left in front.
        stack = jnp.moveaxis(stack, i, i + axis + 1)
        shape = stack.shape
        merged = shape[i + axis] * shape[i + axis + 1]
        stack = stack.reshape(*shape[: i + axis], merged, *shape[i + axis + 2 :])
    return stack
