"""`interpolate` of `torch.nn.functional`: each axis in turn, as a sum of a few taken cells."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdeconv.checks import (
    array,
    cells,
    flag,
    integers,
    number,
    one_of,
    refused,
    reporting,
    shown,
    space,
)
from jdeconv.form import accumulator

RANKS = {
    "nearest": (1, 2, 3),
    "nearest-exact": (1, 2, 3),
    "area": (1, 2, 3),
    "linear": (1,),
    "bilinear": (2,),
    "trilinear": (3,),
    "bicubic": (2,),
}
"""The modes, and the counts of axes that each serves."""

Taps = tuple[np.ndarray, np.ndarray]  # cells (taps, size) and their weights


@reporting()
def interpolate(
    input: ArrayLike,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> jax.Array:
    """Returns what `torch.nn.functional.interpolate` returns: the input, resized.

    Shapes: input (n, c, *i) -> (n, c, *size), where size is floor(i*scale_factor) if that is given.

    Args:
      size, scale_factor: one of them; a number, or one per axis.
      mode: "nearest", "nearest-exact", "area", "linear" (of one axis), "bilinear", "bicubic" (of two), or
        "trilinear" (of three).
      align_corners: whether the centers of the first and the last cells of input and result are aligned, or
        their edges; for the linear modes and "bicubic". None is False.
      recompute_scale_factor: whether positions follow from the sizes and not from scale_factor.
      antialias: whether "bilinear" and "bicubic" use wider windows when they shrink the input.

    Returns:
      The result, in input's dtype. Half precision adds up in float32.

    Differentiation: the function is linear; forward and reverse mode work.

    Example:
      >>> import jax.numpy as jnp
      >>> interpolate(jnp.array([[[1.0, 2.0]]]), scale_factor=2, mode="linear").tolist()
      [[[1.0, 1.25, 1.75, 2.0]]]
    """
    a = array("input", input)
    one_of("mode", mode, RANKS)
    rank = a.ndim - 2
    if rank not in RANKS[mode]:
        counts = " or ".join(str(count + 2) for count in RANKS[mode])
        raise refused("input", f"needs {counts} axes for mode {mode!r}, got {shown(a)}")
    if not (jnp.issubdtype(a.dtype, jnp.inexact) or mode.startswith("nearest")):
        raise refused("input", f"needs floats for mode {mode!r}, got {shown(a)}", TypeError)
    if align_corners is not None:
        flag("align_corners", align_corners)
        if mode in ("nearest", "nearest-exact", "area"):
            raise refused("align_corners", f"must be None for mode {mode!r}, got {align_corners}")
    if flag("antialias", antialias) and mode not in ("bilinear", "bicubic"):
        raise refused("antialias", f"needs mode 'bilinear' or 'bicubic', got {mode!r}")
    big = space("input", a, range(2, a.ndim))
    sizes, scales = _sizes(big, size, scale_factor, recompute_scale_factor)
    dtype, a = a.dtype, a.astype(accumulator(a.dtype))
    for axis, old, new, scale in zip(range(2, a.ndim), big, sizes, scales, strict=True):
        if mode == "area":
            taken, weights = _area(old, new)
        elif mode.startswith("nearest"):
            taken, weights = _nearest(old, new, scale, 0.5 if mode == "nearest-exact" else 0.0)
        elif antialias:
            taken, weights = _smooth(old, new, _step(old, new, scale, align_corners), mode)
        else:
            taken, weights = _between(old, new, scale, align_corners, mode)
        shape = [-1 if i == axis else 1 for i in range(a.ndim)]
        terms = [
            a.take(cell, axis, mode="clip") * jnp.asarray(weight, a.dtype).reshape(shape)
            for cell, weight in zip(taken, weights, strict=True)
        ]
        a = reduce(operator.add, terms)
    return a.astype(dtype)


def _sizes(big: Sequence[int], size: Any, factor: Any, recomputed: Any) -> tuple[tuple, tuple]:
    """The result's spatial size, and for each axis the positions of input in a step, or None."""
    rank = len(big)
    if (size is None) == (factor is None):
        raise refused("size", "or scale_factor must be given, and not both")
    recomputed = recomputed is not None and flag("recompute_scale_factor", recomputed)
    if factor is None:
        if recomputed:
            raise refused("recompute_scale_factor", "needs scale_factor")
        sizes = integers("size", size, rank, 1)
        cells("size", sizes)
        return sizes, (None,) * rank
    factors = tuple(factor) if isinstance(factor, tuple | list) else (factor,) * rank
    if len(factors) != rank:
        raise refused("scale_factor", f"must be a number or one per axis, got {shown(factor)}")
    factors = tuple(number("scale_factor", f) for f in factors)
    sizes = tuple(math.floor(i * f) for i, f in zip(big, factors, strict=True))
    if min(sizes) < 1:
        raise refused("scale_factor", f"makes the size {sizes}")
    cells("scale_factor", sizes)
    return sizes, (None,) * rank if recomputed else tuple(1 / f for f in factors)


def _step(old: int, new: int, scale: float | None, align_corners: bool | None) -> np.float32:
    """How many cells of the input there are from one cell of the result to the next."""
    if align_corners:
        return np.float32((old - 1) / (new - 1) if new > 1 else 0)
    return np.float32(old) / np.float32(new) if scale is None else np.float32(scale)


def _nearest(old: int, new: int, scale: float | None, center: float) -> Taps:
    # In float32, as PyTorch counts, since a position may lie on an edge.
    position = (np.arange(new, dtype=np.float32) + np.float32(center)) * _step(
        old, new, scale, False
    )
    return np.minimum(np.floor(position).astype(np.int64), old - 1)[None], np.ones((1, new))


def _area(old: int, new: int) -> Taps:
    first, last = np.arange(new) * old // new, -(-np.arange(1, new + 1) * old // new)
    taps = np.arange((last - first).max())[:, None]
    inside = taps < last - first
    return np.minimum(first + taps, old - 1), inside / (last - first)


def _between(old: int, new: int, scale: float | None, align_corners: Any, mode: str) -> Taps:
    """Two cells by their distances, or four by a cubic function, where edges are repeated."""
    step = _step(old, new, scale, align_corners)
    position = np.arange(new, dtype=np.float32)
    position = (
        position * step if align_corners else (position + np.float32(0.5)) * step - np.float32(0.5)
    )
    if mode != "bicubic":
        position = np.maximum(position, 0)
    first = np.floor(position).astype(np.int64)
    taps = np.arange(-1, 3) if mode == "bicubic" else np.arange(2)
    distances = np.abs(position - first - taps[:, None])
    weights = _cubic(distances, -0.75) if mode == "bicubic" else 1 - distances
    return np.clip(first + taps[:, None], 0, old - 1), weights


def _smooth(old: int, new: int, step: np.float32, mode: str) -> Taps:
    """Windows as wide as a step, at least as in `_between`, whose weights add up to 1 within the input."""
    wide = max(float(step), 1.0)
    reach = (2 if mode == "bicubic" else 1) * wide
    center = (np.arange(new) + 0.5) * float(step)
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((center + reach + 0.5).astype(np.int64), old)
    taps = np.arange((last - first).max())[:, None]
    distances = np.abs(first + taps - center + 0.5) / wide
    weights = _cubic(distances, -0.5) if mode == "bicubic" else np.maximum(1 - distances, 0)
    weights = np.where(taps < last - first, weights, 0)
    return np.minimum(first + taps, old - 1), weights / weights.sum(0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys's cubic function of a distance: 1 at 0, and 0 at 1 and from 2 on."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * a * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))
