"""Time training steps of whole networks in jdeconv, jax.lax and PyTorch.

A step computes the loss and its gradient with respect to every parameter, under one jit. Each network is
written once, on jax.lax, and runs with channels last and with channels first. The programs of jdeconv are the
same networks in `jdeconv.accelerate`. PyTorch runs in eager mode on all cores, in the faster of its two memory
formats. The column "im2col" is jdeconv with the definition, im2col and dot, for every convolution.

The command compares the results first. Then all programs take turns, one after the other in each round. A
ratio compares the times of two programs in the same round.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import architectures, ratios, report, suite, timing
from benchmarks.cases import Case
from benchmarks.earlier import EarlierError, EarlierPeer
from benchmarks.operations import Lax
from benchmarks.peers import IM2COL, LAX, OURS, AcceleratedPeer, Im2colPeer, JaxPeer, TorchPeer

LAYOUTS = ("NHWC", "NCHW")
APART = ("1>1 stencil, 50 times", "3x3 conv through scan")
QUICK = ("FSRCNN", "eight 3>3 filters", "DCGAN")
NO_TORCH = "torch is not installed and so not timed"


def measure(
    name: str, peers: dict[str, Any], layouts: Iterable[str], dtype: str, rounds: int
) -> list[ratios.Row]:
    """Compare the results of one network, time all of its programs in turn, and give a row for each layout.

    Raises:
      timing.WrongResultError: where results differ from those of jax.lax.
    """
    work = architectures.small_steps()[name]
    arrays, programs = work.arrays(np.random.default_rng(0)), {}
    for peer_name, peer in peers.items():
        for layout in LAYOUTS if peer_name == "torch" else layouts:
            case = Case(name, "step", work, dtype, layout)
            if peer.refuses(case) is None:
                programs[peer_name, layout] = peer.program(case, arrays)
    truth, once, compared = None, {}, ""
    for (peer_name, layout), program in programs.items():
        once[peer_name, layout], out = program.timed()  # the first run also warms up
        found = program.fetch(out)
        truth = found if truth is None else truth
        case = Case(name, "step", work, dtype, layout)
        compared = timing.compare_networks(case, {LAX: truth, peer_name: found})
    once = {key: program.timed()[0] for key, program in programs.items()}
    turns = timing.take_turns(programs, once, rounds)
    seconds = {key: np.median(times, axis=1) for key, times in turns.items()}
    of_torch = [layout for peer_name, layout in seconds if peer_name == "torch"]
    best = min(of_torch, key=lambda layout: np.median(seconds["torch", layout]), default=None)
    rows = []
    for layout in layouts:
        own = {n: programs[n, layout] for n in peers if n != "torch"}
        times = {n: seconds[n, layout].tolist() for n in own}
        if best is not None:
            times["torch"] = seconds["torch", best].tolist()
        rows.append(
            ratios.Row(
                name,
                "apart" if name in APART else "network",
                layout,
                dtype,
                compared,
                best,
                {n: times[n] for n in (OURS, *peers) if n in times},
                {n: program.compile_seconds for n, program in own.items()},
                {n: program.temporary_bytes for n, program in own.items()},
            )
        )
    return rows


def chosen(patterns: list[str], quick: bool) -> list[str]:
    """The names of the networks that match any of the patterns."""
    patterns = patterns or list(QUICK if quick else ["*"])
    return [n for n in architectures.small_steps() if any(fnmatchcase(n, p) for p in patterns)]


def _parser() -> argparse.ArgumentParser:
    example = "python -m benchmarks.networks 'U-Net*' DCGAN --layout NHWC --chart networks.svg"
    parser = report.parser("benchmarks.networks", __doc__, example)
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="names of networks, or patterns such as 'U-Net*' (default: all)",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names of the networks and stop"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run a few networks with channels last only, in less than a minute",
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="run JAX's programs in this layout only")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="the dtype of parameters and inputs (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="the number of rounds (default: 9; with --quick: 5)",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="PATH",
        help="the folder of another commit of jdeconv, which takes turns too; its column is called 'earlier'",
    )
    report.add_outputs(parser, "json", "table", "chart")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Compare, time, report; 1 if results differ, 2 for a bad argument."""
    parser = _parser()
    options = parser.parse_args(arguments)
    names = chosen(options.networks, options.quick)
    if not names:
        parser.error("no network of that name; --list shows all there are")
    if options.list:
        print("\n".join(names))
        return 0
    rounds = options.rounds if options.rounds is not None else 5 if options.quick else 9
    if rounds < 1:
        parser.error(f"--rounds {rounds}: expected 1 or more")
    peers: dict[str, Any] = {LAX: JaxPeer(Lax), OURS: AcceleratedPeer(Lax), IM2COL: Im2colPeer(Lax)}
    missing = {}
    if importlib.util.find_spec("torch") is None:
        missing["missing"] = NO_TORCH
        print(NO_TORCH, file=sys.stderr)
    else:
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        peers["torch"] = TorchPeer()
    layouts = [options.layout] if options.layout else LAYOUTS[:1] if options.quick else LAYOUTS
    try:
        if options.against is not None:
            peers["earlier"] = EarlierPeer(options.against)
        run = report.Run(suite.about(peers), {}, missing, [])
        if options.against is not None:
            run.about["earlier"] = suite.commit(options.against)
        others = [name for name in peers if name != OURS]
        print(ratios.header(others))
        for name in report.progress(names, "network"):
            for row in measure(name, peers, layouts, options.dtype, rounds):
                run.rows.append(row)
                report.show(ratios.line(row, others))
    except timing.WrongResultError as error:
        print(error, file=sys.stderr)
        return 1
    except EarlierError as error:
        parser.error(f"--against {options.against}: {error}")
    finally:
        if "earlier" in peers:
            peers["earlier"].close()
    print(ratios.summary(run))
    report.write(run, ratios.table(run), options)
    return 0


if __name__ == "__main__":
    report.run(main)
