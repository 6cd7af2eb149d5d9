"""Caffe's fillers: how a kernel starts.

Each returns an array of the given shape and dtype; those that draw take a PRNG key first, as JAX's own
initializers do. A kernel's shape is (o, c, *k), output channels first, unless `dimension_numbers` names
another order of axes, such as "HWIO", or is the triple that the convolution takes; the same key fills every
order with the same numbers. Where a scale depends on the order, a shape that looks like (*k, c, o) is refused
unless dimension_numbers says which order it has. Outside of traces no shape needs a program of its own.
Under jit the last bits may differ from those outside of it, as they do for `jax.random.uniform`.

Source: Caffe's filler.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from jdeconv import checks
from jdeconv.checks import integer, one_of, refused, reporting, shown, sizes
from jdeconv.form import accumulator, axes_of

Fan = Literal["fan_in", "fan_out", "average"]
Order = str | Sequence[str] | None
BLOCK = 1 << 16  # numbers that one call draws
REACH = 9  # standard deviations within which jax.random.normal draws, in any dtype


@reporting()
def constant(shape: Sequence[int], dtype: DTypeLike = float, *, value: float = 0.0) -> jax.Array:
    """Returns weights that all have the same `value`.

    Raises:
      TypeError, ValueError: for arguments of another kind, and a value that the dtype cannot hold.

    Example:
      >>> constant((2,), int, value=3).tolist()
      [3, 3]
    """
    dtype = _dtype(dtype, jnp.number)
    number = np.asarray(_number("value", value, dtype), dtype)
    return jax.device_put(np.broadcast_to(number, _shape(shape)))


@reporting()
def uniform(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    min: float = 0.0,
    max: float = 1.0,
) -> jax.Array:
    """Returns weights drawn evenly from [min, max).

    Raises:
      ValueError: if min is greater than max.

    Example:
      >>> uniform(jax.random.key(0), (2, 3), min=5, max=5).tolist()
      [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]
    """
    key, dtype = checks.key(key), _dtype(dtype, jnp.floating)
    low, high = _number("min", min, dtype), _number("max", max, dtype)
    if low > high:
        raise refused("min", f"must not be greater than {high}, got {low}")
    _number("max", high - low, dtype, "max - min")
    return jax.device_put(_drawn(_even, key, _shape(shape), dtype, low, high))


@reporting()
def gaussian(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    sparse: int | None = None,
    dimension_numbers: Order = None,
) -> jax.Array:
    """Returns weights drawn from a normal distribution; `sparse` keeps about that many per input.

    Formula: ``mean + std * z``, and with `sparse` times a Bernoulli mask of probability sparse / o.

    Example:
      >>> gaussian(jax.random.key(0), (2, 3), mean=4, std=0).tolist()
      [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """
    key, dtype = checks.key(key), _dtype(dtype, jnp.inexact)
    mean, std = _number("mean", mean, dtype), _number("std", std, dtype)
    shape, order = _kernel_axes(shape, dimension_numbers, is_scaled=sparse is not None)
    if std < 0:
        raise refused("std", f"must be at least 0, got {std}")
    _number("std", abs(mean) + REACH * std, dtype, f"mean + {REACH} std")
    numbers = [mean, std]
    if sparse is not None:
        kept = integer("sparse", sparse, 0)
        if kept > shape[0]:
            raise refused("sparse", f"must not exceed the {shape[0]} outputs, got {kept}")
        numbers.append(kept / shape[0])
    return jax.device_put(_drawn(_normal, key, shape, dtype, *numbers).transpose(order))


@reporting()
def positive_unitball(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    dimension_numbers: Order = None,
) -> jax.Array:
    """Returns positive weights whose sum is 1 for every output channel.

    Formula: ``w[o] = u[o] / sum(u[o])`` with u drawn evenly from (0, 1].

    Example:
      >>> positive_unitball(jax.random.key(0), (4, 1, 1)).tolist()
      [[[1.0]], [[1.0]], [[1.0]], [[1.0]]]
    """
    key, dtype = checks.key(key), _dtype(dtype, jnp.floating)
    shape, order = _kernel_axes(shape, dimension_numbers)
    weights = 1 - _drawn(_even, key, shape, accumulator(dtype), 0.0, 1.0)  # not all 0 in an output
    total = weights.sum(axis=tuple(range(1, len(shape))), keepdims=True)
    return jax.device_put((weights / total).astype(dtype).transpose(order))


@reporting()
def xavier(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    variance_norm: Fan = "fan_in",
    dimension_numbers: Order = None,
) -> jax.Array:
    """Returns weights drawn evenly from [-a, a), a = sqrt(3 / n).

    `variance_norm` chooses n: fan_in = c*prod(k), fan_out = o*prod(k), or their average. With groups, c is the
    number of channels in one group.

    Example:
      >>> bool(abs(xavier(jax.random.key(0), (8, 3, 1, 1))).max() < 1)
      True

    Source: Glorot and Bengio, AISTATS 2010; Caffe's default of fan_in.
    """
    key, dtype = checks.key(key), _dtype(dtype, jnp.floating)
    shape, order = _kernel_axes(shape, dimension_numbers)
    bound = math.sqrt(3 / _fan(shape, variance_norm))
    return jax.device_put(_drawn(_even, key, shape, dtype, -bound, bound).transpose(order))


@reporting()
def msra(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    variance_norm: Fan = "fan_in",
    dimension_numbers: Order = None,
) -> jax.Array:
    """Returns weights drawn from a normal distribution of variance 2 / n, n as in `xavier`.

    Example:
      >>> msra(jax.random.key(0), (3, 3, 4, 2), dimension_numbers="HWIO").shape
      (3, 3, 4, 2)

    Source: He et al., arXiv:1502.01852.
    """
    key, dtype = checks.key(key), _dtype(dtype, jnp.inexact)
    shape, order = _kernel_axes(shape, dimension_numbers)
    std = math.sqrt(2 / _fan(shape, variance_norm))
    return jax.device_put(_drawn(_normal, key, shape, dtype, 0.0, std).transpose(order))


@reporting()
def bilinear_kernel(
    shape: Sequence[int], dtype: DTypeLike = float, *, dimension_numbers: Order = None
) -> jax.Array:
    """Returns the kernel of linear interpolation, for every pair of channels and any number of axes.

    Formula: ``w[o,c,t] = product over axes of 1 - |t/f - (k - 1)/(2 f)|`` with f = ceil(k / 2).

    To enlarge by an integer factor f, take k = 2f - f % 2 and the shape (channels, 1, k, k), and call `deconv`
    with stride f, padding ceil((f - 1) / 2) and as many groups as channels, as Caffe's documentation does.

    Example:
      >>> (16 * bilinear_kernel((1, 1, 4, 4))[0, 0]).tolist()[:2]
      [[1.0, 3.0, 3.0, 1.0], [3.0, 9.0, 9.0, 3.0]]

    Source: Caffe's BilinearFiller; Long et al., arXiv:1411.4038.
    """
    dtype = _dtype(dtype, jnp.inexact)
    shape, order = _kernel_axes(shape, dimension_numbers, is_scaled=False)
    if len(shape) < 3:
        raise refused("shape", f"needs two channel axes and a spatial one, got {shape}")
    weights = np.ones(())
    for k in shape[2:]:
        f = -(-k // 2)
        weights = np.multiply.outer(weights, 1 - np.abs(np.arange(k) / f - (k - 1) / (2 * f)))
    return jax.device_put(np.broadcast_to(weights.astype(dtype), shape).transpose(order))


def _even(key: jax.Array, dtype: np.dtype, low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, (BLOCK,), dtype, low, high)


def _normal(
    key: jax.Array, dtype: np.dtype, mean: float, std: float, kept: float | None = None
) -> jax.Array:
    draw, choice = jax.random.split(key)
    weights = (mean + std * jax.random.normal(draw, (BLOCK,), dtype)).astype(dtype)
    if kept is None:
        return weights
    return weights * jax.random.bernoulli(choice, kept, (BLOCK,)).astype(dtype)


@partial(jax.jit, static_argnames=("draw", "dtype"))
def _block(draw: Callable, key: jax.Array, index: Any, dtype: np.dtype, *numbers: float):
    return draw(jax.random.fold_in(key, index), dtype, *numbers)


def _drawn(
    draw: Callable, key: jax.Array, shape: tuple[int, ...], dtype: np.dtype, *numbers: float
) -> Any:
    """Numbers drawn block after block, by one program for every shape; numpy's array outside of traces."""
    count = math.prod(shape)
    indices = np.arange(-(-count // BLOCK))

    def block(index: Any) -> jax.Array:
        return _block(draw, key, index, dtype, *numbers)

    is_traced = isinstance(key, Tracer) or isinstance(jnp.zeros(()), Tracer)
    rows = jax.vmap(block)(indices) if is_traced else np.stack([*map(block, indices)])
    return rows.reshape(-1)[:count].reshape(shape)


def _fan(shape: tuple[int, ...], variance_norm: str) -> float:
    count = math.prod(shape)
    fan_in, fan_out = count / shape[0], count / shape[1] if len(shape) > 1 else count
    fans = {"fan_in": fan_in, "fan_out": fan_out, "average": (fan_in + fan_out) / 2}
    return fans[one_of("variance_norm", variance_norm, fans)]


def _dtype(dtype: Any, kind: Any) -> np.dtype:
    """The dtype as JAX has it, if it is of this kind; None is JAX's default float."""
    found = checks.number_dtype("dtype", float if dtype is None else dtype, kind)
    return jax.dtypes.canonicalize_dtype(found)


def _number(argument: str, value: Any, dtype: np.dtype, what: str = "") -> float:
    """A number that the dtype can hold."""
    number = checks.number(argument, value)
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    exact, info = (int, jnp.iinfo(dtype)) if is_integer else (float, jnp.finfo(dtype))
    if not exact(info.min) <= number <= exact(info.max) or number != exact(number):
        reason = f"makes {what} {number}" if what else f"is {shown(value)}"
        raise refused(argument, f"{reason}, which {dtype} cannot hold")
    return exact(number)


def _shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes of at least 1, of no more numbers than an array of JAX's may have."""
    found = sizes("shape", shape)
    if math.prod(found) > checks.MOST:
        reason = f"asks for {math.prod(found)} numbers; the limit is 2**31 - 1"
        raise refused("shape", reason)
    return found


def _kernel_axes(shape: Sequence[int], dimension_numbers: Order, is_scaled: bool = True):
    """The shape with axes O, I first, and the permutation back to the order that was asked for."""
    shape = _shape(shape)
    if not shape:
        raise refused("shape", "needs an axis of output channels, got ()")
    if dimension_numbers is None:
        if is_scaled and _looks_channels_last(shape):
            reason = f"{shape} may be (o, c, *k) or (*k, c, o), which differ in scale; pass "
            reason += "dimension_numbers, such as 'OIHW' or 'HWIO'"
            raise refused("shape", reason)
        return shape, tuple(range(len(shape)))
    if isinstance(dimension_numbers, tuple | list):  # of a convolution; one is the kernel's
        kernels = [spec for spec in dimension_numbers if isinstance(spec, str) and "O" in spec]
        dimension_numbers = kernels[0] if len(kernels) == 1 else dimension_numbers
    axes = axes_of(dimension_numbers, "OI", len(shape) - 2)
    return tuple(shape[axis] for axis in axes), tuple(np.argsort(axes).tolist())


def _looks_channels_last(shape: tuple[int, ...]) -> bool:
    """Whether it is likely (*k, c, o), and not as (o, c, *k), whose taps outnumber its channels."""
    return len(shape) > 2 and max(shape[2:]) > max(7, shape[0]) and max(shape[:-2]) <= 16
