"""XLA's one convolution, read as the contraction that it is.

    out[n, o, q] = sum over c, t of  dilated(lhs)[n, c, q*s + t*d - low] * rhs[o, c, t]

where dilated(lhs) has lhs[m] at m*e and zeros between. It says any of the three:

    conv         e = 1                 x = lhs, kernel = rhs, y = out
    deconv       s = 1                 y = lhs, kernel = rhs reversed, x = out
    kernel_grad  e = 1                 x = lhs, y = rhs, kernel = out
                 d = 1                 y = lhs, x = rhs, kernel = out reversed

What could be a conv or a kernel's gradient is a gradient if rhs is larger than out. If their sizes differ by a
factor of 16 at most, the layout of lhs decides: in a conv its first axis is the batch, and in a gradient it is
the channels. What could be a deconv is a gradient if rhs is larger than out. What could be a conv or a deconv,
as at stride 1, is a deconv if the kernel's channels are exchanged as in a gradient. So a gradient that JAX
derived from a convolution is evaluated as what the user would have written, and im2col need not transpose the
kernel in memory.

Each side has two of the indices N, I and O, and any two sides share one of them. What x and y share is the
form's n, what x and the kernel share is c, and what the kernel and y share is o. The steps of y's side are the
stride, and those of the kernel's side are the dilation. A group of the batch becomes a group of channels.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv import primitives
from jdeconv.axes import regrouped
from jdeconv.checks import DTYPES
from jdeconv.form import CONTRACTIONS, Axes, Form, Layout
from jdeconv.window import Window

NEAR = 16  # between the sizes of rhs and out, where lhs decides what a convolution is


class Side(NamedTuple):
    """lhs, rhs or out.

    Args:
      letters: the indices on its two first axes: N the batch, I lhs's channels, O out's channels.
      grouped: the index inside of the group.
      axes: those of the letters, and of space.
      sizes: the spatial sizes.
      steps: lhs_dilation, rhs_dilation or window_strides.
    """

    letters: str
    grouped: str
    axes: Axes
    sizes: Axes
    steps: Axes

    def at(self, letters: str) -> Axes:
        """The axes of these letters, and of space."""
        return *(self.axes[self.letters.index(letter)] for letter in letters), *self.axes[2:]


@dataclass(frozen=True)
class Convolution:
    """The static parameters of `jax.lax.conv_general_dilated`, and the sizes that it relates."""

    lhs: Side
    rhs: Side
    out: Side
    low: Axes
    groups: int
    precision: lax.Precision | None

    @classmethod
    def of(cls, lhs: Any, rhs: Any, out: tuple, params: dict) -> Convolution | None:
        """From the operands' and the result's shapes and the primitive's parameters.

        None where it has no such reading: no spatial axis at all, a spatial size that is symbolic or zero, a
        precision that names an algorithm, operands of fewer than 8 bits.
        """
        if not {lhs.dtype, rhs.dtype} <= DTYPES | {np.dtype(bool)}:
            return None
        numbers, precision = params["dimension_numbers"], params["precision"]
        axes = tuple(numbers.lhs_spec), tuple(numbers.rhs_spec), tuple(numbers.out_spec)
        sizes = [
            tuple(shape[axis] for axis in spec[2:])
            for spec, shape in zip(axes, (lhs.shape, rhs.shape, out), strict=True)
        ]
        if not (sizes[0] and all(isinstance(size, int) and size > 0 for size in sum(sizes, ()))):
            return None
        if isinstance(precision, tuple) and all(isinstance(p, lax.Precision) for p in precision):
            precision = max(precision, key=list(lax.Precision).index)
        if not (precision is None or isinstance(precision, lax.Precision)):
            return None
        steps = [tuple(params[k]) for k in ("lhs_dilation", "rhs_dilation", "window_strides")]
        batch_groups = params["batch_group_count"]
        letters, grouped = ("NI", "OI", "NO"), ("N" if batch_groups > 1 else "I", "O", "O")
        sides = zip(letters, grouped, axes, sizes, steps, strict=True)
        left, right, result = (Side(*side) for side in sides)
        low = tuple(low for low, _ in params["padding"])
        groups = params["feature_group_count"] * batch_groups
        return cls(left, right, result, low, groups, precision)

    def __call__(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        """The result, of the given dtype."""
        left, right, out = sides = self.lhs, self.rhs, self.out
        dense, undilated, steady = (set(side.steps) == {1} for side in sides)
        larger = math.prod(right.sizes) > math.prod(out.sizes)
        if dense:
            outer = left.axes.index(0)
            sizes = sorted([math.prod(right.sizes), math.prod(out.sizes)])
            is_near = outer < 2 and sizes[1] <= NEAR * sizes[0]
            is_gradient = outer == 1 if is_near else larger
            if is_gradient:
                name, x, kernel, y = "kernel_grad", left, out, right
            elif steady and self._has_exchanged_channels:
                name, x, kernel, y = "deconv", out, right, left
            else:
                name, x, kernel, y = "conv", *sides
        elif undilated and (larger or not steady):
            name, x, kernel, y = "kernel_grad", right, out, left
        elif steady:
            name, x, kernel, y = "deconv", out, right, left
        else:
            return self._filled(lhs, rhs, dtype)
        return self._contracted(name, x, kernel, y, {left: lhs, right: rhs}, dtype)

    @property
    def _has_exchanged_channels(self) -> bool:
        """Whether the kernel lies as IOHW, or as HWOI with channels last, as in JAX's gradient of a conv."""
        rank = len(self.lhs.axes)
        is_last = self.lhs.axes[1] == rank - 1
        return self.rhs.axes[:2] == ((rank - 2, rank - 1) if is_last else (1, 0))

    def _contracted(
        self, name: str, x: Side, kernel: Side, y: Side, arrays: dict, dtype: np.dtype
    ) -> jax.Array:
        """The contraction in which these sides are x, kernel and y."""
        pairs = (x, y), (x, kernel), (kernel, y)
        n, c, o = (next(iter({*a.letters} & {*b.letters})) for a, b in pairs)
        grouped, low = {x: c, kernel: o, y: o}, self.low
        is_turned = y == self.lhs
        if is_turned:  # the taps are counted from the other end
            axes = zip(kernel.sizes, kernel.steps, low, strict=True)
            low = tuple((k - 1) * d - low for k, d, low in axes)

        def turned(a: jax.Array, side: Side) -> jax.Array:
            return lax.rev(a, side.axes[2:]) if is_turned and side == kernel else a

        def moved(a: jax.Array, side: Side, source: str, target: str) -> jax.Array:
            start, end = side.at(source)[0], side.at(target)[0]
            return a if start == end else regrouped(a, self.groups, start, end)

        window = Window(x.sizes, y.sizes, kernel.sizes, y.steps, kernel.steps, low)
        layout = Layout(x.at(n + c), kernel.at(o + c), y.at(n + o))
        sides = {"x": x, "kernel": kernel, "y": y}
        *operands, result = (sides[role] for role in CONTRACTIONS[name])
        a, b = (moved(turned(arrays[s], s), s, s.grouped, grouped[s]) for s in operands)
        form = Form(window, self.groups, layout, self.precision)
        found = getattr(primitives, name)(a, b, form, dtype)
        return moved(turned(found, result), result, grouped[result], result.grouped)

    def _filled(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        """With steps on both sides there is no such reading until the zeros are filled in."""
        edges, steps = [(0, 0, 0)] * lhs.ndim, self.lhs.steps
        for axis, e in zip(self.lhs.axes[2:], steps, strict=True):
            edges[axis] = (0, 0, e - 1)
        sizes = tuple((m - 1) * e + 1 for m, e in zip(self.lhs.sizes, steps, strict=True))
        side = self.lhs._replace(sizes=sizes, steps=(1,) * len(sizes))
        lhs = lax.pad(lhs, jnp.zeros((), lhs.dtype), edges)
        return dataclasses.replace(self, lhs=side)(lhs, rhs, dtype)
