"""Layers with windows: Convolution, Deconvolution, Im2col, Pooling, SPP."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.checks import cells, refused
from jdeconv.compat.caffe.convolution import Convolution, Deconvolution, Im2col
from jdeconv.compat.caffe.layers.base import (
    Layer,
    Shape,
    field_of,
    filler_of,
    need_axes,
    need_bottoms,
    sides_of,
)
from jdeconv.window import Window


def _windowed(message: Any) -> dict[str, Any]:
    names = ("kernel_size", "pad", "stride", "dilation")
    values: dict[str, Any] = {name: tuple(getattr(message, name)) for name in names}
    hole = tuple(message.hole)
    by_side = [field_of(message, f"hole_{side}") for side in "hw"]
    if by_side != [None, None]:
        hole = tuple(1 if side is None else side for side in by_side)
    if hole:  # DeepLab's name for the dilation
        if values["dilation"]:
            raise refused("hole", "came together with dilation; leave one out")
        values["dilation"] = hole
    values |= sides_of(message, "kernel pad stride")
    return values | {"axis": message.axis, "force_nd_im2col": message.force_nd_im2col}


def convolution(kind: type, layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Convolution and Deconvolution, of several bottoms at need."""
    message = layer.convolution_param
    made = kind(
        **_windowed(message),
        num_output=message.num_output,
        group=message.group,
        bias_term=message.bias_term,
        weight_filler=filler_of(message.weight_filler),
        bias_filler=filler_of(message.bias_filler),
    )
    need_bottoms(layer, bottoms, 1, max(1, len(bottoms)))
    shapes = made.blob_shapes(bottoms[0])
    fills = (made.weight_filler, made.bias_filler)[: len(shapes)]
    each = math.prod(shapes[0][1:])
    top, bottom = (each, 0) if kind is Convolution else (0, each)
    return Layer(
        lambda blobs, bottoms: made.forward(blobs, *bottoms),
        shapes,
        fills,
        per_top=top,
        per_bottom=bottom,
    )


