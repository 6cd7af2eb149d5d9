"""Times cases on this machine's GPU, the most telling first, and stops after so many minutes.

First come the comparisons of `python -m jdeconv check`, and how far results of half precision are from those of
float32. A case is forward and both gradients. Results are compared before they are timed, programs take
turns, medians are told, and everything is written after every case.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tqdm

from benchmarks import networks, peers, timing
from benchmarks.cases import ACCELERATOR_BATCH, CASES, Case

OURS, LAX, TAPS = "jdeconv", "jax.lax", "jdeconv's taps"
ORDER = (  # name, dtype
    ("deconv 3-D k3 s2 p1 op1", "bfloat16"),
    ("deconv 1-D k16 s8 p4", "bfloat16"),
    ("deconv k4 s2 p1", "bfloat16"),
    ("deconv k2 s2", "bfloat16"),
    ("step DCGAN", "bfloat16"),
    ("dense 3x3 56", "bfloat16"),
    ("dense 3x3 14", "bfloat16"),
    ("dense 3x3 s2", "bfloat16"),
    ("dense 3x3 d2", "bfloat16"),
    ("grouped(4) 3x3", "bfloat16"),
    ("grouped(32) 3x3", "bfloat16"),
    ("depthwise 3x3", "bfloat16"),
    ("depthwise 7x7", "bfloat16"),
    ("depthwise 1-D k31", "bfloat16"),
    ("dense 1-D k9", "bfloat16"),
    ("deconv k4 s2 p1", "float32"),
    ("deconv k4 s2 p1", "float16"),
    ("step U-Net", "bfloat16"),
    ("step ResNet-50", "bfloat16"),
)


def chosen() -> list[Case]:
    """The cases in order, with channels last."""
    cases = {case.name: case.larger(ACCELERATOR_BATCH) for case in CASES if case.layout == "NHWC"}
    cases |= {
        f"step {name}": Case(f"step {name}", "step", work, layout="NHWC")
        for name, work in networks.steps().items()
    }
    return [dataclasses.replace(cases[name], dtype=dtype) for name, dtype in ORDER]


def measure(
    cases: Iterable[Case], minutes: float, told: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Time cases until the minutes are over; a case that has begun is finished."""
    end, found = time.monotonic() + 60 * minutes, []
    for case in cases:
        if time.monotonic() > end:
            break
        found.append(_row(case))
        told(found[-1])
    return found


def _row(case: Case) -> dict[str, Any]:
    known = peers.peers()
    if case.family == "depthwise":
        known[TAPS] = peers.JaxPeer(functools.partial(peers.Jdeconv, lowering="taps"))
    arrays = case.work.arrays(np.random.default_rng(0))
    programs = {
        name: peer.program(case, arrays)
        for name, peer in known.items()
        if not peers.missing(peer) and peer.refuses(case) is None
    }
    row = {"name": case.name, "dtype": case.dtype, "layout": case.layout}
    return row | {"seconds": timing.time_in_turn(case, programs)}


def errors() -> dict[str, float]:
    """The largest errors of half precision beside float32, in epsilons of the largest value."""
    (case,) = (c for c in CASES if str(c) == "deconv k4 s2 p1, NHWC")
    arrays, found = case.work.arrays(np.random.default_rng(0)), {}
    for dtype in ("bfloat16", "float16"):
        narrow = [
            dataclasses.replace(a, value=a.value.astype(dtype).astype("float64")) for a in arrays
        ]
        results = []
        for kind in (dtype, "float32"):
            with jax.default_matmul_precision("highest"):
                program = peers.peers()[OURS].program(dataclasses.replace(case, dtype=kind), narrow)
            results.append(program.fetch(program.run()))
        for name, got, exact in zip(("y", "x", "kernel"), *results, strict=True):
            unit = float(jax.numpy.finfo(dtype).eps) * np.abs(exact).max()
            found[f"{dtype}, {name}"] = float(np.abs(got - exact).max() / unit)
    return found


def line(row: dict[str, Any], estimates: list[dict[str, Any]]) -> str:
    """Milliseconds, and how many times longer each other takes; in brackets, the estimate for jax.lax."""
    seconds = row["seconds"]
    cells = [
        f"{name} {other / seconds[OURS]:.2f}" for name, other in seconds.items() if name != OURS
    ]
    expected = _estimate(row, estimates)
    cells.insert(1, "(estimate: none)" if expected is None else f"(estimate: {expected:.2f})")
    return f"{row['name']:<28}{row['dtype']:>9}{1e3 * seconds[OURS]:>9.3f} ms  " + "  ".join(cells)


def _estimate(row: dict[str, Any], estimates: list[dict[str, Any]]) -> float | None:
    """Of all parts of a case together, beside jax.lax with transpose_kernel=True, which is what is timed."""
    same = [e for e in estimates if all(e[key] == row[key] for key in ("name", "dtype", "layout"))]
    totals = [sum(e["programs"][name]["seconds"] for e in same) for name in (LAX, OURS)]
    return totals[0] / totals[1] if same else None


def run(minutes: float, estimates: Path, written: Path) -> int:
    """Check, time and write; 2 without a GPU, 1 where the device computes something else."""
    if jax.default_backend() != "gpu":
        print("no NVIDIA GPU that JAX can use; without --minutes none is needed", file=sys.stderr)
        return 2
    share = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    check = [sys.executable, "-m", "jdeconv", "check"]
    if subprocess.run(check, env=share, check=False).returncode:
        return 1
    known = json.loads(estimates.read_text())["rows"] if estimates.is_file() else []
    about = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "errors": errors()}
    print(json.dumps(about))
    rows: list[dict[str, Any]] = []
    cases = chosen()
    with tqdm.tqdm(total=len(cases), unit="case", leave=False, disable=None) as bar:

        def told(row: dict[str, Any]) -> None:
            rows.append(row)
            written.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
            bar.write(line(row, known), file=sys.stdout)
            bar.update()

        measure(cases, minutes, told)
    return 0
