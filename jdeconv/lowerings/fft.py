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
from jdeconv.form import CONTRACTIONS
from jdeconv.problem import Problem

FIRST = 2  # spatial axis, of arrays with channels first and of kernels


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
    return _spectrum(kernel, p, spread=p.window.dilation)


def conv(x: jax.Array, spectrum: jax.Array, p: Problem) -> jax.Array:
    """Correlation of x with the kernel."""
    w, x = p.window, _spectrum(x, p, p.window.padding)
    return _signal("ngcf,gocf->ngof", x, spectrum.conj(), p, w.stride, w.small)


def deconv(y: jax.Array, spectrum: jax.Array, p: Problem) -> jax.Array:
    """Convolution of y, spread out by the stride, with the kernel."""
    w, y = p.window, _spectrum(y, p, spread=p.window.stride)
    x = _signal("ngof,gocf->ngcf", y, spectrum, p, (1,) * w.rank, w.full)
    return edged(x, range(FIRST, x.ndim), [(-low, -high) for low, high in w.padding])


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """Correlation of x with y, spread out by the stride, summed over images."""
    w = p.window
    x, y = _spectrum(x, p, w.padding), _spectrum(y, p, spread=w.stride)
    return _signal("ngcf,ngof->gocf", x, y.conj(), p, w.dilation, w.kernel)


def _lengths(p: Problem) -> list[int]:
    """The least sizes of factors 2, 3 and 5 that hold the padded x."""
    return [
        next(n for n in itertools.count(full) if 30 ** n.bit_length() % n == 0)
        for full in p.window.full
    ]


def _spectrum(a: jax.Array, p: Problem, padding=None, spread=None) -> jax.Array:
    """The transform over space, in one axis.

    `a` gets this padding, and `spread` - 1 zeros between its positions.
    """
    edges = zip(padding or [(0, 0)] * p.window.rank, spread or [1] * p.window.rank, strict=True)
    config = [(0, 0, 0)] * FIRST + [(low, high, step - 1) for (low, high), step in edges]
    a = lax.pad(a.astype(p.wide), jnp.zeros((), p.wide), config)
    return jnp.fft.rfftn(a, _lengths(p), range(FIRST, a.ndim)).reshape(*a.shape[:FIRST], -1)


def _signal(subscripts: str, a: jax.Array, b: jax.Array, p: Problem, steps, sizes) -> jax.Array:
    """The inverse transform of products of spectra, summed over channels: `sizes` positions, `steps` apart."""
    lengths, shape = _lengths(p), p.shape(CONTRACTIONS[p.contraction][2])[:FIRST]
    sizes_of = {"n": p.n, "g": p.g, "c": p.c, "o": p.o, "f": -1}
    terms = subscripts.split("->")[0].split(",")
    a, b = (s.reshape([sizes_of[i] for i in t]) for s, t in zip((a, b), terms, strict=True))
    product = jnp.einsum(subscripts, a, b)
    product = product.reshape(*shape, *lengths[:-1], lengths[-1] // 2 + 1)
    signal = jnp.fft.irfftn(product, lengths, tuple(range(FIRST, product.ndim)))
    stops = [(size - 1) * step + 1 for size, step in zip(sizes, steps, strict=True)]
    return lax.slice(signal, [0] * signal.ndim, (*shape, *stops), (1,) * FIRST + steps)
