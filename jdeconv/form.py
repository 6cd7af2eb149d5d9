"""The trilinear form behind the three contractions, as one frozen record.

    T(x, k, y) = sum over n, g, o, c, q, t of  y[n,g,o,q] * k[g,o,c,t] * x[n,g,c, q*stride + t*dilation - low]

n batch, g group, o small-side channel, c big-side channel, q small-side position, t kernel tap; terms
whose x index falls outside the array are absent. T is linear in each array, and leaving one out gives a
contraction of the other two:

    conv         (x, k) -> y
    deconv       (y, k) -> x
    kernel_grad  (x, y) -> k

In memory the group is the outer part of an axis of channels; INDICES lists the indices of each axis. What
differs among the arrays follows from it: shapes, the axis that vmap joins, and what a mesh may shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.checks import refused, shown
from jdeconv.window import Window

Axes = tuple[int, ...]

CONTRACTIONS = {
    "conv": ("x", "kernel", "y"),
    "deconv": ("y", "kernel", "x"),
    "kernel_grad": ("x", "y", "kernel"),
}
"""Each contraction's first operand, second operand and result."""
INDICES = {"x": ("n", "gc"), "kernel": ("go", "c"), "y": ("n", "go")}
"""The indices on the first two axes of each array, the group outside; spatial axes follow."""


@dataclass(frozen=True)
class Layout:
    """Which axis of each array is which: (batch, channel, *spatial), and for the kernel (O, I, *spatial)."""

    x: Axes
    kernel: Axes
    y: Axes

    @classmethod
    def of(cls, contraction: str, dimension_numbers: Any, rank: int) -> Layout:
        """Read a lax-style triple of strings, in the order of the contraction's operands and result.

        None stands for ("NCHW", "OIHW", "NCHW") of that rank. Spatial axes are matched by their letters,
        and counted in the order of the kernel's.
        """
        if dimension_numbers is None:
            return cls(*[tuple(range(rank + 2))] * 3)
        roles = CONTRACTIONS[contraction]
        if not isinstance(dimension_numbers, tuple | list) or len(dimension_numbers) != 3:
            like = tuple("HWIO" if role == "kernel" else "NHWC" for role in roles)
            reason = f"must be three strings, such as {like}, got {shown(dimension_numbers)}"
            raise refused("dimension_numbers", reason, TypeError)
        specs = dict(zip(roles, dimension_numbers, strict=True))
        kernel = axes_of(specs["kernel"], "OI", rank)
        spatial = [letter for letter in specs["kernel"] if letter not in "OI"]
        x, y = (axes_of(specs[role], "NC", rank, spatial) for role in ("x", "y"))
        return cls(x, kernel, y)


@dataclass(frozen=True)
class Form:
    """All that is static about a contraction: geometry, groups, layout and how to evaluate.

    Args:
      window: the geometry.
      groups: how many independent sets of channels.
      layout: where each array keeps its axes.
      precision: of the products, as in `jax.lax`; None is the platform's default.
      lowering: the name of one way to evaluate; None lets `choose` pick.
    """

    window: Window
    groups: int
    layout: Layout
    precision: lax.Precision | None = None
    lowering: str | None = None


def shared_index(*roles: str) -> str:
    """The one index that these arrays have and no other array has.

    Example:
      >>> shared_index("x", "y"), shared_index("kernel", "y"), shared_index("x", "kernel", "y")
      ('n', 'o', 'g')
    """
    letters = {role: set("".join(words)) for role, words in INDICES.items()}
    common = set.intersection(*(letters[role] for role in roles))
    (index,) = common.difference(*(letters[role] for role in INDICES if role not in roles))
    return index


def accumulator(dtype: np.dtype) -> np.dtype:
    """The dtype in which to add up: float32 for narrower floats."""
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return np.dtype("float32") if narrow else np.dtype(dtype)


def axes_of(spec: Any, pair: str, rank: int, spatial: Sequence[str] | None = None) -> Axes:
    """The axes (*pair, *spatial) of one array from the string of its letters; None is in that order.

    Without `spatial`, the other letters are the spatial ones, in the string's order.

    Example:
      >>> axes_of("NHWC", "NC", 2), axes_of("HWIO", "OI", 2)
      ((0, 3, 1, 2), (3, 2, 0, 1))
    """
    if spec is None:
        return tuple(range(rank + 2))
    if not isinstance(spec, str):
        like = "NHWC" if pair == "NC" else "HWIO"
        reason = f"must be a string such as {like!r}, got {shown(spec)}"
        raise refused("dimension_numbers", reason, TypeError)
    space = [letter for letter in spec if letter not in pair] if spatial is None else spatial
    letters = [*pair, *space]
    if not len(spec) == len(set(spec)) == rank + 2 or sorted(spec) != sorted(letters):
        reason = f"must hold {pair[0]}, {pair[1]} and {rank} spatial letters"
        what = "all different" if spatial is None else f"those of the kernel, {', '.join(spatial)}"
        raise refused("dimension_numbers", f"{reason}, {what}, got {shown(spec)}")
    return tuple(spec.index(letter) for letter in letters)
