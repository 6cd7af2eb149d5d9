"""The convolutions and patches of `keras.ops`, with its signatures and kernel layouts, on JAX arrays.

Kernels are channels last in both data formats: (*k, in / groups, out) for conv, (*k, out, in) for
conv_transpose, (*k, channels, multiplier) for depthwise_conv. `data_format=None` is "channels_last", Keras's
default; its setting lives in Keras, which is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from jdeconv import bilinear
from jdeconv.axes import reshaped
from jdeconv.checks import (
    Ints,
    array,
    cells,
    has_batch,
    integers,
    one_of,
    refused,
    reporting,
    shown,
    space,
)
from jdeconv.compat import torch
from jdeconv.form import Axes
from jdeconv.im2col import fold as add_windows
from jdeconv.im2col import unfold as windows_of
from jdeconv.window import Window

__all__ = [
    "conv",
    "conv_transpose",
    "depthwise_conv",
    "extract_patches",
    "fold",
    "reconstruct_patches",
    "separable_conv",
    "unfold",
]

SPACE = {1: "W", 2: "HW", 3: "DHW"}
NAMES = {"x": "inputs", "y": "inputs", "stride": "strides", "dilation": "dilation_rate"}


@reporting(**NAMES)
def conv(
    inputs: ArrayLike,
    kernel: ArrayLike,
    strides: Ints = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Ints = 1,
) -> jax.Array:
    """Returns what `keras.ops.conv` returns, over one to three axes.

    Shapes: inputs (n, *i, groups*c), kernel (*k, c, groups*o) -> (n, *q, groups*o); the groups follow from the
    shapes. With "channels_first", the channels of inputs and result follow n.

    Args:
      padding: "valid" pads nothing. "same" pads to q = ceil(i / strides), with an odd cell at the end.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.array([[[1], [2], [3]]]), jnp.array([[[1]], [[10]]]), padding="same").ravel().tolist()
      [21, 32, 3]
    """
    inputs, kernel, options, channels = _read(
        inputs, kernel, strides, padding, data_format, dilation_rate
    )
    groups, rest = divmod(channels, kernel.shape[-2])
    if rest:
        reason = f"needs a multiple of the kernel's {kernel.shape[-2]} channels, got {channels}"
        raise refused("inputs", reason)
    if kernel.shape[-1] % groups:
        reason = f"needs a multiple of {groups} groups on its last axis, got {kernel.shape[-1]}"
        raise refused("kernel", reason)
    return bilinear.conv(inputs, kernel, groups=groups, padding=_named(padding), **options)


@reporting(**NAMES)
def depthwise_conv(
    inputs: ArrayLike,
    kernel: ArrayLike,
    strides: Ints = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Ints = 1,
) -> jax.Array:
    """Returns what `keras.ops.depthwise_conv` returns: each input channel gets `multiplier` output channels.

    Shapes: inputs (n, *i, c), kernel (*k, c, multiplier) -> (n, *q, c*multiplier).

    Example:
      >>> import jax.numpy as jnp
      >>> depthwise_conv(jnp.array([[[1, 2], [3, 4]]]), jnp.array([[[1], [10]]])).tolist()
      [[[1, 20], [3, 40]]]
    """
    inputs, kernel, options, channels = _read(
        inputs, kernel, strides, padding, data_format, dilation_rate
    )
    _check_channels("kernel", kernel, -2, channels)
    kernel = kernel.reshape(*kernel.shape[:-2], 1, -1)
    return bilinear.conv(inputs, kernel, groups=channels, padding=_named(padding), **options)


@reporting(kernel="depthwise_kernel")
def separable_conv(
    inputs: ArrayLike,
    depthwise_kernel: ArrayLike,
    pointwise_kernel: ArrayLike,
    strides: Ints = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: Ints = 1,
) -> jax.Array:
    """Returns what `keras.ops.separable_conv` returns: a `depthwise_conv`, then a 1x1 conv.

    Shapes: inputs (n, *i, c), depthwise_kernel (*k, c, multiplier), pointwise_kernel (1, .., c*multiplier, o)
    -> (n, *q, o).

    Example:
      >>> import jax.numpy as jnp
      >>> x, d, p = jnp.array([[[1, 2], [3, 4]]]), jnp.array([[[1], [10]]]), jnp.array([[[1], [1]]])
      >>> separable_conv(x, d, p).ravel().tolist()
      [21, 43]
    """
    between = depthwise_conv(inputs, depthwise_kernel, strides, padding, data_format, dilation_rate)
    pointwise = array("pointwise_kernel", pointwise_kernel)
    if pointwise.ndim != between.ndim or set(pointwise.shape[:-2]) != {1}:
        reason = f"needs {between.ndim} axes, the spatial ones of size 1, got {shown(pointwise)}"
        raise refused("pointwise_kernel", reason)
    channels = between.shape[1 if _format(data_format) == "channels_first" else -1]
    _check_channels("pointwise_kernel", pointwise, -2, channels)
    mixed = reporting(kernel="pointwise_kernel")(conv)
    return mixed(between, pointwise, data_format=data_format)


@reporting(**NAMES)
def conv_transpose(
    inputs: ArrayLike,
    kernel: ArrayLike,
    strides: Ints = 1,
    padding: str = "valid",
    output_padding: Ints | None = None,
    data_format: str | None = None,
    dilation_rate: Ints = 1,
) -> jax.Array:
    """Returns what `keras.ops.conv_transpose` returns, over one to three axes.

    Shapes: inputs (n, *i, c), kernel (*k, o, c) -> (n, *size, o).

    Size, with i the size of inputs, s the stride and K = dilation_rate*(k - 1) + 1: (i - 1)*s + K +
    output_padding for "valid", where None is max(K, s) - K, and (i - 1)*s + K % 2 + output_padding for "same",
    where None gives i*s.

    Args:
      output_padding: an int, one per axis, or None, which differs from 0 as in Keras.

    Example:
      >>> import jax.numpy as jnp
      >>> x, k = jnp.array([[[1], [2]]]), jnp.array([[[1]], [[10]]])
      >>> conv_transpose(x, k, 3).ravel().tolist(), conv_transpose(x, k, 3, output_padding=0).ravel().tolist()
      ([1, 10, 0, 2, 20, 0], [1, 10, 0, 2, 20])
    """
    inputs, kernel, options, channels = _read(
        inputs, kernel, strides, padding, data_format, dilation_rate
    )
    rank = kernel.ndim - 2
    _check_channels("kernel", kernel, -1, channels)
    extra = [None] * rank
    if output_padding is not None:
        extra = integers("output_padding", output_padding, rank, 0)
    side = options["dimension_numbers"][0]
    sizes = [inputs.shape[side.index(letter)] for letter in SPACE[rank]]
    axes = zip(sizes, kernel.shape, options["stride"], options["dilation"], extra, strict=False)
    pads = [_pads(padding.lower(), *axis) for axis in axes]
    return bilinear.deconv(inputs, kernel, padding=pads, **options)


@reporting(input="x")
def unfold(
    x: ArrayLike,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """Returns what `keras.ops.unfold` returns: the windows as columns (im2col), over two axes.

    Shapes: x (n, c, h, w), channels first always -> (n, c*prod(kernel_size), windows).

    Differentiation: a `jax.custom_vjp` function; the backward pass is `fold`.

    Example:
      >>> import jax.numpy as jnp
      >>> unfold(jnp.arange(4).reshape(1, 1, 2, 2), 2).tolist()
      [[[0], [1], [2], [3]]]
    """
    _check_axes("x", x, 4)
    kernel_size = integers("kernel_size", kernel_size, 2, 1)
    return torch.unfold(x, kernel_size, dilation, padding, stride)


@reporting(input="x")
def fold(
    x: ArrayLike,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """Returns what `keras.ops.fold` returns: the sum of columns (col2im), the adjoint of `unfold`.

    Shapes: x (n, c*prod(kernel_size), windows) -> (n, c, *output_size).

    Raises:
      ValueError: if an output of this size has another number of windows.

    Cells of the output after the last window are zero, as in PyTorch. Keras over JAX leaves them out.

    Differentiation: a `jax.custom_vjp` function; the backward pass is `unfold`.

    Example:
      >>> import jax.numpy as jnp
      >>> fold(jnp.ones((1, 2, 2), int), (1, 3), (1, 2)).tolist()
      [[[[1, 2, 1]]]]
    """
    _check_axes("x", x, 3)
    output_size = integers("output_size", output_size, 2, 1)
    kernel_size = integers("kernel_size", kernel_size, 2, 1)
    return torch.fold(x, output_size, kernel_size, dilation, padding, stride)


@reporting(big="images")
def extract_patches(
    images: ArrayLike,
    size: Ints,
    strides: Ints | None = None,
    dilation_rate: Ints = 1,
    padding: str = "valid",
    data_format: str | None = None,
) -> jax.Array:
    """Returns what `keras.ops.image.extract_patches` returns: patches of images or volumes as rows.

    Shapes: images (n, *i, c) or without n -> (n, *q, prod(size)*c); with "channels_first" the channels are the
    second axis.

    Args:
      size: the size of a patch, two or three ints. A single int is used for two axes.
      strides: the distance between patches. None is `size`, so patches do not overlap.
      padding: as in `conv`.

    Example:
      >>> import jax.numpy as jnp
      >>> extract_patches(jnp.arange(8).reshape(1, 4, 2, 1), (2, 2)).tolist()
      [[[[0, 1, 2, 3]], [[4, 5, 6, 7]]]]
    """
    taps, a, batched, axes = _patched("images", images, size, data_format)
    steps: dict[str, Any] = {"stride": size if strides is None else strides}
    steps["dilation"] = integers("dilation_rate", dilation_rate, len(taps), 1)
    steps["stride"] = integers("strides", steps["stride"], len(taps), 1)
    window = Window.of_conv(space("images", a, axes[2:]), taps, padding=_named(padding), **steps)
    count = math.prod(taps) * a.shape[axes[1]]
    cells("size", (a.shape[0], count, *window.small))
    patches = windows_of(a, window, **_places(axes))
    patches = reshaped(patches, axes[1], len(taps) + 1, (count,))
    return patches if batched else patches[0]


@reporting(big="output_size")
def reconstruct_patches(
    patches: ArrayLike,
    size: Ints,
    output_size: Sequence[int] | None = None,
    strides: Ints | None = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> jax.Array:
    """Returns what `keras.ops.image.reconstruct_patches` returns: the images that these patches tile.

    Shapes: patches (n, *q, prod(size)*c) or without n -> (n, *output_size, c); with "channels_first" the
    channels are the second axis.

    Args:
      size: the size of a patch, two or three ints. A single int is used for two axes.
      output_size: the size of the images. With "valid", None is the size that the patches cover, and no
        other size fits.
      strides: None or `size`, as in Keras. For patches that overlap, `jdeconv.col2im` adds them up.
      padding: the padding of `extract_patches`. "same" needs output_size, and removes the padding.

    Example:
      >>> import jax.numpy as jnp
      >>> reconstruct_patches(jnp.arange(8).reshape(1, 2, 1, 4), 2).ravel().tolist()
      [0, 1, 2, 3, 4, 5, 6, 7]
    """
    taps, a, batched, axes = _patched("patches", patches, size, data_format)
    if strides is not None and integers("strides", strides, len(taps), 1) != taps:
        raise refused("strides", f"must be None or the size {taps}, got {shown(strides)}")
    small, name = space("patches", a, axes[2:]), _named(padding)
    covered = tuple(q * k for q, k in zip(small, taps, strict=True))
    if output_size is None and name == "SAME":
        raise refused("output_size", 'must be given with padding "same"')
    big = covered if output_size is None else integers("output_size", output_size, len(taps), 1)
    if name == "VALID" and big != covered:
        raise refused("output_size", f'must be {covered} with padding "valid", got {big}')
    if a.shape[axes[1]] % math.prod(taps):
        reason = f"needs a multiple of {math.prod(taps)} numbers in a patch, got {a.shape[axes[1]]}"
        raise refused("patches", reason)
    window = Window.of_kernel_grad(big, small, taps, stride=taps, padding=name)
    rows = (*taps, a.shape[axes[1]] // math.prod(taps))
    images = add_windows(reshaped(a, axes[1], 1, rows), window, **_places(axes))
    return images if batched else images[0]


def _named(padding: Any) -> Any:
    """Under the name that it has here."""
    name = padding.lower() if isinstance(padding, str) else padding
    return one_of("padding", name, ("valid", "same")).upper()


def _pads(padding: str, i: int, k: int, s: int, d: int, extra: int | None) -> tuple[int, int]:
    """The padding of the conv that is transposed; negative behind, for zeros past its reach."""
    span = d * (k - 1) + 1
    full = (i - 1) * s + span
    if padding == "valid":
        return 0, span - max(span, s) if extra is None else -extra
    size = i * s if extra is None else (i - 1) * s + span % 2 + extra
    around = size - (i - 1) * s + span - 2  # zeros around the dilated input, in both directions
    low = max(span - 1 - -(-around // 2), 0)
    return low, full - low - size


def _format(data_format: str | None) -> str:
    if data_format is None:
        return "channels_last"
    name = data_format.lower() if isinstance(data_format, str) else data_format
    return one_of("data_format", name, ("channels_last", "channels_first"))


def _read(inputs, kernel, strides, padding, data_format, dilation_rate):
    """Arrays, the keyword arguments that conv and deconv share, and the channels of the inputs."""
    inputs, kernel = array("inputs", inputs), array("kernel", kernel)
    rank = kernel.ndim - 2
    if rank not in SPACE or 0 in kernel.shape:
        reason = "needs 3 to 5 axes, the spatial ones and two of channels, none of them empty"
        raise refused("kernel", f"{reason}, got {shown(kernel)}")
    if inputs.ndim != kernel.ndim:
        reason = f"needs {kernel.ndim} axes, as many as the kernel, got {shown(inputs)}"
        raise refused("inputs", reason)
    last = _format(data_format) == "channels_last"
    _named(padding)
    side = f"N{SPACE[rank]}C" if last else f"NC{SPACE[rank]}"
    options = {
        "stride": integers("strides", strides, rank, 1),
        "dilation": integers("dilation_rate", dilation_rate, rank, 1),
        "dimension_numbers": (side, SPACE[rank] + "IO", side),
    }
    return inputs, kernel, options, inputs.shape[side.index("C")]


def _patched(name: str, a: Any, size: Ints, data_format: str | None):
    """The patch's size, the array with a batch axis, whether it came with one, and (batch, channel, *space)."""
    rank = len(size) if isinstance(size, tuple | list) else 2
    if rank not in (2, 3):
        raise refused("size", f"must be an int, or two or three ints, got {shown(size)}")
    taps, a = integers("size", size, rank, 1), array(name, a)
    batched = has_batch(name, a, rank)
    first = _format(data_format) == "channels_first"
    axes = (0, *((1, *range(2, rank + 2)) if first else (rank + 1, *range(1, rank + 1))))
    return taps, a if batched else a[None], batched, axes


def _places(axes: Axes) -> dict[str, int]:
    """Where space and taps begin, in jdeconv.im2col: the taps in front of the channels."""
    return {"space": axes[2], "tap": axes[1]}


def _check_axes(name: str, a: Any, count: int) -> None:
    if array(name, a).ndim != count:
        raise refused(name, f"needs {count} axes, got {shown(a)}")


def _check_channels(name: str, kernel: jax.Array, axis: int, channels: int) -> None:
    if kernel.shape[axis] != channels:
        reason = f"needs {channels} channels on axis {axis}, got {kernel.shape[axis]}"
        raise refused(name, reason)
