"""What lies beyond the edge: padding modes other than zeros, and their adjoint.

A conv with such a padding is a conv without any over the extended array; its transpose ends by adding
each cell of the extension back to the cell that it was a copy of.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.form import accumulator, type_like
from jdeconv.window import Window

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
MODES = ("zeros", *NUMPY_MODES)


def extend(x: jax.Array, window: Window, axes: Sequence[int], mode: str) -> jax.Array:
    """Extend the spatial `axes` from window.big to window.full cells; negative padding crops.

    By way of the accumulator's dtype, since the transpose of this adds up.
    """
    widths, starts, stops = [(0, 0)] * x.ndim, [0] * x.ndim, list(x.shape)
    for axis, (low, high), full in zip(axes, window.padding, window.full, strict=True):
        widths[axis] = (max(low, 0), max(high, 0))
        starts[axis], stops[axis] = max(-low, 0), max(-low, 0) + full
    wide = jnp.pad(x.astype(accumulator(x.dtype)), widths, NUMPY_MODES[mode])
    return lax.slice(wide, starts, stops).astype(x.dtype)


def retract(x: jax.Array, window: Window, axes: Sequence[int], mode: str) -> jax.Array:
    """The adjoint of `extend`: spatial `axes` of window.full cells summed into window.big cells."""
    shape = list(x.shape)
    for axis, size in zip(axes, window.big, strict=True):
        shape[axis] = size
    extension = partial(extend, window=window, axes=axes, mode=mode)
    (x,) = jax.linear_transpose(extension, type_like(x, tuple(shape)))(x)
    return x
