"""`equinox.nn.Conv` and `ConvTranspose` over any number of axes, evaluated by jdeconv.

They are subclasses of Equinox's layers, so arguments, defaults, initializers and leaves are Equinox's, and what
`equinox.tree_serialise_leaves` wrote of Equinox's layers loads. Forward and reverse mode pass, to any order.
Needs the extra `equinox`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv import bilinear
from jdeconv.checks import Ints, refused, reporting, shown
from jdeconv.layers.reading import (
    check_channels,
    check_conv,
    check_input,
    letters,
    read_mode,
    read_output_padding,
    reversed_deconv,
)

try:
    import equinox as eqx
except ModuleNotFoundError:
    reason = 'jdeconv.layers.equinox needs Equinox: pip install ".[equinox]" in the source tree'
    raise ModuleNotFoundError(reason, name="equinox") from None

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "TiedConvTranspose",
]

FIELDS = {"y": "x", "kernel": "weight"}


class Conv(eqx.nn.Conv):
    """Equinox's layer `equinox.nn.Conv`.

    Shapes: x (in_channels, *i), weight (out_channels, in_channels / groups, *k), bias (out_channels, 1, .., 1)
    -> (out_channels, *q). For a batch, ``jax.vmap(layer)``.

    Args, errors: Equinox's. Negative padding crops, with every padding_mode.

    Example:
      >>> import equinox as eqx, jax, jax.numpy as jnp
      >>> layer = Conv1d(1, 1, 3, padding=1, padding_mode="circular", use_bias=False, key=jax.random.key(0))
      >>> layer = eqx.tree_at(lambda layer: layer.weight, layer, jnp.array([[[1, 10, 100]]]))
      >>> layer(jnp.array([[1, 2, 3]])).tolist()
      [[213, 321, 132]]
    """

    @reporting()
    def __check_init__(self) -> None:
        check_channels(("groups", self.groups), out_channels=self.out_channels)

    @reporting(**FIELDS)
    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        """Return the convolved x; `key` is Equinox's and has no use."""
        del key
        x = _checked(x, self.num_spatial_dims, ("in_channels", self.in_channels))
        return _biased(bilinear.conv(x, self.weight, **_options(self)), self.bias)


class Conv1d(eqx.nn.Conv1d, Conv):
    """`Conv` over one axis.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = Conv1d(2, 3, 2, key=jax.random.key(0))
      >>> layer(jnp.ones((2, 4))).shape
      (3, 3)
    """


class Conv2d(eqx.nn.Conv2d, Conv):
    """`Conv` over two axes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = Conv2d(2, 3, 2, key=jax.random.key(0))
      >>> layer(jnp.ones((2, 4, 5))).shape
      (3, 3, 4)
    """


class Conv3d(eqx.nn.Conv3d, Conv):
    """`Conv` over three axes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = Conv3d(2, 3, 2, key=jax.random.key(0))
      >>> layer(jnp.ones((2, 4, 5, 6))).shape
      (3, 3, 4, 5)
    """


class ConvTranspose(eqx.nn.ConvTranspose):
    """Equinox's layer `equinox.nn.ConvTranspose`, with output sizes and every padding mode.

    Arguments and defaults are Equinox's, and so is the layout of weight. To load the kernel of a `deconv`,
    reverse the taps and exchange the two channel axes, within each group: for one group over two axes,
    ``kernel[:, :, ::-1, ::-1].swapaxes(0, 1)``. `TiedConvTranspose` uses a conv's weight unchanged.

    Shapes: x (in_channels, *i), weight (out_channels, in_channels / groups, *k), bias (out_channels, 1, .., 1)
    -> (out_channels, *size), where size = (i - 1)*stride + dilation*(k - 1) + 1 - low - high + output_padding,
    or i*stride - output_padding for "SAME" and "SAME_LOWER". For a batch, ``jax.vmap(layer)``.

    Args:
      output_padding: an int or one per axis, from 0 to max(stride, dilation) - 1. For "SAME" and "SAME_LOWER"
        from 0 to stride - 1, by which the result is smaller, as in Equinox.
      padding_mode: "ZEROS", "REFLECT", "REPLICATE" or "CIRCULAR", with any padding. The cells that padding
        takes off the result are added to the cells that they are copies of.

    Raises:
      TypeError, ValueError: for arguments of the wrong kind, and sizes that do not fit; the text names the
        argument.

    Example:
      >>> import equinox as eqx, jax, jax.numpy as jnp
      >>> layer = ConvTranspose1d(1, 1, 3, 2, use_bias=False, key=jax.random.key(0))
      >>> layer = eqx.tree_at(lambda layer: layer.weight, layer, jnp.array([[[100, 10, 1]]]))
      >>> layer(jnp.array([[1, 2]])).tolist(), layer(jnp.array([[1, 2]]), output_size=6).tolist()
      ([[1, 10, 102, 20, 200]], [[1, 10, 102, 20, 200, 0]])
    """

    @reporting()
    def __init__(
        self,
        num_spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Any = 0,
        output_padding: Ints = 0,
        dilation: Ints = 1,
        groups: int = 1,
        use_bias: bool = True,
        padding_mode: str = "ZEROS",
        dtype: Any = None,
        *,
        key: Any,
    ) -> None:
        check_channels(("groups", groups), in_channels=in_channels, out_channels=out_channels)
        super().__init__(  # without what Equinox refuses
            num_spatial_dims,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation=dilation,
            groups=groups,
            use_bias=use_bias,
            dtype=dtype,
            key=key,
        )
        self.padding_mode = read_mode(padding_mode)
        is_same = self.padding in ("SAME", "SAME_LOWER")
        axes = zip(self.stride, self.dilation, strict=True)
        most = [(s if is_same else max(s, d)) - 1 for s, d in axes]
        self.output_padding = read_output_padding(output_padding, most, padding)

    @reporting(**FIELDS)
    def __call__(
        self, x: jax.Array, *, output_size: Ints | None = None, key: Any = None
    ) -> jax.Array:
        """Return the transposed convolution of x.

        Args:
          x: (in_channels, *i).
          output_size: the spatial size of the result, an int or one per axis, instead of output_padding. With
            "SAME" and "SAME_LOWER", it may be from i*stride - (stride - 1) to i*stride.
          key: Equinox's, without use.
        """
        del key
        x = _checked(x, self.num_spatial_dims, ("in_channels", self.in_channels))
        extra = self.output_padding
        if output_size is None and self.padding in ("SAME", "SAME_LOWER"):
            axes = zip(x.shape[1:], self.stride, extra, strict=True)
            output_size = [i * s - less for i, s, less in axes]  # as in Equinox: less, not more
            extra = 0
        options = _options(self) | {"output_padding": extra, "output_size": output_size}
        return _biased(reversed_deconv(x, self.weight, **options), self.bias)


