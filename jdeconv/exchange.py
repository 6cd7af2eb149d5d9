"""What the devices that hold neighboring shards of an axis send one another.

    exchange   a shard of x -> what the windows of its shard of y see, on this shard and on those around it
    add        the adjoint: what lies in a halo is added to where it came from

Devices send slices of their shards to one another, and JAX knows the transpose of that. So the two are each
other's backward pass, as conv and deconv are. The zeros of the padding cost nothing: what the first and the
last device receive from nobody is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv._jax import transposed
from jdeconv.checks import array, integer, one_of, refused, reporting, shown
from jdeconv.padding import MODES, copied
from jdeconv.window import Window, part


@dataclass(frozen=True)
class Halo:
    """Which cells of one axis the windows of a device see outside of the device's own shard of x.

    The windows see `low` positions before the shard and `high` positions behind it. A negative number leaves
    out positions of the shard itself. On device r, both ends shift by r*step positions towards the start.

    Args:
      axis: of the array.
      name: of the mesh axis, or a tuple of several.
      low, high, step: numbers of positions, as described above. The step is 0 where shards of x and y lie side
        by side.
      mode: what lies outside of x, named as the padding_mode of `jdeconv.conv`.

    Raises:
      TypeError, ValueError: for arguments of another kind, an axis below 0, and another mode.

    Example: the windows of a kernel of 3 taps see one position on either side.
      >>> Halo(axis=2, name="h", low=1, high=1)
      Halo(axis=2, name='h', low=1, high=1, step=0, mode='zeros')
    """

    axis: int
    name: Any
    low: int
    high: int
    step: int = 0
    mode: str = "zeros"

    @reporting()
    def __post_init__(self) -> None:
        one_of("mode", self.mode, MODES)
        for name in ("axis", "low", "high", "step"):
            integer(name, getattr(self, name), 0 if name == "axis" else None)
        names = self.name if isinstance(self.name, tuple) else (self.name,)
        if not all(isinstance(name, str) for name in names):
            reason = f"must be the name of a mesh axis, or a tuple of names, got {shown(self.name)}"
            raise refused("name", reason, TypeError)


@reporting()
def exchange(x: jax.Array, halo: Halo) -> jax.Array:
    """Returns the positions of x that the windows of a device see, within `jax.shard_map`.

    Formula: device r has ``x[r*size : (r + 1)*size]`` and gets the size + low + high positions of x from
    ``r*(size - step) - low`` on; outside of x lies what `halo.mode` says.

    Shapes: x, with `size` positions on `halo.axis` -> the same with size + low + high.

    Args:
      x: the shard.
      halo: what is exchanged.

    Differentiation: linear, in forward and reverse mode to any order; the backward pass is `add`.

    Example: a single device, which gets nothing from anybody.
      >>> halo = Halo(axis=0, name="h", low=1, high=1)
      >>> specs = {"in_specs": jax.P("h"), "out_specs": jax.P("h")}
      >>> mesh = jax.make_mesh((1,), ("h",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> wider = jax.shard_map(lambda x: exchange(x, halo), mesh=mesh, **specs)
      >>> wider(jnp.array([1, 2, 3])).tolist()
      [0, 1, 2, 3, 0]
    """
    size, length = _sizes("x", x, halo, 1)
    axis, count, device = halo.axis, lax.axis_size(halo.name), lax.axis_index(halo.name)
    shift, wraps = halo.step * (count - 1), halo.mode == "circular"
    before = max(0, halo.low, halo.low + shift)  # the most that any device needs
    behind = max(0, halo.high, halo.high - shift)
    if halo.mode == "reflect":  # a device at an end also needs what its padding mirrors
        before, behind = max(before, behind - size + 1), max(behind, before - size + 1)
    names, number = _numbered(halo.name)
    parts = []
    for hop in range(-before // size, 1 - (-behind // size)):  # to each shard that is seen
        start, stop = max(0, -before - hop * size), min(size, size + behind - hop * size)
        piece = lax.slice_in_dim(x, start, stop, axis=axis)
        pairs = [(r + hop, r) for r in range(count) if wraps or 0 <= r + hop < count]
        pairs = [(number[source % count], number[r]) for source, r in pairs]
        parts.append(lax.ppermute(piece, names, pairs) if hop else piece)
    wide = jnp.concatenate(parts, axis)
    if halo.mode in ("zeros", "circular"):
        first = before - halo.low
        if halo.step == 0:
            return lax.slice_in_dim(wide, first, first + length, axis=axis)
        return lax.dynamic_slice_in_dim(wide, first - device * halo.step, length, axis)
    position = device * (size - halo.step) - halo.low + jnp.arange(length, dtype=device.dtype)
    position = copied(position, count * size, halo.mode)
    return wide.take(position - (device * size - before), axis, mode="clip")


@reporting()
def add(seen: jax.Array, halo: Halo) -> jax.Array:
    """Returns the adjoint of `exchange`: the values in a halo are added to the cells that they came from.

    Formula: device r adds ``seen[i]`` to position ``r*(size - step) - low + i`` of x, on the
    device that holds it.

    Shapes: seen, with size + low + high positions on `halo.axis` -> the same with `size`.

    Args:
      seen: what the windows of this device add up.
      halo: what is exchanged.

    Differentiation: linear, in forward and reverse mode to any order; the backward pass is `exchange`.

    Example: a single device, whose halo lies outside of x.
      >>> halo = Halo(axis=0, name="h", low=1, high=1)
      >>> specs = {"in_specs": jax.P("h"), "out_specs": jax.P("h")}
      >>> mesh = jax.make_mesh((1,), ("h",), axis_types=(jax.sharding.AxisType.Auto,))
      >>> added = jax.shard_map(lambda x: add(x, halo), mesh=mesh, **specs)
      >>> added(jnp.array([9, 1, 2, 3, 9])).tolist()
      [1, 2, 3]
    """
    _, size = _sizes("seen", seen, halo, -1)
    shape = (*seen.shape[: halo.axis], size, *seen.shape[halo.axis + 1 :])
    return transposed(partial(exchange, halo=halo), seen, shape)


def _numbered(name: Any) -> tuple[tuple[str, ...], list[int]]:
    """The mesh axes of a halo in the mesh's order, and each device's number by that order.

    `lax.ppermute` counts the devices so, in whichever order it gets the names.
    """
    names = name if isinstance(name, tuple) else (name,)
    places = {name: i for i, name in enumerate(jax.sharding.get_abstract_mesh().axis_names)}
    order = sorted(range(len(names)), key=lambda i: places.get(names[i], 0))
    grid = np.arange(lax.axis_size(name)).reshape([lax.axis_size(name) for name in names])
    return tuple(names[i] for i in order), np.argsort(grid.transpose(order), axis=None).tolist()


def _sizes(role: str, a: jax.Array, halo: Any, sign: int) -> tuple[int, int]:
    """The positions on the halo's axis, and those with the halo (sign 1) or without it (sign -1)."""
    if not isinstance(halo, Halo):
        raise refused("halo", f"must be a Halo, got {shown(halo)}", TypeError)
    a, more = array(role, a), sign * (halo.low + halo.high)
    least = 1 + max(0, -more)
    if halo.axis >= a.ndim or a.shape[halo.axis] < least:
        raise refused(role, f"needs at least {least} positions on axis {halo.axis}, got {shown(a)}")
    return a.shape[halo.axis], a.shape[halo.axis] + more


def devices(mesh: Any, names: Sequence[str]) -> int:
    """The number of devices along these mesh axes."""
    return math.prod(mesh.shape[name] for name in names)


def shards(
    window: Window, axes: Sequence[int], mesh: Any, space: Sequence[tuple[str, ...]], mode: str
) -> tuple[list[Halo], Window]:
    """The halos of a shard of x, and the window that remains between what it then sees and its shard of y.

    `axes` are x's spatial axes, and `space` holds the mesh axes that shard each. Where these do not divide a
    side, its last shards are shorter, and are filled up.
    """
    w, halos = window, []
    for i, names in enumerate(space):
        count = devices(mesh, names)
        if count > 1:
            size, low = -(-w.big[i] // count), w.low[i]
            w = part(w, i, -(-w.small[i] // count))
            step = size - w.small[i] * w.stride[i]
            halos.append(Halo(axes[i], names, low, w.big[i] - low - size, step, mode))
    return halos, w
