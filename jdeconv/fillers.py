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

Fan = Literal["fan_in", "fan_out", "average"]
FANS = ("fan_in", "fan_out", "average")


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
    return jnp.full(sizes("constant", "shape", shape), value, dtype)


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
    key, dtype = checks.key("uniform", key), _dtype("uniform", dtype, jnp.floating, "floats")
    low, high = (
        _number("uniform", name, value, dtype) for name, value in (("min", min), ("max", max))
    )
    if not low <= high:
        raise refused("uniform", "min", min, f"must not be greater than max={max!r}")
    return jax.random.uniform(key, sizes("uniform", "shape", shape), dtype, low, high)


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
    key, dtype = checks.key("gaussian", key), _dtype("gaussian", dtype, jnp.inexact, "floats")
    mean, std = (
        _number("gaussian", name, value, dtype) for name, value in (("mean", mean), ("std", std))
    )
    shape, order = _kernel_axes("gaussian", shape, dimension_numbers)
    if not std >= 0:
        raise refused("gaussian", "std", std, "must be at least 0")
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

    Formula: ``w[o] = u[o] / sum(u[o])`` with u drawn evenly from [0, 1).

    Example:
      >>> positive_unitball(jax.random.key(0), (4, 1, 1)).tolist()
      [[[1.0]], [[1.0]], [[1.0]], [[1.0]]]
    """
    key, dtype = (
        checks.key("positive_unitball", key),
        _dtype("positive_unitball", dtype, jnp.floating, "floats"),
    )
    shape, order = _kernel_axes("positive_unitball", shape, dimension_numbers)
    weights = jax.random.uniform(key, shape, dtype)
    total = weights.sum(axis=tuple(range(1, len(shape))), keepdims=True)
    return (weights / total).transpose(order)


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
    key, dtype = checks.key("xavier", key), _dtype("xavier", dtype, jnp.floating, "floats")
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
    key, dtype = checks.key("msra", key), _dtype("msra", dtype, jnp.inexact, "floats")
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
    weights = np.ones(shape)
    for axis, k in enumerate(shape[2:], start=2):
        f = -(-k // 2)
        triangle = 1 - np.abs(np.arange(k) / f - (k - 1) / (2 * f))
        weights *= triangle.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return jnp.asarray(weights, dtype).transpose(order)


def _dtype(call: str, dtype: Any, kind: Any, what: str) -> Any:
    """A dtype as it came, if it is one of this kind; None is JAX's default float."""
    found = checks.number_dtype(float if dtype is None else dtype)
    if found is None or not jnp.issubdtype(found, kind):
        raise refused(call, "dtype", dtype, f"expected {what}", TypeError)
    return dtype


def _number(call: str, argument: str, value: Any, dtype: Any) -> float:
    """A number that the dtype can hold."""
    value, dtype = checks.number(call, argument, value), jnp.dtype(dtype or float)
    if jnp.issubdtype(dtype, jnp.integer):
        info = jnp.iinfo(dtype)
        fits = value == int(value) and info.min <= value <= info.max
    else:
        fits = abs(value) <= float(jnp.finfo(dtype).max)
    if not fits:
        raise refused(call, argument, value, f"{dtype} cannot hold it")
    return value if jnp.issubdtype(dtype, jnp.integer) else float(value)


def _kernel_axes(call: str, shape: Sequence[int], dimension_numbers: str | None):
    """The shape with axes O, I first, and the permutation back to the order that was asked for."""
    shape = sizes(call, "shape", shape)
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
