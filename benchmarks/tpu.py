"""Compile every case for a TPU, and compare the cycles that the compiler expects with jax.lax's.

The command needs no TPU. libtpu compiles for a TPU by name, and writes into the program how many cycles it
expects each operation to take. This is an estimate, not a measurement.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks import peers, report, suite
from benchmarks.cases import Case
from benchmarks.peers import LAX, OURS
from benchmarks.tasks import DTYPES, tasks

LIMIT = 1.03
LOOP = re.compile(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclass(frozen=True)
class Estimate:
    """The compiler's: cycles of the whole program, and bytes beside its arguments and results."""

    cycles: int
    temporary_bytes: int


def estimate(case: Case, peer: Any, device: Any) -> Estimate:
    """Compile a case for the device, and read what the compiler expects."""
    shapes = peer.shapes(case, device)
    compiled = jax.jit(peer.function(case)).lower(*shapes).compile()
    return Estimate(cycles(compiled.as_text()), compiled.memory_analysis().temp_size_in_bytes)


def cycles(text: str) -> int:
    """The sum over the operations of a compiled program, those of a loop as often as it runs.

    Raises:
      ValueError: for a loop that does not count from 0 to a constant, as those of scans do.
    """
    computations, entry = {}, ""
    for block in re.split(r"\n(?=%|ENTRY )", text):
        head, _, body = block.partition("{\n")
        name = re.search(r"%?([\w.-]+) \(", head)
        if name:
            computations[name[1]] = body
            entry = name[1] if head.startswith("ENTRY") else entry

    def total(name: str) -> int:
        own = sum(map(int, CYCLES.findall(computations[name])))
        for line in computations[name].splitlines():
            if loop := LOOP.search(line):
                own += trips(computations[loop[1]]) * total(loop[2])
        return own

    return total(entry)


def trips(condition: str) -> int:
    """How often a loop runs that ends on this condition."""
    limits = re.findall(r" constant\((\d+)\)", condition)
    if len(limits) != 1 or "direction=LT" not in condition:
        raise ValueError(f"a loop that does not count to a constant: {condition.strip()}")
    return int(limits[0])


HEADER = """\
| case | jdeconv, kcycles | jax.lax, kcycles | jdeconv / jax.lax | temporary MiB | jax.lax |
|---|---:|---:|---:|---:|---:|"""


def line(case: Case, found: dict[str, Estimate]) -> str:
    """A row in Markdown."""
    ours, theirs = found[OURS], found[LAX]
    cells = [f"{e.cycles / 1e3:.0f}" for e in (ours, theirs)]
    cells.append(f"{ours.cycles / theirs.cycles:.2f}")
    cells += [f"{e.temporary_bytes / 2**20:.1f}" for e in (ours, theirs)]
    return f"| {case} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> int:
    """Compile, compare, write; 1 if a case is above the limit, to two digits."""
    parser = report.parser("benchmarks.tpu", __doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="names or patterns (default: all)",
    )
    parser.add_argument(
        "--topology",
        default="v5e:2x2",
        help="the kind of TPU (default: v5e:2x2)",
    )
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), help="compile for this layout only")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="compile larger cases in this dtype, and the networks of benchmarks.gpu",
    )
    report.add_outputs(parser, "table")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("libtpu") is None:
        print("libtpu is missing; for jax 0.10.2: pip install libtpu==0.0.42.1", file=sys.stderr)
        return 2
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU to be asked for
    jax.config.update("jax_platforms", "cpu")
    device = topologies.get_topology_desc(options.topology, platform="tpu").devices[0]
    if options.dtype:
        chosen = tasks(options.cases, [options.dtype], options.layout)
        cases = list(dict.fromkeys(replace(case, part="both") for case in chosen))
    else:
        cases = suite.chosen(options.cases, options.layout, None, quick=False)
        cases = [case for case in cases if case.dtype != "float64"]  # which TPUs only emulate
    if not cases:
        print("no case has that name and layout", file=sys.stderr)
        return 2
    known, lines, worse = peers.peers(), [HEADER], []
    print(HEADER)
    for case in report.progress(cases, "case"):
        try:
            found = {name: estimate(case, known[name], device) for name in (OURS, LAX)}
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            text = f"left out: {case}: {reason} Take a larger chip, as --topology v5p:2x2x1."
            print(text, file=sys.stderr)
            continue
        lines.append(line(case, found))
        report.show(lines[-1])
        if round(found[OURS].cycles / found[LAX].cycles, 2) > LIMIT:
            worse.append(case)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "libtpu"))
    about = [f"in {options.dtype}, " if options.dtype else "", options.topology, versions]
    lines += ["", "Estimates of the compiler {}for one chip of {}; {}.".format(*about)]
    print(*lines[-2:], sep="\n")
    if options.table is not None:
        options.table.write_text("\n".join(lines) + "\n")
    for case in worse:
        print(f"above {LIMIT} of jax.lax: {case}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    report.run(main)
