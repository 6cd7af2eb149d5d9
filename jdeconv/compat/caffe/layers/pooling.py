"""Layers that pool: Pooling, SPP."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.checks import cells, refused
from jdeconv.compat.caffe.layers.base import (
    Made,
    Shape,
    maker,
    sides_of,
)

MAX, AVE, STOCHASTIC = range(3)


class Pool:
    """Windows over the two spatial axes of a bottom; the last ones may hang over by less than a stride.

    Args:
      shape: of the bottom.
      kernel, stride, pad: for both axes.
      down: whether a window that hangs over is left out.
    """

    def __init__(
        self,
        shape: Shape,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int],
        down: bool = False,
    ) -> None:
        self.axes = list(zip(shape[2:], kernel, stride, pad, strict=True))
        self.sizes, self.edges, ends = [], [(0, 0, 0), (0, 0, 0)], []
        for i, k, s, p in self.axes:
            if k < 1 or s < 1 or p >= k:
                given = f"kernel {list(kernel)}, stride {list(stride)}, pad {list(pad)}"
                reason = "needs a stride of 1 or more and a pad of less than the kernel"
                raise refused("pooling_param", f"{reason}, got {given}")
            room = i + 2 * p - k
            size = (room // s if down else -(-room // s)) + 1
            if size < 1:
                reason = f"must fit into the padded bottom, {i + 2 * p}, got {k}"
                raise refused("kernel_size", reason)
            if any(pad) and (size - 1) * s >= i + p:  # a window begins inside of the bottom
                size -= 1
            self.sizes.append(size)
            ends.append((size - 1) * s + k)
            self.edges.append((p, ends[-1] - i - p, 0))
        cells("pooling_param", ends)
        self.windows = ((1, 1, *kernel), (1, 1, *stride), "VALID")

    def average(self, x: jax.Array) -> list[jax.Array]:
        """The mean of each window, where the padding counts, and what hangs over it does not."""
        sums = lax.reduce_window(self._padded(x, 0), 0.0, lax.add, *self.windows)
        rows, columns = (
            jnp.minimum(k, i + 2 * p - s * jnp.arange(size)).astype(jnp.float32)
            for (i, k, s, p), size in zip(self.axes, self.sizes, strict=True)
        )
        return [sums / jnp.outer(rows, columns)[None, None]]

    def greatest(self, x: jax.Array) -> list[jax.Array]:
        """The greatest number of each window; Caffe's least one where a window is empty."""
        padded = self._padded(x, jnp.finfo(x.dtype).min)
        return [lax.reduce_window(padded, -np.inf, lax.max, *self.windows)]

    def greatest_and_mask(self, x: jax.Array) -> list[jax.Array]:
        """The first greatest number of each window, and its place in the plane; -1 where a window is empty."""
        least, none = jnp.array(jnp.finfo(x.dtype).min, x.dtype), jnp.array(-1, jnp.int32)
        plane = jnp.arange(math.prod(x.shape[2:]), dtype=jnp.int32).reshape(x.shape[2:])

        def first_greater(a, b):
            better = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] >= 0) & ((b[1] < a[1]) | (a[1] < 0)))
            return jnp.where(better, b[0], a[0]), jnp.where(better, b[1], a[1])

        sides = (
            self._padded(lax.stop_gradient(x), least),
            self._padded(jnp.broadcast_to(plane, x.shape), none),
        )
        _, mask = lax.reduce_window(sides, (least, none), first_greater, *self.windows)
        flat = x.reshape(*x.shape[:2], -1)
        picked = jnp.take_along_axis(flat, jnp.maximum(mask, 0).reshape(*mask.shape[:2], -1), 2)
        top = jnp.where(mask < 0, least, picked.reshape(mask.shape))
        return [top, mask.astype(jnp.float32)]

    def by(self, method: int, masked: bool = False) -> Callable[[jax.Array], list[jax.Array]]:
        """The function of a pooling method. It also returns a mask, if the layer has a top for one."""
        if method == STOCHASTIC:
            raise refused("pool", "must be MAX or AVE, got STOCHASTIC")
        if method == AVE and masked:
            raise refused("top", "is one for AVE, which has no mask")
        if method == AVE:
            return self.average
        return self.greatest_and_mask if masked else self.greatest

    def _padded(self, x: jax.Array, value: Any) -> jax.Array:
        return lax.pad(x, jnp.array(value, x.dtype), self.edges)


def pooled(message: Any) -> tuple[list[int] | None, list[int], list[int]]:
    """The kernel, stride and padding of a PoolingParameter for both axes; no kernel where it is the bottom."""
    sides = sides_of(message, "kernel pad stride")

    def pair(name: str, short: str) -> list[int]:
        both = [sides[f"{short}_{side}"] for side in "hw"]
        found = [side for side in both if side is not None]
        if len(found) == 2:
            return found
        if found or (name == "kernel_size" and not message.HasField(name)):
            raise refused(name, f"is needed, or {short}_h and {short}_w")
        return [getattr(message, name)] * 2

    kernel = None if message.global_pooling else pair("kernel_size", "kernel")
    return kernel, pair("stride", "stride"), pair("pad", "pad")


@maker("Pooling", axes=4)
def pooling(layer: Any, shape: Shape) -> Made:
    """Pooling over two axes: MAX, with a mask if there is a top for one, or AVE."""
    message = layer.pooling_param
    kernel, stride, pad = pooled(message)
    down = message.round_mode == 1 or not message.ceil_mode
    pool = Pool(shape, kernel or shape[2:], stride, pad, down)
    return pool.by(message.pool, len(layer.top) > 1)


@maker("SPP", axes=4)
def spp(layer: Any, shape: Shape) -> Made:
    """SPP: poolings of 1, 4, 16, ... windows over all of the bottom, flattened and in one row."""
    message = layer.spp_param
    if not 1 <= message.pyramid_height <= 16:
        raise refused("pyramid_height", f"must be 1 to 16, got {message.pyramid_height}")
    pools = []
    for level in range(message.pyramid_height):
        bins = 2**level
        kernel = [-(-size // bins) for size in shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, shape[2:], strict=True)]
        pools.append(Pool(shape, kernel, kernel, pad).by(message.pool))

    return lambda x: jnp.concatenate([pool(x)[0].reshape(len(x), -1) for pool in pools], 1)
