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
    for name, function in (("forward", forward), ("adjoint", adjoint)):
        _called(name, function)
    for name, shape in (("x_shape", x_shape), ("y_shape", y_shape)):
        _sizes(name, shape)
    dtype = _dtype(dtype)
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    if checks.number("rtol", rtol) < 0:
        raise checks.refused("rtol", f"must be at least 0, got {rtol}")
    x = jnp.asarray(rng.integers(-4, 5, tuple(x_shape)), dtype)
    y = jnp.asarray(rng.integers(-4, 5, tuple(y_shape)), dtype)
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
    x, kernel = _wide(x=x, kernel=kernel)
    small, steps = _static(x.ndim - 2, stride, dilation, low, small=small)
    x, kernel = _grouped(groups, x=(x, 1), kernel=(kernel, 0))
    _same("kernel", kernel[0], 1, x.shape[2])
    y = np.zeros((x.shape[0], *kernel.shape[:2], *small), np.result_type(x, kernel))
    for b, q, t in _incidences(x.shape[3:], small, kernel.shape[3:], *steps):
        y[(..., *q)] += np.einsum("goc,ngc->ngo", kernel[(..., *t)], x[(..., *b)])
    return _merged(y, 1)


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
    y, kernel = _wide(y=y, kernel=kernel)
    big, steps = _static(y.ndim - 2, stride, dilation, low, big=big)
    _same("kernel", kernel, 0, y.shape[1])
    y, kernel = _grouped(groups, y=(y, 1), kernel=(kernel, 0))
    x = np.zeros((*y.shape[:2], kernel.shape[2], *big), np.result_type(y, kernel))
    for b, q, t in _incidences(big, y.shape[3:], kernel.shape[3:], *steps):
        x[(..., *b)] += np.einsum("goc,ngo->ngc", kernel[(..., *t)], y[(..., *q)])
    return _merged(x, 1)


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
    x, y = _wide(x=x, y=y)
    kernel_size, steps = _static(x.ndim - 2, stride, dilation, low, kernel_size=kernel_size)
    _same("y", y, 0, x.shape[0])
    x, y = _grouped(groups, x=(x, 1), y=(y, 1))
    kernel = np.zeros((*y.shape[1:3], x.shape[2], *kernel_size), np.result_type(x, y))
    for b, q, t in _incidences(x.shape[3:], y.shape[3:], kernel_size, *steps):
        kernel[(..., *t)] += np.einsum("ngo,ngc->goc", y[(..., *q)], x[(..., *b)])
    return _merged(kernel, 0)


def _wide(**arrays: Any) -> list[np.ndarray]:
    """Two arrays of numbers, of as many axes, in float64 or complex128."""
    found = []
    for name, value in arrays.items():
        if isinstance(value, Tracer):
            reason = f"must be an array that is known while tracing, got {checks.shown(value)}"
            raise checks.refused(name, reason, TypeError)
        a = np.asarray(value)
        if not jnp.issubdtype(a.dtype, jnp.number):
            reason = f"must be an array of numbers, got {checks.shown(value)}"
            raise checks.refused(name, reason, TypeError)
        found.append(a.astype(np.complex128 if np.iscomplexobj(a) else np.float64))
    (first, second), (a, b) = arrays, found
    if min(a.ndim, b.ndim) < 2 or a.ndim != b.ndim:
        reason = (
            f"needs as many axes as {second}, two of them not spatial, got {a.ndim} and {b.ndim}"
        )
        raise checks.refused(first, reason)
    return found


def _static(rank: int, stride: Any, dilation: Any, low: Any, **size: Any) -> tuple:
    """The sizes of the result, and the steps."""
    ((name, value),) = size.items()
    steps = (
        checks.integers("stride", stride, rank, 1),
        checks.integers("dilation", dilation, rank, 1),
        checks.integers("low", low, rank),
    )
    sizes = checks.integers(name, value, rank, 0)
    checks.cells(name, sizes)
    return sizes, steps


def _grouped(groups: int, **arrays: tuple[np.ndarray, int]) -> list[np.ndarray]:
    """The arrays with a separate axis of groups in front of the channels of a group."""
    groups, found = checks.integer("groups", groups, 1), []
    for name, (a, axis) in arrays.items():
        size = a.shape[axis]
        if size % groups:
            reason = f"needs a multiple of {groups} groups on axis {axis}, got {size}"
            raise checks.refused(name, reason)
        found.append(a.reshape(*a.shape[:axis], groups, size // groups, *a.shape[axis + 1 :]))
    return found


def _merged(a: np.ndarray, axis: int) -> np.ndarray:
    """The array with an axis of groups and the axis behind it as one."""
    groups, size = a.shape[axis : axis + 2]
    return a.reshape(*a.shape[:axis], groups * size, *a.shape[axis + 2 :])


def _same(name: str, a: np.ndarray, axis: int, size: int) -> None:
    if a.shape[axis] != size:
        raise checks.refused(name, f"needs size {size} on axis {axis}, got {a.shape[axis]}")


def _incidences(big, small, kernel, stride, dilation, low):
    """The triples (b, q, t) with b = q*stride + t*dilation - low inside of the big side."""
    for q in np.ndindex(*small):
        for t in np.ndindex(*kernel):
            b = tuple(
                qi * s + ti * d - p
                for qi, ti, s, d, p in zip(q, t, stride, dilation, low, strict=True)
            )
            if all(0 <= i < size for i, size in zip(b, big, strict=True)):
                yield b, q, t


def _called(argument: str, value: object) -> None:
    if not callable(value):
        raise checks.refused(argument, f"must be a function, got {checks.shown(value)}", TypeError)


def _sizes(argument: str, shape: Sequence[int]) -> tuple[int, ...]:
    return checks.integers(argument, shape, len(checks.listed(argument, shape, "sizes")), 0)


def _dtype(value: Any) -> np.dtype:
    return jax.dtypes.canonicalize_dtype(checks.number_dtype("dtype", value))
