"""Layers of forks that place or sample cells: Upsample, Interp, ROIPooling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv.checks import cells, refused
from jdeconv.compat.caffe.layers.base import (
    Layer,
    Made,
    Shape,
    field_of,
    maker,
    need_same,
    whole,
)


@maker("Upsample", bottoms=2, axes=4)
def upsample(layer: Any, shape: Shape, places: Shape) -> Made:
    """Upsample, of SegNet: each number to the place that the mask of a pooling names, zeros elsewhere."""
    message = layer.upsample_param
    need_same(layer, (shape, places))
    size = []
    for side, length in zip("hw", shape[2:], strict=True):
        factor = field_of(message, f"scale_{side}") or message.scale
        made = length * factor - getattr(message, f"pad_out_{side}")
        size.append(field_of(message, f"upsample_{side}") or made)
    cells("upsample_param", size)
    if min(size) < 1:
        raise refused("upsample_param", f"must give sizes of at least 1, got {size}")
    top = (*shape[:2], *size)

    def apply(_, bottoms):
        x, places = (bottom.reshape(*shape[:2], -1) for bottom in bottoms)
        plane = jnp.zeros((*shape[:2], size[0] * size[1]), x.dtype)
        n, c = jnp.ogrid[: shape[0], : shape[1]]
        plane = plane.at[n[..., None], c[..., None], whole(places)].set(x, mode="drop")
        return [plane.reshape(top)]

    return Layer(apply, tops=[top])


@maker("Interp", bottoms=(1, 2), axes=4)
def interp(layer: Any, shape: Shape, *others: Shape) -> Made:
    """Interp, of DeepLab and PSPNet: bilinear interpolation between cells, with the corners in place."""
    message = layer.interp_param
    begin, end = message.pad_beg, message.pad_end
    if begin > 0 or end > 0:
        raise refused("pad_beg", f"and pad_end must not be above 0, got {begin} and {end}")
    sizes = [length + begin + end for length in shape[2:]]
    if min(sizes) < 1:
        raise refused("pad_beg", f"and pad_end must leave something of {shape}")
    zoom, shrink = message.zoom_factor, message.shrink_factor
    if min(zoom, shrink) < 1:
        raise refused("zoom_factor", f"and shrink_factor must be at least 1, got {zoom}, {shrink}")
    if others:
        wanted = list(others[0][2:])
    elif message.HasField("zoom_factor") or message.HasField("shrink_factor"):
        wanted = [(size - 1) // shrink + 1 for size in sizes]
        wanted = [size + (size - 1) * (zoom - 1) for size in wanted]
    else:
        wanted = [message.height, message.width]
    cells("interp_param", wanted)
    if len(wanted) != 2 or min(wanted) < 1:
        raise refused(
            "interp_param", f"needs height and width, or zoom_factor or shrink_factor, got {wanted}"
        )
    ends = [length + end for length in shape[2:]]

    def apply(_, bottoms):
        x = bottoms[0][:, :, -begin : ends[0], -begin : ends[1]]
        for axis, (size, new) in enumerate(zip(sizes, wanted, strict=True), 2):
            x = _interpolated(x, axis, size, new)
        return [x]

    return Layer(apply, tops=[(*shape[:2], *wanted)])


def _interpolated(x: jax.Array, axis: int, size: int, new: int) -> jax.Array:
    """One axis, brought to another size."""
    step = np.float32(size - 1) / np.float32(new - 1) if new > 1 else np.float32(0)
    places = np.arange(new, dtype=np.float32) * step
    low = np.minimum(places.astype(np.int64), size - 1)
    part = (places - low.astype(np.float32)).reshape(*[1] * axis, -1, *[1] * (x.ndim - 1 - axis))
    near, far = (jnp.take(x, i, axis) for i in (low, np.minimum(low + 1, size - 1)))
    return jnp.asarray((1 - part) * near + part * far, x.dtype)


@maker("ROIPooling", bottoms=2, axes=4)
def roi_pooling(layer: Any, shape: Shape, regions: Shape) -> Made:
    """ROIPooling, of Fast R-CNN: the greatest number in each of pooled_h x pooled_w parts of each region.

    The second bottom has a row for each region: its item and x1, y1, x2, y2, in cells over spatial_scale.
    """
    message = layer.roi_pooling_param
    if regions[1:2] != (5,) or any(size != 1 for size in regions[2:]):
        raise refused("bottom", f"needs regions of shape (r, 5), got {regions}")
    if min(message.pooled_h, message.pooled_w) < 1:
        raise refused("roi_pooling_param", "needs pooled_h and pooled_w of at least 1")
    pooled = (message.pooled_h, message.pooled_w)
    top = (regions[0], shape[1], *pooled)

    def apply(_, bottoms):
        x, rows = bottoms[0], jax.lax.stop_gradient(bottoms[1]).reshape(-1, 5)

        def pool(row):
            scaled = row[1:] * message.spatial_scale
            left, up, right, down = jnp.sign(scaled) * jnp.floor(jnp.abs(scaled) + 0.5)
            item = x[whole(row[0])]
            fixed = jax.lax.stop_gradient(item)

            def part(rows_of, columns_of):  # one at a time, since each masks the whole image
                seen = rows_of[:, None] & columns_of[None]
                hidden = jnp.where(seen[None], fixed, -jnp.inf).reshape(shape[1], -1)
                place = hidden.argmax(1, keepdims=True)  # the first among equals
                value = jnp.take_along_axis(item.reshape(shape[1], -1), place, 1)[:, 0]
                return jnp.where(seen.any(), value, 0)

            over = _parts(up, down, pooled[0], shape[2])
            across = _parts(left, right, pooled[1], shape[3])
            parts = jax.lax.map(lambda r: jax.lax.map(lambda c: part(r, c), across), over)
            return jnp.moveaxis(parts, 2, 0)

        return [jax.lax.map(pool, rows)]

    return Layer(apply, tops=[top])


def _parts(first: jax.Array, last: jax.Array, count: int, length: int) -> jax.Array:
    """(count, length): which cells of an axis belong to which part of a region."""
    extent = jnp.maximum(last - first + 1, 1).astype(jnp.float32) / count
    parts = jnp.arange(count, dtype=jnp.float32)
    starts = jnp.clip(jnp.floor(parts * extent) + first, 0, length)[:, None]
    stops = jnp.clip(jnp.ceil((parts + 1) * extent) + first, 0, length)[:, None]
    places = jnp.arange(length)[None]
    return (places >= starts) & (places < stops)
