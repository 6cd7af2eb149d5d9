"""Layers that arrange, combine or reduce numbers."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jdeconv.checks import refused
from jdeconv.compat.caffe.layers.base import (
    MANY,
    Layer,
    Made,
    Shape,
    axis_of,
    maker,
    misfit,
    need_same,
)


@maker("Eltwise", bottoms=(2, MANY))
def eltwise(layer: Any, *bottoms: Shape) -> Made:
    """Eltwise: product, weighted sum or maximum of bottoms of one shape."""
    message = layer.eltwise_param
    need_same(layer, bottoms)
    coefficients = list(message.coeff)
    if coefficients and (message.operation != 1 or len(coefficients) != len(bottoms)):
        raise refused("coeff", f"needs one for each bottom of a SUM, got {coefficients}")
    weights = coefficients or [1.0] * len(bottoms)

    def apply(*bottoms):
        if message.operation == 0:
            return functools.reduce(jnp.multiply, bottoms)
        if message.operation == 1:
            terms = [a if w == 1 else w * a for w, a in zip(weights, bottoms, strict=True)]
            return functools.reduce(jnp.add, terms)
        first, second, *others = bottoms  # among equals Caffe takes the second, then the earliest
        top = jnp.where(first > second, first, second)
        for other in others:
            top = jnp.where(other > top, other, top)
        return top

    return apply


@maker("Concat", bottoms=(1, MANY))
def concat(layer: Any, *bottoms: Shape) -> Made:
    """Concat."""
    message = layer.concat_param
    named = message.concat_dim if message.HasField("concat_dim") else message.axis
    axis = axis_of("axis", named, len(bottoms[0]))
    if len({shape[:axis] + shape[axis + 1 :] for shape in bottoms}) > 1:
        raise misfit(layer, bottoms, f"shapes may differ on axis {axis} only")
    return lambda *bottoms: jnp.concatenate(bottoms, axis)


@maker("Slice")
def slicing(layer: Any, shape: Shape) -> Made:
    """Slice, at the points given or in equal parts."""
    message, parts = layer.slice_param, len(layer.top)
    named = message.slice_dim if message.HasField("slice_dim") else message.axis
    axis = axis_of("axis", named, len(shape))
    size, points = shape[axis], list(message.slice_point)
    if not points:
        if not parts or size % parts:
            raise refused("top", f"count must divide {size}, got {list(layer.top)}")
        points = [size // parts * i for i in range(1, parts)]
    bounds = [0, *points, size]
    if len(points) != parts - 1 or any(a >= b for a, b in itertools.pairwise(bounds)):
        reason = f"needs {parts - 1} rising points inside of {size} for {parts} tops"
        raise refused("slice_point", f"{reason}, got {points}")
    return lambda x: jnp.split(x, points, axis)


@maker("Split")
def split(layer: Any, shape: Shape) -> Made:
    """Split: the bottom, for every top."""
    return lambda x: [x] * len(layer.top)


@maker("Silence", "HDF5Output", bottoms=(0, MANY))
def silence(layer: Any, *bottoms: Shape) -> Made:
    """Silence and HDF5Output: nothing; the bottoms are no outputs of the net."""
    return lambda *bottoms: []


@maker("Crop", bottoms=2)
def crop(layer: Any, shape: Shape, wanted: Shape) -> Made:
    """Crop: of the first bottom, as much as the second has, from `axis` on."""
    message = layer.crop_param
    axis = axis_of("axis", message.axis, len(shape))
    if len(wanted) != len(shape):
        raise misfit(layer, (shape, wanted), "shapes need as many axes")
    offsets, count = list(message.offset) or [0], len(shape) - axis
    if len(offsets) not in (1, count):
        raise refused("offset", f"needs one value or {count}, got {offsets}")
    offsets = offsets * (count if len(offsets) == 1 else 1)
    starts = [0] * axis + offsets
    sizes = shape[:axis] + wanted[axis:]
    stops = [a + b for a, b in zip(starts, sizes, strict=True)]
    if any(stop > size for stop, size in zip(stops, shape, strict=True)):
        raise refused("offset", f"must let {wanted} fit into {shape}, got {offsets}")
    return lambda x, _: lax.slice(x, starts, stops)


@maker("CropCenter")
def crop_center(layer: Any, shape: Shape) -> Made:
    """CropCenter, of waifu2x's fork: crop_size cells fewer at both ends of each axis."""
    cut = list(layer.crop_center_param.crop_size)
    if len(cut) != len(shape):
        raise refused("crop_size", f"needs one value for each of {len(shape)} axes, got {cut}")
    stops = [size - c for size, c in zip(shape, cut, strict=True)]
    if any(c >= stop for c, stop in zip(cut, stops, strict=True)):
        raise refused("crop_size", f"must leave something of {shape}, got {cut}")
    return lambda x: lax.slice(x, cut, stops)


