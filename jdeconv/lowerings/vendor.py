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
from jdeconv.window import gapped


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
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=window.stride,
        padding=padding,
        rhs_dilation=window.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(layout.x, layout.kernel, layout.y),
        feature_group_count=p.g,
        precision=p.precision,
        preferred_element_type=p.answer,
    )


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
    low = [span - 1 - start for span, start in zip(window.span, window.low, strict=True)]
    padding = np.array(_paddings(low, gapped(window).small, window.span, window.big))
    # Past the kernel's reach x is zero, and negative padding makes XLA's CPU convolution read outside of y.
    reach = np.clip(padding, 0, np.subtract(window.span, 1)[:, None])
    if p.platform in ACCELERATORS:  # whose routines write those zeros too, up to a step of them
        most = np.add(window.span, window.stride) - 2
        reach[:, 1] = np.clip(padding[:, 1], 0, most)
    # XLA takes an unpadded axis of kernel 2 and stride 2 for a group in disguise, and may abort over it.
    reach[:, 0] = np.maximum(reach[:, 0], np.equal(window.kernel, 2))
    x = lax.conv_general_dilated(
        y,
        kernel,
        window_strides=(1,) * window.rank,
        padding=[tuple(pair) for pair in reach.tolist()],
        lhs_dilation=window.stride,
        rhs_dilation=window.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(layout.y, _swapped(layout.kernel), layout.x),
        feature_group_count=p.g,
        precision=p.precision,
        preferred_element_type=p.answer,
    )
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
    padding = _paddings(window.low, window.big, gapped(window).small, window.span)
    # Cutting off less than a step of cells would cost accelerators a copy of x.
    unread = np.subtract(window.stride, 1) if p.platform in ACCELERATORS else None
    x, padding = cropped(x, layout.x[2:], padding, unread)
    return lax.conv_general_dilated(
        x,
        y,
        window_strides=window.dilation,
        padding=padding,
        rhs_dilation=window.stride,
        dimension_numbers=lax.ConvDimensionNumbers(
            *map(_swapped, (layout.x, layout.y, layout.kernel))
        ),
        batch_group_count=p.g,
        precision=p.precision,
        preferred_element_type=p.answer,
    )


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
    low = [span - 1 - start for span, start in zip(window.span, window.low, strict=True)]
    kernel = lax.conv_general_dilated(
        y,
        x,
        window_strides=(1,) * window.rank,
        padding=_paddings(low, gapped(window).small, window.big, window.kernel),
        lhs_dilation=window.stride,
        dimension_numbers=lax.ConvDimensionNumbers(
            _swapped(layout.y), _swapped(layout.x), layout.kernel
        ),
        precision=p.precision,
        preferred_element_type=p.answer,
    )
    return lax.rev(kernel, layout.kernel[2:])


def _even(low: int, high: int, stride: int) -> tuple[int, int]:
    """The pair with equal sides, if unread cells behind x allow it: cuDNN has one number for both sides."""
    return low, low if high <= low < high + stride else high


def _paddings(low, size, span, steps) -> list[tuple[int, int]]:
    """The pairs with which a window of `span` makes exactly `steps` unit steps over `size`."""
    axes = zip(low, size, span, steps, strict=True)
    return [(p, n + window - 1 - i - p) for p, i, window, n in axes]


def cropped(
    x: jax.Array, axes: Axes, padding, unread=None
) -> tuple[jax.Array, list[tuple[int, int]]]:
    """The array x without the cells that negative padding cuts off, and the rest of the padding.

    Given to XLA, negative padding makes its CPU convolution read outside of x (jaxlib 0.10 and 0.11). Up to
    `unread` cells at the end of x are not cut off: no window reads them.
    """
    left = []
    spares = [0] * len(axes) if unread is None else unread
    for axis, (low, high), spare in zip(axes, padding, spares, strict=True):
        size = x.shape[axis]
        high_left = high if high >= -spare else 0
        start, stop = max(-low, 0), size + min(high - high_left, 0)
        if start < stop:
            left.append((max(low, 0), int(high_left)))
        else:  # nothing but padding
            start = stop = 0
            left.append((low + size + high, 0))
        x = x if (start, stop) == (0, size) else lax.slice_in_dim(x, start, stop, axis=axis)
    return x, left


def _swapped(axes: Axes) -> Axes:
    outer, inner, *space = axes
    return inner, outer, *space
