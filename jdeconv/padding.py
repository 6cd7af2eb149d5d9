"""Padding modes other than zeros, and their adjoint.

A conv with such a padding is a conv without padding over the padded array. Its transpose adds each padded cell
to the cell that it was a copy of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from jdeconv._jax import transposed
from jdeconv.checks import refused
from jdeconv.form import accumulator
from jdeconv.window import Window

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
MODES = ("zeros", *NUMPY_MODES)


def pad(x: jax.Array, window: Window, axes: Sequence[int], mode: str) -> jax.Array:
    """Pad the spatial `axes` from window.big to window.full cells; negative padding crops.

    By way of the accumulator's dtype, since the transpose of this adds up.
    """
    if any(map(is_symbolic_dim, window.big)):
        raise refused("padding_mode", f"{mode!r} needs spatial sizes that are known while tracing")
    dtype, widths, starts, stops = x.dtype, [(0, 0)] * x.ndim, [0] * x.ndim, list(x.shape)
    x = x.astype(accumulator(dtype))
    sizes = zip(axes, window.big, window.padding, window.full, strict=True)
    for axis, size, (low, high), full in sizes:
        if max(low, high) < size:
            widths[axis], starts[axis] = (max(low, 0), max(high, 0)), max(-low, 0)
        else:  # more than one copy on a side; jnp.pad would add one after the other
            x = x.take(copied(jnp.arange(full) - low, size, mode), axis, mode="clip")
        stops[axis] = starts[axis] + full
    wide = jnp.pad(x, widths, NUMPY_MODES[mode])
    return lax.slice(wide, starts, stops).astype(dtype)


def copied(position: jax.Array, size: int, mode: str) -> jax.Array:
    """Of which of `size` cells each position is a copy."""
    if mode == "replicate":
        return position.clip(0, size - 1)
    if mode == "circular":
        return position % size
    there = position % max(2 * (size - 1), 1)  # and back
    return jnp.minimum(there, 2 * (size - 1) - there)


def pad_transpose(x: jax.Array, window: Window, axes: Sequence[int], mode: str) -> jax.Array:
    """The adjoint of `pad`: spatial `axes` of window.full cells summed into window.big cells."""
    shape = list(x.shape)
    for axis, size in zip(axes, window.big, strict=True):
        shape[axis] = size
    return transposed(partial(pad, window=window, axes=axes, mode=mode), x, shape)
