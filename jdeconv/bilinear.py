"""The same three functions as bare primitives: with forward mode and linear transposition too.

JAX refuses jvp, linearize and linear_transpose of any `custom_vjp` function. These functions are bilinear
as far as JAX can see: every transformation passes. Arguments, results and errors are those of `conv`,
`deconv` and `kernel_grad` in `jdeconv`, where they are described.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.lax import PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jdeconv import arguments, primitives
from jdeconv.arguments import Options
from jdeconv.checks import Ints, Padding, reporting

__all__ = ["conv", "deconv", "kernel_grad"]


@reporting(big="x")
def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    dimension_numbers: Sequence[str] | None = None,
    padding_mode: str = "zeros",
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    lowering: str | None = None,
) -> jax.Array:
    """`jdeconv.conv` as a bare primitive, with forward mode.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> x, k = jnp.array([[[1.0, 2.0, 3.0, 4.0]]]), jnp.array([[[1.0, 10.0]]])
      >>> jax.jvp(lambda k: conv(x, k), (k,), (jnp.ones_like(k),))[1].tolist()
      [[[3.0, 5.0, 7.0]]]
    """
    options = Options(
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        dimension_numbers=dimension_numbers,
        padding_mode=padding_mode,
        precision=precision,
        preferred_element_type=preferred_element_type,
        lowering=lowering,
    )
    return arguments.conv(primitives.conv, x, kernel, bias, options)


@reporting(small="y")
def deconv(
    y: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dimension_numbers: Sequence[str] | None = None,
    padding_mode: str = "zeros",
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    lowering: str | None = None,
) -> jax.Array:
    """`jdeconv.deconv` as a bare primitive, with forward mode.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> x, k = jnp.zeros((1, 1, 4)), jnp.array([[[1.0, 10.0]]])
      >>> (y,) = jax.linear_transpose(lambda y: deconv(y, k, stride=2), jnp.zeros((1, 1, 2)))(x + 1)
      >>> y.tolist()
      [[[11.0, 11.0]]]
    """
    options = Options(
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        dimension_numbers=dimension_numbers,
        padding_mode=padding_mode,
        precision=precision,
        preferred_element_type=preferred_element_type,
        lowering=lowering,
    )
    return arguments.deconv(
        primitives.deconv, y, kernel, bias, options, output_padding, output_size
    )


@reporting(big="x", small="y")
def kernel_grad(
    x: ArrayLike,
    y: ArrayLike,
    kernel_size: Sequence[int],
    *,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    dimension_numbers: Sequence[str] | None = None,
    padding_mode: str = "zeros",
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    lowering: str | None = None,
) -> jax.Array:
    """`jdeconv.kernel_grad` as a bare primitive, with forward mode.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel_grad(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10]]]), (2,), stride=2).tolist()
      [[[31, 42]]]
    """
    options = Options(
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        dimension_numbers=dimension_numbers,
        padding_mode=padding_mode,
        precision=precision,
        preferred_element_type=preferred_element_type,
        lowering=lowering,
    )
    return arguments.kernel_grad(primitives.kernel_grad, x, y, kernel_size, options)
