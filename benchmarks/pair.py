"""Forward and both gradients, through jdeconv and through jax.lax with JAX's own autodiff.

    python benchmarks/pair.py [CASE ...] [--layout nchw|nhwc] [--lowering NAME] [--rounds N]

Each case is one jitted function of (input, kernel, cotangent). Results are compared first; then both are
timed in turn, A B A B, and medians are printed with their ratio. Compile time is not included.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jdeconv
from jdeconv.window import Window


@dataclass(frozen=True)
class Case:
    kind: str  # "conv" or "deconv"
    batch: int
    channels: tuple[int, int]  # into and out of the layer
    size: tuple[int, ...]  # of its input
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    @property
    def window(self) -> Window:
        rank = len(self.size)
        make = Window.of_conv if self.kind == "conv" else Window.of_deconv
        steps = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return make(self.size, (self.kernel,) * rank, **steps)

    def shapes(self, last: bool) -> tuple[tuple[int, ...], ...]:
        """Of input, kernel (O, I in the sense of the conv) and output."""
        into, out = self.channels
        window, conv = self.window, self.kind == "conv"
        sizes = (window.big, window.small) if conv else (window.small, window.big)
        outer, inner = (out, into // self.groups) if conv else (into, out // self.groups)
        kernel = (*window.kernel, inner, outer) if last else (outer, inner, *window.kernel)
        sides = [
            (self.batch, *size, channels) if last else (self.batch, channels, *size)
            for channels, size in zip(self.channels, sizes, strict=True)
        ]
        return sides[0], kernel, sides[1]


CASES = {
    "dense 3x3 56": Case("conv", 8, (64, 64), (56, 56), 3, padding=1),
    "dense 3x3 28": Case("conv", 8, (128, 128), (28, 28), 3, padding=1),
    "dense 3x3 14": Case("conv", 8, (256, 256), (14, 14), 3, padding=1),
    "dense 3x3 24, 32 channels": Case("conv", 16, (32, 32), (24, 24), 3, padding=1),
    "1x1": Case("conv", 8, (256, 64), (28, 28), 1),
    "3x3 s2": Case("conv", 8, (64, 128), (56, 56), 3, stride=2, padding=1),
    "stem 7x7 s2": Case("conv", 4, (3, 64), (224, 224), 7, stride=2, padding=3),
    "depthwise 3x3": Case("conv", 8, (128, 128), (56, 56), 3, padding=1, groups=128),
    "grouped(4) 3x3": Case("conv", 8, (128, 128), (28, 28), 3, padding=1, groups=4),
    "deconv k4 s2 p1": Case("deconv", 8, (128, 64), (28, 28), 4, stride=2, padding=1),
    "deconv k2 s2": Case("deconv", 8, (128, 64), (28, 28), 2, stride=2),
    "deconv 1-D k16 s8 p4": Case("deconv", 4, (128, 64), (512,), 16, stride=8, padding=4),
    "deconv 3-D k4 s2 p1": Case("deconv", 2, (32, 16), (12, 12, 12), 4, stride=2, padding=1),
}


def layout(rank: int, last: bool) -> tuple[str, str, str]:
    axes = "DHW"[3 - rank :]
    return (
        (f"N{axes}C", f"{axes}IO", f"N{axes}C") if last else (f"NC{axes}", f"OI{axes}", f"NC{axes}")
    )


def through_jdeconv(case: Case, last: bool, lowering: str | None):
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation}
    numbers = layout(len(case.size), last)
    function = getattr(jdeconv, case.kind)

    def forward(a, kernel):
        return function(
            a, kernel, groups=case.groups, dimension_numbers=numbers, lowering=lowering, **options
        )

    return forward


def through_lax(case: Case, last: bool):
    """Lax's conv; for a deconv lax.conv_transpose, which has no groups."""
    window, numbers = case.window, layout(len(case.size), last)

    def conv(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            window.stride,
            window.padding,
            rhs_dilation=window.dilation,
            dimension_numbers=numbers,
            feature_group_count=case.groups,
        )

    def deconv(y, kernel):
        axes = zip(window.span, window.low, window.high, strict=True)
        padding = [(span - 1 - low, span - 1 - high) for span, low, high in axes]
        return lax.conv_transpose(
            y, kernel, window.stride, padding, window.dilation, numbers, transpose_kernel=True
        )

    return conv if case.kind == "conv" else deconv


def step(forward):
    """Forward and both gradients under one jit."""

    def run(a, kernel, cotangent):
        result, vjp = jax.vjp(forward, a, kernel)
        return result, *vjp(cotangent)

    return jax.jit(run)


def compare(steps, arrays, rounds: int) -> list[float]:
    """Median milliseconds of each step, after their results were found equal."""
    compiled = [s.lower(*arrays).compile() for s in steps]
    results = [jax.block_until_ready(c(*arrays)) for c in compiled]
    for a, b in zip(*results, strict=True):
        scale = float(jnp.abs(b).max())
        if not scale > 0 or not float(jnp.abs(a - b).max()) <= 1e-4 * scale:
            raise SystemExit("results differ, or are zero: nothing to time")
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for c, t in zip(compiled, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(c(*arrays))
            t.append(1e3 * (time.perf_counter() - start))
    return [float(np.median(t)) for t in times]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(CASES)}")
    parser.add_argument("--layout", choices=("nchw", "nhwc"), default="nchw")
    parser.add_argument("--lowering", help="for jdeconv; by platform unless given")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.device_kind}, {options.layout}, ms, medians\n")
    print(f"{'case':<28}{'jdeconv':>9}{'jax.lax':>9}{'ratio':>8}")
    last, ratios = options.layout == "nhwc", []
    for name in options.cases or CASES:
        case, rng = CASES[name], np.random.default_rng(0)
        arrays = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in case.shapes(last)]
        forwards = through_jdeconv(case, last, options.lowering), through_lax(case, last)
        ours, lax_ms = compare([step(f) for f in forwards], arrays, options.rounds)
        ratios.append(lax_ms / ours)
        print(f"{name:<28}{ours:>9.2f}{lax_ms:>9.2f}{ratios[-1]:>8.2f}", flush=True)
    print(f"{'geometric mean':<46}{np.exp(np.mean(np.log(ratios))):>8.2f}")


if __name__ == "__main__":
    main()
