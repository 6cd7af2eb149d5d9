"""python -m jdeconv check: compares the library with other implementations on the user's device."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax import lax

from jdeconv import testing
from jdeconv.api import conv, deconv, kernel_grad
from jdeconv.form import Form, Layout
from jdeconv.lowerings import LOWERINGS
from jdeconv.problem import Problem
from jdeconv.window import Window


@dataclass(frozen=True)
class Geometry:
    """One row of the table: a conv of x (2, groups*c, *big), and the deconv back to the same size."""

    big: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | str | tuple = 0
    dilation: int | tuple[int, ...] = 1
    groups: int = 1
    c: int = 3
    o: int = 2

    def __str__(self) -> str:
        text = f"{_sizes(self.big)} k{_sizes(self.kernel)} s{_sizes(self.stride)} p{_pads(self.padding)}"
        text += f" d{_sizes(self.dilation)}" if self.dilation != 1 else ""
        return text + (f" g{self.groups}" if self.groups > 1 else "")


GEOMETRIES = (
    Geometry((9,), (3,)),
    Geometry((9,), (4,), stride=2, padding=1),
    Geometry((10,), (3,), stride=3, padding=((2, 0),)),
    Geometry((12,), (5,), padding="SAME", dilation=2, groups=2),
    Geometry((11,), (2,), stride=4, padding=((-1, 3),), dilation=3),
    Geometry((13,), (7,), stride=2, padding=3, groups=6, c=1, o=1),
    Geometry((24,), (16,), stride=8, padding=4),
    Geometry((7, 5), (1, 1), c=5, o=4),
    Geometry((7, 5), (3, 3)),
    Geometry((7, 5), (3, 3), padding=1),
    Geometry((8, 6), (3, 3), padding="SAME", stride=2),
    Geometry((8, 6), (3, 2), padding="SAME_LOWER", stride=2),
    Geometry((8, 6), (4, 4), stride=2, padding=1),
    Geometry((9, 7), (4, 4), stride=2, padding=1),
    Geometry((9, 6), (3, 3), stride=2, padding=1),
    Geometry((10, 9), (3, 3), stride=2, padding=1),
    Geometry((8, 6), (2, 2), stride=2),
    Geometry((9, 8), (5, 5), stride=3, padding=2),
    Geometry((9, 8), (5, 2), stride=(3, 1), padding=((2, 1), (0, 1))),
    Geometry((9, 8), (3, 3), padding=2, dilation=2),
    Geometry((9, 8), (3, 3), padding=((4, 3), (1, 2)), dilation=(4, 2)),
    Geometry((9, 8), (3, 2), stride=2, padding=1, dilation=3),
    Geometry((9, 8), (3, 3), padding=((-1, 2), (0, -2))),
    Geometry((8, 7), (3, 3), padding=1, groups=2),
    Geometry((8, 7), (3, 3), stride=2, padding=1, groups=4, c=2, o=3),
    Geometry((8, 7), (3, 3), padding=1, groups=5, c=1, o=1),
    Geometry((8, 7), (5, 5), stride=2, padding=2, groups=4, c=1, o=2),
    Geometry((9, 9), (7, 7), stride=2, padding=3),
    Geometry((8, 8), (4, 4), stride=4),
    Geometry((12, 8), (8, 8), stride=4, padding=2, groups=2, c=1, o=1),
    Geometry((5, 4, 3), (3, 3, 3), padding=1),
    Geometry((6, 5, 4), (3, 3, 3), stride=2, padding=1),
    Geometry((6, 4, 4), (2, 2, 2), stride=2),
    Geometry((5, 4, 6), (3, 2, 1), stride=(2, 1, 3), padding=((1, 0), (0, 1), (-1, 0)), groups=2),
    Geometry((5, 6, 4), (2, 3, 2), dilation=(2, 1, 3), padding=1),
    Geometry((3, 4, 3, 2), (2, 2, 2, 2), stride=(2, 1, 1, 2), padding=((0, 1),) * 4),
    Geometry((4, 3, 2, 3), (3, 1, 2, 2), padding=(1, 0, 1, 1), groups=2),
)

COLUMNS = ("loops", "lax.conv", "conv_transpose", "jax.grad", "<Ax,y>=<x,A'y>")

LEGEND = """\
A row shows the spatial size of x, then kernel (k), stride (s), padding (p; low:high if they differ),
dilation (d) and groups (g). Without d the dilation is 1, and without g there is one group.
A column shows what the results are compared with. The last one is the inner-product identity.
A dash means that there is nothing to compare with: lax.conv_transpose has no groups, XLA ends the process
for lax's gradients with four spatial axes on GPUs, or the lowering that was named refuses these sizes."""


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Describe the command."""
    parser = commands.add_parser(
        "check",
        help="compare the library with other implementations on this device",
        description="Compare conv, deconv and kernel_grad with plain numpy loops, jax.lax's convolution, "
        "lax.conv_transpose, jax.grad of lax's convolution, and the inner-product identity. The arrays are "
        "small random integers, so all results must be equal to the last bit. The exit code is 1 if any of "
        "them differ. This takes about half a minute.",
    )
    parser.add_argument(
        "--lowering",
        choices=tuple(LOWERINGS),
        help="how to evaluate convolutions (default: the library chooses)",
    )
    parser.add_argument(
        "--seed", type=_number, default=0, help="the seed of the random integers (default: 0)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Print a row for each geometry; returns 1 if any comparison failed."""
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.platform} ({device.device_kind})\n")
    width = max(len(str(geometry)) for geometry in GEOMETRIES)
    print(f"{'geometry':<{width}}  {'  '.join(COLUMNS)}")
    failures = 0
    compared = partial(compare, lowering=options.lowering, seed=options.seed)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA takes nearly all of the time
        for geometry, verdicts in zip(GEOMETRIES, pool.map(compared, GEOMETRIES), strict=True):
            failures += verdicts.count("FAIL")
            cells = (f"{v:<{len(column)}}" for v, column in zip(verdicts, COLUMNS, strict=True))
            print(f"{geometry!s:<{width}}  {'  '.join(cells)}".rstrip(), flush=True)
    print(f"\n{LEGEND}")
    print(f"{len(GEOMETRIES)} geometries, {failures} failures")
    return min(failures, 1)


