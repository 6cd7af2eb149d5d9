"""The convolutions of `torch.nn.functional`, with its signatures and weight layouts, on JAX arrays.

Arrays are channels first, with or without a batch axis. Weights are PyTorch's: (out, in / groups, *k) for conv,
(in, out / groups, *k) for conv_transpose, both as they come from a `state_dict`. PyTorch's convolutions are
cross-correlations, as Caffe's are, and its conv_transpose is the adjoint of its conv: nothing is reversed.

Each function of a fixed rank refuses arrays of another; `unfold` and `fold` take any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
from jax.typing import ArrayLike

from jdeconv import bilinear
from jdeconv.checks import Ints, array, integer, integers, one_of, refused, sizes, speaking
from jdeconv.im2col import col2im, im2col

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "unfold",
]

Pads = Ints | Literal["valid", "same"]


def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Pads = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """`torch.nn.functional.conv1d`.

    Shapes: input (n, groups*c, i) or without n, weight (o, c, k), bias (o,) -> (n, o, (i + 2*padding -
    dilation*(k - 1) - 1) // stride + 1).

    Args:
      padding: zeros on both sides, "valid" for none, or "same" for a result of the input's size (stride 1; an
        odd cell goes behind).

    Example:
      >>> import jax.numpy as jnp
      >>> conv1d(jnp.array([[1, 2, 3]]), jnp.array([[[1, 10]]])).tolist()
      [[21, 32]]
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Pads = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """`torch.nn.functional.conv2d`: `conv1d` over two axes.

    Example:
      >>> import jax.numpy as jnp
      >>> conv2d(jnp.ones((1, 4, 6)), jnp.ones((2, 1, 3, 3)), stride=(1, 2), padding="valid").shape
      (2, 2, 2)
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Pads = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """`torch.nn.functional.conv3d`: `conv1d` over three axes.

    Example:
      >>> import jax.numpy as jnp
      >>> conv3d(jnp.ones((1, 4, 5, 6)), jnp.ones((2, 1, 3, 2, 3)), padding="same").shape
      (2, 4, 5, 6)
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> jax.Array:
    """`torch.nn.functional.conv_transpose1d`; `groups` stands before `dilation`, as it does there.

    Shapes: input (n, groups*c, i) or without n, weight (groups*c, o, k), bias (groups*o,) -> (n, groups*o,
    (i - 1)*stride - 2*padding + dilation*(k - 1) + output_padding + 1).

    Args:
      output_padding: cells more behind, less than the larger of stride and dilation.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_transpose1d(jnp.array([[1, 2]]), jnp.array([[[1, 10]]]), stride=2).tolist()
      [[1, 10, 2, 20]]
    """
    return _deconv(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> jax.Array:
    """`torch.nn.functional.conv_transpose2d`: `conv_transpose1d` over two axes.

    Example:
      >>> import jax.numpy as jnp
      >>> x, w = jnp.ones((2, 4, 5)), jnp.ones((2, 3, 3, 3))
      >>> conv_transpose2d(x, w, stride=2, padding=1, output_padding=(0, 1)).shape
      (3, 7, 10)
    """
    return _deconv(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> jax.Array:
    """`torch.nn.functional.conv_transpose3d`: `conv_transpose1d` over three axes.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_transpose3d(jnp.ones((1, 2, 3, 4)), jnp.ones((1, 2, 2, 2, 2)), stride=2).shape
      (2, 4, 6, 8)
    """
    return _deconv(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def unfold(
    input: ArrayLike,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """`torch.nn.functional.unfold`, over any number of axes: im2col with the windows in one row.

    Shapes: input (n, c, *i) or without n -> (n, c*prod(kernel_size), windows).

    Args:
      kernel_size: one int per spatial axis. A single int is, as in PyTorch, that of two axes.

    Differentiation: a `jax.custom_vjp` function; the backward pass is `fold`.

    Example:
      >>> import jax.numpy as jnp
      >>> unfold(jnp.array([[[1, 2, 3]]]), (2,)).tolist()
      [[[1, 2], [2, 3]]]
    """
    with speaking("unfold", x="input"):
        kernel_size = _per_axis("unfold", "kernel_size", kernel_size)
        steps = {"stride": stride, "padding": _pads("unfold", padding, len(kernel_size))}
        columns = im2col(input, kernel_size, dilation=dilation, **steps)
    return columns.reshape(*columns.shape[: -len(kernel_size)], -1)


def fold(
    input: ArrayLike,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """`torch.nn.functional.fold`, over any number of axes: the adjoint of `unfold`, col2im.

    Shapes: input (n, c*prod(kernel_size), windows) or without n -> (n, c, *output_size).

    Args:
      output_size, kernel_size: one int per spatial axis. Single ints are, as in PyTorch, those of two axes.

    Differentiation: a `jax.custom_vjp` function; the backward pass is `unfold`.

    Example:
      >>> import jax.numpy as jnp
      >>> fold(jnp.array([[[1, 2], [2, 3]]]), (3,), (2,)).tolist()
      [[[1, 4, 3]]]
    """
    counts = [len(size) for size in (output_size, kernel_size) if isinstance(size, Sequence)]
    rank = counts[0] if counts else 2
    with speaking("fold", columns="input", kernel="kernel_size"):
        output_size = integers("fold", "output_size", output_size, rank, 1)
        kernel_size = integers("fold", "kernel_size", kernel_size, rank, 1)
        a = array("fold", "input", input)
        if a.ndim not in (2, 3):
            raise refused("fold", "input", a, "needs 3 axes, or 2 without a batch")
        steps: dict[str, Any] = {
            "stride": integers("fold", "stride", stride, rank, 1),
            "padding": _pads("fold", padding, rank),
            "dilation": integers("fold", "dilation", dilation, rank, 1),
        }
        windows = [
            (i + 2 * p - d * (k - 1) - 1) // s + 1
            for i, k, s, p, d in zip(output_size, kernel_size, *steps.values(), strict=True)
        ]
        if min(windows) < 1 or math.prod(windows) != a.shape[-1]:
            reason = (
                f"output_size {output_size} has {windows} windows, which the last axis must hold"
            )
            raise refused("fold", "input", a, reason)
        columns = a.reshape(*a.shape[:-1], *windows)
        return col2im(columns, output_size, kernel_size, **steps)


def _conv(rank, input, weight, bias, stride, padding, dilation, groups) -> jax.Array:
    call = f"conv{rank}d"
    names = {"x": "input", "kernel": "weight", "axis_O": "axis 0", "axis_I": "axis 1"}
    with speaking(call, **names):
        _check_rank(call, weight, rank)
        if isinstance(padding, str):
            padding = one_of(call, "padding", padding, ("valid", "same")).upper()
            if padding == "SAME" and max(integers(call, "stride", stride, rank, 1)) > 1:
                raise refused(call, "padding", "same", f"needs stride 1, not {stride}")
        else:
            padding = _pads(call, padding, rank)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return bilinear.conv(input, weight, bias, **options)


def _deconv(
    rank, input, weight, bias, stride, padding, output_padding, groups, dilation
) -> jax.Array:
    call = f"conv_transpose{rank}d"
    names = {"y": "input", "kernel": "weight", "axis_O": "axis 0", "axis_I": "axis 1"}
    with speaking(call, **names):
        _check_rank(call, weight, rank)
        padding = _pads(call, padding, rank)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return bilinear.deconv(input, weight, bias, output_padding=output_padding, **options)


def _check_rank(call: str, weight: ArrayLike, rank: int) -> None:
    weight = array(call, "weight", weight)
    if weight.ndim != rank + 2:
        raise refused(call, "weight", weight, f"needs {rank + 2} axes, {rank} of them spatial")


def _pads(call: str, padding: Ints, rank: int) -> tuple[int, ...]:
    return integers(call, "padding", padding, rank, 0)


def _per_axis(call: str, argument: str, value: Ints) -> tuple[int, ...]:
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return sizes(call, argument, tuple(value))
    return (integer(call, argument, value, 1),) * 2
