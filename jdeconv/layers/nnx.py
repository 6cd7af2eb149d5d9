"""`flax.nnx.Conv` and `ConvTranspose`, evaluated by jdeconv.

They are subclasses of Flax's layers, so arguments, defaults, initializers and the state's tree are Flax's, and
a checkpoint of Flax's layers loads. Forward and reverse mode pass, to any order. Needs the extra `nnx`.

Padding by name, in any case: "SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", and "CAUSAL" over one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from jdeconv import bilinear, compat
from jdeconv.checks import Ints, integers, paddings, refused, reporting, shown, sizes
from jdeconv.layers.reading import (
    check_channels,
    check_conv,
    check_input,
    letters,
    name_in,
    read_mode,
    read_output_padding,
    reversed_deconv,
)

try:
    from flax import nnx
except ModuleNotFoundError:
    reason = 'jdeconv.layers.nnx needs Flax: pip install ".[nnx]" in the source tree'
    raise ModuleNotFoundError(reason, name="flax") from None

__all__ = ["Conv", "ConvTranspose", "TiedConvTranspose"]

NAMES = ("SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", "CAUSAL")
FIXED = ("SAME", "SAME_LOWER", "CIRCULAR")  # which give the result its size
FIELDS = {
    "x": "inputs",
    "y": "inputs",
    "stride": "strides",
    "dilation": "kernel_dilation",
    "groups": "feature_group_count",
}


class Conv(nnx.Conv):
    """Flax's layer `flax.nnx.Conv`, with any padding mode.

    Takes the arguments of Flax's layer with Flax's defaults, except conv_general_dilated, and those below.

    Shapes: inputs (*batch, *i, in_features), kernel (*k, in_features / feature_group_count, out_features), bias
    (out_features,) -> (*batch, *q, out_features). Any number of batch axes, also none.

    Args:
      padding: as in Flax; with an input_dilation an int, or ints.
      padding_mode: the values of a padding by ints, "SAME", "SAME_LOWER" or "CAUSAL": "ZEROS", "REFLECT",
        "REPLICATE" or "CIRCULAR". With an input_dilation it must be "ZEROS".

    Raises:
      TypeError, ValueError: for arguments of the wrong kind, and sizes that do not fit; the text names the
        argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> layer = Conv(1, 1, 3, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
      >>> layer(jnp.array([[1.0], [2.0], [3.0]])).ravel().tolist()
      [3.0, 6.0, 5.0]
    """

    @reporting()
    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Ints,
        strides: Ints | None = 1,
        *,
        padding: Any = "SAME",
        padding_mode: str = "ZEROS",
        feature_group_count: int = 1,
        **others: Any,
    ) -> None:
        channels = {"in_features": in_features, "out_features": out_features}
        check_channels(("feature_group_count", feature_group_count), **channels)
        super().__init__(
            in_features,
            out_features,
            _kernel_size(kernel_size),
            strides,
            padding=padding,
            feature_group_count=feature_group_count,
            conv_general_dilated=compat.lax.conv_general_dilated,
            **others,
        )
        self.padding_mode = padding_mode
        self._steps()
        _check_mask(self)

    @reporting(**FIELDS)
    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Return the convolved inputs, under explicit sharding with `out_sharding`."""
        if self._dilates_input:
            return super().__call__(inputs, out_sharding)
        channels, steps = ("in_features", self.in_features), self._steps()
        result = _applied(bilinear.conv, inputs, self, self.bias, channels, **steps)
        return result if out_sharding is None else jax.sharding.reshard(result, out_sharding)

    @property
    def _dilates_input(self) -> bool:
        return max(_per_axis(self, "input_dilation")) > 1

    def _steps(self) -> dict[str, Any]:
        """The geometry, as jdeconv.conv takes it."""
        mode = read_mode(self.padding_mode)
        if self._dilates_input and (isinstance(self.padding, str) or mode != "ZEROS"):
            reason = "must be of numbers and zeros where input_dilation is not 1, got"
            raise refused("padding", f"{reason} {self.padding!r} and {mode!r}")
        steps, spans = _geometry(self)
        if steps["padding"] in ("CIRCULAR", "REFLECT"):
            steps["padding"] = [((n - 1) // 2, n // 2) for n in spans]
        elif steps["padding"] == "CAUSAL":
            steps["padding"] = [(n - 1, 0) for n in spans]
        return steps


class ConvTranspose(nnx.ConvTranspose):
    """Flax's layer `flax.nnx.ConvTranspose`, with groups, output sizes and padding modes.

    Takes the arguments of Flax's layer with Flax's defaults, and those below.

    Shapes: inputs (*batch, *i, in_features), kernel (*k, in_features / groups, out_features), or with
    transpose_kernel (*k, out_features / groups, in_features), bias (out_features,) -> (*batch, *size,
    out_features). Any number of batch axes, also none.

    Size, with K = kernel_dilation*(k - 1) + 1: (i - 1)*strides + max(K, strides) for "VALID", i*strides for
    every other name, and for pairs (a, b) of zeros around the dilated input (i - 1)*strides + 2 + a + b - K;
    plus output_padding.

    Args:
      padding: as in Flax, and by three more names: "SAME_LOWER"; "REFLECT", with transpose_kernel the adjoint
        of a `Conv` of that padding; "CAUSAL", where a cell of the result depends on no later input.
      padding_mode: "ZEROS", "REFLECT", "REPLICATE" or "CIRCULAR". The cells that padding takes off the result
        are added to the cells that they are copies of.
      feature_group_count: independent sets of channels.
      output_padding: cells added behind the result, an int or one per axis, less than the larger of stride
        and dilation; 0 with "SAME", "SAME_LOWER" and "CIRCULAR".

    Raises:
      TypeError, ValueError: for arguments of the wrong kind, and sizes that do not fit; the text names the
        argument.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> options = {"kernel_init": nnx.initializers.ones, "rngs": nnx.Rngs(0)}
      >>> layer = ConvTranspose(2, 2, 3, 2, feature_group_count=2, **options)
      >>> layer(jnp.array([[1.0, 10.0], [2.0, 20.0]]), output_size=3)[:, 1].tolist()
      [10.0, 30.0, 20.0]
    """

    @reporting()
    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: Ints,
        strides: Ints | None = None,
        *,
        padding: Any = "SAME",
        padding_mode: str = "ZEROS",
        feature_group_count: int = 1,
        output_padding: Ints = 0,
        **others: Any,
    ) -> None:
        groups = feature_group_count
        channels = {"in_features": in_features, "out_features": out_features}
        check_channels(("feature_group_count", groups), **channels)
        init = others.pop("kernel_init", nnx.initializers.lecun_normal())

        def grouped(shape: Sequence[int]) -> tuple[int, ...]:
            return *shape[:-2], shape[-2] // groups, shape[-1]

        super().__init__(
            in_features,
            out_features,
            _kernel_size(kernel_size),
            strides,
            padding=padding,
            kernel_init=lambda key, shape, dtype: init(key, grouped(shape), dtype),
            **others,
        )
        self.kernel_shape = grouped(self.kernel_shape)
        self.padding_mode = padding_mode
        self.feature_group_count = groups
        steps, _ = _geometry(self)
        is_fixed = steps["padding"] in FIXED
        axes = zip(steps["stride"], steps["dilation"], strict=True)
        most = [0 if is_fixed else max(pair) - 1 for pair in axes]
        self.output_padding = read_output_padding(output_padding, most, padding)
        _check_mask(self)

    @reporting(**FIELDS)
    def __call__(self, inputs: jax.Array, output_size: Ints | None = None) -> jax.Array:
        """Return the transposed convolution of the inputs.

        Args:
          inputs: (*batch, *i, in_features).
          output_size: the spatial size of the result, an int or one per axis, instead of output_padding. With
            a named padding other than "VALID", it may be from i*strides - (strides - 1) to i*strides.
        """
        contract = bilinear.deconv if self.transpose_kernel else reversed_deconv
        channels, steps = ("in_features", self.in_features), self._steps(output_size)
        return _applied(contract, inputs, self, self.bias, channels, **steps)

    def _steps(self, output_size: Ints | None) -> dict[str, Any]:
        """The geometry, as jdeconv.deconv takes it."""
        steps, spans = _geometry(self)
        padding = steps["padding"]
        if isinstance(padding, str):
            # With a size that the caller names, the padding need not say where the result ends.
            strides = steps["stride"] if output_size is None else (1,) * len(spans)
            steps["padding"] = self._pads(padding, spans, strides)
        else:
            pairs = zip(spans, padding, strict=True)
            steps["padding"] = [(n - 1 - a, n - 1 - b) for n, (a, b) in pairs]
        return steps | {"output_padding": self.output_padding, "output_size": output_size}

    def _pads(self, name: str, spans: Sequence[int], steps: Sequence[int]) -> Any:
        """The padding of the conv that is transposed: its name, or pairs that give the size."""
        if name == "CIRCULAR":  # Flax wraps an odd cell around one end or the other
            return "SAME_LOWER" if self.transpose_kernel else "SAME"
        if name in ("SAME", "SAME_LOWER"):
            return name
        axes = zip(spans, steps, strict=True)
        if name == "VALID":
            return [(0, min(span - step, 0)) for span, step in axes]
        lows = [(span - 1) // 2 if name == "REFLECT" else 0 for span in spans]
        return [(low, span - step - low) for low, (span, step) in zip(lows, axes, strict=True)]


class TiedConvTranspose(nnx.Module):
    """The exact adjoint of a `Conv`, with the conv's kernel and a separate bias.

    The two layers hold one `nnx.Param`, so a gradient sums both uses, and an optimizer's step changes both. The
    mask, dtypes and geometry are the conv's too. For a conv without bias, <conv(x), y> = <x, tied(y)>.

    Shapes: inputs (*batch, *q, conv.out_features) -> (*batch, *size, conv.in_features).

    Args:
      conv: the layer to transpose, a `Conv` without input_dilation.
      use_bias: whether to add a bias.
      bias_init: of the bias; zeros if None.
      rngs: as in Flax.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> down = Conv(1, 1, 2, 2, kernel_init=nnx.initializers.ones, rngs=rngs)
      >>> up = TiedConvTranspose(down, rngs=rngs)
      >>> up(down(jnp.array([[1.0], [2.0], [3.0], [4.0]]))).ravel().tolist()
      [3.0, 3.0, 7.0, 7.0]
      >>> up.conv.kernel is down.kernel
      True
    """

    @reporting()
    def __init__(
        self,
        conv: Conv,
        *,
        use_bias: bool = True,
        bias_init: Callable | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_conv(conv, Conv)
        if conv._dilates_input:
            raise refused("conv", f"must have input_dilation 1, got {conv.input_dilation}")
        self.conv, self.bias = conv, nnx.data(None)
        if use_bias:
            init = nnx.initializers.zeros if bias_init is None else bias_init
            self.bias = nnx.Param(init(rngs.params(), (conv.in_features,), conv.param_dtype))

    @reporting(**FIELDS)
    def __call__(self, inputs: jax.Array, output_size: Ints | None = None) -> jax.Array:
        """Return the adjoint's result for the inputs.

        Args:
          inputs: (*batch, *q, conv.out_features).
          output_size: the spatial size of the result, an int or one per axis. It must be a size for which the
            conv returns the size q, for example the size of the conv's inputs. None is q*strides for a named
            padding other than "VALID", and the least size otherwise.
        """
        conv, steps = self.conv, self.conv._steps()
        channels = "out_features", conv.out_features
        is_by_name = isinstance(conv.padding, str)
        if output_size is None and is_by_name and not isinstance(steps["padding"], str):
            steps["output_padding"] = [s - 1 for s in steps["stride"]]  # q*strides, as of "SAME"
        steps["output_size"] = output_size
        return _applied(bilinear.deconv, inputs, conv, self.bias, channels, **steps)


def _kernel_size(value: Any) -> tuple[int, ...]:
    return sizes("kernel_size", (value,) if isinstance(value, int) else value)


def _per_axis(layer: Any, argument: str) -> tuple[int, ...]:
    """An argument of steps; None is 1, as in Flax."""
    value = getattr(layer, argument)
    return integers(argument, 1 if value is None else value, len(layer.kernel_size), 1)


def _geometry(layer: Any) -> tuple[dict[str, Any], list[int]]:
    """A layer's arguments under jdeconv's names, and the cells that a window spans on each axis.

    The padding is pairs, or one of NAMES.
    """
    stride, dilation = _per_axis(layer, "strides"), _per_axis(layer, "kernel_dilation")
    spans = [d * (k - 1) + 1 for k, d in zip(layer.kernel_size, dilation, strict=True)]
    padding, mode = layer.padding, read_mode(layer.padding_mode)
    if isinstance(padding, str):
        padding, mode = _named(padding, mode, len(spans))
    else:
        padding = paddings(padding, len(spans))
    steps = {"stride": stride, "padding": padding, "dilation": dilation}
    return steps | {"padding_mode": mode.lower()}, spans


def _check_mask(layer: Any) -> None:
    if layer.mask is not None and layer.mask.shape != layer.kernel_shape:
        reason = f"needs the kernel's shape {layer.kernel_shape}, got {shown(layer.mask)}"
        raise refused("mask", reason)


def _named(padding: str, mode: str, rank: int) -> tuple[str, str]:
    """A padding's name, and the mode that it stands for."""
    name = name_in("padding", padding, NAMES)
    if name == "CAUSAL" and rank != 1:
        raise refused("padding", f"'CAUSAL' needs one spatial axis, got kernel_size of {rank}")
    if name not in ("CIRCULAR", "REFLECT"):
        return name, mode
    if mode not in ("ZEROS", name):
        raise refused("padding_mode", f"must be left out where padding is {name!r}, got {mode!r}")
    return name, name


def _applied(
    contract: Callable,
    inputs: Any,
    layer: Any,
    bias: Any,
    channels: tuple[str, int],
    **steps: Any,
) -> jax.Array:
    """The contraction of the inputs, of any number of batch axes, and a layer's kernel, plus the bias."""
    rank, space = len(layer.kernel_size), letters(len(layer.kernel_size))
    inputs = check_input("inputs", inputs, rank, -1, channels)
    kernel = layer.kernel[...] if layer.mask is None else layer.kernel[...] * layer.mask
    arrays = inputs, kernel, None if bias is None else bias[...]
    inputs, kernel, bias = layer.promote_dtype(arrays, dtype=layer.dtype)
    batch = inputs.shape[: -rank - 1]
    result = contract(
        inputs.reshape(math.prod(batch), *inputs.shape[-rank - 1 :]),
        kernel,
        groups=layer.feature_group_count,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        precision=_precision(layer.precision),
        preferred_element_type=layer.preferred_element_type,
        **steps,
    )
    if bias is not None:
        result += bias.reshape((1,) * (rank + 1) + (-1,))
    return result.reshape(*batch, *result.shape[1:])


def _precision(precision: Any) -> Any:
    """The higher of a pair, one for each operand."""
    if isinstance(precision, tuple):
        return max(map(lax.Precision, precision), key=list(lax.Precision).index)
    return precision
