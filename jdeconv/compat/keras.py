"""The convolutions of `keras.ops`, with its signatures and kernel layouts, on JAX arrays.

Kernels are channels last in both data formats: (*k, in / groups, out) for conv, (*k, out, in) for
conv_transpose, (*k, channels, multiplier) for depthwise_conv. `data_format=None` is "channels_last", Keras's
default; its setting lives in Keras, which is not imported.

In conv_transpose `output_padding=None` and 0 differ, as they do there. With i the input's size, s the stride
and K = dilation_rate*(k - 1) + 1:

    "valid"   (i - 1)*s + K + output_padding, and None is max(K, s) - K
    "same"    (i - 1)*s + K % 2 + output_padding, and None gives i*s
"""

from __future__ import annotations

from typing import Any

import jax
from jax.typing import ArrayLike

from jdeconv import bilinear
from jdeconv.checks import Ints, array, integers, one_of, refused, reporting, shown

__all__ = ["conv", "conv_transpose", "depthwise_conv", "separable_conv"]

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
    """`keras.ops.conv`, over one to three axes.

    Shapes: inputs (n, *i, groups*c), kernel (*k, c, groups*o) -> (n, *q, groups*o); the groups follow from the
    shapes. "channels_first" has the channels of inputs and result behind n.

    Args:
      padding: "valid" for none or "same" for q = ceil(i / strides), an odd cell of padding behind.

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
    """`keras.ops.depthwise_conv`: every channel alone, with as many results as the multiplier says.

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
    """`keras.ops.separable_conv`: `depthwise_conv`, then a conv over channels alone.

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
    """`keras.ops.conv_transpose`, over one to three axes.

    Shapes: inputs (n, *i, c), kernel (*k, o, c) -> (n, *size, o), of the sizes above.

    Args:
      output_padding: cells beyond the least size, an int, one per axis, or None, which is not 0.

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


def _named(padding: str) -> Any:
    """Under the name that it has here."""
    return padding.upper()


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
    one_of("padding", padding.lower() if isinstance(padding, str) else padding, ("valid", "same"))
    side = f"N{SPACE[rank]}C" if last else f"NC{SPACE[rank]}"
    options = {
        "stride": integers("strides", strides, rank, 1),
        "dilation": integers("dilation_rate", dilation_rate, rank, 1),
        "dimension_numbers": (side, SPACE[rank] + "IO", side),
    }
    return inputs, kernel, options, inputs.shape[side.index("C")]


def _check_channels(name: str, kernel: jax.Array, axis: int, channels: int) -> None:
    if kernel.shape[axis] != channels:
        reason = f"needs {channels} channels on axis {axis}, got {kernel.shape[axis]}"
        raise refused(name, reason)
