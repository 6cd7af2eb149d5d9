"""Times tasks on this machine's GPU, beginning with the most telling, until the given minutes are over.

First come the comparisons of `python -m jdeconv check`, and how far results of half precision are from those
of float32. Then, for every task: the results of all are compared on the GPU, the programs take turns, and
medians are told. A turn is many calls in a row with one wait behind them, as in training. The batch is four
times that of the estimates, so that the GPU's work outlasts the host's. Everything is written after every task.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import architectures, operations, peers, report, suite
from benchmarks.cases import ACCELERATOR_BATCH, CASES, Case, Layer
from benchmarks.peers import DEFAULT, LAX, OURS, JaxPeer, Program
from benchmarks.tasks import matches
from benchmarks.timing import TENSOR_FLOAT_TOLERANCE, TOLERANCE, WrongResultError, difference

BATCH = 4 * ACCELERATOR_BATCH
ROUNDS, TURN_SECONDS, MAX_CALLS = 7, 0.03, 200
BOTH = ("forward", "backward")
EACH = ("forward", "image gradient", "kernel gradient")

NARROW = (("taps", "im2col"), EACH)
DOTS = (("im2col",), BOTH)
NOTHING = ((), BOTH)
ORDER = (  # case, dtype, layout, (lowerings beside the chosen one, parts)
    ("deconv 3-D k3 s2 p1 op1", "bfloat16", "NHWC", NOTHING),
    ("deconv 1-D k16 s8 p4", "bfloat16", "NHWC", NOTHING),
    ("deconv k4 s2 p1", "bfloat16", "NHWC", DOTS),
    ("deconv k4 s2 p1", "bfloat16", "NCHW", NOTHING),
    ("step DCGAN", "bfloat16", "NHWC", NOTHING),
    ("dense 3x3 56", "bfloat16", "NHWC", DOTS),
    ("dense 3x3 14", "bfloat16", "NHWC", DOTS),
    ("dense 3x3 s2", "bfloat16", "NHWC", NOTHING),
    ("dense 3x3 d2", "bfloat16", "NHWC", NOTHING),
    ("grouped(4) 3x3", "bfloat16", "NHWC", (("im2col",), EACH)),
    ("grouped(32) 3x3", "bfloat16", "NHWC", NARROW),
    ("depthwise 3x3", "bfloat16", "NHWC", NARROW),
    ("depthwise 7x7", "bfloat16", "NHWC", NARROW),
    ("depthwise 1-D k31", "bfloat16", "NHWC", NARROW),
    ("deconv depthwise k4 s2 p1", "bfloat16", "NHWC", NARROW),
    ("depthwise 3x3", "float32", "NHWC", NARROW),
    ("depthwise 3x3", "bfloat16", "NCHW", NARROW),
    ("dense 1-D k9", "bfloat16", "NHWC", DOTS),
    ("deconv k2 s2", "bfloat16", "NHWC", DOTS),
    ("dense 1x1", "bfloat16", "NHWC", DOTS),
    ("deconv k4 s2 p1", "float32", "NHWC", NOTHING),
    ("deconv k4 s2 p1", "float16", "NHWC", NOTHING),
    ("dense 4-D k3", "float32", "NHWC", ((), ("forward",))),  # over lax's gradients XLA aborts
    ("dense 3x3 28", "int8", "NHWC", ((), ("forward",))),
    ("dense 3x3 28", "complex64", "NHWC", NOTHING),
    ("depthwise 31x31", "float32", "NHWC", (("fft",), EACH)),
    ("depthwise 5x5 s2", "bfloat16", "NHWC", NARROW),
    ("depthwise 3-D k3", "bfloat16", "NHWC", NARROW),
    ("step MobileNetV2", "bfloat16", "NHWC", NOTHING),
    ("step U-Net", "bfloat16", "NHWC", NOTHING),
    ("step ResNet-50", "bfloat16", "NHWC", NOTHING),
    ("step ConvNeXt", "bfloat16", "NHWC", NOTHING),
)
OTHERS = {
    "dense 4-D k3": Layer("conv", 2, (16, 16), (8,) * 4, 3, padding=1),
    "depthwise 31x31": Layer("conv", 1, (64, 64), (56, 56), 31, padding=15, groups=64),
}


def chosen(patterns: list[str]) -> list[tuple[Case, tuple[str, ...]]]:
    """The cases in order, or those of them that match, with the lowerings beside the chosen one."""
    cases = {(case.name, case.layout): case.larger(BATCH) for case in CASES}
    for name, layer in OTHERS.items():
        cases[name, "NHWC"] = Case(name, "other", layer, layout="NHWC").larger(BATCH)
    for name, work in architectures.steps().items():
        cases[f"step {name}", "NHWC"] = Case(f"step {name}", "step", work, layout="NHWC")
    found = []
    for name, dtype, layout, (lowerings, parts) in ORDER:
        case = dataclasses.replace(cases[name, layout], dtype=dtype)
        for part in ("step",) if case.family == "step" else parts:
            found.append((dataclasses.replace(case, part=part), lowerings))
    return [(case, lowerings) for case, lowerings in found if matches(case, patterns)]


def contenders(case: Case, lowerings: tuple[str, ...]) -> dict[str, Any]:
    """Who does the work, by name; ours first, lax second."""
    work, known = case.work, peers.peers()
    is_step = not isinstance(work, Layer)
    found = {name: known[name] for name in (OURS, LAX)}
    if (is_step and "DCGAN" in case.name) or (not is_step and work.kind == "deconv"):
        found[DEFAULT] = JaxPeer(operations.LaxDefault)
    found |= {f"jdeconv by {name}": peers.peers(name)[OURS] for name in lowerings}
    # torch is timed for channels last too, even where it has no such memory format.
    for name, refuses in (("equinox", known["equinox"].refuses), ("torch", known["torch"].lacks)):
        if not peers.missing(known[name]) and refuses(case) is None:
            found[name] = known[name]
    return found


class _Normal:
    """In the place of numpy's generator: numbers that are made on the device."""

    def __init__(self) -> None:
        self.key = jax.random.key(0)

    def normal(self, size: tuple[int, ...]) -> jax.Array:
        self.key, key = jax.random.split(self.key)
        return jax.random.normal(key, size)


