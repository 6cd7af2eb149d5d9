"""The trilinear form behind the three contractions, as one frozen record.

    T(x, k, y) = sum over n, g, o, c, q, t of  y[n,g,o,q] * k[g,o,c,t] * x[n,g,c, q*stride + t*dilation - low]

n batch, g group, o small-side channel, c big-side channel, q small-side position, t kernel tap; terms
whose x index falls outside the array are absent. T is linear in each array, and leaving one out gives a
contraction of the other two:

    conv         (x, k) -> y
    deconv       (y, k) -> x
    kernel_grad  (x, y) -> k

In memory the group shares an axis with a channel, outermost; INDICES says where each index lies. What differs
among the arrays follows from it: shapes, the axis that vmap joins, and what a mesh may shard.
"""

from __future__ import annotations

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
        if not _is_triple_of_strings(dimension_numbers):
            like = tuple("HWIO" if role == "kernel" else "NHWC" for role in roles)
            reason = f"must be three strings, such as {like}, got {shown(dimension_numbers)}"
            raise refused("dimension_numbers", reason, TypeError)
        specs = dict(zip(roles, dimension_numbers, strict=True))
        spatial = [letter for letter in specs["kernel"] if letter not in "OI"]
        axes = {}
        for role in ("kernel", "x", "y"):  # the kernel's letters are the measure of the others
            spec, pair = specs[role], "OI" if role == "kernel" else "NC"
            letters = [*pair, *spatial]
            if not len(spec) == len(set(spec)) == rank + 2 or sorted(spec) != sorted(letters):
                reason = (
                    f"must hold {pair[0]}, {pair[1]} and {rank} distinct spatial letters for "
                    f"{role}, the same in all three strings, got {shown(dimension_numbers)}"
                )
                raise refused("dimension_numbers", reason)
            axes[role] = tuple(spec.index(letter) for letter in letters)
        return cls(**axes)


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


def array_axes(dimension_numbers: Any, rank: int) -> Axes:
    """The axes (batch, channel, *spatial) of one array from its string, such as "NHWC"; None is "NCHW"."""
    if dimension_numbers is None:
        return tuple(range(rank + 2))
    if not isinstance(dimension_numbers, str):
        reason = f"must be one string, such as 'NHWC', got {shown(dimension_numbers)}"
        raise refused("dimension_numbers", reason, TypeError)
    spatial = [letter for letter in dimension_numbers if letter not in "NC"]
    if sorted(dimension_numbers) != sorted({"N", "C", *spatial}) or len(spatial) != rank:
        reason = f"must hold N, C and {rank} distinct spatial letters"
        raise refused("dimension_numbers", f"{reason}, got {shown(dimension_numbers)}")
    return tuple(dimension_numbers.index(letter) for letter in ["N", "C", *spatial])


def _is_triple_of_strings(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 3
        and all(isinstance(spec, str) for spec in value)
    )
