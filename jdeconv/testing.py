"""Oracles: the inner-product identity, the explicit matrix, and the definition in plain numpy loops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdeconv import checks


@checks.reporting()
def assert_adjoint(
    forward: Callable[[Any], Any],
    adjoint: Callable[[Any], Any],
    x_shape: Sequence[int],
    y_shape: Sequence[int],
    *,
    dtype: Any = np.float32,
    seed: int = 0,
    rtol: float = 0.0,
) -> None:
    """Raises AssertionError unless <forward(x), y> = <x, adjoint(y)> for random integers x and y.

    <a, b> is the sum of a*b, without a conjugate, as in JAX's transposes. The integers are small, so the two
    sides are exactly equal. If a kernel in the functions holds other numbers than integers, give `rtol`.

    Args:
      forward: a linear map from x_shape to y_shape.
      adjoint: the map from y_shape to x_shape that should be its adjoint.
      x_shape, y_shape: shapes of one array each.
      dtype: the dtype of both arrays.
      seed: the seed of the random integers, which are from -4 to 4.
      rtol: the permitted difference, relative to the sum of the absolute terms.

    Raises:
      AssertionError: if shapes or inner products differ.
      TypeError, ValueError: if arguments do not fit.

    Example:
      >>> assert_adjoint(lambda x: x[1:], lambda y: jnp.pad(y, (1, 0)), (3,), (2,))
    """
    _called("forward", forward)
    _called("adjoint", adjoint)
    x_shape, y_shape = _sizes("x_shape", x_shape), _sizes("y_shape", y_shape)
    dtype = _dtype(dtype)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    if checks.number("rtol", rtol) < 0:
        raise checks.refused("rtol", f"must be at least 0, got {rtol}")
    x = jnp.asarray(rng.integers(-4, 5, x_shape), dtype)
    y = jnp.asarray(rng.integers(-4, 5, y_shape), dtype)
    fx, ay = forward(x), adjoint(y)
    for name, a in (("forward", fx), ("adjoint", ay)):
        if not hasattr(a, "shape"):
            reason = f"must be a function that returns an array, got {type(a).__name__} from it"
            raise checks.refused(name, reason, TypeError)
    if fx.shape != y.shape or ay.shape != x.shape:
        raise AssertionError(
            f"assert_adjoint: forward gives {fx.shape} for y {y.shape}, adjoint {ay.shape} for x {x.shape}"
        )
    wide = np.result_type(np.asarray(fx).dtype, np.float64)
    left, right = (np.asarray(a, wide) * np.asarray(b, wide) for a, b in ((fx, y), (x, ay)))
    scale = max(np.abs(left).sum(), np.abs(right).sum())
    if not abs(left.sum() - right.sum()) <= rtol * scale:
        raise AssertionError(
            f"assert_adjoint: <forward(x), y> = {left.sum()}, but <x, adjoint(y)> = {right.sum()}"
        )


@checks.reporting()
def as_matrix(
    linear: Callable[[Any], Any], shape: Sequence[int], dtype: Any = np.float32
) -> np.ndarray:
    """Returns the matrix of a linear map of arrays of `shape`; column j is the image of basis array j.

    Raises:
      TypeError, ValueError: if arguments do not fit, or the basis has more than 2**31 - 1 numbers.

    Example: the matrix of a deconv is the transpose of its conv's.
      >>> from jdeconv import conv, deconv
      >>> kernel = jnp.array([[[1, 2]]])
      >>> as_matrix(lambda x: conv(x, kernel), (1, 1, 3), int).tolist()
      [[1, 2, 0], [0, 1, 2]]
      >>> as_matrix(lambda y: deconv(y, kernel), (1, 1, 2), int).tolist()
      [[1, 0], [2, 1], [0, 2]]
    """
    _called("linear", linear)
    shape = _sizes("shape", shape)
    size = math.prod(shape)
    if size**2 > checks.MOST:
        reason = f"has a basis of {size} x {size} numbers; the limit is 2**31 - 1"
        raise checks.refused("shape", reason)
    basis = jnp.eye(size, dtype=_dtype(dtype)).reshape(size, *shape)
    return np.asarray(jax.vmap(linear)(basis)).reshape(size, -1).T


@checks.reporting()
def conv_loops(x, kernel, small, *, stride, dilation, low, groups=1) -> np.ndarray:
    """Returns conv by its definition, in plain loops over float64 (or complex128).

    Args:
      x: (n, g*c, *big).
      kernel: (g*o, c, *k).
      small: spatial sizes of the result.
      stride, dilation, low: one int per axis.
      groups: g.

    Raises:
      TypeError, ValueError: if arguments or sizes do not fit.

    Example:
      >>> x, kernel = np.array([[[1, 2, 3, 4]]]), np.array([[[1, 10]]])
      >>> conv_loops(x, kernel, (2,), stride=(2,), dilation=(1,), low=(0,)).tolist()
      [[[21.0, 43.0]]]
    """
    return _loops("y", "small", small, stride, dilation, low, groups, x=x, kernel=kernel)


@checks.reporting()
def deconv_loops(y, kernel, big, *, stride, dilation, low, groups=1) -> np.ndarray:
    """Returns deconv by its definition, in plain loops over float64 (or complex128).

    Args:
      y: (n, g*o, *small).
      kernel: (g*o, c, *k).
      big: spatial sizes of the result.
      stride, dilation, low, groups: as in `conv_loops`.

    Raises:
      TypeError, ValueError: if arguments or sizes do not fit.

    Example:
      >>> y, kernel = np.array([[[1, 2]]]), np.array([[[1, 10]]])
      >>> deconv_loops(y, kernel, (4,), stride=(2,), dilation=(1,), low=(0,)).tolist()
      [[[1.0, 10.0, 2.0, 20.0]]]
    """
    return _loops("x", "big", big, stride, dilation, low, groups, y=y, kernel=kernel)


@checks.reporting()
def kernel_grad_loops(x, y, kernel_size, *, stride, dilation, low, groups=1) -> np.ndarray:
    """Returns kernel_grad by its definition, in plain loops over float64 (or complex128).

    Args:
      x: (n, g*c, *big).
      y: (n, g*o, *small).
      kernel_size: spatial sizes of the result.
      stride, dilation, low, groups: as in `conv_loops`.

    Raises:
      TypeError, ValueError: if arguments or sizes do not fit.

    Example:
      >>> x, y = np.array([[[1, 2, 3, 4]]]), np.array([[[1, 10]]])
      >>> kernel_grad_loops(x, y, (2,), stride=(2,), dilation=(1,), low=(0,)).tolist()
      [[[31.0, 42.0]]]
    """
    return _loops("kernel", "kernel_size", kernel_size, stride, dilation, low, groups, x=x, y=y)


WORDS = {"x": ("n", "gc"), "kernel": ("go", "c"), "y": ("n", "go")}  # what is on the first two axes


def _loops(result: str, name: str, size, stride, dilation, low, groups, **operands: Any):
    """The sum of the form's products that gives `result`, whose spatial size has this name."""
    groups = checks.integer("groups", groups, 1)
    rank = np.ndim(next(iter(operands.values()))) - 2
    sizes, arrays, space = {"g": groups}, {}, {}
    for role, value in operands.items():
        a = _wide(role, value)
        if rank < 0 or a.ndim != rank + 2:
            reason = f"needs two axes and as many spatial ones as the other array, got {a.ndim}"
            raise checks.refused(role, reason)
        for axis, word in enumerate(WORDS[role]):
            inside = groups if "g" in word else 1
            needed = sizes.setdefault(word[-1], a.shape[axis] // inside) * inside
            if a.shape[axis] != needed:
                reason = f"needs size {needed} on axis {axis} for {groups} groups"
                raise checks.refused(role, f"{reason}, got {a.shape[axis]}")
        space[role] = a.shape[2:]
        arrays[role] = a.reshape([sizes[i] for i in "".join(WORDS[role])] + [*a.shape[2:]])
    space[result] = checks.integers(name, size, rank, 0)
    checks.cells(name, space[result])
    stride = checks.integers("stride", stride, rank, 1)
    dilation = checks.integers("dilation", dilation, rank, 1)
    low = checks.integers("low", low, rank)
    (first, a), (second, b) = arrays.items()
    letters = {role: "".join(words) for role, words in WORDS.items()}
    shape = [sizes[i] for i in letters[result]]
    total = np.zeros([*shape, *space[result]], np.result_type(a, b))
    products = f"{letters[first]},{letters[second]}->{letters[result]}"
    for q in np.ndindex(*space["y"]):
        for t in np.ndindex(*space["kernel"]):
            axes = zip(q, t, stride, dilation, low, strict=True)
            at = {"x": tuple(i * s + j * d - p for i, j, s, d, p in axes), "kernel": t, "y": q}
            if all(0 <= i < size for i, size in zip(at["x"], space["x"], strict=True)):
                terms = np.einsum(products, a[(..., *at[first])], b[(..., *at[second])])
                total[(..., *at[result])] += terms
    merged = [math.prod(sizes[i] for i in word) for word in WORDS[result]]
    return total.reshape([*merged, *space[result]])


def _wide(argument: str, value: Any) -> np.ndarray:
    """An array of numbers, in float64 or complex128."""
    a = None if isinstance(value, Tracer) else np.asarray(value)
    if a is None or not jnp.issubdtype(a.dtype, jnp.number):
        reason = f"must hold numbers that are known while tracing, got {checks.shown(value)}"
        raise checks.refused(argument, reason, TypeError)
    return a.astype(np.complex128 if np.iscomplexobj(a) else np.float64)


def _called(argument: str, value: object) -> None:
    if not callable(value):
        raise checks.refused(argument, f"must be a function, got {checks.shown(value)}", TypeError)


def _sizes(argument: str, shape: Sequence[int]) -> tuple[int, ...]:
    return checks.integers(argument, shape, len(checks.listed(argument, shape, "sizes")), 0)


def _dtype(value: Any) -> np.dtype:
    return jax.dtypes.canonicalize_dtype(checks.number_dtype("dtype", value))