def programs(case: Case, lowerings: tuple[str, ...]) -> tuple[dict[str, Program], dict[str, str]]:
    """Ready programs by name; and of those that are refused, the reasons."""
    arrays, ready, refused = case.arrays(_Normal()), {}, {}
    for name, peer in contenders(case, lowerings).items():
        try:
            ready[name] = peer.program(case, arrays)
        except RuntimeError as error:  # of XLA, and of torch: no such routine, or too little memory
            refused[name] = str(error).splitlines()[0][:200]
    return ready, refused


def compare(case: Case, ready: dict[str, Program]) -> dict[str, float]:
    """The largest difference of each from jax.lax, as a part of the largest value.

    Of a training step, that of the loss: where rounding turns a relu, gradients jump, in half precision by as
    much as themselves.

    Raises:
      WrongResultError: ours differs by more than the dtype's rounding, or holds nothing.
    """
    compared = slice(0, 1) if case.part == "step" else slice(None)
    truth = ready[LAX if LAX in ready else OURS]
    truth = truth.fetch(truth.run())[compared]
    tolerance = max(TOLERANCE.get(case.dtype, 0), TENSOR_FLOAT_TOLERANCE)
    found = {}
    for name, program in ready.items():
        pairs = zip(program.fetch(program.run())[compared], truth, strict=True)
        found[name] = float(np.max([difference(a, b) for a, b in pairs]))
    if not found[OURS] <= tolerance:
        raise WrongResultError(f"{case.title}: ours is {found[OURS]:.1e} away from jax.lax's")
    return found


def time_in_turn(ready: dict[str, Program]) -> dict[str, dict[str, float]]:
    """Median seconds of a call, and the part of them in which the host was busy with sending work."""
    calls = {}
    for name, program in ready.items():
        _turn(program, 1)
        seconds = _turn(program, 3)[0]
        calls[name] = int(np.clip(TURN_SECONDS / seconds, 1, MAX_CALLS))
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in ready}
    for _ in range(ROUNDS):
        for name, program in ready.items():
            turns[name].append(_turn(program, calls[name]))
    medians = {name: np.median(pairs, axis=0).tolist() for name, pairs in turns.items()}
    return {name: {"seconds": s, "host": h / s} for name, (s, h) in medians.items()}


def _turn(program: Program, calls: int) -> tuple[float, float]:
    """Seconds of a call, and of the host's part of it."""
    begun = time.perf_counter()
    for _ in range(calls):
        out = program.start()
    sent = time.perf_counter()
    program.wait(out)
    return (time.perf_counter() - begun) / calls, (sent - begun) / calls


