"""python -m jdeconv bench: its speed beside jax.lax, equinox and PyTorch, and beside the machine's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jdeconv.lowerings import LOWERINGS


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Describe the command."""
    parser = commands.add_parser(
        "bench",
        help="time it beside jax.lax, equinox and PyTorch",
        description="Time forward and both gradients of layers, and whole training steps, beside jax.lax "
        "with its own autodiff and, where installed, equinox and torch. Results are compared first; then "
        "all are timed in turn in this process, and medians told. 'floor' is the share reached of a direct "
        "convolution at the machine's speed: the larger of its flops / peak of dot and least bytes / "
        "bandwidth of copy, both measured in the same run; fewer products can pass it. Exit code 1 if "
        "results differ. Runs in the source tree, with pip install -e '.[bench]'.",
    )
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="names or patterns, as 'deconv*' (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of cases and stop")
    parser.add_argument("--quick", action="store_true", help="a few cases, in less than a minute")
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), help="only this one")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "bfloat16", "float16"),
        help="only cases of this one",
    )
    parser.add_argument(
        "--peers",
        metavar="NAMES",
        help="some of equinox,torch, or '' for none; jax.lax, the measure of what is right, is always there",
    )
    parser.add_argument(
        "--lowering", choices=tuple(LOWERINGS), help="of jdeconv (default: by platform)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    parser.add_argument("--table", type=Path, metavar="PATH", help="write the table there")
    parser.add_argument("--chart", type=Path, metavar="PATH", help="draw a chart, .png or .svg")
    parser.add_argument(
        "--readme", type=Path, metavar="PATH", help="renew the table between this file's marks"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Compare, time, report; 1 if results differ, 2 for a bad argument."""
    try:
        import tqdm

        from benchmarks import peers, report, suite, timing
    except ImportError as error:
        if error.name == "benchmarks":
            return _refuse("run this in jdeconv's source tree, where benchmarks/ lies")
        return _refuse(f"{error.name} is missing; pip install 'jdeconv[bench]'")
    if reason := report.unwritable(options.chart, options.json, options.table):
        return _refuse(reason)
    if options.readme is not None and not report.has_marks(options.readme):
        return _refuse(
            f"--readme {options.readme}: there are no lines {' and '.join(report.MARKS)}"
        )
    cases = suite.chosen(options.cases, options.layout, options.dtype, options.quick)
    if not cases:
        return _refuse("no case of that name, layout and dtype; --list shows all there are")
    if options.list:
        print("\n".join(map(str, cases)))
        return 0
    known = peers.peers(options.lowering)
    named = ",".join(list(known)[2:]) if options.peers is None else options.peers
    others = [name.strip() for name in named.split(",") if name.strip()]
    if unknown := set(others) - set(known):
        return _refuse(f"--peers {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    wanted = {name: known[name] for name in known if name in (*list(known)[:2], *others)}
    missing = {name: "not installed" for name, peer in wanted.items() if peers.missing(peer)}
    present = {name: peer for name, peer in wanted.items() if name not in missing}
    for name in missing:
        print(f"missing: {name} is not installed and so not timed", file=sys.stderr)

    columns = [name for name in present if name != report.OURS]
    print(report.header(columns))
    with tqdm.tqdm(cases, unit="case", file=sys.stderr, leave=False, disable=None) as bar:

        def told(row: report.Row) -> None:
            bar.write(report.line(row, columns), file=sys.stdout)
            sys.stdout.flush()

        def announced():
            for case in bar:
                bar.set_postfix_str(str(case))
                yield case

        try:
            found = suite.measure(announced(), present, missing, told, 3 if options.quick else 9)
        except timing.WrongResultError as error:
            print(f"jdeconv bench: {error}", file=sys.stderr)
            return 1
        except NotImplementedError as error:  # the named lowering
            return _refuse(str(error))
    print(report.summary(found))
    if options.json is not None:
        found.save(options.json)
    if options.table is not None:
        options.table.write_text(report.table(found))
    if options.chart is not None:
        report.chart(found, options.chart)
    if options.readme is not None:
        report.write_into(options.readme, found)
    return 0


def _refuse(text: str) -> int:
    print(f"jdeconv bench: {text}", file=sys.stderr)
    return 2
