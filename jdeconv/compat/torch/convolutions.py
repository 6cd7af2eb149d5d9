"""The convolutions of `torch.nn.functional`, and its `unfold` and `fold`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from jdeconv import bilinear
from jdeconv.checks import (
    Ints,
    array,
    integer,
    integers,
    listed,
    one_of,
    refused,
    reporting,
    shown,
    sizes,
)
from jdeconv.im2col import col2im, im2col
from jdeconv.window import Window

Pads = Ints | Literal["valid", "same"]
F = TypeVar("F", bound=Callable)


def named(function: F, rank: int) -> F:
    """The function under the name of its rank, which its text names too."""
    function.__name__ = function.__qualname__ = f"{function.__name__}{rank}d"
    function.__doc__ = (function.__doc__ or "").replace("RANK", str(rank))
    return function


def _conv(rank: int):
    @reporting(x="input", kernel="weight")
    def conv(
        input: ArrayLike,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        stride: Ints = 1,
        padding: Pads = 0,
        dilation: Ints = 1,
        groups: int = 1,
    ) -> jax.Array:
        """Returns what `torch.nn.functional.convRANKd` returns.

        Shapes: input (n, groups*c, *i) or without n, weight (o, c, *k), bias (o,) -> (n, o, *q), where
        q = (i + 2*padding - dilation*(k - 1) - 1) // stride + 1, one of each per axis.

        Args:
          padding: zeros on both sides, "valid" for none, or "same" for a result of the input's size (stride 1;
            an odd cell goes behind).

        Example:
          >>> import jax.numpy as jnp
          >>> convRANKd(jnp.ones((1, *[4] * RANK)), jnp.ones((2, 1, *[2] * RANK))).shape == (2, *[3] * RANK)
          True
        """
        _check_rank(weight, rank)
        pads: Any = padding
        if not isinstance(padding, str):
            pads = integers("padding", padding, rank, 0)
        else:
            pads = one_of("padding", padding, ("valid", "same")).upper()
            if pads == "SAME" and max(integers("stride", stride, rank, 1)) > 1:
                raise refused("padding", f"'same' needs stride 1, got {shown(stride)}")
        options = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}
        return bilinear.conv(input, weight, bias, **options)

    return named(conv, rank)


def _conv_transpose(rank: int):
    @reporting(y="input", kernel="weight")
    def conv_transpose(
        input: ArrayLike,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        dilation: Ints = 1,
        *,
        output_size: Sequence[int] | None = None,
    ) -> jax.Array:
        """Returns what `torch.nn.functional.conv_transposeRANKd` returns; the arguments have its order.

        Shapes: input (n, groups*c, *i) or without n, weight (groups*c, o, *k), bias (groups*o,) ->
        (n, groups*o, *size), where size = (i - 1)*stride - 2*padding + dilation*(k - 1) + output_padding + 1.

        Args:
          output_padding: cells added at the end, fewer than the larger of stride and dilation.
          output_size: the spatial size of the result, instead of output_padding, as in
            `torch.nn.ConvTransposeRANKd`; or the whole shape, whose last RANK sizes count.

        Example:
          >>> import jax.numpy as jnp
          >>> y, kernel = jnp.ones((1, *[2] * RANK)), jnp.ones((1, 1, *[2] * RANK))
          >>> conv_transposeRANKd(y, kernel, stride=2).shape == (1, *[4] * RANK)
          True
        """
        _check_rank(weight, rank)
        pads = integers("padding", padding, rank, 0)
        options = {"stride": stride, "padding": pads, "dilation": dilation, "groups": groups}
        if output_size is not None:
            options["output_size"] = _last("output_size", output_size, rank, np.ndim(input))
        return bilinear.deconv(input, weight, bias, output_padding=output_padding, **options)

    return named(conv_transpose, rank)


conv1d, conv2d, conv3d = _conv(1), _conv(2), _conv(3)
conv_transpose1d, conv_transpose2d = _conv_transpose(1), _conv_transpose(2)
conv_transpose3d = _conv_transpose(3)


@reporting(x="input")
def unfold(
    input: ArrayLike,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """Returns what `torch.nn.functional.unfold` returns: the windows as columns, over any number of axes.

    Shapes: input (n, c, *i) or without n -> (n, c*prod(kernel_size), windows).

    Args:
      kernel_size: one int per spatial axis. A single int is used for two axes, as in PyTorch.

    Differentiation: a `jax.custom_vjp` function; the backward pass is `fold`.

    Example:
      >>> import jax.numpy as jnp
      >>> unfold(jnp.array([[[1, 2, 3]]]), (2,)).tolist()
      [[[1, 2], [2, 3]]]
    """
    kernel_size = _per_axis("kernel_size", kernel_size)
    pads = integers("padding", padding, len(kernel_size), 0)
    columns = im2col(input, kernel_size, dilation=dilation, stride=stride, padding=pads)
    return columns.reshape(*columns.shape[: -len(kernel_size)], -1)


@reporting(columns="input")
def fold(
    input: ArrayLike,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """Returns what `torch.nn.functional.fold` returns: the sum of columns, the adjoint of `unfold`.

    Shapes: input (n, c*prod(kernel_size), windows) or without n -> (n, c, *output_size).

    Args:
      output_size, kernel_size: one int per spatial axis. Single ints are used for two axes, as in PyTorch.

    Differentiation: a `jax.custom_vjp` function; the backward pass is `unfold`.

    Example:
      >>> import jax.numpy as jnp
      >>> fold(jnp.array([[[1, 2], [2, 3]]]), (3,), (2,)).tolist()
      [[[1, 4, 3]]]
    """
    counts = [len(size) for size in (output_size, kernel_size) if isinstance(size, Sequence)]
    rank = next(filter(None, counts), 2)
    output_size = integers("output_size", output_size, rank, 1)
    kernel_size = integers("kernel_size", kernel_size, rank, 1)
    a = array("input", input)
    if a.ndim not in (2, 3):
        raise refused("input", f"needs 3 axes, or 2 without a batch, got {shown(a)}")
    pads = integers("padding", padding, rank, 0)
    steps: dict[str, Any] = {"stride": stride, "padding": pads, "dilation": dilation}
    windows = Window.of_conv(output_size, kernel_size, **steps).small
    if math.prod(windows) != a.shape[-1]:
        reason = f"needs {windows} windows of the output on its last axis, got {a.shape[-1]}"
        raise refused("input", reason)
    columns = a.reshape(*a.shape[:-1], *windows)
    return col2im(columns, output_size, kernel_size, **steps)


def _check_rank(weight: ArrayLike, rank: int) -> None:
    weight = array("weight", weight)
    if weight.ndim != rank + 2:
        reason = f"needs {rank + 2} axes, {rank} of them spatial, got {shown(weight)}"
        raise refused("weight", reason)


def _last(name: str, value: Any, rank: int, ndim: int) -> tuple[int, ...]:
    """So many sizes, or the last of those of a whole shape."""
    shape = listed(name, value, "ints")
    return integers(name, shape[-rank:] if len(shape) == ndim else shape, rank, 1)


def _per_axis(argument: str, value: Ints) -> tuple[int, ...]:
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return sizes(argument, tuple(value))
    return (integer(argument, value, 1),) * 2