def im2col(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Im2col."""
    need_bottoms(layer, bottoms, 1)
    made = Im2col(**_windowed(layer.convolution_param))
    items, channels, space = made.split(bottoms[0])
    kernel, steps = made.steps(len(space))
    if not space:
        raise refused("bottom", f"needs a spatial axis behind the channels, got {bottoms[0]}")
    small = Window.of_conv(space, kernel, **steps).small
    top = (*items, channels * math.prod(kernel), *small)
    return Layer(lambda _, bottoms: [made.forward(bottoms[0])], tops=[top])


def pooling(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Pooling over two axes, MAX with a mask at need, or AVE; windows may hang over by less than a stride."""
    need_bottoms(layer, bottoms, 1)
    message, (shape,) = layer.pooling_param, bottoms
    need_axes(shape, 4)
    sides = sides_of(message, "kernel pad stride")

    def pair(name: str, short: str, default: int | None) -> list[int]:
        both = [sides[f"{short}_{side}"] for side in "hw"]
        found = [side for side in both if side is not None]
        if len(found) == 2:
            return found
        if found or (default is None and not message.HasField(name)):
            raise refused(name, f"is needed, or {short}_h and {short}_w")
        return [getattr(message, name)] * 2

    stride, pad = pair("stride", "stride", 1), pair("pad", "pad", 0)
    kernel = list(shape[2:]) if message.global_pooling else pair("kernel_size", "kernel", None)
    down = message.round_mode == 1 or not message.ceil_mode
    pool = _pool(message.pool, shape, kernel, stride, pad, down, len(layer.top) > 1)
    return Layer(lambda _, bottoms: pool(bottoms[0]))


def spp(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """SPP: poolings of 1, 4, 16, ... windows over all of the bottom, flattened and in one row."""
    need_bottoms(layer, bottoms, 1)
    message, (shape,) = layer.spp_param, bottoms
    need_axes(shape, 4)
    if not 1 <= message.pyramid_height <= 16:
        raise refused("pyramid_height", f"must be 1 to 16, got {message.pyramid_height}")
    pools = []
    for level in range(message.pyramid_height):
        bins = 2**level
        kernel = [-(-size // bins) for size in shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, shape[2:], strict=True)]
        pools.append(_pool(message.pool, shape, kernel, kernel, pad, False, False))

    def apply(_, bottoms):
        rows = [pool(bottoms[0])[0].reshape(len(bottoms[0]), -1) for pool in pools]
        return [rows[0] if len(rows) == 1 else jnp.concatenate(rows, 1)]

    return Layer(apply)


def _pool(
    method: int,
    shape: Shape,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    down: bool,
    masked: bool,
) -> Any:
    """The function of a bottom of this shape that gives the pooled top, and its mask if it is wanted."""
    if method == 2:
        raise refused("pool", "must be MAX or AVE, got STOCHASTIC")
    if masked and method != 0:
        raise refused("top", "is one for AVE, which has no mask")
    given = f"kernel {list(kernel)}, stride {list(stride)}, pad {list(pad)}"
    for k, s, p in zip(kernel, stride, pad, strict=True):
        if k < 1 or s < 1 or p >= k:
            reason = f"needs a stride of 1 or more and a pad of less than the kernel, got {given}"
            raise refused("pooling_param", reason)
    rounded = operator.floordiv if down else lambda a, b: -(-a // b)
    sizes, edges = [], [(0, 0, 0), (0, 0, 0)]
    for i, k, s, p in zip(shape[2:], kernel, stride, pad, strict=True):
        if i + 2 * p < k and rounded(i + 2 * p - k, s) < 0:
            reason = f"must fit into the padded bottom, {i + 2 * p}, got {k}"
            raise refused("kernel_size", reason)
        size = rounded(i + 2 * p - k, s) + 1
        if any(pad) and (size - 1) * s >= i + p:
            size -= 1
        sizes.append(size)
        edges.append((p, (size - 1) * s + k - i - p, 0))
    padded = [low + i + high for i, (low, high, _) in zip(shape[2:], edges[2:], strict=True)]
    cells("pooling_param", padded)
    windows = ((1, 1, *kernel), (1, 1, *stride), "VALID")
    lasts = [  # only the last window may hang over
        min(k, i + 2 * p - (size - 1) * s)
        for i, k, s, p, size in zip(shape[2:], kernel, stride, pad, sizes, strict=True)
    ]

    def counts():
        rows, columns = [
            jnp.full(size, float(k), jnp.float32).at[-1].set(float(last))
            for k, size, last in zip(kernel, sizes, lasts, strict=True)
        ]
        return jnp.outer(rows, columns)[None, None]

    def average(x):
        sums = lax.reduce_window(lax.pad(x, jnp.zeros((), x.dtype), edges), 0.0, lax.add, *windows)
        return [sums / counts()]

    def greatest(x):
        least = jnp.array(jnp.finfo(x.dtype).min, x.dtype)  # Caffe's top where a window is empty
        return [lax.reduce_window(lax.pad(x, least, edges), -np.inf, lax.max, *windows)]

    def greatest_and_mask(x):
        """The first greatest of each window, and its place in the plane; -1 where a window is empty."""
        fixed = lax.stop_gradient(x)
        least = jnp.array(jnp.finfo(x.dtype).min, x.dtype)
        plane = jnp.arange(math.prod(x.shape[2:]), dtype=jnp.int32).reshape(x.shape[2:])
        places = jnp.broadcast_to(plane, x.shape)
        none = jnp.array(-1, jnp.int32)

        def first_greater(a, b):
            better = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] >= 0) & ((b[1] < a[1]) | (a[1] < 0)))
            return jnp.where(better, b[0], a[0]), jnp.where(better, b[1], a[1])

        sides = (lax.pad(fixed, least, edges), lax.pad(places, none, edges))
        _, mask = lax.reduce_window(sides, (least, none), first_greater, *windows)
        flat = x.reshape(*x.shape[:2], -1)
        picked = jnp.take_along_axis(flat, jnp.maximum(mask, 0).reshape(*mask.shape[:2], -1), 2)
        top = jnp.where(mask < 0, least, picked.reshape(mask.shape))
        return [top, mask.astype(jnp.float32)]

    if method == 1:
        return average
    return greatest_and_mask if masked else greatest


def average_pooling(shape: Shape, size: int, pad: int) -> Any:
    """The function that averages windows of `size` cells around each cell, as AVE pooling counts them."""
    return _pool(1, shape, [size] * 2, [1] * 2, [pad] * 2, False, False)


MAKERS = {
    "Convolution": functools.partial(convolution, Convolution),
    "ConvolutionDepthwise": functools.partial(convolution, Convolution),
    "Deconvolution": functools.partial(convolution, Deconvolution),
    "DepthwiseConvolution": functools.partial(convolution, Convolution),
    "Im2col": im2col,
    "Pooling": pooling,
    "SPP": spp,
}
