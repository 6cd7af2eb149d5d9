"""The pair: conv and deconv, each a `jax.custom_vjp` function whose backward pass calls the other's forward.

The form T(x, kernel, y) is linear in each array. So the gradient of the result takes the result's place, and
the gradient of an operand is the contraction of the other two arrays:

    forward               x gradient      kernel gradient      y gradient
    conv(x, kernel)       deconv          kernel_grad
    deconv(y, kernel)                     kernel_grad          conv
    kernel_grad(x, y)     deconv                               conv

The rules call the primitives and not the `custom_vjp` functions, which have no jvp. So a gradient has one. The
same rules are registered as the primitives' transposes, so the table is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jdeconv import primitives
from jdeconv._jax import Primitive, ad


def _paired(primitive: Primitive, forward: Callable, first: Callable, second: Callable) -> Callable:
    """A `custom_vjp` function of two operands, a form and a dtype, with a gradient for each operand.

    A gradient takes the result's gradient, both operands and the form, and has the type of its operand.
    """
    function = jax.custom_vjp(forward, nondiff_argnums=(2, 3))
    function.defvjp(
        lambda a, b, form, dtype: (forward(a, b, form, dtype), (a, b)),
        lambda form, _, saved, bar: (first(bar, *saved, form), second(bar, *saved, form)),
    )

    def transposed(rule: Callable) -> Callable:
        # The operand that is transposed is a type without a value.
        return lambda bar, a, b, *, form, **_: rule(bar, a, b, form)

    ad.defbilinear(primitive, transposed(first), transposed(second))
    return function


conv = _paired(
    primitives.conv_p,
    primitives.conv,
    lambda y_bar, x, kernel, form: primitives.deconv(y_bar, kernel, form, _type(x)),
    lambda y_bar, x, kernel, form: primitives.kernel_grad(x, y_bar, form, _type(kernel)),
)
deconv = _paired(
    primitives.deconv_p,
    primitives.deconv,
    lambda x_bar, y, kernel, form: primitives.conv(x_bar, kernel, form, _type(y)),
    lambda x_bar, y, kernel, form: primitives.kernel_grad(x_bar, y, form, _type(kernel)),
)
kernel_grad = _paired(
    primitives.kernel_grad_p,
    primitives.kernel_grad,
    lambda kernel_bar, x, y, form: primitives.deconv(y, kernel_bar, form, _type(x)),
    lambda kernel_bar, x, y, form: primitives.conv(x, kernel_bar, form, _type(y)),
)


def _type(operand: Any) -> Any:
    """Of an array, or of the operand for which a transpose is asked."""
    return operand.aval if hasattr(operand, "aval") else jax.typeof(operand)
