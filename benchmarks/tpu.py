"""Compile every case for a TPU, and compare the cycles that the compiler expects with jax.lax's.

The command needs no TPU. libtpu compiles for a TPU by name, and writes into the program how many cycles it
expects each operation to take. This is an estimate, not a measurement.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks import hlo, peers, report, suite
from benchmarks.cases import Case
from benchmarks.peers import LAX, OURS
from benchmarks.tasks import DTYPES, tasks

LIMIT = 1.03
LOOP = re.compile(r"condition=%?([\w.-]+), body=%?([\w.-]+)")


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
    program, entry = hlo.computations(text)

    def total(name: str) -> int:
        own = 0
        for operation in program[name].values():
            own += int(operation.named(r'"estimated_cycles":"(\d+)"') or 0)
            if operation.code == "while":
                condition, body = LOOP.search(operation.rest).groups()
                own += trips(program[condition].values()) * total(body)
        return own

    return total(entry)


def trips(condition: Collection[hlo.Operation]) -> int:
    """How often a loop runs that ends on this condition."""
    limits = [o.arguments for o in condition if o.code == "constant" and o.arguments.isdecimal()]
    if len(limits) != 1 or not any("direction=LT" in o.rest for o in condition):
        raise ValueError(f"a loop that does not count to a constant: {[*condition]}")
    return int(limits[0])


HEADER = """\
| case | jdeconv, kcycles | jax.lax, kcycles | jdeconv / jax.lax | temporary MiB | jax.lax |
|---|---:|---:|---:|---:|---:|"""


def ratio(found: dict[str, Estimate]) -> float:
    """Our cycles, divided by those of jax.lax."""
    return found[OURS].cycles / found[LAX].cycles


def line(case: Case, found: dict[str, Estimate]) -> str:
    """A row in Markdown."""
    both = found[OURS], found[LAX]
    cells = [f"{e.cycles / 1e3:.0f}" for e in both]
    cells.append(f"{ratio(found):.2f}")
    cells += [f"{e.temporary_bytes / 2**20:.1f}" for e in both]
    return f"| {case} | {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = report.parser("benchmarks.tpu", __doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names or patterns (default: all)")
    parser.add_argument(
        "--topology", default="v5e:2x2", help="the kind of TPU (default: %(default)s)"
    )
    parser.add_argument("--layout", choices=("NCHW", "NHWC"), help="compile for this layout only")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="compile larger cases in this dtype, and the networks of benchmarks.gpu",
    )
    report.add_outputs(parser, "table")
    return parser


def chosen(patterns: list[str], dtype: str | None, layout: str | None) -> list[Case]:
    """The cases that match, without float64, which TPUs only emulate; for a dtype those of `tasks`."""
    if dtype:
        cases = tasks(patterns, [dtype], layout)
        return list(dict.fromkeys(replace(case, part="both") for case in cases))
    cases = suite.chosen(patterns, layout, None, quick=False)
    return [case for case in cases if case.dtype != "float64"]


def compared(cases: list[Case], topology: str) -> dict[Case, dict[str, Estimate]]:
    """Print a line for each case as it is compiled, and return all estimates."""
    device = topologies.get_topology_desc(topology, platform="tpu").devices[0]
    known, estimates = peers.peers(), {}
    for case in report.progress(cases, "case"):
        try:
            found = {name: estimate(case, known[name], device) for name in (OURS, LAX)}
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            text = f"left out: {case}: {reason} Take a larger chip, as --topology v5p:2x2x1."
            print(text, file=sys.stderr)
        else:
            estimates[case] = found
            report.show(line(case, found))
    return estimates


def main(arguments: list[str] | None = None) -> int:
    """Compile, compare, write; 1 if a case is above the limit, to two digits."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("libtpu") is None:
        print("libtpu is missing; for jax 0.10.2: pip install libtpu==0.0.42.1", file=sys.stderr)
        return 2
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU to be asked for
    jax.config.update("jax_platforms", "cpu")
    cases = chosen(options.cases, options.dtype, options.layout)
    if not cases:
        print("no case has that name and layout", file=sys.stderr)
        return 2
    print(HEADER)
    estimates = compared(cases, options.topology)
    dtype = f"in {options.dtype}, " if options.dtype else ""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "libtpu"))
    about = f"\nEstimates of the compiler {dtype}for one chip of {options.topology}; {versions}."
    print(about)
    if options.table is not None:
        lines = [HEADER, *(line(case, found) for case, found in estimates.items()), about]
        options.table.write_text("\n".join(lines) + "\n")
    worse = [case for case, found in estimates.items() if round(ratio(found), 2) > LIMIT]
    for case in worse:
        print(f"above {LIMIT} of jax.lax: {case}", file=sys.stderr)
    return int(bool(worse))


if __name__ == "__main__":
    report.run(main)