@maker("Reshape")
def reshape(layer: Any, shape: Shape) -> Made:
    """Reshape: 0 keeps a size, -1 is what is left."""
    message = layer.reshape_param
    start = message.axis if message.axis >= 0 else len(shape) + message.axis + 1
    stop = len(shape) if message.num_axes == -1 else start + message.num_axes
    if not 0 <= start <= stop <= len(shape):
        raise refused("axis", f"is out of range, got {message.axis} for {len(shape)} axes")
    dims = list(message.shape.dim)
    if dims.count(-1) > 1 or min(dims, default=0) < -1:
        raise refused("shape", f"needs sizes, 0 to keep one, and one -1 at most, got {dims}")
    if any(d == 0 and start + i >= stop for i, d in enumerate(dims)):
        raise refused("shape", f"has a 0 for an axis that the bottom lacks, got {dims}")
    new = [shape[start + i] if d == 0 else d for i, d in enumerate(dims)]
    count, known = math.prod(shape[start:stop]), math.prod(d for d in new if d != -1)
    if -1 in new and known and count % known == 0:
        new[new.index(-1)] = count // known
    if math.prod(new) != count:
        raise refused("shape", f"must hold the {count} numbers of {shape}, got {dims}")
    sizes = (*shape[:start], *new, *shape[stop:])
    return lambda x: x.reshape(sizes)


@maker("Flatten")
def flatten(layer: Any, shape: Shape) -> Made:
    """Flatten: axes from `axis` to `end_axis` in one."""
    start = axis_of("axis", layer.flatten_param.axis, len(shape))
    stop = axis_of("end_axis", layer.flatten_param.end_axis, len(shape)) + 1
    if stop <= start:
        raise refused("end_axis", f"must not lie in front of axis {start}, got {stop - 1}")
    sizes = (*shape[:start], math.prod(shape[start:stop]), *shape[stop:])
    return lambda x: x.reshape(sizes)


@maker("Permute")
def permute(layer: Any, shape: Shape) -> Made:
    """Permute, of SSD: the axes in another order; those that are not named follow in theirs."""
    order, ndim = list(layer.permute_param.order), len(shape)
    if len(set(order)) != len(order) or max(order, default=0) >= ndim:
        raise refused("order", f"needs different axes of {ndim}, got {order}")
    order += [axis for axis in range(ndim) if axis not in order]
    return lambda x: x.transpose(order)


@maker("Tile")
def tile(layer: Any, shape: Shape) -> Made:
    """Tile: copies of the bottom, one after another on an axis."""
    message = layer.tile_param
    axis = axis_of("axis", message.axis, len(shape))
    if message.tiles < 1:
        raise refused("tiles", f"must be at least 1, got {message.tiles}")
    top = (*shape[:axis], shape[axis] * message.tiles, *shape[axis + 1 :])
    times = [1] * axis + [message.tiles] + [1] * (len(shape) - axis - 1)
    return Layer(lambda _, bottoms: [jnp.tile(bottoms[0], times)], tops=[top])


@maker("Reduction")
def reduction(layer: Any, shape: Shape) -> Made:
    """Reduction: sum, sum of magnitudes or of squares, or mean over all axes from one on, times a factor."""
    message = layer.reduction_param
    axes = tuple(range(axis_of("axis", message.axis, len(shape)), len(shape)))
    function = {
        1: lambda x: x.sum(axes),
        2: lambda x: jnp.abs(x).sum(axes),
        3: lambda x: (x * x).sum(axes),
        4: lambda x: x.mean(axes),
    }[message.operation]
    return lambda x: message.coeff * function(x)


@maker("ArgMax")
def argmax(layer: Any, shape: Shape) -> Made:
    """ArgMax: the places of the top_k greatest along an axis, or of each item; or the numbers themselves."""
    message = layer.argmax_param
    by_axis, k = message.HasField("axis"), message.top_k
    axis = axis_of("axis", message.axis, len(shape)) if by_axis else 1
    size = shape[axis] if by_axis else math.prod(shape[1:])
    if not 1 <= k <= size:
        raise refused("top_k", f"must be 1 to {size}, got {k}")

    def apply(x):
        x = jnp.moveaxis(x, axis, -1) if by_axis else x.reshape(len(x), -1)
        # Caffe sorts pairs of number and place, so that among equals the last one is the greatest.
        values, places = lax.top_k(x[..., ::-1], k)
        places = (size - 1 - places).astype(x.dtype)
        if by_axis:
            return jnp.moveaxis(values if message.out_max_val else places, -1, axis)
        rows = [places, values] if message.out_max_val else [places]
        rest = [1] * max(0, len(shape) - 3)
        return jnp.stack(rows, 1).reshape(len(x), len(rows), k, *rest)

    return apply


@maker("Filter", bottoms=(2, MANY))
def filtering(layer: Any, *bottoms: Shape) -> Made:
    """Filter: of all bottoms but the last, the items whose number in the last is not 0.

    How many these are is known where the numbers are, outside of jit only.
    """
    *inputs, selector = bottoms
    if any(shape[:1] != selector[:1] for shape in inputs) or math.prod(selector[1:]) != 1:
        raise misfit(layer, bottoms, "needs items, and one number for each of them")

    def apply(_, bottoms):
        *inputs, selector = bottoms
        if isinstance(selector, Tracer):
            reason = (
                "must be known while tracing, since the tops' sizes depend on it: call without jit"
            )
            raise refused("selector", reason)
        (chosen,) = np.nonzero(np.ravel(selector))
        return [a[chosen] for a in inputs]

    return Layer(apply, tops=inputs)


@maker("Axpy", bottoms=3)
def axpy(layer: Any, a: Shape, x: Shape, y: Shape) -> Made:
    """Axpy, of SENet: a x + y, with one a for each item and channel."""
    if len(x) != 4 or x != y or a[:2] != x[:2] or math.prod(a[2:]) != 1:
        reason = "needs shapes (n, c, 1, 1), (n, c, h, w) and (n, c, h, w)"
        raise misfit(layer, (a, x, y), reason)
    return lambda a, x, y: a.reshape(*a.shape[:2], 1, 1) * x + y
