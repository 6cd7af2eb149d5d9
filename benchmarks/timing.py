"""Results are compared first; then all programs are timed in turn, A B A B, and medians told."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from benchmarks.cases import Case
from benchmarks.peers import Program

TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
TENSOR_FLOAT_TOLERANCE = (
    1e-2  # float32 as accelerators multiply it, with 10 bits of fraction or fewer
)
NETWORK_TOLERANCE = 5e-3  # where rounding turns a relu, gradients jump
TURN_SECONDS = 0.05
PAUSE_SECONDS = 0.02
MOST_CALLS = 10


class WrongResultError(Exception):
    """Two peers disagree, or there is nothing in the results: no time would mean anything."""


def compare(case: Case, results: dict[str, list[np.ndarray]]) -> None:
    """Refuse results that are zero, not finite, or unlike those of jax.lax.

    Raises:
      WrongResultError: names the case, the peer and the largest difference.
    """
    truth = results["jax.lax"]
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
            if not np.isfinite(ours).all() or not ours.any():
                raise WrongResultError(f"{what} is zero, or not finite")
            off = np.abs(ours - theirs).max() / np.abs(theirs).max()
            if not off <= tolerance:
                raise WrongResultError(
                    f"{what} is {off:.1e} of its largest value away from jax.lax's"
                )


def time_in_turn(case: Case, programs: dict[str, Program], rounds: int = 9) -> dict[str, float]:
    """Median seconds of each program, after their results were compared.

    A turn is as many calls as fit 50 ms, so that short work does not only see another's cold caches, after a
    pause, since the threads of a peer go on spinning for a while (torch's would cost the next one 5 ms of a
    core). Work of seconds gets fewer rounds.
    """
    results, once = {}, {}
    for name, program in programs.items():
        once[name], out = _timed(program)
        results[name] = program.fetch(out)
    compare(case, results)
    slowest = max(once.values())
    rounds = min(rounds, 9 if slowest < 0.25 else 5 if slowest < 1 else 3 if slowest < 4 else 1)
    calls = {name: int(np.clip(TURN_SECONDS / s, 1, MOST_CALLS)) for name, s in once.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            time.sleep(PAUSE_SECONDS)
            seconds[name] += [_timed(program)[0] for _ in range(calls[name])]
    return {name: float(np.median(times)) for name, times in seconds.items()}


def _timed(program: Program) -> tuple[float, Any]:
    start = time.perf_counter()
    out = program.run()
    return time.perf_counter() - start, out
