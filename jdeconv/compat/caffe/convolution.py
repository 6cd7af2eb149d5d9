"""Caffe's Convolution, Deconvolution and Im2col layers, with Caffe's parameters, blobs and passes.

A layer is a frozen record of its parameters. Blobs go in and diffs come out, nothing is kept. The five helpers
by which Caffe writes both layers have its names, and Deconvolution has them in each other's place:

                     Convolution                Deconvolution
    forward_gemm     y = kernel . im2col(x)     x = col2im(kernel^T . y)
    backward_gemm    x = col2im(kernel^T . y)   y = kernel . im2col(x)
    weight_gemm      kernel = y . im2col(x)^T, in both

Source: BVLC Caffe, src/caffe/layers/base_conv_layer.cpp, conv_layer.cpp, deconv_layer.cpp, im2col_layer.cpp.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv import bilinear, checks, fillers
from jdeconv.checks import (
    Ints,
    array,
    flag,
    integer,
    integers,
    listed,
    one_of,
    refused,
    reporting,
    shown,
    sizes,
)
from jdeconv.im2col import im2col

Blobs = Sequence[jax.Array]
NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")
NAMES = {"padding": "pad", "groups": "group", "kernel": "weight", "output_size": "space"}


@dataclass(frozen=True)
class Filler:
    """Caffe's FillerParameter: the initial values of a blob.

    Args:
      type: "constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra" or "bilinear".
      value: for "constant".
      min, max: for "uniform".
      mean, std, sparse: for "gaussian"; sparse is the mean number of inputs per output, -1 for all.
      variance_norm: for "xavier" and "msra": "FAN_IN", "FAN_OUT" or "AVERAGE".

    Example:
      >>> Filler("bilinear")(jax.random.key(0), (1, 1, 4)).tolist()
      [[[0.25, 0.75, 0.75, 0.25]]]
    """

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: str = "FAN_IN"

    @reporting()
    def __call__(self, key: jax.Array, shape: Sequence[int]) -> jax.Array:
        """A float32 blob of this shape."""
        one_of("variance_norm", self.variance_norm, NORMS)
        norm: dict[str, Any] = {"variance_norm": self.variance_norm.lower()}
        dtype = jnp.float32
        sparse = None if self.sparse == -1 else self.sparse
        space = ascii_lowercase[: max(len(sizes("shape", shape)) - 2, 0)]
        # Caffe's order, said so that no filler asks; a blob of one axis has no order.
        order: dict[str, Any] = {"dimension_numbers": f"OI{space}" if len(shape) > 1 else None}
        made = {
            "constant": lambda: fillers.constant(shape, dtype, value=self.value),
            "uniform": lambda: fillers.uniform(key, shape, dtype, min=self.min, max=self.max),
            "gaussian": lambda: fillers.gaussian(
                key, shape, dtype, mean=self.mean, std=self.std, sparse=sparse, **order
            ),
            "positive_unitball": lambda: fillers.positive_unitball(key, shape, dtype, **order),
            "xavier": lambda: fillers.xavier(key, shape, dtype, **norm, **order),
            "msra": lambda: fillers.msra(key, shape, dtype, **norm, **order),
            "bilinear": lambda: fillers.bilinear_kernel(shape, dtype),
        }
        return made[one_of("type", self.type, made)]()


def _values(
    name: str, field: Ints, pair: tuple, rank: int, least: int, default: int | None
) -> tuple[int, ...]:
    """One value per axis, from the repeated field or, on two axes, the one by _h and _w."""
    is_list = isinstance(field, Sequence) and not isinstance(field, str | bytes)
    values: Sequence[Any] = field if is_list else (field,)  # pyright: ignore[reportAssignmentType]
    given = tuple(integer(name, value, least) for value in values)
    ends = zip((f"{name[:6]}_h", f"{name[:6]}_w"), pair, strict=True)
    one_by_one = {end: integer(end, value, least) for end, value in ends if value is not None}
    if one_by_one and given:
        raise refused(name, f"came together with {' and '.join(one_by_one)}; leave one out")
    if one_by_one and (rank != 2 or len(one_by_one) != 2):
        reason = f"needs {name[:6]}_h and {name[:6]}_w, and two spatial axes, got {rank}"
        raise refused(next(iter(one_by_one)), reason)
    given = given or tuple(one_by_one.values()) or (() if default is None else (default,))
    if len(given) not in (1, rank):
        reason = f"needs one value or one for each of {rank} spatial axes, got {given}"
        raise refused(name, reason)
    return given * (rank if len(given) == 1 else 1)


@dataclass(frozen=True)
class _Windowed:
    """What the three layers share of ConvolutionParameter; `Convolution` and `Im2col` describe the fields."""

    kernel_size: Ints = ()
    pad: Ints = ()
    stride: Ints = ()
    dilation: Ints = ()
    kernel_h: int | None = None
    kernel_w: int | None = None
    pad_h: int | None = None
    pad_w: int | None = None
    stride_h: int | None = None
    stride_w: int | None = None
    axis: int = 1
    force_nd_im2col: bool = False

    @reporting()
    def split(self, bottom: Sequence[int]) -> tuple[tuple, int, tuple]:
        """Returns the sizes of the axes before the channels, of the channels, and of space."""
        listed("bottom", bottom, "sizes")
        axis = integer("axis", self.axis)
        if not -len(bottom) <= axis < len(bottom):
            raise refused("axis", f"is out of range, got {axis} for {len(bottom)} axes")
        axis %= len(bottom)
        return tuple(bottom[:axis]), bottom[axis], tuple(bottom[axis + 1 :])

    @reporting()
    def steps(self, rank: int) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Returns the kernel size, and stride, padding and dilation, each with one value per axis."""
        rank = integer("rank", rank, 0)
        flag("force_nd_im2col", self.force_nd_im2col)
        found: dict[str, Any] = {
            name: _values(name, getattr(self, name), pair, rank, least, default) if rank else ()
            for name, pair, least, default in (
                ("kernel_size", (self.kernel_h, self.kernel_w), 1, None),
                ("pad", (self.pad_h, self.pad_w), 0, 0),
                ("stride", (self.stride_h, self.stride_w), 1, 1),
                ("dilation", (None, None), 1, 1),
            )
        }
        kernel = found.pop("kernel_size")
        found["padding"] = found.pop("pad")
        return kernel, found


