"""Convolutions to measure errors on: random geometries, long sums, and data that is hard on sums."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv.choose import choose
from tests.geometry import problem as problem_of
from tests.problem import LETTERS, Problem

PARTS = ("y", "x", "kernel")  # of conv: its value, the gradients
MAX_COLUMNS, MAX_LARGE_COLUMNS = 100_000, 4_000_000

LONG = (  # (n, c, o, big, kernel, groups): sums of about 1e5 terms, in the value or in a gradient
    (1, 11_111, 2, (5, 4), (3, 3), 1),
    (1, 2, 11_111, (5, 4), (3, 3), 1),
    (1, 50_000, 3, (4,), (2,), 1),
    (1, 2, 3, (100_000,), (3,), 1),
    (2, 3, 2, (230, 220), (3, 3), 1),
    (1, 1, 1, (310, 320), (5, 5), 3),
    (1, 2, 1, (46, 47, 48), (2, 2, 2), 1),
    (1, 1, 1, (4000,), (1500,), 1),
    (1, 2, 1, (90, 100), (41, 40), 1),
)


def geometry(rng: np.random.Generator, dtype: str) -> Problem:
    """A random one, of few enough columns."""
    rank = int(rng.choice((1, 2, 2, 2, 3, 4)))
    while True:
        large = rank < 3 and rng.random() < 0.25
        kernel = rng.integers(1, (32 if large else 8, 24 if large else 6, 5, 4)[rank - 1], rank)
        stride, dilation = rng.choice((1, 1, 1, 2, 3), rank), rng.choice((1, 1, 1, 2), rank)
        big = rng.integers(1, (400, 40, 14, 7)[rank - 1], rank)
        pads = rng.integers(-1, 5, (rank, 2))
        if (big + pads.sum(1) < dilation * (kernel - 1) + 1).any():
            continue
        n, groups = rng.integers(1, 4), rng.choice((1, 1, 1, 2, 4))
        c, o = rng.choice((1, 2, 3, 8, 16, 33, 64), 2)
        space = "".join(LETTERS[:rank])
        first, last = (f"NC{space}", f"OI{space}"), (f"N{space}C", f"{space}IO")
        sides, kernels = first if rng.random() < 0.5 else last
        found = problem(*map(int, (n, c, o)), _ints(big), _ints(kernel), int(groups), dtype)
        steps = {"stride": _ints(stride), "dilation": _ints(dilation)}
        padding, layout = tuple(map(_ints, pads)), (sides, kernels, sides)
        found = dataclasses.replace(found, padding=padding, layout=layout, **steps)
        if math.prod((*found.small, *found.kernel)) * n * groups * max(c, o) <= MAX_COLUMNS:
            return found


def large(rng: np.random.Generator, dtype: str) -> Problem:
    """One of so large a kernel over so few channels that FFTs are chosen."""
    while True:
        rank = int(rng.choice((1, 2)))
        kernel = rng.integers(101, 300, 1) if rank == 1 else rng.integers(9, 30, 2)
        big = rng.integers(300, 2500, 1) if rank == 1 else rng.integers(30, 90, 2)
        n, groups = rng.integers(1, 4), rng.choice((1, 1, 2, 4))
        c, o = rng.choice((1, 1, 2, 3, 4), 2)
        found = problem(*map(int, (n, c, o)), _ints(big), _ints(kernel), int(groups), dtype)
        found = dataclasses.replace(found, padding=tuple(map(_ints, rng.integers(0, 6, (rank, 2)))))
        columns = math.prod((*found.small, *found.kernel)) * n * groups * max(c, o)
        if columns <= MAX_LARGE_COLUMNS and chosen(found) == "fft":
            return found


def problem(n: int, c: int, o: int, big: tuple, kernel: tuple, groups: int, dtype: str) -> Problem:
    """A conv without stride, padding or dilation."""
    rank = len(big)
    space = LETTERS[:rank]
    return Problem(
        call="conv",
        gradient=True,
        big=big,
        kernel=kernel,
        stride=(1,) * rank,
        dilation=(1,) * rank,
        padding=((0, 0),) * rank,
        groups=groups,
        n=n,
        c=c,
        o=o,
        layout=(f"NC{space}", f"OI{space}", f"NC{space}"),
        dtype=dtype,
    )


# Data, by what is hard about it: {"x", "y", "kernel"} -> arrays of float64 or complex128.


def normal(p: Problem, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Of mean 0 and variance 1."""
    return _each(p, lambda shape: rng.standard_normal(shape))


def positive(p: Problem, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Evenly in [0, 1): nothing cancels, sums grow as their length."""
    return _each(p, lambda shape: rng.random(shape))


def wide(p: Problem, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Magnitudes over 4 decades in float16, 12 elsewhere."""
    decades = 2 if p.dtype == "float16" else 6
    return _each(p, lambda s: 10 ** rng.uniform(-decades, decades, s) * rng.choice((-1, 1), s))


def cancelling(p: Problem, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A large constant under small numbers, against weights whose sum is zero."""
    drawn, base = normal(p, rng), 30 if p.dtype == "float16" else 1000
    side = "x" if rng.random() < 0.5 else "y"
    other = "y" if side == "x" else "x"
    drawn[side] = drawn[side] + base
    drawn[other] = drawn[other] - drawn[other].mean(axis=(1, *range(3, 3 + p.rank)), keepdims=True)
    axes = (2, *range(3, 3 + p.rank)) if side == "x" else (1,)
    drawn["kernel"] = drawn["kernel"] - drawn["kernel"].mean(axis=axes, keepdims=True)
    return drawn


def denormal(p: Problem, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Both sides about the least normal number."""
    drawn, tiny = normal(p, rng), float(jnp.finfo(jnp.dtype(p.dtype)).tiny)
    return drawn | {side: drawn[side] * tiny for side in ("x", "y")}


DATA = (normal, positive, wide, cancelling, denormal)


def _each(p: Problem, draw: Callable) -> dict[str, np.ndarray]:
    shapes = {role: p.draw(role).shape for role in PARTS}
    if p.dtype.startswith("complex"):
        return {role: draw(shape) + 1j * draw(shape) for role, shape in shapes.items()}
    return {role: draw(shape) for role, shape in shapes.items()}


def chosen(p: Problem) -> str:
    """The lowering that is chosen on this machine."""
    sizes, platform = (p.groups, p.c, p.o), jax.default_backend()
    return choose(problem_of(p.window, *sizes, p.layout, p.dtype, platform))


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(map(int, values))
