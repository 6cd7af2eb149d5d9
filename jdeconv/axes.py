"""Four operations on the axes of an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax import lax


def padded(a: jax.Array, axis: int, low: int, high: int) -> jax.Array:
    """Zeros before and behind one axis; negative numbers crop."""
    return edged(a, [axis], [(low, high)])


def edged(a: jax.Array, axes: Iterable[int], edges: Iterable[tuple[int, int]]) -> jax.Array:
    """Zeros before and behind several axes, by a pair (low, high) for each; negative numbers crop."""
    config = [(0, 0, 0)] * a.ndim
    for axis, (low, high) in zip(axes, edges, strict=True):
        config[axis] = (low, high, 0)
    return lax.pad(a, jnp.zeros((), a.dtype), config)


def reshaped(a: jax.Array, axis: int, count: int, sizes: Sequence[int]) -> jax.Array:
    """The array with `count` axes, from `axis` on, as axes of these sizes."""
    return a.reshape(*a.shape[:axis], *sizes, *a.shape[axis + count :])


def regrouped(a: jax.Array, groups: int, source: int, target: int) -> jax.Array:
    """The group moved from the outer part of axis `source` to that of axis `target`."""
    if groups == 1:
        return a
    a = reshaped(a, source, 1, (groups, a.shape[source] // groups))
    a = jnp.moveaxis(a, source, target)
    return reshaped(a, target, 2, (groups * a.shape[target + 1],))
