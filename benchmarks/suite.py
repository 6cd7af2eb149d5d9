"""A run of the benchmark: every case through every peer that is there."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import machine, report, timing
from benchmarks.cases import CASES, QUICK, Case, for_accelerator
from benchmarks.peers import OURS
from benchmarks.report import Row, Run


def chosen(
    patterns: Iterable[str], layout: str | None, dtype: str | None, quick: bool
) -> list[Case]:
    """The cases whose names match any of the patterns, as far as layout and dtype allow."""
    from fnmatch import fnmatchcase

    patterns = list(patterns) or list(QUICK if quick else ["*"])
    layout = layout or ("NCHW" if quick else None)
    cases = CASES if jax.default_backend() == "cpu" else for_accelerator(CASES)
    return [
        case
        for case in cases
        if any(fnmatchcase(name, p) for p in patterns for name in (case.name, str(case)))
        and layout in (None, case.layout)
        and dtype in (None, case.dtype)
    ]


def measure(
    cases: Iterable[Case],
    peers: dict[str, Any],
    missing: dict[str, str],
    rounds: int,
) -> Run:
    """Compare and time every case, and print each as it is done.

    Raises:
      timing.WrongResultError: where results differ or are zero.
    """
    made_of = about(peers)  # now, while the files are those that run
    columns = [name for name in peers if name != OURS]
    limits, done = machine.measure(), []
    print(report.header(columns))
    for case in report.progress(cases, "case"):
        row = _row(case, peers, rounds)
        report.show(report.line(_judged(row, case, limits), columns))
        done.append((row, case))
    limits = limits.better(machine.measure())
    rates = {f"peak of {dtype} dot, GFLOP/s": rate / 1e9 for dtype, rate in limits.peak.items()}
    rates |= {
        "copy in cache, GB/s": limits.cache / 1e9,
        "copy in memory, GB/s": limits.memory / 1e9,
    }
    rows = [_judged(row, case, limits) for row, case in done]
    return Run(made_of, rates, missing, rows)


def _row(case: Case, peers: dict[str, Any], rounds: int) -> Row:
    arrays = case.work.arrays(np.random.default_rng(0))
    absent = {name: reason for name, peer in peers.items() if (reason := peer.refuses(case))}
    programs = {
        name: peer.program(case, arrays) for name, peer in peers.items() if name not in absent
    }
    seconds = timing.time_in_turn(case, programs, rounds)
    return Row(
        case.name,
        case.family,
        case.layout,
        case.dtype,
        case.flops,
        "",
        0.0,
        seconds,
        {n: p.compile_seconds for n, p in programs.items() if p.compile_seconds is not None},
        {n: p.temporary_bytes for n, p in programs.items() if p.temporary_bytes is not None},
        absent,
    )


def _judged(row: Row, case: Case, limits: machine.Machine) -> Row:
    work = (case.flops, case.bytes, case.dtype)
    return dataclasses.replace(row, bound=limits.bound(*work), floor=limits.floor(*work))


def about(peers: dict[str, Any]) -> dict[str, str]:
    """The machine, the versions of packages and the commit."""
    packages = dict.fromkeys(["jax", "jaxlib", "numpy", *(p.package for p in peers.values())])
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    return {
        "machine": _machine(),
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "versions": ", ".join(versions),
        "commit": commit(Path(__file__).parent),
    }


def _machine() -> str:
    if jax.default_backend() == "cpu":
        return f"{_processor()}, {os.cpu_count()} cores"
    # By default XLA multiplies float32 as TensorFloat-32 there, and so do both sides of every ratio.
    return f"{jax.devices()[0].device_kind}, float32 in JAX's default precision"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit(folder: Path) -> str:
    """The commit that is checked out in a folder."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown, no git"
    return found.stdout.strip() or "unknown, no repository"
