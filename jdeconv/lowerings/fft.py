"""Products of spectra instead of sums over taps, for large kernels of few channels.

    conv         y = F^-1(F x * conj F kernel)    at every stride-th position
    deconv       x = F^-1(F y * F kernel)         where y has stride - 1 zeros between its positions
    kernel_grad  kernel = F^-1(F x * conj F y)    at every dilation-th tap

All three are circular convolutions. Their length holds the padded x, so nothing wraps around into the result.
The cost does not depend on the number of taps. Rounding errors are those of a transform: small relative to the
largest value of the result, and not to each value. Integers do not stay exact.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.axes import edged
from jdeconv.problem import Problem

FIRST = 3  # spatial axis, of arrays with channels first and of kernels


def refuses(p: Problem) -> str | None:
    """Returns the reason why spectra cannot serve, or None."""
    if p.window.rank > 3:
        return f"fft has transforms of up to 3 axes, not of {p.window.rank}"
    if not jnp.issubdtype(p.wide, jnp.floating):
        return f"fft rounds, so it needs real floats, not {p.wide}"
    if p.precision not in (None, lax.Precision.DEFAULT):
        return f"fft rounds more than the precision {p.precision} that was asked for"
    return None


def temporary_bytes(p: Problem) -> int:
    """The bytes of one image's spectra."""
    return p.g * (p.c + p.o) * math.prod(_lengths(p)) * p.wide.itemsize


def enter_kernel(kernel: jax.Array, p: Problem) -> jax.Array:
    """The spectrum of the kernel."""
    return _spectrum(kernel, p, p.window.dilation)


def conv(x: jax.Array, spectrum: jax.Array, p: Problem) -> jax.Array:
    """Correlation of x with the kernel."""
    x = _spectrum(edged(x, range(FIRST, x.ndim), p.window.padding), p)
    y = _signal("ngcf,gocf->ngof", x, spectrum.conj(), p)
    return _strided(y, p.window.stride, p.window.small)


def deconv(y: jax.Array, spectrum: jax.Array, p: Problem) -> jax.Array:
    """Convolution of y, spread out by the stride, with the kernel."""
    y = _spectrum(y, p, p.window.stride)
    x = _signal("ngof,gocf->ngcf", y, spectrum, p)
    x = _strided(x, (1,) * p.window.rank, p.window.full)
    return edged(x, range(FIRST, x.ndim), [(-low, -high) for low, high in p.window.padding])


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """Correlation of x with y, spread out by the stride, summed over images."""
    w = p.window
    x, y = _spectrum(edged(x, range(FIRST, x.ndim), w.padding), p), _spectrum(y, p, w.stride)
    return _strided(_signal("ngcf,ngof->gocf", x, y.conj(), p), w.dilation, w.kernel)


def _lengths(p: Problem) -> list[int]:
    """The least sizes of factors 2, 3 and 5 that hold the padded x."""
    return [
        next(n for n in itertools.count(full) if 30 ** n.bit_length() % n == 0)
        for full in p.window.full
    ]


def _spectrum(a: jax.Array, p: Problem, spread=None) -> jax.Array:
    """The transform over space, in one axis, of `a` with `spread` - 1 zeros between its positions."""
    gaps = [(0, 0, step - 1) for step in spread or (1,) * p.window.rank]
    a = lax.pad(a.astype(p.wide), jnp.zeros((), p.wide), [(0, 0, 0)] * FIRST + gaps)
    axes = tuple(range(FIRST, a.ndim))
    return jnp.fft.rfftn(a, _lengths(p), axes).reshape(*a.shape[:FIRST], -1)


def _signal(subscripts: str, a: jax.Array, b: jax.Array, p: Problem) -> jax.Array:
    """The inverse transform of the product of spectra, summed over channels."""
    lengths = _lengths(p)
    product = jnp.einsum(subscripts, a, b)
    product = product.reshape(*product.shape[:FIRST], *lengths[:-1], lengths[-1] // 2 + 1)
    return jnp.fft.irfftn(product, lengths, tuple(range(FIRST, product.ndim)))


def _strided(a: jax.Array, stride, sizes) -> jax.Array:
    """The first `sizes` positions of the spatial axes, in steps of `stride`."""
    stops = [(size - 1) * step + 1 for size, step in zip(sizes, stride, strict=True)]
    return lax.slice(a, [0] * a.ndim, [*a.shape[:FIRST], *stops], [1] * FIRST + list(stride))
