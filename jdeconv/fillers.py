"""Caffe's fillers: how a kernel starts.

Each returns an array of the given shape and dtype; those that draw take a PRNG key first, as JAX's own
initializers do. A kernel's shape is (o, c, *k), output channels first, unless `dimension_numbers` names
another order of axes, such as "HWIO"; the same key fills every order with the same numbers.

Source: Caffe's filler.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jdeconv import checks
from jdeconv.checks import integer, one_of, refused, sizes
from jdeconv.form import accumulator

Fan = Literal["fan_in", "fan_out", "average"]
FANS = ("fan_in", "fan_out", "average")
REACH = 9  # standard deviations within which jax.random.normal draws, in any dtype


def constant(shape: Sequence[int], dtype: DTypeLike = float, *, value: float = 0.0) -> jax.Array:
    """Every weight is `value`.

    Raises:
      TypeError, ValueError: for arguments of another kind, and a value that the dtype cannot hold.

    Example:
      >>> constant((2,), int, value=3).tolist()
      [3, 3]
    """
    dtype = _dtype("constant", dtype, jnp.number, "numbers")
    value = _number("constant", "value", value, dtype)
    return jnp.full(_shape("constant", shape), value, dtype)


def uniform(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    min: float = 0.0,
    max: float = 1.0,
) -> jax.Array:
    """Weights drawn evenly from [min, max).

    Raises:
      ValueError: where min is greater than max.

    Example:
      >>> uniform(jax.random.key(0), (2, 3), min=5, max=5).tolist()
      [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]
    """
    key, dtype = _drawn("uniform", key, dtype, jnp.floating)
    low, high = (
        _number("uniform", name, value, dtype) for name, value in (("min", min), ("max", max))
    )
    if not low <= high:
        raise refused("uniform", "min", min, f"must not be greater than max={max!r}")
    _number("uniform", "max", high - low, dtype, "max - min")
    return jax.random.uniform(key, _shape("uniform", shape), dtype, low, high)


def gaussian(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    sparse: int | None = None,
    dimension_numbers: str | None = None,
) -> jax.Array:
    """Weights drawn from a normal distribution; `sparse` keeps about that many per input.

    Formula: ``mean + std * z``, and with `sparse` times a Bernoulli mask of probability sparse / o.

    Example:
      >>> gaussian(jax.random.key(0), (2, 3), mean=4, std=0).tolist()
      [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """
    key, dtype = _drawn("gaussian", key, dtype, jnp.inexact)
    mean, std = (
        _number("gaussian", name, value, dtype) for name, value in (("mean", mean), ("std", std))
    )
    shape, order = _kernel_axes("gaussian", shape, dimension_numbers)
    if not std >= 0:
        raise refused("gaussian", "std", std, "must be at least 0")
    _number("gaussian", "std", abs(mean) + REACH * std, dtype, f"mean + {REACH} std")
    draw, choice = jax.random.split(key)
    weights = (mean + std * jax.random.normal(draw, shape, dtype)).astype(dtype)
    if sparse is not None:
        kept = integer("gaussian", "sparse", sparse, 0)
        if kept > shape[0]:
            raise refused("gaussian", "sparse", sparse, f"must not exceed the {shape[0]} outputs")
        weights = weights * jax.random.bernoulli(choice, kept / shape[0], shape).astype(
            weights.dtype
        )
    return weights.transpose(order)


def positive_unitball(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    dimension_numbers: str | None = None,
) -> jax.Array:
    """Positive weights whose sum is 1 for every output channel.

    Formula: ``w[o] = u[o] / sum(u[o])`` with u drawn evenly from (0, 1].

    Example:
      >>> positive_unitball(jax.random.key(0), (4, 1, 1)).tolist()
      [[[1.0]], [[1.0]], [[1.0]], [[1.0]]]
    """
    key, dtype = _drawn("positive_unitball", key, dtype, jnp.floating)
    shape, order = _kernel_axes("positive_unitball", shape, dimension_numbers)
    weights = 1 - jax.random.uniform(key, shape, accumulator(dtype))  # no output of zeros alone
    total = weights.sum(axis=tuple(range(1, len(shape))), keepdims=True)
    return (weights / total).astype(dtype).transpose(order)


def xavier(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    variance_norm: Fan = "fan_in",
    dimension_numbers: str | None = None,
) -> jax.Array:
    """Weights drawn evenly from [-a, a), a = sqrt(3 / n).

    n is fan_in = c*prod(k), fan_out = o*prod(k), or their average, as `variance_norm` says; with groups, c
    counts the channels in one.

    Example:
      >>> bool(abs(xavier(jax.random.key(0), (8, 3, 1, 1))).max() < 1)
      True

    Source: Glorot and Bengio, AISTATS 2010; Caffe's default of fan_in.
    """
    key, dtype = _drawn("xavier", key, dtype, jnp.floating)
    shape, order = _kernel_axes("xavier", shape, dimension_numbers)
    bound = math.sqrt(3 / _fan("xavier", shape, variance_norm))
    return jax.random.uniform(key, shape, dtype, -bound, bound).transpose(order)


def msra(
    key: jax.Array,
    shape: Sequence[int],
    dtype: DTypeLike = float,
    *,
    variance_norm: Fan = "fan_in",
    dimension_numbers: str | None = None,
) -> jax.Array:
    """Weights drawn from a normal distribution of variance 2 / n, n as in `xavier`.

    Example:
      >>> msra(jax.random.key(0), (3, 3, 4, 2), dimension_numbers="HWIO").shape
      (3, 3, 4, 2)

    Source: He et al., arXiv:1502.01852.
    """
    key, dtype = _drawn("msra", key, dtype, jnp.inexact)
    shape, order = _kernel_axes("msra", shape, dimension_numbers)
    std = math.sqrt(2 / _fan("msra", shape, variance_norm))
    return (std * jax.random.normal(key, shape, dtype)).transpose(order)


def bilinear_kernel(
    shape: Sequence[int], dtype: DTypeLike = float, *, dimension_numbers: str | None = None
) -> jax.Array:
    """The kernel of linear interpolation, for every pair of channels, of any rank.

    Formula: ``w[o,c,t] = product over axes of 1 - |t/f - (k - 1)/(2 f)|`` with f = ceil(k / 2).

    To enlarge by an integer factor f as Caffe's documentation does: k = 2f - f % 2, and `deconv` with
    stride f, padding ceil((f - 1) / 2), and as many groups as channels, so shape (channels, 1, k, k).

    Example:
      >>> (16 * bilinear_kernel((1, 1, 4, 4))[0, 0]).tolist()[:2]
      [[1.0, 3.0, 3.0, 1.0], [3.0, 9.0, 9.0, 3.0]]

    Source: Caffe's BilinearFiller; Long et al., arXiv:1411.4038.
    """
    dtype = _dtype("bilinear_kernel", dtype, jnp.inexact, "floats; the weights are fractions")
    shape, order = _kernel_axes("bilinear_kernel", shape, dimension_numbers)
    if len(shape) < 3:
        raise refused("bilinear_kernel", "shape", shape, "needs two channel axes and a spatial one")
    weights = np.ones(())
    for k in shape[2:]:
        f = -(-k // 2)
        weights = np.multiply.outer(weights, 1 - np.abs(np.arange(k) / f - (k - 1) / (2 * f)))
    return jnp.broadcast_to(jnp.asarray(weights, dtype), shape).transpose(order)


def _drawn(call: str, key: Any, dtype: Any, kind: Any) -> tuple[jax.Array, np.dtype]:
    """The key and the dtype of a filler that draws."""
    return checks.key(call, key), _dtype(call, dtype, kind, "floats")


def _dtype(call: str, dtype: Any, kind: Any, what: str) -> np.dtype:
    """The dtype as JAX has it, if it is of this kind; None is JAX's default float."""
    found = checks.number_dtype(float if dtype is None else dtype)
    if found is None or not jnp.issubdtype(found, kind):
        raise refused(call, "dtype", dtype, f"expected {what}", TypeError)
    return jax.dtypes.canonicalize_dtype(found)


def _number(call: str, argument: str, value: Any, dtype: np.dtype, what: str = "") -> float:
    """A number that the dtype can hold."""
    number = checks.number(call, argument, value)
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    if is_integer:
        info = jnp.iinfo(dtype)
        fits = number == int(number) and info.min <= number <= info.max
    else:
        fits = abs(number) <= float(jnp.finfo(dtype).max)
    if not fits:
        raise refused(call, argument, value, f"{dtype} cannot hold {what or 'it'}")
    return number if is_integer else float(number)


def _shape(call: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes of at least 1, of no more numbers than an array of JAX's may have."""
    found = sizes(call, "shape", shape)
    if math.prod(found) > checks.MOST:
        raise refused(
            call, "shape", shape, f"asks for {math.prod(found)} numbers; the most are 2**31 - 1"
        )
    return found


def _kernel_axes(call: str, shape: Sequence[int], dimension_numbers: str | None):
    """The shape with axes O, I first, and the permutation back to the order that was asked for."""
    shape = _shape(call, shape)
    if not shape:
        raise refused(call, "shape", shape, "needs an axis of output channels")
    if dimension_numbers is None:
        return shape, tuple(range(len(shape)))
    if not isinstance(dimension_numbers, str):
        reason = "expected a string such as 'HWIO'"
        raise refused(call, "dimension_numbers", dimension_numbers, reason, TypeError)
    letters = ["O", "I", *(letter for letter in dimension_numbers if letter not in "OI")]
    is_fit = len(dimension_numbers) == len(set(letters)) == len(shape)
    if not is_fit or sorted(letters) != sorted(dimension_numbers):
        reason = f"must hold O, I and distinct spatial letters, {len(shape)} in all for this shape"
        raise refused(call, "dimension_numbers", dimension_numbers, reason)
    axes = [dimension_numbers.index(letter) for letter in letters]
    return tuple(shape[axis] for axis in axes), tuple(np.argsort(axes).tolist())


def _fan(call: str, shape: tuple[int, ...], variance_norm: str) -> float:
    one_of(call, "variance_norm", variance_norm, FANS)
    count = math.prod(shape)
    fan_in, fan_out = count / shape[0], count / shape[1] if len(shape) > 1 else count
    return {"fan_in": fan_in, "fan_out": fan_out, "average": (fan_in + fan_out) / 2}[variance_norm]
