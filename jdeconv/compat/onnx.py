"""ONNX's operators Conv, ConvTranspose and Col2Im, with their inputs and attributes, on JAX arrays.

An attribute that a node lacks is None here, or the specification's default. A string may be bytes, as a file
holds it. Where the specification is vague
the meaning is onnxruntime's: `output_shape` and `auto_pad` of ConvTranspose pad by no less than zero, and the
odd cell of that padding goes behind for SAME_UPPER and in front for everything else, NOTSET too. Two things
that it refuses work here as the operators define them: "SAME" with dilation, and an `output_padding` not less
than the stride, but less than the dilation.

Source: https://onnx.ai/onnx/operators, opset 22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jdeconv import bilinear
from jdeconv.checks import Pair, array, integers, one_of, refused, reporting, shown, sizes
from jdeconv.im2col import col2im
from jdeconv.window import Window

__all__ = ["Col2Im", "Conv", "ConvTranspose"]

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
NAMES = {"x": "X", "y": "X", "kernel": "W", "bias": "B", "groups": "group", "padding": "pads"}


@reporting(**NAMES)
def Conv(  # noqa: N802
    X: ArrayLike,
    W: ArrayLike,
    B: ArrayLike | None = None,
    *,
    auto_pad: str | bytes = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> jax.Array:
    """Returns the result of ONNX's operator Conv.

    Shapes: X (n, group*c, *i), W (group*o, c, *k), B (group*o,) -> (n, group*o, *q).

    Args:
      auto_pad: "NOTSET" uses `pads`. "VALID" pads nothing. "SAME_UPPER" and "SAME_LOWER" pad to
        q = ceil(i / stride), with an odd cell at the end or at the beginning.
      kernel_shape: the spatial shape of W. Another shape is an error.
      pads: the cells before each axis, then the cells after each axis.
      dilations, strides: one int per axis; None is 1.

    Example:
      >>> import jax.numpy as jnp
      >>> Conv(jnp.array([[[1, 2, 3]]]), jnp.array([[[1, 10]]]), pads=[0, 1]).tolist()
      [[[21, 32, 3]]]
    """
    rank = _rank(X, W, kernel_shape)
    steps = _steps(strides, dilations, rank)
    auto_pad, pairs = _pads(auto_pad, pads, rank)
    padding: Any = {"SAME_UPPER": "SAME", "SAME_LOWER": "SAME_LOWER"}.get(auto_pad, pairs)
    return bilinear.conv(X, W, B, padding=padding, groups=group, **steps)


@reporting(**NAMES)
def ConvTranspose(  # noqa: N802
    X: ArrayLike,
    W: ArrayLike,
    B: ArrayLike | None = None,
    *,
    auto_pad: str | bytes = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> jax.Array:
    """Returns the result of ONNX's operator ConvTranspose.

    Size: (i - 1)*stride + dilation*(k - 1) + 1 + output_padding - begin - end, or `output_shape`.

    Shapes: X (n, group*o, *i), W (group*o, c, *k), B (group*c,) -> (n, group*c, *size).

    Args:
      auto_pad: "SAME_UPPER" and "SAME_LOWER" cut the result to the size i*stride, if it is larger.
      output_padding: cells added at the end, fewer than the larger of stride and dilation.
      output_shape: the spatial size of the result. The padding follows from it, and `pads` is ignored, as
        the specification says.
      dilations, kernel_shape, pads, strides: as in `Conv`.

    Example:
      >>> import jax.numpy as jnp
      >>> ConvTranspose(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), strides=[2], pads=[1, 0]).tolist()
      [[[10, 2, 20]]]
    """
    rank = _rank(X, W, kernel_shape)
    steps = _steps(strides, dilations, rank)
    auto_pad, pairs = _pads(auto_pad, pads, rank)
    extra = _per_axis("output_padding", output_padding, rank, 0)
    for cells, s, d in zip(extra, *steps.values(), strict=True):
        if cells >= max(s, d):
            reason = f"must be less than the larger of stride {s} and dilation {d}, got {cells}"
            raise refused("output_padding", reason)
    axes = zip(np.shape(X)[2:], np.shape(W)[2:], *steps.values(), strict=True)
    full = [(i - 1) * s + d * (k - 1) + 1 for i, k, s, d in axes]
    if output_shape is not None:
        wanted = integers("output_shape", output_shape, rank, 1)
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(i * s for i, s in zip(np.shape(X)[2:], steps["stride"], strict=True))
    else:
        wanted = None
    if wanted is not None:
        total = [max(f + e - w, 0) for f, e, w in zip(full, extra, wanted, strict=True)]
        upper = auto_pad == "SAME_UPPER"
        pairs = [(t // 2, t - t // 2) if upper else (t - t // 2, t // 2) for t in total]
        axes = zip(full, *steps.values(), extra, strict=True)
        most = [f + max(s, d, 1 + e) - 1 for f, s, d, e in axes]
        if any(w > m for w, m in zip(wanted, most, strict=True)):
            raise refused("output_shape", f"must be at most {most}, got {shown(wanted)}")
    size = [f + e - sum(pair) for f, e, pair in zip(full, extra, pairs, strict=True)]
    size = wanted if output_shape is not None and wanted is not None else size
    # All that goes beyond full is zero, however much it is: the window's padding behind is negative there.
    padding = [(low, f - low - b) for (low, _), f, b in zip(pairs, full, size, strict=True)]
    return bilinear.deconv(X, W, B, padding=padding, groups=group, **steps)


@reporting(columns="input", padding="pads")
def Col2Im(  # noqa: N802
    input: ArrayLike,
    image_shape: Sequence[int],
    block_shape: Sequence[int],
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> jax.Array:
    """Returns the result of ONNX's operator Col2Im: columns added up to images.

    Shapes: input (n, c*prod(block_shape), windows) -> (n, c, *image_shape).

    Args:
      image_shape, block_shape: one int per axis, known while tracing: a sequence or a numpy array.
      dilations, pads, strides: as in `Conv`.

    Differentiation: a `jax.custom_vjp` function; the backward pass is im2col.

    Example:
      >>> import jax.numpy as jnp
      >>> Col2Im(jnp.array([[[1, 2], [2, 3]]]), [3], [2]).tolist()
      [[[1, 4, 3]]]
    """
    a = array("input", input)
    if a.ndim != 3:
        raise refused("input", f"needs 3 axes, got {shown(a)}")
    listed = block_shape.tolist() if isinstance(block_shape, np.ndarray) else block_shape
    block = sizes("block_shape", listed)
    rank = len(block)
    image = integers("image_shape", image_shape, rank, 1)
    steps = _steps(strides, dilations, rank)
    _, pairs = _pads("NOTSET", pads, rank)
    windows = Window.of_conv(image, block, padding=pairs, **steps).small
    if math.prod(windows) != a.shape[2]:
        reason = f"needs {windows} windows of the image on its last axis, got {a.shape[2]}"
        raise refused("input", reason)
    columns = a.reshape(*a.shape[:2], *windows)
    return col2im(columns, image, block, padding=pairs, **steps)


def _rank(X: ArrayLike, W: ArrayLike, kernel_shape: Sequence[int] | None) -> int:
    W, X = array("W", W), array("X", X)
    if W.ndim < 3:
        reason = f"needs two channel axes and at least one spatial axis, got {shown(W)}"
        raise refused("W", reason)
    if X.ndim != W.ndim:
        raise refused("X", f"needs {W.ndim} axes, as many as W, got {shown(X)}")
    if kernel_shape is not None:
        shape = integers("kernel_shape", kernel_shape, W.ndim - 2, 1)
        if shape != W.shape[2:]:
            raise refused("kernel_shape", f"must be W's {W.shape[2:]}, got {shape}")
    return W.ndim - 2


def _steps(strides, dilations, rank: int) -> dict[str, Any]:
    return {
        "stride": _per_axis("strides", strides, rank, 1),
        "dilation": _per_axis("dilations", dilations, rank, 1),
    }


def _pads(auto_pad: Any, pads: Sequence[int] | None, rank: int) -> tuple[str, list[Pair]]:
    """The name of the padding as a string, and the padding in pairs."""
    if isinstance(auto_pad, bytes):
        auto_pad = auto_pad.decode("ascii", "replace")
    one_of("auto_pad", auto_pad, AUTO_PADS)
    numbers = (0,) * 2 * rank if pads is None else integers("pads", pads, 2 * rank, 0)
    if auto_pad != "NOTSET" and any(numbers):
        raise refused(
            "pads", f"was given together with auto_pad {auto_pad!r}; leave one of them out"
        )
    return auto_pad, list(zip(numbers[:rank], numbers[rank:], strict=True))


def _per_axis(name: str, value, rank: int, least: int) -> tuple[int, ...]:
    return (least,) * rank if value is None else integers(name, value, rank, least)
