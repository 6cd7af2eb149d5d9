"""conv, deconv and kernel_grad, as users call them: their signatures and what they promise, once.

Each is written as a function of the contraction that it calls. `jdeconv.conv` calls the `jax.custom_vjp`
function of the pair, and `jdeconv.bilinear.conv` the bare primitive.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
from jax.lax import PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jdeconv import arguments, pair
from jdeconv.arguments import Options
from jdeconv.checks import Ints, Padding, reporting

__all__ = ["conv", "deconv", "kernel_grad"]

P = ParamSpec("P")
R = TypeVar("R")


def conv_by(
    contract: Any,
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
    """Convolution, in the sense of every deep-learning framework: cross-correlation with a kernel.

    Formula: ``y[n,o,q] = sum over c, t of kernel[o,c,t] * x[n,c, q*stride + t*dilation - low]`` within each
    group, plus ``bias[o]``; x counts as zero outside its bounds. As matrices: y = kernel . im2col(x).

    Shapes (n batch, g groups, c and o channels per group, i input, k kernel, one of each per axis):
      x (n, g*c, *i), kernel (g*o, c, *k), bias (g*o,) -> y (n, g*o, *q) with
      q = (i + low + high - dilation*(k - 1) - 1) // stride + 1. The rank is kernel.ndim - 2, from 1 up.

    Args:
      x: the input; the batch axis may be absent, in the result then too.
      kernel: the weights, not flipped.
      bias: one number per output channel.
      stride: step of the window; an int, or one per axis.
      padding: zeros around x, in cells: an int, one int per axis, one (low, high) pair per axis where
        negative numbers crop, "VALID" (none), "SAME" (q = ceil(i / stride), an odd cell behind the array),
        "SAME_LOWER" (before it), "FULL" (dilation*(k - 1) on both sides) or, with one spatial axis, "CAUSAL"
        (the same before the array alone). Names may be in lower case, as PyTorch's.
      dilation: distance between neighboring taps; an int, or one per axis.
      groups: independent sets of channels; groups equal to x's channels make it depthwise.
      dimension_numbers: lax-style layouts of (x, kernel, y), such as ("NHWC", "HWIO", "NHWC"); None is
        ("NCHW", "OIHW", "NCHW") of that rank.
      padding_mode: what padding holds: "zeros", "reflect", "replicate" or "circular", as PyTorch calls
        them and `numpy.pad` ("reflect", "edge", "wrap") defines them.
      precision: of the products, a `jax.lax.Precision` or its name; None is JAX's configured default. "high"
        and "highest" also exclude `fft`, which rounds more than a sum of products.
      preferred_element_type: dtype of the result, at least as wide as the operands'. On a GPU a wider one
        widens the operands too, as in `jax.lax`.
      lowering: how to evaluate: "im2col" (the definition), "taps" (fused multiply-adds, for few channels in
        a group), "fft" (large kernels: rounds beside the largest value of the result), "nhwc" (XLA's
        forward convolution, stride 1) or "vendor" (XLA's convolution in the forms of vendor libraries). None
        picks by shape, dtype, layout and platform. What vmap makes of the call is evaluated by another one
        where the named one cannot.

    Returns:
      y, in the dtype to which x, kernel and bias promote. float16 and bfloat16 accumulate in float32.

    Raises:
      TypeError: for arguments of the wrong kind, and arrays of no numbers, or of fewer than 8 bits.
      ValueError: for sizes and values that do not fit; the text names the call, the argument, what is
        wrong and what the call was given. The error's `argument` and `reason` hold the first two.
      NotImplementedError: where the named lowering cannot serve; the text says why.

    Differentiation: a `jax.custom_vjp` function, to any order in reverse. The backward pass calls the
    dual: the gradient of x is `deconv` of y's, the gradient of kernel is `kernel_grad`. jvp of a gradient
    works; for jvp of the function itself use `jdeconv.bilinear.conv`. Complex gradients follow JAX: no
    conjugate is taken.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10]]]), stride=2).tolist()
      [[[21, 43]]]

    Source: Caffe's ConvolutionLayer (forward_gemm).
    """
    options = Options(
        stride,
        padding,
        dilation,
        groups,
        dimension_numbers,
        padding_mode,
        precision,
        preferred_element_type,
        lowering,
    )
    return arguments.conv(contract, x, kernel, bias, options)


def deconv_by(
    contract: Any,
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
    """Deconvolution, or transposed convolution: the exact adjoint of `conv` in x, with the same kernel.

    Formula: ``x[n,c,b] = sum over o, q, t with b = q*stride + t*dilation - low of kernel[o,c,t] * y[n,o,q]``
    within each group, plus ``bias[c]``. As matrices: x = col2im(kernel^T . y). For every x, y and kernel,
    <conv(x, kernel), y> = <x, deconv(y, kernel)>. It is not the inverse of conv.

    Shapes (n batch, g groups, c and o channels per group, q input, k kernel, one of each per axis):
      y (n, g*o, *q), kernel (g*o, c, *k), bias (g*c,) -> x (n, g*c, *b) with
      b = (q - 1)*stride + dilation*(k - 1) + 1 - low - high + output_padding.

    Args:
      y: the input; the batch axis may be absent, in the result then too.
      kernel: the weights of the conv that this transposes, neither flipped nor swapped: axis O holds y's
        channels, axis I the channels of x in a group. PyTorch and Caffe keep theirs so.
      bias: one number per output channel.
      stride: step of the window in the output; an int, or one per axis.
      padding: the padding of the conv that this transposes, so cells taken off the output; as in `conv`.
        "SAME" and "SAME_LOWER" give b = q*stride, and output_size may ask for up to stride - 1 less.
      dilation: distance between neighboring taps; an int, or one per axis.
      groups: independent sets of channels.
      output_padding: cells added behind the output, 0 to max(stride, dilation) - 1 (with "SAME" 0); an int,
        or one per axis. A strided conv maps several sizes to one, and this says which of them to return to.
      output_size: the output's spatial size, instead of output_padding; an int, or one per axis.
      dimension_numbers: lax-style layouts of (y, kernel, x), such as ("NHWC", "HWIO", "NHWC"), where the
        kernel's letters are still the conv's; None is ("NCHW", "OIHW", "NCHW") of that rank.
      padding_mode: that of the conv that this transposes; the adjoint adds each padded cell back to the
        cell that it was a copy of.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.
      lowering: as in `conv`.

    Returns:
      x, in the dtype to which y, kernel and bias promote. float16 and bfloat16 accumulate in float32.

    Raises:
      TypeError: for arguments of the wrong kind, and arrays of no numbers, or of fewer than 8 bits.
      ValueError: for sizes and values that do not fit, a size out of reach, and output_size together with
        output_padding; the text names the call, the argument, what came and what would do.
      NotImplementedError: where the named lowering cannot serve; the text says why.

    Differentiation: a `jax.custom_vjp` function, to any order in reverse. The backward pass calls the
    dual: the gradient of y is `conv` of x's, the gradient of kernel is `kernel_grad` with the gradient in
    x's place. For jvp of the function itself use `jdeconv.bilinear.deconv`.

    Example:
      >>> import jax.numpy as jnp
      >>> deconv(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), stride=2).tolist()
      [[[1, 10, 2, 20]]]
      >>> deconv(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), stride=2, output_size=5).tolist()
      [[[1, 10, 2, 20, 0]]]

    Source: Caffe's DeconvolutionLayer (backward_gemm); sizes as in PyTorch's ConvTranspose.
    """
    options = Options(
        stride,
        padding,
        dilation,
        groups,
        dimension_numbers,
        padding_mode,
        precision,
        preferred_element_type,
        lowering,
    )
    return arguments.deconv(contract, y, kernel, bias, options, output_padding, output_size)


def kernel_grad_by(
    contract: Any,
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
    """The kernel for which the form of `conv` and `deconv` is the inner product: their kernel gradient.

    Formula: ``kernel[o,c,t] = sum over n, q of y[n,o,q] * x[n,c, q*stride + t*dilation - low]`` within each
    group. As matrices: kernel = y . im2col(x)^T. The kernel gradient of conv is kernel_grad(x, y's
    gradient); that of deconv is kernel_grad(x's gradient, y).

    Shapes (n batch, g groups, c and o channels per group, one size per axis):
      x (n, g*c, *big), y (n, g*o, *small) -> kernel (g*o, c, *kernel_size).

    Args:
      x: the big side; the batch axis may be absent, in both arrays then.
      y: the small side.
      kernel_size: one int per spatial axis, in the order of the kernel's letters; their count is the rank.
      stride, padding, dilation, groups, padding_mode, precision, preferred_element_type, lowering: as in
        `conv`; they are those of the conv or deconv whose kernel this is.
      dimension_numbers: lax-style layouts of (x, y, kernel), such as ("NHWC", "NHWC", "HWIO"); None is
        ("NCHW", "NCHW", "OIHW") of that rank.

    Returns:
      The kernel, in the dtype to which x and y promote.

    Raises:
      TypeError: for arguments of the wrong kind, and arrays of no numbers, or of fewer than 8 bits.
      ValueError: for values that do not fit, and sizes of x that no deconv of y reaches.

    Differentiation: a `jax.custom_vjp` function whose backward pass calls `deconv` for x's gradient and
    `conv` for y's, to any order. For jvp of the function itself use `jdeconv.bilinear.kernel_grad`.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel_grad(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10]]]), (2,), stride=2).tolist()
      [[[31, 42]]]

    Source: Caffe's weight_gemm.
    """
    options = Options(
        stride,
        padding,
        dilation,
        groups,
        dimension_numbers,
        padding_mode,
        precision,
        preferred_element_type,
        lowering,
    )
    return arguments.kernel_grad(contract, x, y, kernel_size, options)


def signed(function: Callable[P, R], signature: inspect.Signature) -> Callable[P, R]:
    """The function with a signature of its own, by which wrong arguments are told."""

    @wraps(function)
    def signed_function(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TypeError:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:  # Python's would speak of the functions inside
                raise TypeError(f"{function.__name__}() {error}") from None
            raise

    vars(signed_function).update(__signature__=signature)
    return signed_function


def with_options_of(template: Callable) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of a function with `**options`: they are the template's keyword arguments."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        *named, _ = signature.parameters.values()
        options = [
            p
            for p in inspect.signature(template).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in signature.parameters
        ]
        return signed(function, signature.replace(parameters=[*named, *options]))

    return decorate


def public(
    template: Callable[Concatenate[Any, P], jax.Array], contract: Any, module: str
) -> Callable[P, jax.Array]:
    """The function of a module that a template makes of this contraction."""

    @wraps(template)
    def function(*args: P.args, **kwargs: P.kwargs) -> jax.Array:
        return template(contract, *args, **kwargs)

    name, signature = template.__name__.removesuffix("_by"), inspect.signature(template)
    hints = {key: hint for key, hint in template.__annotations__.items() if key != "contract"}
    function.__annotations__ = hints
    function.__name__ = function.__qualname__ = name
    function.__module__ = module
    own = signature.replace(parameters=[*signature.parameters.values()][1:])
    return reporting(big="x", small="y")(signed(function, own))


conv = public(conv_by, pair.conv, __name__)
deconv = public(deconv_by, pair.deconv, __name__)
kernel_grad = public(kernel_grad_by, pair.kernel_grad, __name__)