def compare(g: Geometry, lowering: str | None, seed: int) -> list[str]:
    """Returns a verdict for each of COLUMNS: "ok", "FAIL", or "-" if nothing can be compared."""
    steps = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation}
    window = Window.of_conv(g.big, g.kernel, **steps)
    rng = np.random.default_rng(seed)
    x, y, kernel = (
        rng.integers(-4, 5, shape).astype(np.float32)
        for shape in (
            (2, g.groups * g.c, *g.big),
            (2, g.groups * g.o, *window.small),
            (g.groups * g.o, g.c, *g.kernel),
        )
    )
    form = Form(window, g.groups, Layout.of("conv", None, window.rank))
    p = Problem.of("conv", form, x, kernel, x.dtype)
    if lowering is not None and LOWERINGS[lowering].refuses(p):
        return ["-"] * len(COLUMNS)
    ours = {"groups": g.groups, "lowering": lowering, **steps}
    # Timing the vendor's algorithms takes a GPU minutes, and all of them are exact on these numbers.
    quick = {"xla_gpu_autotune_level": 0} if jax.default_backend() == "gpu" else None
    compiled = partial(jax.jit, compiler_options=quick)

    @compiled
    def library(x, y, kernel):
        """Each forward, then both gradients of conv and of deconv."""
        conv_y, conv_vjp = jax.vjp(lambda x, k: conv(x, k, **ours), x, kernel)
        back = {"output_size": g.big, **ours}
        deconv_x, deconv_vjp = jax.vjp(lambda y, k: deconv(y, k, **back), y, kernel)
        forward = conv_y, deconv_x, kernel_grad(x, y, g.kernel, **ours)
        return forward, (*conv_vjp(y), *deconv_vjp(x))

    @compiled
    def oracle(x, y, kernel):
        """The same by jax.lax and JAX's own differentiation, without the kernel gradient."""

        def forward(x, kernel):
            return _lax_conv(x, kernel, window, g.groups)

        def transpose(y, kernel):
            return jax.linear_transpose(lambda x: forward(x, kernel), x)(y)[0]

        conv_y, conv_vjp = jax.vjp(forward, x, kernel)
        gradients = *conv_vjp(y), *jax.vjp(transpose, y, kernel)[1](x)
        # lax.conv_transpose has no groups.
        deconv_x = [_lax_conv_transpose(y, kernel, window)] if g.groups == 1 else []
        return [conv_y], deconv_x, gradients

    forward, gradients = jax.tree.map(np.asarray, library(x, y, kernel))
    sums = {np.sum(a * b, dtype=float) for a, b in zip(forward, (y, x, kernel), strict=True)}
    verdicts = [_verdict(forward, _loops(x, y, kernel, window, g.groups)), *["-"] * 3]
    if window.rank <= 3 or jax.default_backend() != "gpu":
        theirs = oracle(x, y, kernel)
        verdicts[1:] = map(_verdict, (forward[:1], forward[1:2], gradients), theirs)
    return [*verdicts, "ok" if len(sums) == 1 else "FAIL"]


def _verdict(ours: Sequence[np.ndarray], theirs: Sequence) -> str:
    if not theirs:
        return "-"
    return "ok" if all(map(np.array_equal, ours, theirs)) else "FAIL"


def _loops(x, y, kernel, window: Window, groups: int) -> list[np.ndarray]:
    w = {"stride": window.stride, "dilation": window.dilation, "low": window.low, "groups": groups}
    return [
        testing.conv_loops(x, kernel, window.small, **w),
        testing.deconv_loops(y, kernel, window.big, **w),
        testing.kernel_grad_loops(x, y, window.kernel, **w),
    ]


def _lax_conv(x, kernel, window: Window, groups: int) -> jax.Array:
    # The padding comes first: XLA's CPU convolution reads outside of its input where it is negative.
    pads = [(0, 0, 0)] * 2 + [(low, high, 0) for low, high in window.padding]
    x = lax.pad(x, np.float32(0), pads)
    steps = window.stride, "VALID", None, window.dilation
    return lax.conv_general_dilated(x, kernel, *steps, feature_group_count=groups)


def _lax_conv_transpose(y, kernel, window: Window) -> jax.Array:
    # Its explicit padding is that of the equivalent stride-1 conv over the dilated input.
    ends = zip(window.span, window.low, window.high, strict=True)
    padding = [(span - 1 - low, span - 1 - high) for span, low, high in ends]
    axes = "WHDT"[: window.rank]
    layout = f"NC{axes}", f"OI{axes}", f"NC{axes}"
    return lax.conv_transpose(
        y, kernel, window.stride, padding, window.dilation, layout, transpose_kernel=True
    )


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return int(text)


def _sizes(sizes: int | tuple[int, ...]) -> str:
    return str(sizes) if isinstance(sizes, int) else "x".join(map(str, sizes))


def _pads(padding: int | str | tuple) -> str:
    if not isinstance(padding, tuple):
        return str(padding)
    return ",".join(str(p) if isinstance(p, int) else f"{p[0]}:{p[1]}" for p in padding)
