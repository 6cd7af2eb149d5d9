"""One large image in slabs: so many positions of y's longest spatial axis at a time, and what they see of x.

What im2col and winograd lay out for an image grows with the image. In slabs it stays bounded, for the price of
the span - stride rows of x that neighboring slabs share: conv reads them twice, deconv adds them up.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.axes import padded
from jdeconv.form import CONTRACTIONS, Form
from jdeconv.lowerings.blocks import bytes_for, zeros_of

MAX_BYTES = 32 << 20  # beyond, an image is cut
SLAB_BYTES = 12 << 20


def in_slabs(bytes_per_image: Callable, rows_of_tile: Callable | None = None) -> Callable:
    """A contraction that goes by slabs where `bytes_per_image(form, c, o, dtype)` is large.

    A slab has a multiple of `rows_of_tile(form, axis)` positions, or of one.
    """

    def decorator(contraction: Callable) -> Callable:
        name = contraction.__name__

        @functools.wraps(contraction)
        def evaluate(a: jax.Array, b: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
            size = bytes_per_image(form, *form.channels(name, a.shape, b.shape), dtype)
            if not isinstance(size, int) or size <= bytes_for(form.platform, MAX_BYTES):
                return contraction(a, b, form, dtype)
            axis = int(np.argmax(form.window.small))
            tile = rows_of_tile(form, axis) if rows_of_tile else 1
            slab = bytes_for(form.platform, SLAB_BYTES)
            rows = max(1, form.window.small[axis] * slab // (size * tile)) * tile
            if rows >= form.window.small[axis]:
                return contraction(a, b, form, dtype)
            # A slab of one position that is still too large is cut along the next axis.
            return _LOOPS[name](evaluate, a, b, form, dtype, _Slabs(form, axis, rows))

        return evaluate

    return decorator


class _Slabs:
    """Where the slabs of `rows` positions lie, and the form of one."""

    def __init__(self, form: Form, axis: int, rows: int) -> None:
        w = form.window
        self.rows, self.count = rows, -(-w.small[axis] // rows)
        self.step = rows * w.stride[axis]
        self.length = (rows - 1) * w.stride[axis] + w.span[axis]  # of x that a slab sees
        self.low, self.big, self.small = w.low[axis], w.big[axis], w.small[axis]
        self.full = (self.count - 1) * self.step + self.length
        sizes = {"big": self.length, "small": rows, "low": 0}
        changed = {
            name: (*getattr(w, name)[:axis], size, *getattr(w, name)[axis + 1 :])
            for name, size in sizes.items()
        }
        self.form = dataclasses.replace(form, window=dataclasses.replace(w, **changed))
        self.x, self.y = form.layout.x[2 + axis], form.layout.y[2 + axis]

    def padded_x(self, x: jax.Array) -> jax.Array:
        return padded(x, self.x, self.low, self.full - self.low - self.big)

    def cropped_x(self, x: jax.Array) -> jax.Array:
        return padded(x, self.x, -self.low, self.low + self.big - self.full)

    def padded_y(self, y: jax.Array) -> jax.Array:
        return padded(y, self.y, 0, self.count * self.rows - self.small)

    def of_x(self, x: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, i * self.step, self.length, self.x)

    def of_y(self, y: jax.Array, i: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(y, i * self.rows, self.rows, self.y)


def _conv(contraction, x, kernel, form: Form, dtype, slabs: _Slabs) -> jax.Array:
    x = slabs.padded_x(x)
    y = lax.map(
        lambda i: contraction(slabs.of_x(x, i), kernel, slabs.form, dtype), jnp.arange(slabs.count)
    )
    y = jnp.moveaxis(y, 0, slabs.y)
    shape = (*y.shape[: slabs.y], slabs.count * slabs.rows, *y.shape[slabs.y + 2 :])
    return lax.slice_in_dim(y.reshape(shape), 0, slabs.small, axis=slabs.y)


def _deconv(contraction, y, kernel, form: Form, dtype, slabs: _Slabs) -> jax.Array:
    y = slabs.padded_y(y)

    def part(i):
        return contraction(slabs.of_y(y, i), kernel, slabs.form, dtype)

    def add(x, i):
        seen = slabs.of_x(x, i) + part(i)
        return lax.dynamic_update_slice_in_dim(x, seen, i * slabs.step, slabs.x), None

    x = zeros_of(part, 0, like=y)
    x = padded(x, slabs.x, 0, slabs.full - slabs.length)
    return slabs.cropped_x(lax.scan(add, x, jnp.arange(slabs.count))[0])


def _kernel_grad(contraction, x, y, form: Form, dtype, slabs: _Slabs) -> jax.Array:
    x, y = slabs.padded_x(x), slabs.padded_y(y)

    def part(i):
        return contraction(slabs.of_x(x, i), slabs.of_y(y, i), slabs.form, dtype)

    kernel = zeros_of(part, 0, like=y)
    return lax.scan(lambda k, i: (k + part(i), None), kernel, jnp.arange(slabs.count))[0]


_LOOPS = dict(zip(CONTRACTIONS, (_conv, _deconv, _kernel_grad), strict=True))
