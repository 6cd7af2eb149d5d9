"""conv, deconv and kernel_grad, as users call them: their signatures and what they promise, once.

The first argument of each is the function that evaluates the contraction. `jdeconv.conv` calls the
`jax.custom_vjp` function of the pair, and `jdeconv.bilinear.conv` the bare primitive.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import jax
from jax.lax import PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jdeconv import pair
from jdeconv.arguments import Call
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
    """Returns the convolution of x with a kernel, as deep-learning frameworks define it.

    The kernel is not flipped (this is a cross-correlation).

    Formula: ``y[n,o,q] = sum over c, t of kernel[o,c,t] * x[n,c, q*stride + t*dilation - low]`` within each
    group, plus ``bias[o]``; x is zero outside of its bounds. As matrices: y = kernel . im2col(x).

    Shapes (n batch, g groups, c and o channels per group, i input, k kernel, one of each per axis):
      x (n, g*c, *i), kernel (g*o, c, *k), bias (g*o,) -> y (n, g*o, *q) with
      q = (i + low + high - dilation*(k - 1) - 1) // stride + 1. The rank is kernel.ndim - 2, from 1 up.

    Args:
      x: the input. The batch axis may be absent; the result then has none either.
      kernel: the weights.
      bias: one number for each output channel.
      stride: the step of the window: an int, or one for each axis.
      padding: the number of zeros around x: an int, one int for each axis, or one (low, high) pair for each
        axis, where negative numbers crop. "VALID" pads nothing. "SAME" pads to q = ceil(i / stride); if the
        sum is odd, the end gets one zero more, and with "SAME_LOWER" the beginning. "FULL" pads
        dilation*(k - 1) on both sides, and "CAUSAL", for one spatial axis, only before the array. Names may be
        in lower case.
      dilation: the distance between neighboring taps: an int, or one for each axis.
      groups: the number of independent sets of channels; with x's number of channels, the conv is depthwise.
      dimension_numbers: the layouts of (x, kernel, y), as in `jax.lax`, such as ("NHWC", "HWIO", "NHWC").
        None means channels first: ("NCHW", "OIHW", "NCHW"), with one letter for each spatial axis.
      padding_mode: the values of the padding: "zeros", "reflect", "replicate" or "circular". The names are
        PyTorch's. `numpy.pad` calls the last three "reflect", "edge" and "wrap".
      precision: the precision of the products, a `jax.lax.Precision` or its name. None is JAX's configured
        default. "high" and "highest" also exclude fft, which rounds more than a sum of products.
      preferred_element_type: the dtype of the result, at least as wide as the operands'. On a GPU a wider
        dtype also widens the operands, as in `jax.lax`.
      lowering: the algorithm. None picks one by shape, dtype, layout and platform. "im2col" is the definition.
        "taps" uses multiply-adds, for few channels in a group. "fft" is for large kernels; its rounding
        errors are relative to the largest value of the result. "nhwc" is XLA's forward convolution
        with channels last. "vendor" is XLA's convolution in the forms that vendor libraries recognize. Under
        vmap another algorithm is used if the named one cannot evaluate the mapped call.

    Returns:
      y, in the dtype to which x, kernel and bias promote. float16 and bfloat16 accumulate in float32.

    Raises:
      TypeError: if an argument has the wrong type, or a dtype that is not numeric or has fewer than 8 bits.
      ValueError: if sizes or values do not fit. The message names the call, the argument and what is wrong,
        and shows the call. The attributes `argument` and `reason` hold two of these.
      NotImplementedError: if the named lowering cannot evaluate the call. The message says why.

    Differentiation: this is a `jax.custom_vjp` function with derivatives of any order in reverse mode. The
    gradient of x is `deconv` of y's gradient, and the gradient of kernel is `kernel_grad`. jvp of a gradient
    works. For jvp of the function itself call `jdeconv.bilinear.conv`. No conjugate is taken for complex
    arrays, as in JAX.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10]]]), stride=2).tolist()
      [[[21, 43]]]

    Source: Caffe's ConvolutionLayer (forward_gemm).
    """
    call = Call.of("conv", groups, dimension_numbers, padding_mode, x=x, kernel=kernel, bias=bias)
    window = call.window(stride=stride, padding=padding, dilation=dilation)
    return call.contracted(contract, window, precision, preferred_element_type, lowering)


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
    """Returns the transposed convolution (deconvolution) of y: the exact adjoint of `conv`, with its kernel.

    Formula: ``x[n,c,b] = sum over o, q, t with b = q*stride + t*dilation - low of kernel[o,c,t] * y[n,o,q]``
    within each group, plus ``bias[c]``. As matrices: x = col2im(kernel^T . y). For every x, y and kernel,
    <conv(x, kernel), y> = <x, deconv(y, kernel)>. Deconv is not the inverse of conv.

    Shapes (n batch, g groups, c and o channels per group, q input, k kernel, one of each per axis):
      y (n, g*o, *q), kernel (g*o, c, *k), bias (g*c,) -> x (n, g*c, *b) with
      b = (q - 1)*stride + dilation*(k - 1) + 1 - low - high + output_padding.

    Args:
      y: the input. The batch axis may be absent; the result then has none either.
      kernel: the weights of the conv that this transposes, neither flipped nor swapped. Axis O holds y's
        channels, and axis I holds the channels of x in a group, as in PyTorch and Caffe.
      bias: one number for each output channel.
      stride: the step of the window in the output: an int, or one for each axis.
      padding: the padding of the conv that this transposes, given as in `conv`. These cells are cut off the
        output. "SAME" and "SAME_LOWER" give b = q*stride; output_size may ask for up to stride - 1 less.
      dilation: the distance between neighboring taps: an int, or one for each axis.
      groups: the number of independent sets of channels.
      output_padding: the number of cells added at the end of the output, from 0 to max(stride, dilation) - 1
        (with "SAME" 0): an int, or one for each axis. A strided conv maps several sizes to one size, and
        this says which of them to return.
      output_size: the spatial size of the output, in place of output_padding: an int, or one for each axis.
      dimension_numbers: the layouts of (y, kernel, x), such as ("NHWC", "HWIO", "NHWC"). The kernel's letters
        are the conv's. None means channels first, as in `conv`.
      padding_mode: that of the conv that this transposes. Each padded cell is added to the cell that it is a
        copy of.
      precision: as in `conv`.
      preferred_element_type: as in `conv`.
      lowering: as in `conv`.

    Returns:
      x, in the dtype to which y, kernel and bias promote. float16 and bfloat16 accumulate in float32.

    Raises:
      TypeError: if an argument has the wrong type, or a dtype that is not numeric or has fewer than 8 bits.
      ValueError: if sizes or values do not fit, if no conv gives this output_size, or if output_size and
        output_padding are both given. The message says what would work.
      NotImplementedError: if the named lowering cannot evaluate the call. The message says why.

    Differentiation: this is a `jax.custom_vjp` function with derivatives of any order in reverse mode. The
    gradient of y is `conv` of x's gradient. The gradient of kernel is `kernel_grad` with x's gradient in
    place of x. For jvp of the function itself call `jdeconv.bilinear.deconv`.

    Example:
      >>> import jax.numpy as jnp
      >>> deconv(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), stride=2).tolist()
      [[[1, 10, 2, 20]]]
      >>> deconv(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), stride=2, output_size=5).tolist()
      [[[1, 10, 2, 20, 0]]]

    Source: Caffe's DeconvolutionLayer (backward_gemm); sizes as in PyTorch's ConvTranspose.
    """
    call = Call.of("deconv", groups, dimension_numbers, padding_mode, y=y, kernel=kernel, bias=bias)
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    steps |= {"output_padding": output_padding, "output_size": output_size}
    window = call.window(**steps)
    return call.contracted(contract, window, precision, preferred_element_type, lowering)


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
    """Returns the gradient of the kernel, for `conv` and for `deconv`.

    Formula: ``kernel[o,c,t] = sum over n, q of y[n,o,q] * x[n,c, q*stride + t*dilation - low]`` within each
    group. As matrices: kernel = y . im2col(x)^T. The kernel gradient of conv is kernel_grad(x, y's
    gradient); that of deconv is kernel_grad(x's gradient, y).

    Shapes (n batch, g groups, c and o channels per group, one size per axis):
      x (n, g*c, *big), y (n, g*o, *small) -> kernel (g*o, c, *kernel_size).

    Args:
      x: the input of the conv, or the gradient of the deconv's output. The batch axis may be absent in both
        arrays.
      y: the gradient of the conv's output, or the input of the deconv.
      kernel_size: one int for each spatial axis, in the order of the kernel's letters.
      stride, padding, dilation, groups, padding_mode, precision, preferred_element_type, lowering: as in
        `conv`, with the values of the conv or deconv that uses the kernel.
      dimension_numbers: the layouts of (x, y, kernel), such as ("NHWC", "NHWC", "HWIO"). None means channels
        first: ("NCHW", "NCHW", "OIHW"), with one letter for each spatial axis.

    Returns:
      The kernel, in the dtype to which x and y promote.

    Raises:
      TypeError: if an argument has the wrong type, or a dtype that is not numeric or has fewer than 8 bits.
      ValueError: if values do not fit, or if no conv of an x of this size gives a y of this size.

    Differentiation: this is a `jax.custom_vjp` function with derivatives of any order in reverse mode. The
    backward pass calls `deconv` for the gradient of x and `conv` for the gradient of y. For jvp of the
    function itself call `jdeconv.bilinear.kernel_grad`.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel_grad(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10]]]), (2,), stride=2).tolist()
      [[[31, 42]]]

    Source: Caffe's weight_gemm.
    """
    call = Call.of("kernel_grad", groups, dimension_numbers, padding_mode, kernel_size, x=x, y=y)
    window = call.window(kernel=kernel_size, stride=stride, padding=padding, dilation=dilation)
    return call.contracted(contract, window, precision, preferred_element_type, lowering)


def with_options_of(template: Callable) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator of a function with `**options`, which are the arguments that only the template has."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own, more = signature.parameters, inspect.signature(template).parameters
        parameters = {**own, **{key: more[key] for key in more if key not in own}}
        del parameters["options"], parameters["contract"]
        signature = signature.replace(parameters=[*parameters.values()])
        vars(function).update(__signature__=signature)
        return function

    return decorate


def public(
    template: Callable[Concatenate[Any, P], jax.Array], contract: Any, module: str
) -> Callable[P, jax.Array]:
    """The function of a module that a template makes of this contraction."""

    @wraps(template)
    def function(*args: P.args, **kwargs: P.kwargs) -> jax.Array:
        return template(contract, *args, **kwargs)

    hints = {key: hint for key, hint in template.__annotations__.items() if key != "contract"}
    function.__annotations__ = hints
    function.__name__ = function.__qualname__ = template.__name__.removesuffix("_by")
    function.__module__ = module
    vars(function).update(__signature__=inspect.signature(partial(template, contract)))
    return reporting(big="x", small="y")(function)


conv = public(conv_by, pair.conv, __name__)
deconv = public(deconv_by, pair.deconv, __name__)
kernel_grad = public(kernel_grad_by, pair.kernel_grad, __name__)
