"""The pair: conv and deconv, each a `jax.custom_vjp` function whose backward pass calls the other's forward.

The form T(x, kernel, y) is linear in each array. So the gradient of the result takes the result's place, and
the gradient of an operand is the contraction of the other two arrays:

    forward               x gradient      kernel gradient      y gradient
    conv(x, kernel)       deconv          kernel_grad
    deconv(y, kernel)                     kernel_grad          conv
    kernel_grad(x, y)     deconv                               conv

The backward passes call the primitives, because `custom_vjp` functions have no forward mode. So jvp of a
gradient works. The same rules are registered as the primitives' transposes, so the table is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jdeconv import primitives
from jdeconv._jax import Primitive, ad


def _paired(primitive: Primitive, forward: Callable, first: Callable, second: Callable) -> Callable:
    """A `custom_vjp` function of two operands, a form and a dtype, with a gradient for each operand.

    `first` and `second` return the gradients of the two operands, from the result's gradient, both operands and
    the form. JAX also calls them as transpose rules. Then it passes every parameter of the primitive, and in
    place of the operand an object that has only its type.
    """
    function = jax.custom_vjp(forward, nondiff_argnums=(2, 3))
    function.defvjp(
        lambda a, b, form, dtype: (forward(a, b, form, dtype), (a, b)),
        lambda form, _, saved, bar: (first(bar, *saved, form=form), second(bar, *saved, form=form)),
    )
    ad.defbilinear(primitive, first, second)
    return function


conv = _paired(
    primitives.conv_p,
    primitives.conv,
    lambda y_bar, x, kernel, form, **_: primitives.deconv(y_bar, kernel, form, _type(x)),
    lambda y_bar, x, kernel, form, **_: primitives.kernel_grad(x, y_bar, form, _type(kernel)),
)
deconv = _paired(
    primitives.deconv_p,
    primitives.deconv,
    lambda x_bar, y, kernel, form, **_: primitives.conv(x_bar, kernel, form, _type(y)),
    lambda x_bar, y, kernel, form, **_: primitives.kernel_grad(x_bar, y, form, _type(kernel)),
)
kernel_grad = _paired(
    primitives.kernel_grad_p,
    primitives.kernel_grad,
    lambda kernel_bar, x, y, form, **_: primitives.deconv(y, kernel_bar, form, _type(x)),
    lambda kernel_bar, x, y, form, **_: primitives.conv(x, kernel_bar, form, _type(y)),
)


def _type(operand: Any) -> Any:
    """The type of an array, or of the operand for which JAX asks a transpose rule."""
    return operand.aval if hasattr(operand, "aval") else jax.typeof(operand)
