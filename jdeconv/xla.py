"""XLA's one convolution, read as the contraction that it is.

    out[n, o, q] = sum over c, t of  dilated(lhs)[n, c, q*s + t*d - low] * rhs[o, c, t]

where dilated(lhs) has lhs[m] at m*e and zeros between. It says any of the three:

    conv         e = 1                 x = lhs, kernel = rhs, y = out
    deconv       s = 1                 y = lhs, kernel = rhs reversed, x = out
    kernel_grad  e = 1                 x = lhs, y = rhs, kernel = out
                 d = 1                 y = lhs, x = rhs, kernel = out reversed

What could be a conv or a kernel's gradient is a conv if lhs has its batch on the first axis, and a gradient
if it has its channels there. Otherwise, and beside a deconv, it is a gradient if rhs is larger than out. So a
gradient that JAX derived from a convolution is evaluated as what the user would have written. A group on the
batch is one on the channels, elsewhere in memory.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv import primitives
from jdeconv.axes import regrouped
from jdeconv.checks import DTYPES
from jdeconv.form import Axes, Form, Layout
from jdeconv.window import Window


@dataclass(frozen=True)
class Convolution:
    """The static parameters of `jax.lax.conv_general_dilated`, and the sizes that it relates.

    Args:
      axes: of lhs, rhs and out; (batch, channel, *space), and for rhs (out's channel, lhs's channel, *space).
      lhs, rhs, out: spatial sizes.
      stride, low, lhs_dilation, rhs_dilation: one int per spatial axis.
      feature_groups, batch_groups: at most one of them is not 1.
      precision: of the products.
    """

    axes: tuple[Axes, Axes, Axes]
    lhs: Axes
    rhs: Axes
    out: Axes
    stride: Axes
    low: Axes
    lhs_dilation: Axes
    rhs_dilation: Axes
    feature_groups: int
    batch_groups: int
    precision: lax.Precision | None

    @classmethod
    def of(cls, lhs: Any, rhs: Any, out: tuple, params: dict) -> Convolution | None:
        """From the operands' and the result's shapes and the primitive's parameters.

        None where it has no such reading: no spatial axis at all, a spatial size that is symbolic or zero, a
        precision that names an algorithm, operands of fewer than 8 bits.
        """
        if not {lhs.dtype.name, rhs.dtype.name} <= DTYPES | {"bool"}:
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
        return cls(
            axes,
            *sizes,
            stride=tuple(params["window_strides"]),
            low=tuple(low for low, _ in params["padding"]),
            lhs_dilation=tuple(params["lhs_dilation"]),
            rhs_dilation=tuple(params["rhs_dilation"]),
            feature_groups=params["feature_group_count"],
            batch_groups=params["batch_group_count"],
            precision=precision,
        )

    @property
    def groups(self) -> int:
        """Of either kind."""
        return self.feature_groups * self.batch_groups

    def __call__(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        """The result, of the given dtype."""
        dense, steady = set(self.lhs_dilation) == {1}, set(self.stride) == {1}
        larger = math.prod(self.rhs) > math.prod(self.out)
        if dense:
            outer = self.axes[0].index(0)
            is_gradient = outer == 1 if outer < 2 else larger
            return (self._kernel_grad if is_gradient else self._conv)(lhs, rhs, dtype)
        undilated = set(self.rhs_dilation) == {1}
        if undilated and (larger or not steady):
            return self._reversed_kernel_grad(lhs, rhs, dtype)
        if steady:
            return self._deconv(lhs, rhs, dtype)
        return self._filled(lhs, rhs, dtype)

    def _conv(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        left, right, out = self.axes
        if self.batch_groups > 1:
            lhs = regrouped(lhs, self.groups, left[0], left[1])
        window = Window(self.lhs, self.out, self.rhs, self.stride, self.rhs_dilation, self.low)
        return primitives.conv(lhs, rhs, self._form(window, Layout(left, right, out)), dtype)

    def _deconv(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        left, right, out = self.axes
        if self.batch_groups > 1:
            lhs = regrouped(lhs, self.groups, left[0], left[1])
        kernel = regrouped(lax.rev(rhs, right[2:]), self.groups, right[0], right[1])
        low = self._mirrored(self.rhs, self.rhs_dilation)
        window = Window(self.out, self.lhs, self.rhs, self.lhs_dilation, self.rhs_dilation, low)
        layout = Layout(out, _swapped(right), left)
        return primitives.deconv(lhs, kernel, self._form(window, layout), dtype)

    def _kernel_grad(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        left, right, out = self.axes
        if self.feature_groups > 1:
            lhs = regrouped(lhs, self.groups, left[1], left[0])
        window = Window(self.lhs, self.rhs, self.out, self.rhs_dilation, self.stride, self.low)
        layout = Layout(_swapped(left), _swapped(out), _swapped(right))
        return primitives.kernel_grad(lhs, rhs, self._form(window, layout), dtype)

    def _reversed_kernel_grad(self, lhs: jax.Array, rhs: jax.Array, dtype) -> jax.Array:
        left, right, out = self.axes
        if self.feature_groups > 1:
            lhs = regrouped(lhs, self.groups, left[1], left[0])
        low = self._mirrored(self.out, self.stride)
        window = Window(self.rhs, self.lhs, self.out, self.lhs_dilation, self.stride, low)
        layout = Layout(_swapped(right), out, _swapped(left))
        kernel = primitives.kernel_grad(rhs, lhs, self._form(window, layout), dtype)
        return regrouped(lax.rev(kernel, out[2:]), self.groups, out[0], out[1])

    def _filled(self, lhs: jax.Array, rhs: jax.Array, dtype: np.dtype) -> jax.Array:
        """With steps on both sides there is no such reading until the zeros are filled in."""
        edges = [(0, 0, 0)] * lhs.ndim
        for axis, e in zip(self.axes[0][2:], self.lhs_dilation, strict=True):
            edges[axis] = (0, 0, e - 1)
        sizes = [(m - 1) * e + 1 for m, e in zip(self.lhs, self.lhs_dilation, strict=True)]
        ones = (1,) * len(sizes)
        filled = dataclasses.replace(self, lhs=tuple(sizes), lhs_dilation=ones)
        return filled(lax.pad(lhs, jnp.zeros((), lhs.dtype), edges), rhs, dtype)

    def _mirrored(self, taps: Axes, steps: Axes) -> Axes:
        """The low padding as seen from the other end of the taps."""
        axes = zip(taps, steps, self.low, strict=True)
        return tuple((k - 1) * d - low for k, d, low in axes)

    def _form(self, window: Window, layout: Layout) -> Form:
        return Form(window, self.groups, layout, self.precision)


def _swapped(axes: Axes) -> Axes:
    outer, inner, *space = axes
    return inner, outer, *space
