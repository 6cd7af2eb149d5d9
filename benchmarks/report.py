"""What a run found, as a table, JSON, a chart and the tables of README."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import NoReturn, TypeVar

from tqdm import tqdm

from benchmarks.peers import LAX, OURS

Item = TypeVar("Item")


@dataclass(frozen=True)
class Row:
    """One case: medians in seconds, and what went with them."""

    name: str
    family: str
    layout: str
    dtype: str
    flops: float
    bound: str
    floor: float
    seconds: dict[str, float]
    compile_seconds: dict[str, float]
    temporary_bytes: dict[str, int]
    absent: dict[str, str]

    @property
    def share(self) -> float:
        """Of the floor: 1 is the speed of the machine."""
        return self.floor / self.seconds[OURS]

    def ratio(self, peer: str) -> float | None:
        """How many times faster than the peer."""
        return self.seconds[peer] / self.seconds[OURS] if peer in self.seconds else None


@dataclass(frozen=True)
class Run:
    """All rows, and where and of what they were measured."""

    about: dict[str, str]
    machine: dict[str, float]
    missing: dict[str, str]
    rows: list[Row]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, kind: type = Row) -> Run:
        record = json.loads(path.read_text())
        return cls(**(record | {"rows": [kind(**row) for row in record["rows"]]}))

    def peers(self) -> list[str]:
        names = {name: None for row in self.rows for name in row.seconds if name != OURS}
        return list(names)

    def families(self) -> list[str]:
        return list(dict.fromkeys(row.family for row in self.rows))

    def mean(self, peer: str, family: str | None = None, layout: str | None = None) -> float | None:
        """The geometric mean of the ratios to a peer."""
        rows = [row for row in self.rows if family in (None, row.family)]
        ratios = [row.ratio(peer) for row in rows if layout in (None, row.layout)]
        found = [ratio for ratio in ratios if ratio is not None]
        return geometric_mean(found) if found else None


def header(peers: list[str]) -> str:
    columns = "".join(f"{'/ ' + peer:>11}" for peer in peers)
    return (
        f"{'case':<38}{'ms':>9}{'GFLOP/s':>9}{'floor':>7}{columns}"
        f"{'temp MiB':>10}{'lax':>8}{'compile s':>11}{'lax':>6}"
    )


def line(row: Row, peers: list[str]) -> str:
    """A row of the table; "floor" is the share of it that was reached, "/ peer" its time over ours."""
    ours = row.seconds[OURS]
    text = f"{row.name + ', ' + row.layout:<38}{1e3 * ours:>9.2f}{row.flops / ours / 1e9:>9.1f}"
    text += f"{row.share:>6.0%}{'*' if row.bound == 'memory' else ' '}"
    for peer in peers:
        ratio = row.ratio(peer)
        text += f"{'-' if ratio is None else f'{ratio:.2f}x':>11}"
    for values, scale, width in (
        (row.temporary_bytes, 2**20, (10, 8)),
        (row.compile_seconds, 1, (11, 6)),
    ):
        for peer, w in zip((OURS, LAX), width, strict=True):
            text += f"{'-' if peer not in values else f'{values[peer] / scale:.1f}':>{w}}"
    return text


def summary(run: Run) -> str:
    """Geometric means by family, and the machine."""
    peers = run.peers()
    lines = ["", f"{'geometric mean':<38}" + " " * 25 + "".join(f"{'/ ' + p:>11}" for p in peers)]
    for family in [*run.families(), None]:
        means = [run.mean(peer, family) for peer in peers]
        cells = "".join(f"{'-' if m is None else f'{m:.2f}x':>11}" for m in means)
        lines.append(f"{family or 'all':<38}" + " " * 25 + cells)
    bound = [row for row in run.rows if row.bound == "compute"]
    near = sum(row.share >= 0.6 for row in bound)
    lines += [
        "",
        f"{near} of {len(bound)} compute-bound cases reach 60% of the floor. * marks memory-bound cases.",
        "100% means that all products of the definition run at the speed of dot. Fewer products can give more.",
    ]
    lines += [f"{name}: {value:.4g}" for name, value in run.machine.items()]
    lines += [f"missing: {name} ({why})" for name, why in run.missing.items()]
    lines += [f"{name}: {value}" for name, value in run.about.items()]
    return "\n".join(lines)


def table(run: Run) -> str:
    """The whole run as text."""
    peers = run.peers()
    rows = [line(row, peers) for row in run.rows]
    return "\n".join([header(peers), *rows, summary(run)]) + "\n"


def markdown(run: Run) -> str:
    """README's table: for each family and peer the geometric mean of the ratios, and the least.

    Where a peer lacks cases of a family, the number of those that it has follows.
    """
    peers = run.peers()
    lines = [
        "| family | cases | " + " | ".join(f"{peer} / jdeconv" for peer in peers) + " |",
        "|---|---:|" + "---:|" * len(peers),
    ]
    for family in [*run.families(), None]:
        rows = [row for row in run.rows if family in (None, row.family)]
        cells = []
        for peer in peers:
            ratios = [row.ratio(peer) for row in rows if peer in row.seconds]
            mean = run.mean(peer, family)
            of = f" of {len(ratios)}" if len(ratios) < len(rows) else ""
            cells.append("" if mean is None else f"{mean:.1f} ({min(ratios):.2f}){of}")
        lines.append(f"| {family or 'all'} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def output(text: str) -> Path:
    """The path of a file that argparse is to write; refused where there is no such folder."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        reason = "expected the name of a file in a folder that there is"
        raise argparse.ArgumentTypeError(f"{path}: {reason}")
    return path


