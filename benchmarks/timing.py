"""Results are compared first; then all programs are timed in turn, A B A B, and medians told."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.peers import LAX, Program

TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
TENSOR_FLOAT_TOLERANCE = (
    1e-2  # float32 as accelerators multiply it, with 10 bits of fraction or fewer
)
NETWORK_TOLERANCE = 5e-3  # where rounding turns a relu, gradients jump
GRADIENT_TOLERANCE = 0.1  # of a gradient's norm; a wrong one is off by as much as itself
LEAST_NORM = (
    1e-4  # of the largest gradient's norm: a bias before a batch norm has only rounding in it
)
TURN_SECONDS = 0.05
PAUSE_SECONDS = 0.02
MAX_CALLS = 10


class WrongResultError(Exception):
    """Two peers disagree, or there is nothing in the results: no time would mean anything."""


@jax.jit
def _largest(a: jax.Array) -> jax.Array:
    return jnp.abs(a.astype(jnp.promote_types(a.dtype, "float64"))).max()


@jax.jit
def _difference(a: jax.Array, b: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, "float64")
    return _largest(a.astype(wide) - b.astype(wide))


def largest(a: Any) -> float:
    """The largest magnitude, which is NaN where the array holds a NaN."""
    with jax.enable_x64(True):
        return float(_largest(a))


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two arrays, as a part of the largest number; NaN where that is zero."""
    with jax.enable_x64(True):
        off = float(_difference(ours, theirs))
    return off / size if (size := largest(theirs)) else math.nan


def compare(case: Case, results: dict[str, list[Any]]) -> None:
    """Refuse results that are zero, not finite, or unlike those of jax.lax.

    Raises:
      WrongResultError: names the case, the peer and the largest difference.
    """
    truth = results[LAX]
    tolerance = NETWORK_TOLERANCE if case.family == "step" else TOLERANCE[case.dtype]
    if case.dtype == "float32" and jax.default_backend() != "cpu":
        tolerance = max(tolerance, TENSOR_FLOAT_TOLERANCE)
    for name, arrays in results.items():
        if len(arrays) != len(truth):
            raise WrongResultError(f"{case}: {name} gave {len(arrays)} results, not {len(truth)}")
        for i, (ours, theirs) in enumerate(zip(arrays, truth, strict=True)):
            what = f"{case}: result {i} of {name}"
            if ours.shape != theirs.shape:
                raise WrongResultError(f"{what} has shape {ours.shape}, jax.lax's {theirs.shape}")
            if not 0 < largest(ours) < np.inf:
                raise WrongResultError(f"{what} is zero, or not finite")
            off = difference(ours, theirs)
            if not off <= tolerance:
                raise WrongResultError(
                    f"{what} is {off:.1e} of its largest value away from jax.lax's"
                )


def compare_networks(case: Case, results: dict[str, list[Any]]) -> str:
    """Refuse losses unlike those of jax.lax, and in float32 and wider gradients too; tell what was compared.

    A gradient is compared in its Euclidean norm, since a relu that rounding turns moves single numbers of it by
    more than their rounding. In half precision it moves too many of them.

    Raises:
      WrongResultError: names the case, the peer and the difference.
    """
    compare(dataclasses.replace(case, family="loss"), {n: r[:1] for n, r in results.items()})
    if case.dtype in ("bfloat16", "float16"):
        return "loss"
    results = {n: [np.asarray(a, np.float64) for a in arrays] for n, arrays in results.items()}
    truth = results[LAX][1:]
    least = LEAST_NORM * max(map(np.linalg.norm, truth))
    for name, (_, *gradients) in results.items():
        for i, (ours, theirs) in enumerate(zip(gradients, truth, strict=True)):
            off = np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), least)
            if not off <= GRADIENT_TOLERANCE:
                what = f"{case}: gradient {i} of {name}"
                raise WrongResultError(f"{what} is {off:.1e} of its norm away from jax.lax's")
    return "loss and gradients"


def time_in_turn(case: Case, programs: dict[str, Program], rounds: int = 9) -> dict[str, float]:
    """Median seconds of each program, after their results were compared.

    A turn is as many calls as fit 50 ms, so that short work does not only see another's cold caches, after a
    pause, since the threads of a peer go on spinning for a while (torch's would cost the next one 5 ms of a
    core). Work of seconds gets fewer rounds.
    """
    results, once = {}, {}
    for name, program in programs.items():
        once[name], out = program.timed()
        results[name] = program.fetch(out)
    compare(case, results)
    slowest = max(once.values())
    rounds = min(rounds, 9 if slowest < 0.25 else 5 if slowest < 1 else 3 if slowest < 4 else 1)
    return {
        name: float(np.median(times)) for name, times in take_turns(programs, once, rounds).items()
    }


def take_turns(
    programs: Mapping[Any, Program], once: Mapping[Any, float], rounds: int
) -> dict[Any, np.ndarray]:
    """Seconds of each program, of shape (rounds, calls of a turn); `once` is about what a call takes."""
    calls = {name: int(np.clip(TURN_SECONDS / s, 1, MAX_CALLS)) for name, s in once.items()}
    turns: dict[Any, list[list[float]]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            time.sleep(PAUSE_SECONDS)
            turns[name].append([program.timed()[0] for _ in range(calls[name])])
    return {name: np.array(times) for name, times in turns.items()}
