"""Ratios of times that were taken in turn: their median, a bound below it, and a table of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.peers import LAX, OURS
from benchmarks.report import Run

ONE_SIDED = 0.025


@dataclass(frozen=True)
class Row:
    """One network in one layout; a second for each round and peer, and what went with them."""

    name: str
    family: str  # "network", or "apart" from the means
    layout: str
    dtype: str
    compared: str
    torch_layout: str | None
    seconds: dict[str, list[float]]
    compile_seconds: dict[str, float]
    temporary_bytes: dict[str, int]

    def ratios(self, peer: str) -> np.ndarray:
        """How many times longer the peer took than ours, in each round."""
        return np.divide(self.seconds[peer], self.seconds[OURS])

    def ratio(self, peer: str) -> float | None:
        """The median of the ratios."""
        return float(np.median(self.ratios(peer))) if peer in self.seconds else None

    def bound(self, peer: str) -> float:
        """The lower bound of the median of the ratios."""
        return lower_bound(self.ratios(peer))


def lower_bound(values: np.ndarray) -> float:
    """The k-th smallest of n values, which is above the true median in at most 2.5 % of all runs.

    That share is the chance that fewer than k of n fair coins show heads. With nine values k is 2. With fewer
    than six values no k is that safe, and the smallest is returned.
    """
    n = len(values)
    k, chance = 0, 0.0
    while (chance := chance + math.comb(n, k) / 2**n) <= ONE_SIDED:
        k += 1
    return float(np.sort(values)[max(k, 1) - 1])


def header(peers: list[str]) -> str:
    """The names of the columns."""
    columns = "".join(f"{'/ ' + peer:>16}" for peer in peers)
    return f"{'network':<30}{'ms':>8}{columns}{'compile s':>11}{'of lax':>8}{'temp MiB':>10}{'of lax':>8}"


def line(row: Row, peers: list[str]) -> str:
    """A row of the table."""
    text = f"{row.name + ', ' + row.layout:<30}{1e3 * np.median(row.seconds[OURS]):>8.1f}"
    for peer in peers:
        ratio = row.ratio(peer)
        cell = "-" if ratio is None else f"{ratio:.2f} ({row.bound(peer):.2f})"
        text += f"{cell:>16}"
    for found, scale, width in (
        (row.compile_seconds, 1, 11),
        (row.temporary_bytes, 2**20, 10),
    ):
        ours, theirs = found.get(OURS), found.get(LAX)
        text += f"{'-' if ours is None else f'{ours / scale:.1f}':>{width}}"
        text += f"{f'{ours / theirs:.2f}' if ours is not None and theirs else '-':>8}"
    return text


LEGEND = """\
A column "/ NAME" says how many times longer NAME took than jdeconv: the median of the rounds, and in brackets
the lower end of its 95 % interval (with fewer than six rounds, the least ratio). "of lax" is jdeconv's value
divided by jax.lax's."""


def summary(run: Run) -> str:
    """Geometric means and least ratios of the networks, and what they were measured of."""
    peers, lines = run.peers(), [""]
    layouts = list(dict.fromkeys(row.layout for row in run.rows))
    for layout in [*layouts, None] if len(layouts) > 1 else layouts:
        rows = [r for r in run.rows if r.family == "network" and layout in (None, r.layout)]
        for what, found in (
            ("geometric mean", [run.mean(peer, "network", layout) for peer in peers]),
            ("least", [_least(rows, peer) for peer in peers]),
        ):
            cells = "".join(f"{'-' if f is None else f'{f:.2f}':>16}" for f in found)
            lines.append(f"{what + ', ' + (layout or 'both layouts'):<38}{cells}")
    apart = dict.fromkeys(row.name for row in run.rows if row.family == "apart")
    lines += ["", LEGEND]
    if apart:
        lines.append(f"Not in the means: {', '.join(apart)}.")
    for what in dict.fromkeys(row.compared for row in run.rows):
        names = dict.fromkeys(row.name for row in run.rows if row.compared == what)
        lines.append(f"Before the timing, the command compared the {what} of: {', '.join(names)}.")
    lines += [f"{name}: {why}" for name, why in run.missing.items()]
    lines += [f"{name}: {value}" for name, value in run.about.items()]
    return "\n".join(lines)


def _least(rows: list[Row], peer: str) -> float | None:
    return min((row.ratio(peer) for row in rows if peer in row.seconds), default=None)


def table(run: Run) -> str:
    """The whole run as text."""
    peers = run.peers()
    return "\n".join([header(peers), *(line(row, peers) for row in run.rows), summary(run)]) + "\n"
