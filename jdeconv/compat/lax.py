"""The convolutions of `jax.lax`, by their own names and signatures.

Arguments, results and most errors are jax.lax's own, because its functions read the arguments: each function
here is jax.lax's with its one convolution evaluated by jdeconv. So forward mode, batch groups, dilation on both
sides and `out_sharding` work as they do there. What jax.lax would misread or crash over is refused here.

Two things differ. `conv_transpose` raises where jax.lax misreads: any name of padding but "SAME" and "VALID",
such as "valid", it takes for a forward convolution's. `conv_general_dilated_patches` copies where jax.lax
multiplies by an identity matrix, so patches are exact on every platform.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import ConvGeneralDilatedDimensionNumbers, PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jdeconv.accelerate import accelerate
from jdeconv.checks import (
    array,
    flag,
    integer,
    integers,
    one_of,
    paddings,
    refused,
    reporting,
    shown,
    sizes,
)
from jdeconv.im2col import unfold
from jdeconv.window import Window
from jdeconv.xla import Convolution

__all__ = [
    "conv",
    "conv_general_dilated",
    "conv_general_dilated_local",
    "conv_general_dilated_patches",
    "conv_transpose",
    "conv_with_general_padding",
]

Pads = str | Sequence[tuple[int, int]]


@reporting()
def conv_general_dilated(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Pads,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: ConvGeneralDilatedDimensionNumbers = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> jax.Array:
    """Returns what `jax.lax.conv_general_dilated` returns.

    Formula: ``out[n, o, q] = sum over c, t of lhs'[n, c, q*stride + t*rhs_dilation - low] * rhs[o, c, t]``,
    where lhs' has lhs_dilation - 1 zeros between the positions of lhs.

    Shapes, arguments, defaults, errors: those of jax.lax. You can pass this function to Flax:
    ``flax.nnx.Conv(..., conv_general_dilated=conv_general_dilated)``.

    Differentiation: forward and reverse mode, to any order.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_general_dilated(jnp.array([[[1, 2, 3]]]), jnp.array([[[1, 10]]]), (1,), "VALID").tolist()
      [[[21, 32]]]
    """
    return _evaluated(lax.conv_general_dilated, locals())


@reporting()
def conv(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: str,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """Returns what `jax.lax.conv` returns: a conv with channels first, without dilation and groups.

    Example:
      >>> import jax.numpy as jnp
      >>> conv(jnp.array([[[1, 2, 3]]]), jnp.array([[[1, 10]]]), (1,), "SAME").tolist()
      [[[21, 32, 3]]]
    """
    return _evaluated(lax.conv, locals())


@reporting()
def conv_with_general_padding(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Pads,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """Returns what `jax.lax.conv_with_general_padding` returns: a conv with channels first and dilations.

    Example:
      >>> import jax.numpy as jnp
      >>> lhs, rhs = jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]])
      >>> conv_with_general_padding(lhs, rhs, (1,), [(0, 1)], (2,), None).tolist()
      [[[1, 20, 2]]]
    """
    return _evaluated(lax.conv_with_general_padding, locals())


@reporting()
def conv_transpose(
    lhs: ArrayLike,
    rhs: ArrayLike,
    strides: Sequence[int],
    padding: Pads,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: ConvGeneralDilatedDimensionNumbers = None,
    transpose_kernel: bool = False,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> jax.Array:
    """Returns what `jax.lax.conv_transpose` returns: with channels last, and a kernel that is not reversed.

    With `transpose_kernel=True` the kernel is that of the conv that this transposes, as in `jdeconv.deconv`.

    Size, with K = rhs_dilation*(k - 1) + 1: i*s for "SAME", (i-1)*s + max(K, s) for "VALID", and for pairs
    (a, b) of zeros around the dilated input (i-1)*s + 1 + a + b - K + 1.

    Raises:
      ValueError: if jax.lax raises it, or if padding is a name other than "SAME" and "VALID", such as
        "valid". jax.lax then pads as in a forward convolution and returns another size.

    Example:
      >>> import jax.numpy as jnp
      >>> lhs, rhs = jnp.array([[[1], [2]]]), jnp.array([[[1]], [[10]]])
      >>> conv_transpose(lhs, rhs, (2,), "SAME").ravel().tolist()
      [10, 1, 20, 2]
    """
    if isinstance(padding, str):
        one_of("padding", padding, ("SAME", "VALID"))
    return _evaluated(lax.conv_transpose, locals())


@reporting()
def conv_general_dilated_patches(
    lhs: ArrayLike,
    filter_shape: Sequence[int],
    window_strides: Sequence[int],
    padding: Pads,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: ConvGeneralDilatedDimensionNumbers | None = None,
    precision: lax.Precision | None = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """Returns what `jax.lax.conv_general_dilated_patches` returns: the windows along the channel axis (im2col).

    The order of the result's channels is (channel, *taps), the last one fastest.

    `precision` has no effect, because nothing is multiplied.

    Example:
      >>> import jax.numpy as jnp
      >>> conv_general_dilated_patches(jnp.array([[[1, 2, 3]]]), (2,), (1,), "VALID").tolist()
      [[[1, 2], [2, 3]]]
    """
    options = locals()
    del options["lhs"], options["filter_shape"]
    lhs, taps = array("lhs", lhs), sizes("filter_shape", filter_shape)
    _check(len(taps), options)
    numbers = lax.conv_dimension_numbers(lhs.shape, (1, 1, *taps), dimension_numbers)
    left, right, out = numbers
    shape = _at(right, (1, lhs.shape[left[1]], *taps))
    options["dimension_numbers"] = numbers
    read = partial(lax.conv_general_dilated, **options)  # jax.lax reads the arguments
    left_type, right_type = (jax.ShapeDtypeStruct(a, lhs.dtype) for a in (lhs.shape, shape))
    (eqn,) = jax.make_jaxpr(read)(left_type, right_type).eqns
    result: Any = eqn.outvars[0].aval
    c = Convolution.of(left_type, right_type, result.shape, eqn.params)
    if c is None:
        raise refused("lhs", f"has no patch of {taps} of a fixed size, got {shown(lhs)}")
    filled = [(0, 0, e - 1) for e in (1, 1, *c.lhs.steps)]
    x = lax.pad(lax.transpose(lhs, left), jnp.zeros((), lhs.dtype), filled)
    window = Window(x.shape[2:], c.out.sizes, taps, c.out.steps, c.rhs.steps, c.low)
    columns = unfold(x, window, space=2, tap=2)
    columns = columns.reshape(x.shape[0], -1, *c.out.sizes).astype(result.dtype)
    return lax.transpose(columns, np.argsort(out))


@reporting()
def conv_general_dilated_local(
    lhs: ArrayLike,
    rhs: ArrayLike,
    window_strides: Sequence[int],
    padding: Pads,
    filter_shape: Sequence[int],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: ConvGeneralDilatedDimensionNumbers | None = None,
    precision: PrecisionLike = None,
) -> jax.Array:
    """Returns what `jax.lax.conv_general_dilated_local` returns: a conv with a kernel for each position.

    Shapes: rhs (o, c*prod(filter_shape), *q), in the layout of dimension_numbers, where q is the result's
    spatial size. The second axis has the order of the patches of `conv_general_dilated_patches`.

    Example:
      >>> import jax.numpy as jnp
      >>> lhs, rhs = jnp.array([[[1, 2, 3]]]), jnp.array([[[1, 0], [0, 10]]])
      >>> conv_general_dilated_local(lhs, rhs, (1,), "VALID", (2,)).tolist()
      [[[1, 30]]]
    """
    lhs, rhs = _arrays(lhs, rhs)
    patches = conv_general_dilated_patches(
        lhs, filter_shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers
    )
    rank = rhs.ndim - 2
    _, right, out = lax.conv_dimension_numbers(lhs.shape, (1, 1, *filter_shape), dimension_numbers)
    needed = tuple(patches.shape[axis] for axis in out[1:])
    if tuple(rhs.shape[axis] for axis in right[1:]) != needed:
        shape = _at(right, (rhs.shape[right[0]], *needed))
        raise refused("rhs", f"needs shape {shape}, a kernel for each position, got {shown(rhs)}")
    space = "abcdefgh"[:rank]
    terms = [
        "".join(_at(axes, word + space)) for axes, word in ((out, "np"), (right, "op"), (out, "no"))
    ]
    return jnp.einsum("{},{}->{}".format(*terms), patches, rhs, precision=precision)


def _arrays(lhs: Any, rhs: Any) -> tuple[jax.Array, jax.Array]:
    lhs, rhs = array("lhs", lhs), array("rhs", rhs)
    if not lhs.ndim == rhs.ndim >= 2:
        raise refused("lhs", f"and rhs need as many axes, 2 or more, got {lhs.ndim} and {rhs.ndim}")
    return lhs, rhs


def _evaluated(function: Callable, arguments: dict[str, Any]) -> jax.Array:
    """What a function of jax.lax gives for its arguments, evaluated by jdeconv."""
    lhs, rhs = _arrays(arguments["lhs"], arguments["rhs"])
    _check(rhs.ndim - 2, arguments)
    return accelerate(function)(**arguments | {"lhs": lhs, "rhs": rhs})


def _check(rank: int, arguments: dict[str, Any]) -> None:
    """Refuse arguments of the wrong kind, among those that a function has."""
    for name, value in arguments.items():
        if name.endswith(("strides", "dilation")):
            if isinstance(value, int):
                raise refused(name, f"must be one int per axis, got {shown(value)}", TypeError)
            if value is not None or not name.endswith("dilation"):
                integers(name, value, rank, 1)
        elif name.endswith("group_count"):
            integer(name, value, 1)
        elif name in ("transpose_kernel", "use_consistent_padding"):
            flag(name, value)
        elif name == "padding" and isinstance(value, str):
            one_of(name, value.upper(), ("SAME", "SAME_LOWER", "VALID"))
        elif name == "padding":
            paddings(value, rank)


def _at(axes: Sequence[int], sizes: Sequence) -> tuple:
    """The shape that has each of these sizes, or the term that has each of these letters, at its axis."""
    return tuple(size for _, size in sorted(zip(axes, sizes, strict=True)))