def measure(case: Case, lowerings: tuple[str, ...]) -> dict[str, Any]:
    """Compare and time the programs of one case."""
    row = case.row()
    ready, row["refused"] = programs(case, lowerings)
    if OURS not in ready:
        return row
    try:
        differences = compare(case, ready)
    except WrongResultError as error:
        return row | {"wrong": str(error)}
    for name, times in time_in_turn(ready).items():
        compiling = {"compile_seconds": ready[name].compile_seconds}
        row["programs"][name] = times | compiling | {"difference": differences[name]}
    return row


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
            made = program.fetch(program.run())
            results.append([np.asarray(a, np.float64) for a in made])
        for name, got, exact in zip(("y", "x", "kernel"), *results, strict=True):
            unit = float(jnp.finfo(dtype).eps) * np.abs(exact).max()
            found[f"{dtype}, {name}"] = float(np.abs(got - exact).max() / unit)
    return found


def named(row: dict[str, Any]) -> str:
    """The name of a program."""
    return row["name"] if row["part"] == "step" else f"{row['name']} {row['part']}"


def line(row: dict[str, Any], estimates: list[dict[str, Any]]) -> str:
    """Milliseconds of ours, how many times longer the others take, and in brackets the estimate for jax.lax."""
    text = f"{named(row):<42}{row['dtype']:>10}{row['layout']:>6}"
    if not row["programs"]:
        return f"{text}  {row.get('wrong') or row['refused']}"
    ours = row["programs"][OURS]
    cells = [f"{1e3 * ours['seconds']:>9.3f} ms{'*' if ours['host'] > 0.9 else ' '}"]
    for other, found in row["programs"].items():
        if other == OURS:
            continue
        mark = "*" if found["host"] > 0.9 else ""
        cells.append(f"{other} {found['seconds'] / ours['seconds']:.2f}{mark}")
        if other == LAX and (expected := _estimate(row, estimates)) is not None:
            cells[-1] += f" ({expected:.2f})"
    cells += [f"{other} refused" for other in row["refused"]]
    return text + "  ".join(cells)


LEGEND = """\
Milliseconds of ours, how many times longer the others take, and in brackets the estimate for jax.lax.
* : the host was busy for nine tenths of the time, so that the GPU's own time is shorter."""


def _estimate(row: dict[str, Any], estimates: list[dict[str, Any]]) -> float | None:
    """The ratio to jax.lax with transpose_kernel=True, of a quarter of the batch."""
    keys = ("name", "part", "dtype", "layout")
    for known in estimates:
        if all(known[key] == row[key] for key in keys) and LAX in known["programs"]:
            return known["programs"][LAX]["seconds"] / known["programs"][OURS]["seconds"]
    return None


def save(about: dict, rows: list[dict], estimates: list[dict], numbers: Path) -> None:
    """Write all numbers as JSON, and the table beside them."""
    report.save_rows(numbers, "about", about, rows)
    told = [f"{name}: {value}" for name, value in about.items()]
    lines = [*told, "", LEGEND, "", *(line(row, estimates) for row in rows)]
    numbers.with_suffix(".txt").write_text("\n".join(lines) + "\n")


def run(minutes: float, patterns: list[str], estimates: Path, written: Path) -> int:
    """Check, time and write; 2 without a GPU, 1 where the device computes something else."""
    end = time.monotonic() + 60 * minutes
    if jax.default_backend() != "gpu":
        print("no NVIDIA GPU that JAX can use; without --minutes none is needed", file=sys.stderr)
        return 2
    share = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    check = [sys.executable, "-m", "jdeconv", "check"]
    try:
        code = subprocess.run(check, env=share, check=False, timeout=20 * minutes).returncode
        state = "failed" if code else "passed"
    except subprocess.TimeoutExpired:
        state = "not finished in a third of the time"
    known = json.loads(estimates.read_text())["rows"] if estimates.is_file() else []
    about: dict[str, Any] = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    if importlib.util.find_spec("torch"):
        import torch

        about |= {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    about |= {"check": state, "errors": errors(), "commit": suite.commit(Path(__file__).parent)}
    print(json.dumps(about))
    print(LEGEND)
    rows: list[dict[str, Any]] = []
    for case, lowerings in report.progress(chosen(patterns), "program"):
        if time.monotonic() > end:  # a case that has begun is finished
            break
        rows.append(measure(case, lowerings))
        save(about, rows, known, written)
        report.show(line(rows[-1], known))
    return int(state != "passed" or any("wrong" in row for row in rows))
