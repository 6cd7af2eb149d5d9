"""XLA's own convolution, in the three forms that vendor libraries have a routine for.

The rewriters of GPU and TPU look for a pattern: forward as it is; backward-input with a reversed kernel
and a dilated input; backward-filter with y as a dilated window over x. `lax.conv_transpose` and the
gradients that JAX derives from it match none of them (jax #31662, #23783).
"""

from __future__ import annotations

import jax
import numpy as np
from jax import lax

from jdeconv.axes import edged, regrouped
from jdeconv.form import Axes
from jdeconv.lowerings import cudnn
from jdeconv.problem import ACCELERATORS, Problem
from jdeconv.window import Window, exchanged, gapped, turned


def refuses(p: Problem) -> str | None:
    """Returns None: XLA's convolution serves every problem, but more than three spatial axes slowly."""
    return None


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """The forward convolution."""
    if cudnn.is_slow_line(p):
        return cudnn.on_plane(conv, x, kernel, p)
    layout, window = p.layout, p.window
    padding = [_even(*pair, step) for pair, step in zip(window.padding, window.stride, strict=True)]
    x, padding = cropped(x, layout.x[2:], padding)
    axes = layout.x, layout.kernel, layout.y
    return convolution(x, kernel, p, window, axes, padding, feature_group_count=p.g)


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """Backward-input: y with stride - 1 zeros between its positions, against the reversed kernel."""
    if cudnn.is_slow_line(p):
        return cudnn.on_plane(deconv, y, kernel, p)
    layout, window = p.layout, p.window
    kernel = regrouped(kernel, p.g, *layout.kernel[:2])
    if p.phases > 1 and p.taps > 1 and p.platform != "tpu":
        # Compilers know a strided deconv by the reversal, and two reversals would cancel. The barrier costs a
        # copy of the kernel. A TPU's compiler does not need it.
        kernel = lax.optimization_barrier(kernel)
    kernel = lax.rev(kernel, layout.kernel[2:])
    reading = turned(gapped(window))
    padding = np.array(reading.padding)
    # Past the kernel's reach x is zero, and negative padding makes XLA's CPU convolution read outside of y.
    reach = np.clip(padding, 0, np.subtract(window.span, 1)[:, None])
    if p.platform in ACCELERATORS:  # whose routines write those zeros too, up to a step of them
        most = np.add(window.span, window.stride) - 2
        reach[:, 1] = np.clip(padding[:, 1], 0, most)
    # XLA takes an unpadded axis of kernel 2 and stride 2 for a group in disguise, and may abort over it.
    reach[:, 0] = np.maximum(reach[:, 0], np.equal(window.kernel, 2))
    axes = layout.y, _swapped(layout.kernel), layout.x
    options = {"lhs_dilation": window.stride, "feature_group_count": p.g}
    x = convolution(y, kernel, p, reading, axes, reach.tolist(), **options)
    return edged(x, layout.x[2:], (padding - reach).tolist())


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """Backward-filter: y is a window over x, with the stride as its dilation and the dilation as its step."""
    if cudnn.is_slow_line(p):
        return cudnn.on_plane(kernel_grad, x, y, p)
    if cudnn.has_phases(p):
        return cudnn.in_phases(kernel_grad, x, y, p)
    layout, window = p.layout, p.window
    if _is_faster_over_y(p):
        return _kernel_grad_over_y(x, y, p)
    reading = exchanged(window)
    # Cutting off less than a step of cells would cost accelerators a copy of x.
    unread = [step - 1 for step in window.stride] if p.platform in ACCELERATORS else None
    x, padding = cropped(x, layout.x[2:], reading.padding, unread)
    axes = _swapped(layout.x), _swapped(layout.y), _swapped(layout.kernel)
    return convolution(x, y, p, reading, axes, padding, batch_group_count=p.g)


def _is_faster_over_y(p: Problem) -> bool:
    """Whether a TPU's compiler expects fewer cycles for a kernel gradient with x as the window.

    Over one axis with a stride it expects 0.16 to 0.96 of the cycles where x has fewer than 128 channels, and
    0.8 to 1.4 of them where it has more. Over more axes it expects up to ten times as many.
    """
    if p.platform != "tpu" or p.window.rank != 1 or p.is_symbolic or p.g != 1:
        return False
    ((q,), (s,)) = p.window.small, p.window.stride
    is_even = s > 1 and p.window.dilation == (1,) and p.window.big == (q * s,)
    return is_even and p.c < 128 and isinstance(p.n, int) and p.n * q >= 1024


def _kernel_grad_over_y(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """The same without groups and dilation: x is a window over y with gaps, and the taps are then reversed."""
    layout, window = p.layout, p.window
    reading, axes = (
        exchanged(turned(gapped(window))),
        (*map(_swapped, (layout.y, layout.x)), layout.kernel),
    )
    kernel = convolution(y, x, p, reading, axes, reading.padding, lhs_dilation=window.stride)
    return lax.rev(kernel, layout.kernel[2:])


def convolution(
    a: jax.Array, b: jax.Array, p: Problem, reading: Window, axes: tuple, padding, **options
) -> jax.Array:
    """XLA's convolution, in which `b` is the kernel of this window over `a`."""
    return lax.conv_general_dilated(
        a,
        b,
        reading.stride,
        padding,
        rhs_dilation=reading.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(*axes),
        precision=p.precision,
        preferred_element_type=p.answer,
        **options,
    )


def _even(low: int, high: int, stride: int) -> tuple[int, int]:
    """The pair with equal sides, if unread cells behind x allow it: cuDNN has one number for both sides."""
    return low, low if high <= low < high + stride else high


def cropped(
    x: jax.Array, axes: Axes, padding, unread=None
) -> tuple[jax.Array, list[tuple[int, int]]]:
    """The array x without the cells that negative padding cuts off, and the rest of the padding.

    Given to XLA, negative padding makes its CPU convolution read outside of x (jaxlib 0.10 and 0.11). Up to
    `unread[i]` cells at the end of axis i stay, since no window reads them.
    """
    left = []
    for axis, (low, high), spare in zip(axes, padding, unread or [0] * len(axes), strict=True):
        size = x.shape[axis]
        high_left = high if high >= -spare else 0
        start, stop = max(-low, 0), size + min(high - high_left, 0)
        if start < stop:
            left.append((max(low, 0), high_left))
        else:  # nothing but padding
            start = stop = 0
            left.append((low + size + high, 0))
        x = x if (start, stop) == (0, size) else lax.slice_in_dim(x, start, stop, axis=axis)
    return x, left


def _swapped(axes: Axes) -> Axes:
    outer, inner, *space = axes
    return inner, outer, *space