@dataclass(frozen=True)
class Im2col(_Windowed):
    """Caffe's Im2col layer: every window becomes a column.

    Args:
      kernel_size, pad, stride, dilation, axis and the others: as in `Convolution`.

    Example:
      >>> Im2col(kernel_size=(2,)).forward(jnp.array([[[1, 2, 3]]])).tolist()
      [[[1, 2], [2, 3]]]
    """

    @reporting(x="bottom", padding="pad")
    def forward(self, bottom: jax.Array) -> jax.Array:
        """Returns the columns: (items, c, *i) -> (items, c*prod(kernel_size), *q)."""
        bottom = array("bottom", bottom)
        items, channels, space = self.split(bottom.shape)
        kernel, steps = self.steps(len(space))
        if not space:
            reason = f"needs a spatial axis behind the channels, got {shown(bottom)}"
            raise refused("bottom", reason)
        columns = im2col(bottom.reshape(-1, channels, *space), kernel, **steps)
        return columns.reshape(*items, *columns.shape[1:])


@dataclass(frozen=True)
class _Learned(_Windowed, ABC):
    """The fields that only Convolution and Deconvolution have."""

    num_output: int = 0
    group: int = 1
    bias_term: bool = True
    weight_filler: Filler = field(default_factory=Filler)
    bias_filler: Filler = field(default_factory=Filler)

    @abstractmethod
    def _outer_inner(self, channels: int) -> tuple[int, int]:
        """The weight's first axis, and its second times the groups."""

    @abstractmethod
    def forward_gemm(self, bottom: jax.Array, weight: jax.Array) -> jax.Array:
        """Returns the top without its bias."""

    @abstractmethod
    def backward_gemm(
        self, top_diff: jax.Array, weight: jax.Array, space: Sequence[int]
    ) -> jax.Array:
        """Returns the bottom's diff."""

    @abstractmethod
    def weight_gemm(self, bottom: jax.Array, top_diff: jax.Array) -> jax.Array:
        """Returns the weight's diff, summed over items."""

    @reporting()
    def blob_shapes(self, bottom: Sequence[int]) -> list[tuple[int, ...]]:
        """Returns the shapes of the weight, and of the bias if there is one, for a bottom of this shape."""
        _, channels, space = self.split(bottom)
        sizes = (channels, *space)
        channels, *space = integers("bottom", sizes, len(sizes), 0)
        integer("num_output", self.num_output, 1)
        integer("group", self.group, 1)
        flag("bias_term", self.bias_term)
        for count in (channels, self.num_output):
            if count % self.group:
                raise refused("group", f"must divide {count} channels, got {self.group}")
        outer, inner = self._outer_inner(channels)
        weight = (outer, inner // self.group, *self.steps(len(space))[0])
        return [weight, (self.num_output,)][: 1 + self.bias_term]

    @reporting()
    def init(self, key: jax.Array, bottom: Sequence[int]) -> list[jax.Array]:
        """Returns the blobs that the fillers make."""
        bottom = listed("bottom", bottom, "sizes")
        shapes = self.blob_shapes(integers("bottom", bottom, len(bottom), 0))
        fills = {"weight_filler": self.weight_filler, "bias_filler": self.bias_filler}
        for name, fill in fills.items():
            if not isinstance(fill, Filler):
                raise refused(name, f"must be a Filler, got {shown(fill)}", TypeError)
        keys = jax.random.split(checks.key(key))
        return [
            fill(key, shape) for fill, key, shape in zip(fills.values(), keys, shapes, strict=False)
        ]

    @reporting()
    def forward(self, blobs: Blobs, *bottoms: jax.Array) -> tuple[jax.Array, ...]:
        """Returns a top for every bottom, with the same blobs."""
        tops = []
        for bottom in bottoms:
            self._check(blobs, bottom)
            top = self.forward_gemm(bottom, blobs[0])
            tops.append(self.forward_bias(top, blobs[1]) if self.bias_term else top)
        return tuple(tops)

    @reporting()
    def backward(
        self,
        blobs: Blobs,
        bottoms: Sequence[jax.Array],
        top_diffs: Sequence[jax.Array],
        *,
        propagate_down: Sequence[bool] | None = None,
        param_propagate_down: Sequence[bool] | None = None,
        param_diffs: Blobs | None = None,
    ) -> tuple[list[jax.Array], list[jax.Array | None]]:
        """Returns the diffs of the blobs, which accumulate, and of the bottoms, which do not: Caffe's Backward.

        Args:
          blobs, bottoms, top_diffs: what forward got, and the diff of each top.
          propagate_down: for each bottom, whether its diff is wanted; it is None otherwise. None is all.
          param_propagate_down: for each blob, whether its diff grows; it stays otherwise. None is all.
          param_diffs: what the diffs of the blobs are so far; None is zeros.
        """
        for name, given in (("blobs", blobs), ("bottoms", bottoms), ("top_diffs", top_diffs)):
            listed(name, given, "arrays")
        top_diffs = [array("top_diffs", diff) for diff in top_diffs]
        down = [True] * len(bottoms) if propagate_down is None else propagate_down
        grows = [True] * len(blobs) if param_propagate_down is None else param_propagate_down
        diffs = [jnp.zeros_like(blob) for blob in blobs] if param_diffs is None else param_diffs
        for name, given, count in (
            ("top_diffs", top_diffs, len(bottoms)),
            ("propagate_down", down, len(bottoms)),
            ("param_propagate_down", grows, len(blobs)),
            ("param_diffs", diffs, len(blobs)),
        ):
            if len(listed(name, given, "one thing for each")) != count:
                raise refused(name, f"needs {count} items, got {len(given)}")
        diffs = [array("param_diffs", diff) for diff in diffs]
        bottom_diffs: list[jax.Array | None] = []
        for bottom, top_diff, wanted in zip(bottoms, top_diffs, down, strict=True):
            self._check(blobs, bottom)
            if grows[0]:
                diffs[0] = diffs[0] + self.weight_gemm(bottom, top_diff)
            if self.bias_term and grows[1]:
                diffs[1] = diffs[1] + self.backward_bias(top_diff, bottom.ndim)
            space = self.split(bottom.shape)[2]
            bottom_diffs.append(self.backward_gemm(top_diff, blobs[0], space) if wanted else None)
        return diffs, bottom_diffs

    @reporting()
    def forward_bias(self, top: jax.Array, bias: jax.Array) -> jax.Array:
        """Returns the top with its bias."""
        top, bias = self._array("top", top), array("bias", bias)
        channels = self.split(top.shape)[1]
        if bias.shape != (channels,):
            raise refused("bias", f"needs shape ({channels},), got {bias.shape}")
        shape = [1] * top.ndim
        shape[self.axis % top.ndim] = -1
        return top + bias.reshape(shape)

    @reporting()
    def backward_bias(self, top_diff: jax.Array, ndim: int) -> jax.Array:
        """Returns the bias's diff: the sum over items and space."""
        top_diff = self._array("top_diff", top_diff)
        if integer("ndim", ndim, 1) != top_diff.ndim:
            raise refused("ndim", f"must be the top_diff's {top_diff.ndim}, got {ndim}")
        axis = self.axis % ndim
        return top_diff.sum([i for i in range(ndim) if i != axis])

    def _array(self, name: str, a: Any) -> jax.Array:
        """An array with the axis of channels."""
        a = array(name, a)
        self.split(a.shape)
        return a

    def _check(self, blobs: Blobs, bottom: jax.Array) -> None:
        shapes = self.blob_shapes(array("bottom", bottom).shape)
        arrays = [array("blobs", b) for b in listed("blobs", blobs, "arrays")]
        found = [a.shape for a in arrays]
        if found != shapes:
            raise refused("blobs", f"need shapes {shapes} for this bottom, got {found}")

    def _items(self, a: jax.Array, ndim: int) -> jax.Array:
        """One axis of items, and a spatial axis of size 1 where there is none."""
        axis = self.axis % ndim
        return a.reshape(-1, *a.shape[axis:], *[1] * (axis + 1 == ndim))

    def _options(self, ndim: int) -> dict:
        _, steps = self.steps(ndim - 1 - self.axis % ndim)
        return {name: value or (1 if name != "padding" else 0) for name, value in steps.items()} | {
            "groups": self.group
        }

    def _by(
        self, function: Callable, name: str, a: jax.Array, weight: jax.Array, **size: Any
    ) -> jax.Array:
        """The convolution or the deconvolution of an array of this name."""
        a, weight = self._array(name, a), array("weight", weight)
        axis = self.axis % a.ndim
        kernel = weight.reshape(*weight.shape, *[1] * (axis + 1 == a.ndim))
        made = function(self._items(a, a.ndim), kernel, **self._options(a.ndim), **size)
        return made.reshape(*a.shape[:axis], *made.shape[1 : 1 + a.ndim - axis])

    def _kernel_grad(self, x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = self._array("x", x), self._array("y", y)
        kernel, _ = self.steps(x.ndim - 1 - self.axis % x.ndim)
        sides = self._items(x, x.ndim), self._items(y, x.ndim)
        diff = bilinear.kernel_grad(*sides, kernel or (1,), **self._options(x.ndim))
        return diff if kernel else diff.reshape(diff.shape[:2])


@dataclass(frozen=True)
class Convolution(_Learned):
    """Caffe's Convolution layer, whose weight is (num_output, bottom's channels / group, *kernel_size).

    Args:
      num_output: the number of channels of the tops.
      kernel_size, pad, stride, dilation: no value, one value, or one for each spatial axis. Without a value,
        pad is 0, and stride and dilation are 1. kernel_size needs a value.
      kernel_h, kernel_w, pad_h, pad_w, stride_h, stride_w: the same for two spatial axes, instead of the above.
      axis: the axis of the channels. The axes before it count independent items, the axes after it are space.
      force_nd_im2col: has no effect on results, as in Caffe.
      group: the number of independent sets of channels.
      bias_term: whether there is a bias.
      weight_filler, bias_filler: the fillers of the blobs.

    Errors: calls raise ValueError or TypeError if fields do not fit the bottom or each other, or if blobs have
    other shapes.

    Differentiation: by `backward`, as in Caffe, or by JAX's transformations of `forward`.

    Example: one bottom of one item, and the diffs that a top diff of ones sends back.
      >>> layer = Convolution(num_output=1, kernel_size=(2,))
      >>> blobs, x = [jnp.array([[[1.0, 10.0]]]), jnp.array([0.5])], jnp.array([[[1.0, 2.0, 3.0]]])
      >>> layer.forward(blobs, x)[0].tolist()
      [[[21.5, 32.5]]]
      >>> (weight, bias), (bottom,) = layer.backward(blobs, [x], [jnp.ones((1, 1, 2))])
      >>> weight.tolist(), bias.tolist(), bottom.tolist()
      ([[[3.0, 5.0]]], [2.0], [[[1.0, 11.0, 10.0]]])
    """

    def _outer_inner(self, channels: int) -> tuple[int, int]:
        return self.num_output, channels

    @reporting(x="bottom", **NAMES)
    def forward_gemm(self, bottom: jax.Array, weight: jax.Array) -> jax.Array:
        """Returns the top without its bias."""
        return self._by(bilinear.conv, "x", bottom, weight)

    @reporting(y="top_diff", **NAMES)
    def backward_gemm(
        self, top_diff: jax.Array, weight: jax.Array, space: Sequence[int]
    ) -> jax.Array:
        """Returns the bottom's diff. `space` is the bottom's spatial size; the top's does not determine it."""
        listed("space", space, "sizes")
        size = tuple(space) or (1,)
        return self._by(bilinear.deconv, "y", top_diff, weight, output_size=size)

    @reporting(x="bottom", y="top_diff", **NAMES)
    def weight_gemm(self, bottom: jax.Array, top_diff: jax.Array) -> jax.Array:
        """Returns the weight's diff, summed over items."""
        return self._kernel_grad(bottom, top_diff)


@dataclass(frozen=True)
class Deconvolution(_Learned):
    """Caffe's Deconvolution layer, whose weight is (bottom's channels, num_output / group, *kernel_size).

    Args:
      num_output, kernel_size and the others: as in `Convolution`; pad, stride and dilation are those of the
        convolution that this transposes.

    Example:
      >>> layer = Deconvolution(num_output=1, kernel_size=(2,), stride=(2,), bias_term=False)
      >>> layer.forward([jnp.array([[[1, 10]]])], jnp.array([[[1, 2]]]))[0].tolist()
      [[[1, 10, 2, 20]]]
    """

    def _outer_inner(self, channels: int) -> tuple[int, int]:
        return channels, self.num_output

    @reporting(y="bottom", **NAMES)
    def forward_gemm(self, bottom: jax.Array, weight: jax.Array) -> jax.Array:
        """Returns the top without its bias."""
        return self._by(bilinear.deconv, "y", bottom, weight)

    @reporting(x="top_diff", **NAMES)
    def backward_gemm(
        self, top_diff: jax.Array, weight: jax.Array, space: Sequence[int]
    ) -> jax.Array:
        """Returns the bottom's diff. `space` must be the bottom's spatial size; the top's determines it."""
        diff = self._by(bilinear.conv, "x", top_diff, weight)
        found = self.split(diff.shape)[2]
        if tuple(listed("space", space, "sizes")) != found:
            raise refused(
                "space", f"must be {found}, as top_diff and weight give, got {shown(space)}"
            )
        return diff

    @reporting(x="top_diff", y="bottom", **NAMES)
    def weight_gemm(self, bottom: jax.Array, top_diff: jax.Array) -> jax.Array:
        """Returns the weight's diff, summed over items."""
        return self._kernel_grad(top_diff, bottom)