class ConvTranspose1d(eqx.nn.ConvTranspose1d, ConvTranspose):
    """`ConvTranspose` over one axis; output_padding comes before padding, as in Equinox.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = ConvTranspose1d(2, 3, 2, key=jax.random.key(0))
      >>> layer(jnp.ones((2, 4))).shape
      (3, 5)
    """


class ConvTranspose2d(eqx.nn.ConvTranspose2d, ConvTranspose):
    """`ConvTranspose` over two axes; output_padding comes before padding, as in Equinox.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = ConvTranspose2d(2, 3, 2, key=jax.random.key(0))
      >>> layer(jnp.ones((2, 4, 5))).shape
      (3, 5, 6)
    """


class ConvTranspose3d(eqx.nn.ConvTranspose3d, ConvTranspose):
    """`ConvTranspose` over three axes; output_padding comes before padding, as in Equinox.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = ConvTranspose3d(2, 3, 2, key=jax.random.key(0))
      >>> layer(jnp.ones((2, 4, 5, 6))).shape
      (3, 5, 6, 7)
    """


class TiedConvTranspose(eqx.Module):
    """The exact adjoint of a `Conv`, with the conv's weight and a separate bias.

    It holds no weight: the conv is an argument of each call, so a gradient sums both uses. For a conv without
    bias, <conv(x), y> = <x, tied(y, conv)>.

    Shapes: x (conv.out_channels, *q) -> (conv.in_channels, *size).

    Args:
      conv: a `Conv` with as many axes and channels as those of the calls.
      use_bias: whether to add a bias.
      key: for the bias, which starts as that of a `ConvTranspose`.

    Example:
      >>> import equinox as eqx, jax, jax.numpy as jnp
      >>> down = Conv1d(1, 1, 2, 2, use_bias=False, key=jax.random.key(0))
      >>> down = eqx.tree_at(lambda layer: layer.weight, down, jnp.array([[[1, 10]]]))
      >>> up = TiedConvTranspose(down, use_bias=False, key=jax.random.key(1))
      >>> up(jnp.array([[1, 2]]), down).tolist()
      [[1, 10, 2, 20]]
    """

    bias: jax.Array | None

    @reporting()
    def __init__(self, conv: Conv, use_bias: bool = True, *, key: Any) -> None:
        check_conv(conv, Conv)
        self.bias = None
        if use_bias:
            limit = 1 / math.sqrt(conv.out_channels // conv.groups * math.prod(conv.kernel_size))
            shape, dtype = (conv.in_channels,) + (1,) * conv.num_spatial_dims, conv.weight.dtype
            self.bias = jax.random.uniform(
                key, shape, jnp.finfo(dtype).dtype, -limit, limit
            ).astype(dtype)

    @reporting(**FIELDS)
    def __call__(
        self, x: jax.Array, conv: Conv, *, output_size: Ints | None = None, key: Any = None
    ) -> jax.Array:
        """Return the adjoint's result for x.

        Args:
          x: (conv.out_channels, *q).
          conv: the layer whose weight this is.
          output_size: the spatial size of the result, an int or one per axis. It must be a size for which the
            conv returns the size q, for example the size of the conv's input. None is q*stride for "SAME" and
            "SAME_LOWER", and the least size otherwise.
          key: Equinox's, without use.
        """
        del key
        check_conv(conv, Conv)
        x = _checked(x, conv.num_spatial_dims, ("out_channels", conv.out_channels))
        return _biased(
            bilinear.deconv(x, conv.weight, output_size=output_size, **_options(conv)), self.bias
        )


def _checked(x: Any, rank: int, channels: tuple[str, int]) -> jax.Array:
    """One example, without a batch axis."""
    x = check_input("x", x, rank, 0, channels)
    if x.ndim != rank + 1:
        reason = f"needs {rank + 1} axes, got {shown(x)}; for a batch, jax.vmap(layer)"
        raise refused("x", reason)
    return x


def _options(layer: Any) -> dict[str, Any]:
    """What a layer has of conv's and deconv's arguments, under their names."""
    space = letters(layer.num_spatial_dims)
    return {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "padding_mode": layer.padding_mode.lower(),
        "dimension_numbers": (f"NC{space}", f"OI{space}", f"NC{space}"),
    }


def _biased(result: jax.Array, bias: jax.Array | None) -> jax.Array:
    return result if bias is None else result + bias
