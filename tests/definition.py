"""What the definition makes of a problem, and whether the library agrees.

The definition is a table, the cell of x that each tap of each window reads, and sums in float64 over it.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv import api
from jdeconv.form import CONTRACTIONS, accumulator
from jdeconv.padding import NUMPY_MODES
from tests.problem import WIDE, Problem


def compare(problem: Problem) -> None:
    """Evaluate a problem and the definition.

    Raises:
      AssertionError: where a result has another shape, dtype or value.
    """
    roles = CONTRACTIONS[problem.call]
    sizes = {"kernel_grad": {"kernel_size": problem.kernel}, "deconv": {"output_size": problem.big}}
    arguments = problem.steps | sizes.get(problem.call, {})
    values = [_values(problem, role, i) for i, role in enumerate(roles)]

    def call(a: jax.Array, b: jax.Array) -> jax.Array:
        return getattr(api, problem.call)(a, b, **arguments)

    for axes in problem.maps[::-1]:
        call = jax.vmap(call, in_axes=axes)

    @jax.jit
    def evaluate(a: jax.Array, b: jax.Array, bar: jax.Array) -> tuple:
        if not problem.gradient:
            return (call(a, b),)
        return jax.vjp(call, a, b)[1](bar)

    with jax.enable_x64(problem.dtype in WIDE):
        laid = [
            _laid_out(problem, v, role, i)
            for i, (v, role) in enumerate(zip(values, roles, strict=True))
        ]
        got = [np.asarray(array) for array in evaluate(*laid)]
    for i in (0, 1) if problem.gradient else (2,):
        others = [j for j in range(3) if j != i]
        want = _laid_out(problem, _result(problem, values, i, others), roles[i], i)
        bound = _laid_out(problem, _bound(problem, values, i, others), roles[i], i, is_cast=False)
        _assert_same(problem, roles[i], got[i % 2], want, bound)


def _assert_same(
    problem: Problem, role: str, got: np.ndarray, want: np.ndarray, bound: np.ndarray
) -> None:
    what = f"the gradient of {role}" if problem.gradient else "the result"
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        came, due = (f"{a.dtype}{list(a.shape)}" for a in (got, want))
        raise AssertionError(f"{what} is {came}, not {due}")
    wrong = got != want
    if bound.any():
        wide = np.result_type(want.dtype, np.float64)
        wrong = ~(abs(got.astype(wide) - want.astype(wide)) <= bound)
    if wrong.any():
        at = tuple(map(int, np.argwhere(wrong)[0]))
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} numbers of {what} are wrong; at {at} {got[at]}, not {want[at]}"
        )


def _bound(problem: Problem, values: list[np.ndarray], i: int, others: list[int]) -> np.ndarray:
    """How far each number of a result may be from the definition's; sums of integers come out to the last bit.

    But for FFTs, which round beside the norms of their arrays; and but for gradients in half precision that
    are rounded and then summed, over copies of a cell or over a mapped axis that an operand lacks: half an
    epsilon beside the sum of absolute terms, for the addends, for each of their sums and for the last.
    """
    bound = np.zeros(values[i].shape)
    if not jnp.issubdtype(jnp.dtype(problem.dtype), jnp.inexact):
        return bound
    eps, wide_eps = (
        float(jnp.finfo(d).eps) for d in (problem.dtype, accumulator(jnp.dtype(problem.dtype)))
    )
    may_transform = problem.lowering == "fft" or (
        problem.lowering is None and math.prod(problem.kernel) > 100
    )
    lacking = sum(None in axes for axes in problem.maps)
    is_summed = problem.gradient and (problem.padding_mode != "zeros" or lacking)
    if may_transform or (is_summed and eps > 1e-4):
        terms = abs(_result(problem, [abs(v) for v in values], i, others))
        bound = (1 + problem.mapped**lacking) * eps / 2 * terms
    if may_transform:
        bound = bound + 32 * wide_eps * math.prod(float(np.linalg.norm(values[j])) for j in others)
    return bound


def _levels(problem: Problem, i: int) -> tuple[int | None, ...]:
    """The axis that each vmap maps, the outermost first, of an operand or the result."""
    return tuple(axes[i] for axes in problem.maps) if i < 2 else (0,) * len(problem.maps)


def _values(problem: Problem, role: str, i: int) -> np.ndarray:
    """(levels, definition's axes), a level of size 1 where there is no map."""
    levels = tuple(1 if axis is None else problem.mapped for axis in _levels(problem, i))
    values = problem.draw(role, math.prod(levels))
    return values.reshape(*levels, *values.shape[1:])


def _result(problem: Problem, values: list[np.ndarray], i: int, others: list[int]) -> np.ndarray:
    """What the definition makes of two of the three arrays, summed over levels that the third has not."""
    roles, depth = CONTRACTIONS[problem.call], len(problem.maps)
    levels = (problem.mapped,) * depth
    flat = {}
    for j in others:
        shape = values[j].shape[depth:]
        flat[roles[j]] = np.broadcast_to(values[j], levels + shape).reshape(
            math.prod(levels), *shape
        )
    total = definition(problem, roles[i], flat)
    total = total.reshape(*levels, *total.shape[1:])
    missing = tuple(level for level, axis in enumerate(_levels(problem, i)) if axis is None)
    return total.sum(missing, keepdims=True)


def definition(problem: Problem, role: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """One of x, y and kernel of the other two; each (count, outer, inner, *space), in float64.

    Over the table of cells, columns[q, t] = x[cells[q, t]], and the form is a product of three matrices.
    """
    cells, size, p = _cells(problem), math.prod(problem.big), problem
    count = next(iter(arrays.values())).shape[0]
    n = 1 if p.n is None else p.n
    x_shape, y_shape, k_shape = (
        (count, n, p.groups, p.c),
        (count, n, p.groups, p.o),
        (count, p.groups, p.o),
    )
    columns = y = kernel = np.empty(0)  # that of `role` stays so
    if "x" in arrays:
        x = arrays["x"].reshape(*x_shape, size)
        x = np.concatenate([x, np.zeros((*x_shape, 1))], -1)  # what lies outside
        columns = x[..., cells].transpose(0, 2, 1, 4, 3, 5)  # count, g, n, q, c, t
        columns = columns.reshape(count, p.groups, n * len(cells), p.c * cells.shape[1])
    if "y" in arrays:
        y = arrays["y"].reshape(*y_shape, len(cells)).transpose(0, 2, 3, 1, 4)
        y = y.reshape(count, p.groups, p.o, n * len(cells))
    if "kernel" in arrays:
        kernel = arrays["kernel"].reshape(*k_shape, p.c * cells.shape[1])
    if role == "kernel":
        return (y @ columns).reshape(count, p.groups * p.o, p.c, *p.kernel)
    if role == "y":
        y = (kernel @ columns.swapaxes(2, 3)).reshape(count, p.groups, p.o, n, len(cells))
        return y.transpose(0, 3, 1, 2, 4).reshape(count, n, p.groups * p.o, *p.small)
    columns = (y.swapaxes(2, 3) @ kernel).reshape(
        count, p.groups, n, *cells.shape[:1], p.c, cells.shape[1]
    )
    x = np.zeros((*x_shape, size + 1), columns.dtype)
    by_cell = np.moveaxis(x, -1, 0)
    np.add.at(by_cell, cells, columns.transpose(3, 5, 0, 2, 1, 4))
    return x[..., :size].reshape(count, n, p.groups * p.c, *p.big)


def _cells(problem: Problem) -> np.ndarray:
    """For every window q and tap t, both flat over axes, the cell b of x that it reads; x's size for none."""
    cells, inside = np.zeros((1, 1), int), np.ones((1, 1), bool)
    axes = (
        problem.big,
        problem.pads,
        problem.small,
        problem.kernel,
        problem.stride,
        problem.dilation,
    )
    for b, (low, high), q, k, s, d in zip(*axes, strict=True):
        mode = NUMPY_MODES.get(problem.padding_mode)
        how: dict[str, Any] = {"mode": mode} if mode else {"constant_values": -1}
        source = np.pad(np.arange(b), (max(low, 0), max(high, 0)), **how)[max(-low, 0) :]
        read = source[np.arange(q)[:, None] * s + np.arange(k) * d]
        cells = (cells[:, None, :, None] * b + read[:, None]).reshape(-1, cells.shape[1] * k)
        inside = (inside[:, None, :, None] & (read >= 0)[:, None]).reshape(cells.shape)
    return np.where(inside, cells, math.prod(problem.big))


def _laid_out(
    problem: Problem, values: np.ndarray, role: str, i: int, is_cast: bool = True
) -> np.ndarray:
    """An array of levels and the definition's axes as the call has it, in its dtype or as it came."""
    levels = _levels(problem, i)
    shape = values.shape[: len(levels)]
    values = values.reshape(math.prod(shape), *values.shape[len(levels) :])
    values = problem.arranged(values, role)
    values = problem.cast(values) if is_cast else values
    mapped = [(size, axis) for size, axis in zip(shape, levels, strict=True) if axis is not None]
    values = values.reshape(*(size for size, _ in mapped), *values.shape[1:])
    if i == 2:
        return values
    for depth, (_, axis) in reversed(list(enumerate(mapped))):
        values = np.moveaxis(values, depth, depth + axis)
    return values