def picture(text: str) -> Path:
    """The path of a picture to be drawn."""
    if not text.endswith((".png", ".svg")):
        raise argparse.ArgumentTypeError(f"{text}: the name must end in .png or .svg")
    return output(text)


OUTPUTS = {
    "json": (output, "write all numbers to this file"),
    "table": (output, "write the table to this file"),
    "chart": (picture, "draw a chart, .png or .svg"),
}


def add_outputs(parser: argparse.ArgumentParser, *kinds: str) -> None:
    """Give a command the options for the files that it writes."""
    for kind in kinds:
        path, text = OUTPUTS[kind]
        parser.add_argument(f"--{kind}", type=path, metavar="PATH", help=text)


def parser(module: str, text: str | None, example: str = "") -> argparse.ArgumentParser:
    """The parser of a command's arguments, whose help is the module's text."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=text,
        epilog=f"example: {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], int]) -> NoReturn:
    """End the process with a command's exit code."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader such as `head` may close the pipe
    sys.exit(main())


def write(run: Run, table: str, options: argparse.Namespace) -> None:
    """Write the files that the options name."""
    if options.json is not None:
        run.save(options.json)
    if options.table is not None:
        options.table.write_text(table)
    if options.chart is not None:
        chart(run, options.chart)


def save_rows(path: Path, name: str, about: dict, rows: list[dict]) -> None:
    """Write what the rows are of, under a name, and then a row a line."""
    listed = ",\n".join(map(json.dumps, rows))
    path.write_text(f'{{"{name}": {json.dumps(about)}, "rows": [\n{listed}\n]}}\n')


def progress(items: Iterable[Item], unit: str) -> Iterator[Item]:
    """The items, with a bar on stderr that names the one at hand."""
    with tqdm(items, unit=unit, leave=False, disable=None) as bar:
        for item in bar:
            bar.set_postfix_str(str(item))
            yield item


def show(line: str) -> None:
    """Print a line above the bar, at once."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


MARKS = ("<!-- bench -->", "<!-- /bench -->")


def has_marks(path: Path) -> bool:
    """Whether the file has a place for README's table."""
    text = path.read_text() if path.is_file() else ""
    return all(mark in text for mark in MARKS)


def write_into(path: Path, run: Run) -> None:
    """Put README's table between its marks."""
    before, rest = path.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n{markdown(run)}\n{MARKS[1]}{after}")


def chart(run: Run, path: Path) -> None:
    """A bar for each case and peer: how many times its time is ours, on a logarithmic axis."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "jdeconv"
    peers = [peer for peer in run.peers() if run.mean(peer) is not None]
    rows = run.rows[::-1]
    figure = Figure(figsize=(9, 2 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(1, len(peers))
    for i, peer in enumerate(peers):
        places = [(y, row.ratio(peer)) for y, row in enumerate(rows) if row.ratio(peer)]
        axes.barh(
            [y + 0.4 - (i + 0.5) * height for y, _ in places],
            [ratio - 1 for _, ratio in places],
            height,
            left=1,
            label=peer,
        )
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.name}, {row.layout}" for row in rows], fontsize=7)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("time of the peer / time of jdeconv (right of 1: jdeconv is faster)")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(loc="upper right")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
