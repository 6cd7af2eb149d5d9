"""A batch in blocks of images, so that what a lowering lays out in between stays in cache.

As in Caffe, few images are in work at a time: one large fresh buffer costs more in page faults than the
arithmetic that it feeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

BLOCK_BYTES = 4 << 20  # of what is laid out
ACCELERATOR_FACTOR = 128  # whose large buffers cost nothing, while a loop leaves it idle


def bytes_for(platform: str | None, size: int) -> int:
    """So many bytes on a CPU, or more."""
    return size if platform in ("cpu", None) else size * ACCELERATOR_FACTOR


def items_per_block(count: int, bytes_per_item: int, block_bytes: int) -> int:
    """The most items (images, or groups) that divide the count and whose bytes fit a block; at least one."""
    if not (isinstance(count, int) and isinstance(bytes_per_item, int)):  # symbolic, in an export
        return 1
    fitting = block_bytes // max(1, bytes_per_item)
    divisors = (n for n in range(1, min(count, fitting) + 1) if count % n == 0)
    return max(divisors, default=min(count, 1))


def map_blocks(function: Callable, images: Any, size: int) -> jax.Array:
    """`function` over blocks of `size` images, one after the other; an array or a tree of them."""
    count = jax.tree.leaves(images)[0].shape[0]
    if count == size:
        return function(images)
    blocks = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), images)
    result = lax.map(function, blocks)
    return result.reshape(count, *result.shape[2:])


def sum_blocks(function: Callable, images: tuple[jax.Array, ...], size: int) -> jax.Array:
    """The sum of `function` over blocks of `size` images."""
    count = images[0].shape[0]
    if count == size:
        return function(*images)
    images = tuple(a.reshape(-1, size, *a.shape[1:]) for a in images)
    zeros = zeros_of(function, *(a[0] for a in images), like=images[0])
    return lax.scan(lambda total, a: (total + function(*a), None), zeros, images)[0]


def zeros_of(function: Callable, *args: Any, like: jax.Array) -> jax.Array:
    """What `function` makes of `args`, but zero; in shard_map it varies as `like` does."""
    shape = jax.eval_shape(function, *args)
    zeros = jnp.zeros(shape.shape, shape.dtype)
    if axes := tuple(jax.typeof(like).manual_axis_type.varying):
        zeros = lax.pcast(zeros, axes, to="varying")
    return zeros
