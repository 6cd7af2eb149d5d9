"""Time layers and whole training steps in jdeconv, jax.lax, equinox and PyTorch.

A layer is timed with its forward pass and both gradients. The command compares the results first. Then all
programs take turns in one process, and the table shows the median times.

The column "im2col" is jdeconv with the definition, im2col and dot, for every convolution.

The column "floor" is the least time that a direct convolution could take on this machine, divided by
jdeconv's time. This least time follows from the speed of matrix products and of copies, which the command
measures in the same run. The column can be above 100% if a lowering takes fewer products than a direct
convolution. The exit code is 1 if results differ.

There are more commands. Each has --help:

  python -m benchmarks.networks    training steps of whole networks in jdeconv, jax.lax and PyTorch
  python -m benchmarks.switch      models of five libraries, with and without jdeconv.accelerate
  python -m benchmarks.gpu         what an H100 would run, read from compiled programs; times on a GPU
  python -m benchmarks.gpu_meshes  what eight H100s would send one another
  python -m benchmarks.tpu         how long a TPU's compiler expects programs to take
  python -m benchmarks.lines       how many lines of code there are
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import peers, report, suite, timing
from jdeconv.lowerings import LOWERINGS


def _parser() -> argparse.ArgumentParser:
    parser = report.parser("benchmarks", __doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="names of cases, or patterns such as 'deconv*' (default: all)",
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument(
        "--quick", action="store_true", help="run a few cases only, in less than a minute"
    )
    parser.add_argument(
        "--layout", choices=("NCHW", "NHWC"), help="run the cases of this layout only"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "bfloat16", "float16"),
        help="run the cases of this dtype only",
    )
    parser.add_argument(
        "--peers",
        metavar="NAMES",
        help="what to compare with, beside jax.lax: some of im2col,equinox,torch, or '' for none",
    )
    parser.add_argument(
        "--lowering",
        choices=tuple(LOWERINGS),
        help="how jdeconv evaluates convolutions (default: it chooses)",
    )
    report.add_outputs(parser, "json", "table", "chart")
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="PATH",
        help="write README's table into this file, between its marks",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Compare, time, report; 1 if results differ, 2 for a bad argument."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.readme is not None and not report.has_marks(options.readme):
        parser.error(f"--readme {options.readme}: there are no lines {' and '.join(report.MARKS)}")
    cases = suite.chosen(options.cases, options.layout, options.dtype, options.quick)
    if not cases:
        parser.error("no case of that name, layout and dtype; --list shows all there are")
    if options.list:
        print("\n".join(map(str, cases)))
        return 0
    known = peers.peers(options.lowering)
    ours, lax, *others = known
    if options.peers is not None:
        others = [name.strip() for name in options.peers.split(",") if name.strip()]
    if unknown := set(others) - set(known):
        parser.error(f"--peers {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    wanted = {name: peer for name, peer in known.items() if name in (ours, lax, *others)}
    missing = {name: "not installed" for name, peer in wanted.items() if peers.missing(peer)}
    for name in missing:
        print(f"missing: {name} is not installed and so not timed", file=sys.stderr)
    present = {name: peer for name, peer in wanted.items() if name not in missing}
    try:
        run = suite.measure(cases, present, missing, 3 if options.quick else 9)
    except timing.WrongResultError as error:
        print(error, file=sys.stderr)
        return 1
    except NotImplementedError as error:  # the named lowering
        parser.error(str(error))
    print(report.summary(run))
    report.write(run, report.table(run), options)
    if options.readme is not None:
        report.write_into(options.readme, run)
    return 0


if __name__ == "__main__":
    report.run(main)
