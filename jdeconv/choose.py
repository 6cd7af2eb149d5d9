"""Which lowering evaluates which contraction on which platform, where the user named none.

The choice depends on shapes, dtypes, layout and platform only, so it is the same from run to run, in a loop and
outside of one. Times are of `python -m benchmarks` on two CPU cores, and of `python -m benchmarks.gpu`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jdeconv.lowerings import LOWERINGS, cudnn
from jdeconv.problem import ACCELERATORS, Problem

MAX_SPECTRA = 1 << 25  # numbers
CACHED = 8 << 20  # bytes of columns that a CPU's cache may hold
PLATFORMS = ("cpu", *ACCELERATORS)
ALL = ("conv", "deconv", "kernel_grad")


@dataclass(frozen=True)
class Row:
    """A lowering, and the platforms, contractions and condition for which it is chosen."""

    lowering: str
    condition: Callable[[Problem], bool]
    platforms: tuple[str, ...] = ("cpu",)
    contractions: tuple[str, ...] = ALL


def _is_floating(p: Problem) -> bool:
    return jnp.issubdtype(p.operands, jnp.floating)


def _may_round(p: Problem) -> bool:
    """Whether the operands are floats or complex numbers; sums of integers must stay exact."""
    return jnp.issubdtype(p.operands, jnp.inexact)


def _has_fast_path(p: Problem) -> bool:
    """Whether XLA's CPU convolution of the operands is fast, and worth its call."""
    return _is_floating(p) and p.taps > 3


def _is_dense(p: Problem) -> bool:
    """Whether there is one group of enough channels, and a kernel no larger than an image.

    XLA would exchange a larger kernel with the image, and leave the fast path.
    """
    return _has_fast_path(p) and p.g == 1 and p.c * p.o >= 192 and p.taps <= p.positions


def _copies_are_cheap(p: Problem) -> bool:
    """Whether the copies that nhwc makes cost little beside im2col's columns.

    It copies the kernel. With channels first it copies the images too, which costs more than columns that a
    cache holds. A batch of unknown size counts as one image.
    """
    images = p.columns // p.positions
    is_cached = images * LOWERINGS["im2col"].temporary_bytes(p) <= CACHED
    return (p.last or not is_cached) and min(p.c, p.o) < 2 * p.columns


def _is_dense_plane(p: Problem) -> bool:
    """Whether it is dense, over one or two axes, with channels last, and windows do not lie side by side.

    Windows side by side are columns already. Of kernel 4 and stride 4, im2col takes half of nhwc's time.
    """
    is_plane = p.last and p.window.rank <= 2 and not p.tiles
    return is_plane and _is_dense(p) and _copies_are_cheap(p)


def _is_large(p: Problem) -> bool:
    """Whether windows of many taps overlap, and are many, and the kernel's spectra fit memory."""
    spectra = p.g * p.c * p.o * int(np.prod(p.window.full, dtype=object))
    return min(p.taps / p.phases, p.positions) > 100 and spectra <= MAX_SPECTRA


TABLE = (
    # Conditions cannot be decided about sizes that are not known.
    Row("im2col", lambda p: p.has_symbolic_space, PLATFORMS),
    # On an H100, 4 taps over one axis took half the time of the vendor's call, and 31 twice the time.
    Row("taps", lambda p: cudnn.is_slow_line(p) and p.taps < 10, ("cuda",)),
    # Vendor libraries have convolutions of floats over 1 to 3 axes. XLA falls back to a naive loop.
    Row("vendor", lambda p: _is_floating(p) and p.window.rank <= 3, ("cuda", "rocm")),
    # By the compiler's estimate, explicit im2col takes 3 to 9 times the cycles of XLA's convolution.
    Row("vendor", _is_floating, ("tpu",)),
    Row("im2col", lambda p: p.is_symbolic),
    # XLA's CPU convolution is 10 to 30 times slower than the taps, im2col's batch of small dots 2 to 5 times.
    Row("taps", lambda p: max(p.c, p.o) <= 4),
    # Group after group takes half the time of a batch of small dots at 8 groups of 16 channels, 0.7 at 4 of 32.
    Row(
        "nhwc",
        lambda p: (
            _has_fast_path(p)
            and (p.g > 1 and p.phases == 1)
            and (min(p.c, p.o) >= 8 and max(p.c, p.o) <= 32)
        ),
    ),
    # 40 to 90 times faster than im2col at 13x13 and one channel, 13 times at 8 channels.
    Row("fft", lambda p: _may_round(p) and p.c * p.o <= 64 and _is_large(p)),
    # It takes 0.6 to 0.9 of im2col's time in U-Net and V-Net. But it copies the kernel, so where a kernel is
    # larger than the images' columns, im2col is 1.1 to 2 times faster. With channels first, ResNet-50 and TCN
    # take 0.93 of their time, and V-Net 0.96, if im2col evaluates the layers whose columns a cache holds.
    Row("nhwc", lambda p: _is_dense(p) and p.phases == 1 and _copies_are_cheap(p)),
    # Under a stride, DCGAN and an autoencoder take 0.9 of im2col's time with channels last. With channels first
    # DCGAN took up to 1.3 times im2col's time, since im2col reads whole rows there.
    Row("nhwc", _is_dense_plane, contractions=("conv",)),
    # With 16 channels and one image, a gradient as a convolution takes 4 times im2col's time.
    Row("nhwc", lambda p: _is_dense_plane(p) and p.o >= 64, contractions=("kernel_grad",)),
)
"""The first row that holds, and whose lowering does not refuse the problem, decides; after all, im2col."""


def choose(p: Problem) -> str:
    """The lowering's name.

    Example:
      >>> from jdeconv.form import Form, Layout
      >>> from jdeconv.window import Window
      >>> form = Form(Window.of_conv((8, 8), (3, 3)), 1, Layout.of("conv", None, 2))
      >>> arrays = jnp.zeros((1, 16, 8, 8)), jnp.zeros((4, 16, 3, 3))
      >>> [choose(Problem.of("conv", form, *arrays, "float32", on)) for on in ("cuda", "cpu")]
      ['vendor', 'im2col']
    """
    for row in TABLE:
        applies = p.platform in row.platforms and p.contraction in row.contractions
        if applies and row.condition(p) and LOWERINGS[row.lowering].refuses(p) is None:
            return row.lowering
    return "im2col"
