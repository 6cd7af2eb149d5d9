"""The pair: conv and deconv, each a `jax.custom_vjp` function whose backward pass calls the other's forward.

The form T(x, kernel, y) is linear in each array. So the gradient of the result takes the result's place, and
the gradient of an operand is the contraction of the other two arrays:

    forward               x gradient      kernel gradient      y gradient
    conv(x, kernel)       deconv          kernel_grad
    deconv(y, kernel)                     kernel_grad          conv
    kernel_grad(x, y)     deconv                               conv

The rules call the primitives and not the `custom_vjp` functions, so that a gradient has a jvp. The transposes
of the primitives are the same table.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np

from jdeconv import primitives
from jdeconv._jax import ad
from jdeconv.form import Form


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """(x, kernel) -> y, of the given dtype."""
    return primitives.conv(x, kernel, form, dtype)


def _conv_forward(x, kernel, form, dtype):
    return primitives.conv(x, kernel, form, dtype), (x, kernel)


def _conv_backward(form, dtype, saved, y_bar):
    x, kernel = saved
    x_bar = primitives.deconv(y_bar, kernel, form, like=jax.typeof(x))
    kernel_bar = primitives.kernel_grad(x, y_bar, form, like=jax.typeof(kernel))
    return x_bar, kernel_bar


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """(y, kernel) -> x, of the given dtype."""
    return primitives.deconv(y, kernel, form, dtype)


def _deconv_forward(y, kernel, form, dtype):
    return primitives.deconv(y, kernel, form, dtype), (y, kernel)


def _deconv_backward(form, dtype, saved, x_bar):
    y, kernel = saved
    y_bar = primitives.conv(x_bar, kernel, form, like=jax.typeof(y))
    kernel_bar = primitives.kernel_grad(x_bar, y, form, like=jax.typeof(kernel))
    return y_bar, kernel_bar


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """(x, y) -> kernel, of the given dtype."""
    return primitives.kernel_grad(x, y, form, dtype)


def _kernel_grad_forward(x, y, form, dtype):
    return primitives.kernel_grad(x, y, form, dtype), (x, y)


def _kernel_grad_backward(form, dtype, saved, kernel_bar):
    x, y = saved
    x_bar = primitives.deconv(y, kernel_bar, form, like=jax.typeof(x))
    y_bar = primitives.conv(x, kernel_bar, form, like=jax.typeof(y))
    return x_bar, y_bar


conv.defvjp(_conv_forward, _conv_backward)
deconv.defvjp(_deconv_forward, _deconv_backward)
kernel_grad.defvjp(_kernel_grad_forward, _kernel_grad_backward)

# The transposes of the primitives. Each takes the cotangent and both operands, and one operand is asked for.

ad.defbilinear(
    primitives.conv_p,
    lambda y, x, k, *, form, **_: primitives.deconv(y, k, form, like=x.aval),
    lambda y, x, k, *, form, **_: primitives.kernel_grad(x, y, form, like=k.aval),
)
ad.defbilinear(
    primitives.deconv_p,
    lambda x, y, k, *, form, **_: primitives.conv(x, k, form, like=y.aval),
    lambda x, y, k, *, form, **_: primitives.kernel_grad(x, y, form, like=k.aval),
)
ad.defbilinear(
    primitives.kernel_grad_p,
    lambda k, x, y, *, form, **_: primitives.deconv(y, k, form, like=x.aval),
    lambda k, x, y, *, form, **_: primitives.conv(x, k, form, like=y.aval),
)
