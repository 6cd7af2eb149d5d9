"""Compile layers and training steps for an H100, and compare what the GPU would run with jax.lax.

The command needs no GPU and times nothing, unless you pass --minutes. It compiles the programs of jdeconv and
of jax.lax for an H100 and estimates from their text how long they take. The column "ratio" is jax.lax's
estimate divided by jdeconv's. Above 1, jdeconv is expected to be faster.

A deconv is compared with `lax.conv_transpose`, with the faster of transpose_kernel=True and False. The column
"/default" compares it with False alone, which is the default of jax.lax and Flax.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import jax

from benchmarks import gpu_times, h100, operations, peers, report
from benchmarks.cases import Case, Layer
from benchmarks.peers import DEFAULT, LAX, OURS
from benchmarks.tasks import DTYPES, tasks

ESTIMATES, TIMES = (Path(__file__).parent / "results" / f"{n}.json" for n in ("gpu", "gpu-times"))
LEAST, LEAST_OF_STEPS = 0.97, 1.0
PACKAGES = ("jax", "jaxlib", "jax-cuda12-plugin", "nvidia-cuda-nvcc-cu12")


OPERATIONS = {OURS: operations.Jdeconv, LAX: operations.Lax, DEFAULT: operations.LaxDefault}


def contenders(case: Case) -> list[str]:
    """Those whose programs differ."""
    work = case.work
    is_default = not isinstance(work, Layer) or (work.kind == "deconv" and work.groups == 1)
    return [OURS, LAX, DEFAULT] if is_default else [OURS, LAX]


def row(case: Case, device: Any) -> dict[str, Any]:
    """The programs of all peers; of one that XLA refuses, its words."""
    found = case.row()
    for name in contenders(case):
        peer = peers.JaxPeer(OPERATIONS[name])
        try:
            made = h100.program(peer.function(case), peer.shapes(case, device))
        except jax.errors.JaxRuntimeError as error:
            if name == OURS:
                raise
            found["refused"][name] = str(error).splitlines()[0]
        else:
            found["programs"][name] = asdict(made)
    return found


def ratio(row: dict[str, Any], *others: str) -> float | None:
    """The estimate of the best of the others, divided by ours; None where XLA refuses them all."""
    times = [row["programs"][name]["seconds"] for name in others if name in row["programs"]]
    return min(times) / row["programs"][OURS]["seconds"] if times else None


def is_below(row: dict[str, Any]) -> bool:
    """Whether the ratio, of two digits, is less than it should be."""
    found = ratio(row, LAX, DEFAULT)
    return found is not None and round(found, 2) < target(row)


def target(row: dict[str, Any]) -> float:
    """The least ratio that is good enough."""
    return LEAST_OF_STEPS if row["family"] == "step" else LEAST


HEADER = (
    f"{'program':<36}{'dtype':>9}{'layout':>7}{'ratio':>7}{'/default':>9}{'ms':>8}{'lax':>8}{'GMAC':>8}{'lax':>8}"
    f"{'MB':>9}{'lax':>9}{'temp MB':>9}{'lax':>8}{'compile s':>10}{'lax':>6}  calls / of jax.lax"
)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    programs = row["programs"]
    others = [programs[name] for name in (LAX, DEFAULT) if name in programs]
    best = min(others, key=lambda p: p["seconds"], default=None)
    both = [programs[OURS], best]
    text = f"{gpu_times.named(row):<36}"
    text += f"{row['dtype']:>9}{row['layout']:>7}"
    for value, width in ((ratio(row, LAX, DEFAULT), 7), (ratio(row, DEFAULT), 9)):
        text += f"{'-' if value is None else f'{value:.2f}':>{width}}"
    for key, scale, digits, widths in (
        ("seconds", 1e-3, 3, (8, 8)),
        ("products", 1e9, 1, (8, 8)),
        ("bytes", 1e6, 0, (9, 9)),
        ("temporary_bytes", 1e6, 0, (9, 8)),
        ("compile_seconds", 1, 1, (10, 6)),
    ):
        for found, width in zip(both, widths, strict=True):
            text += f"{'-' if found is None else f'{found[key] / scale:.{digits}f}':>{width}}"
    return text + "  " + " / ".join("-" if p is None else _calls(p) for p in both)


def _calls(program: dict[str, Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in program["calls"].items())


def summary(rows: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """Geometric means and the least ratios, and what is below its target."""
    lines = [
        "",
        f"{'estimated ratio to the better jax.lax':<48}{'programs':>9}{'mean':>7}{'least':>7}",
    ]
    for dtype in DTYPES:
        for part in ("forward", "backward", "both", "step"):
            lines += _means(
                f"{part}, {dtype}", [r for r in rows if (r["part"], r["dtype"]) == (part, dtype)]
            )
    for part in ("forward", "backward"):
        deconvs = [r for r in rows if r["family"] == "deconv" and r["part"] == part]
        lines += _means(f"deconv {part}", deconvs)
        lines += _means(f"deconv {part}, compared with the default", deconvs, DEFAULT)
    below = [r for r in rows if is_below(r)]
    lines += [
        "",
        f"below {LEAST}, or {LEAST_OF_STEPS} for a training step: {len(below)} of {len(rows)}",
    ]
    lines += [
        f"  {gpu_times.named(r)}, {r['dtype']}, {r['layout']}: {ratio(r, LAX, DEFAULT):.2f}"
        for r in below
    ]
    for r in rows:
        for peer, reason in r["refused"].items():
            program = f"{gpu_times.named(r)}, {r['dtype']}, {r['layout']}"
            lines.append(f"XLA cannot compile {peer}'s program for {program}: {reason}")
    lines += ["", ", ".join(f"{name} {version}" for name, version in versions.items())]
    lines.append(
        "Estimates (rooflines) for one H100, from compiled programs' text; nothing was timed."
    )
    return "\n".join(lines)


def _means(title: str, rows: list[dict[str, Any]], *others: str) -> Iterator[str]:
    ratios = [found for r in rows if (found := ratio(r, *(others or (LAX, DEFAULT)))) is not None]
    if ratios:
        yield f"{title:<48}{len(ratios):>9}{geometric_mean(ratios):>7.2f}{min(ratios):>7.2f}"


def save(
    rows: list[dict[str, Any]], versions: dict[str, str], numbers: Path | None, table: Path | None
) -> None:
    """Write what there is so far, a program a line."""
    if numbers is not None:
        report.save_rows(numbers, "versions", versions, rows)
    if table is not None:
        table.write_text("\n".join([HEADER, *map(line, rows), summary(rows, versions)]) + "\n")


def compiled(cases: list[Case], numbers: Path | None, table: Path | None) -> list[dict[str, Any]]:
    """The rows of these cases, which are printed and written as they are made."""
    device = h100.devices()[0]
    rows: list[dict[str, Any]] = []
    versions = {name: metadata.version(name) for name in PACKAGES}
    print(HEADER)
    for case in report.progress(cases, "program"):
        rows.append(row(case, device))
        report.show(line(rows[-1]))
        save(rows, versions, numbers, table)
    print(summary(rows, versions))
    return rows


def _parser() -> argparse.ArgumentParser:
    example = "python -m benchmarks.gpu 'deconv*' 'step DCGAN' --dtype bfloat16 --layout NHWC"
    parser = report.parser("benchmarks.gpu", __doc__, example)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="names of programs, or patterns such as 'deconv*' or 'step U-Net' (default: all)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="compile for this dtype only (default: all three)"
    )
    parser.add_argument(
        "--layout",
        choices=("NCHW", "NHWC"),
        help="compile for this layout only (default: both; training steps have NHWC only)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="time the main cases on this machine's GPU instead, for at most N minutes",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names of the programs and stop"
    )
    report.add_outputs(parser, "table", "json")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Compile, read, compare, write; 1 if a program is below its target."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.minutes is not None:
        if options.dtype or options.layout or options.list or options.table:
            parser.error("with --minutes, only names and --json can be given")
        return gpu_times.run(options.minutes, options.cases, ESTIMATES, options.json or TIMES)
    chosen = tasks(options.cases, [options.dtype] if options.dtype else DTYPES, options.layout)
    if not chosen:
        print("no program has that name; --list prints all names", file=sys.stderr)
        return 2
    if options.list:
        print(*(f"{case.title}, {case.dtype}" for case in chosen), sep="\n")
        return 0
    if reason := h100.missing():
        print(reason, file=sys.stderr)
        return 2
    rows = compiled(chosen, options.json, options.table)
    return int(any(map(is_below, rows)))


if __name__ == "__main__":
    report.run(main)
