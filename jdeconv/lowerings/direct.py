"""XLA's own forward convolution with channels last and no group: the form that its CPU backend compiles well.

    conv         lax's convolution
    deconv       of stride 1: lax's convolution of y with the reversed kernel, its channels swapped
    kernel_grad  im2col and dot, which is faster

On CPU, XLA hands this form to a library that needs no columns, in loops too, where the same convolution with
channels first takes 20 to 40 times as long (jax #12868). So arrays are transposed to it, and the kernel is
reversed in memory: a reversed window would leave the fast path.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.form import Form
from jdeconv.lowerings import im2col
from jdeconv.lowerings.arrange import arrange, restore
from jdeconv.lowerings.native import cropped


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """The reason why there is no such form."""
    if form.groups > 1:
        return f"direct needs one group, not {form.groups}"
    if max(form.window.stride) > 1:
        return f"direct needs stride 1, not {form.window.stride}"
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The forward convolution."""
    x, kernel = arrange(x, form, "x", last=True), arrange(kernel, form, "kernel", last=True)
    y = _convolution(x, kernel, form, dtype, form.window.padding)
    return restore(y, form, "y", last=True)


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The forward convolution of y with the reversed kernel, padded by what of the span the padding leaves."""
    w = form.window
    y, kernel = arrange(y, form, "y", last=True), arrange(kernel, form, "kernel", last=True)
    kernel = jnp.flip(kernel, range(w.rank)).swapaxes(-1, -2)
    edges = zip(w.span, w.padding, strict=True)
    padding = [(span - 1 - low, span - 1 - high) for span, (low, high) in edges]
    x = _convolution(y, lax.optimization_barrier(kernel), form, dtype, padding)
    return restore(x, form, "x", last=True)


kernel_grad = im2col.kernel_grad


def _convolution(a: jax.Array, kernel: jax.Array, form: Form, dtype, padding) -> jax.Array:
    rank = form.window.rank
    last = (0, rank + 1, *range(1, rank + 1))
    a, padding = cropped(a, last[2:], padding)
    return lax.conv_general_dilated(
        lax.optimization_barrier(a),
        kernel,
        (1,) * rank,
        padding,
        rhs_dilation=form.window.dilation,
        dimension_numbers=lax.ConvDimensionNumbers(last, (rank + 1, rank, *range(rank)), last),
        precision=form.precision,
        preferred_element_type=dtype,
    )
