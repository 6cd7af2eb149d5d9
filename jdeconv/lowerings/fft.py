"""Large kernels of few channels: products of spectra instead of sums over taps.

    conv         y = F^-1(F x * conj F kernel)    at every stride-th position
    deconv       x = F^-1(F y * F kernel)         where y has stride - 1 zeros between its positions
    kernel_grad  kernel = F^-1(F x * conj F y)    at every dilation-th tap

All three are circular over one length that holds the padded x, so that nothing wraps into what is kept. The
cost no longer depends on the number of taps. Rounding is that of a transform: small beside the largest value
of the result, not beside each one, and integers do not stay exact.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.form import Form
from jdeconv.lowerings.blocks import items_per_block, map_blocks, sum_blocks

BLOCK_BYTES = 32 << 20  # of spectra


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """The reason why spectra cannot serve."""
    if form.window.rank > 3:
        return f"fft has transforms of up to 3 axes, not of {form.window.rank}"
    if not jnp.issubdtype(dtype, jnp.floating):
        return f"fft rounds, so it needs real floats, not {np.dtype(dtype)}"
    if form.precision not in (None, lax.Precision.DEFAULT):
        return f"fft rounds more than the precision {form.precision} that was asked for"
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Correlation of x with the kernel."""
    w = form.window
    spectrum = _spectrum(_split(kernel, form, "kernel", dtype), form, w.dilation)

    def block(x):
        x = _spectrum(x, form)
        return _strided(_signal("ngcf,gocf->ngof", x, spectrum.conj(), form), w.stride, w.small)

    x = _padded(_split(x, form, "x", dtype), w.padding)
    return _joined(
        map_blocks(block, x, _images_per_block(x, form, *spectrum.shape[1:3])), form, "y"
    )


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Convolution of y, spread out by the stride, with the kernel."""
    w = form.window
    spectrum = _spectrum(_split(kernel, form, "kernel", dtype), form, w.dilation)

    def block(y):
        y = _spectrum(y, form, w.stride)
        x = _strided(_signal("ngof,gocf->ngcf", y, spectrum, form), (1,) * w.rank, w.full)
        return _padded(x, [(-low, -high) for low, high in w.padding])

    y = _split(y, form, "y", dtype)
    return _joined(
        map_blocks(block, y, _images_per_block(y, form, *spectrum.shape[1:3])), form, "x"
    )


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Correlation of x with y, spread out by the stride, summed over images."""
    w = form.window

    def block(x, y):
        x, y = _spectrum(x, form), _spectrum(y, form, w.stride)
        return _strided(_signal("ngcf,ngof->gocf", x, y.conj(), form), w.dilation, w.kernel)

    x, y = _padded(_split(x, form, "x", dtype), w.padding), _split(y, form, "y", dtype)
    kernel = sum_blocks(block, (x, y), _images_per_block(x, form, x.shape[2], y.shape[2]))
    return _joined(kernel, form, "kernel")


def _lengths(form: Form) -> list[int]:
    """The least sizes of factors 2, 3 and 5 that hold the padded x."""
    return [
        next(n for n in itertools.count(full) if 30 ** n.bit_length() % n == 0)
        for full in form.window.full
    ]


def _split(a: jax.Array, form: Form, role: str, dtype: np.dtype) -> jax.Array:
    """Groups on an axis of their own: (n, g, channel, *space), and (g, o, c, *space) for the kernel."""
    a = lax.transpose(a, getattr(form.layout, role)).astype(dtype)
    if role == "kernel":
        return a.reshape(form.groups, -1, *a.shape[1:])
    return a.reshape(a.shape[0], form.groups, -1, *a.shape[2:])


def _joined(a: jax.Array, form: Form, role: str) -> jax.Array:
    """The inverse of `_split`."""
    first = 0 if role == "kernel" else 1
    a = a.reshape(*a.shape[:first], -1, *a.shape[first + 2 :])
    return lax.transpose(a, np.argsort(getattr(form.layout, role)))


def _spectrum(a: jax.Array, form: Form, spread=None) -> jax.Array:
    """The transform over space, in one axis, of `a` with `spread` - 1 zeros between its positions."""
    rank = form.window.rank
    gaps = [step - 1 for step in spread or (1,) * rank]
    config = [(0, 0, 0)] * 3 + [(0, 0, gap) for gap in gaps]
    a = lax.pad(a, jnp.zeros((), a.dtype), config)
    axes = tuple(range(3, 3 + rank))
    return jnp.fft.rfftn(a, _lengths(form), axes).reshape(*a.shape[:3], -1)


def _signal(subscripts: str, a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
    """The inverse transform of the product of spectra, summed over channels."""
    lengths = _lengths(form)
    product = jnp.einsum(subscripts, a, b)
    product = product.reshape(*product.shape[:3], *lengths[:-1], lengths[-1] // 2 + 1)
    return jnp.fft.irfftn(product, lengths, tuple(range(3, 3 + len(lengths))))


def _strided(a: jax.Array, stride, sizes) -> jax.Array:
    """So many positions of every spatial axis, from the first on."""
    stops = [(size - 1) * step + 1 for size, step in zip(sizes, stride, strict=True)]
    return lax.slice(a, [0] * a.ndim, [*a.shape[:3], *stops], [1, 1, 1, *stride])


def _padded(a: jax.Array, edges) -> jax.Array:
    config = [(0, 0, 0)] * 3 + [(low, high, 0) for low, high in edges]
    return lax.pad(a, jnp.zeros((), a.dtype), config)


def _images_per_block(a: jax.Array, form: Form, c: int, o: int) -> int:
    numbers = form.groups * (c + o) * math.prod(_lengths(form))
    return items_per_block(a.shape[0], numbers * a.dtype.itemsize, BLOCK_BYTES)
