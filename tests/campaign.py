"""Compare random problems with the definition: all ranks, paddings, layouts, dtypes, lowerings and vmaps.

Ten problems take about a second. JAX_DISABLE_MOST_OPTIMIZATIONS=1 in the environment halves the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import jax
from hypothesis import strategies as st
from tqdm import tqdm

from jdeconv.form import CONTRACTIONS
from jdeconv.padding import MODES
from tests.definition import compare
from tests.problem import DTYPES, FLOATS, LETTERS, Problem

MAX_RANK, MAX_SIZE = 4, 40
MAX_CELLS, MAX_TAPS = 4000, 400  # of all axes
MAX_COLUMNS = 300_000  # numbers, of all channels and images
SIZES = {
    "mapped": (None, None, 1, 2, 3),  # None for no vmap
    "n": (1, 2, None, 3, 5, 0),  # None for no batch axis
    "groups": (1, 1, 1, 2, 3, 5),
    "c": (1, 2, 3, 8, 17, 0),
    "o": (1, 2, 5, 16, 0),
}
PADDINGS = ("SAME", "SAME_LOWER", "VALID")  # the others are in tests/test_padding_names.py
KEPT = 200  # compiled problems; none comes twice


@st.composite
def problems(draw: Callable) -> Problem:
    """A valid one."""
    call, rank = draw(st.sampled_from(tuple(CONTRACTIONS))), draw(st.integers(1, MAX_RANK))
    padding = draw(st.sampled_from(("pairs",) * 5 + PADDINGS))
    dtype = draw(st.sampled_from(DTYPES))
    cells, taps, axes = MAX_CELLS, MAX_TAPS, []
    for _ in range(rank):
        axes.append(draw(_axis(padding, min(MAX_SIZE, cells), min(MAX_SIZE, taps))))
        cells, taps = max(2, cells // axes[-1][0]), max(1, taps // axes[-1][1])
    big, kernel, stride, dilation, pads = zip(*axes, strict=True)
    letters = LETTERS[:rank]
    of_x, of_kernel, of_y = (
        "".join(draw(st.permutations(role + letters))) for role in ("NC", "OI", "NC")
    )
    one = Problem(
        call=call,
        gradient=dtype in FLOATS and draw(st.booleans()),
        big=big,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=pads if padding == "pairs" else padding,
        layout=(of_x, of_kernel, of_y),
        dtype=dtype,
        seed=draw(st.integers(0, 9)),
    )
    if padding == "pairs":
        one = dataclasses.replace(
            one, padding_mode=draw(st.sampled_from(("zeros",) * 6 + MODES[1:]))
        )
    sizes = {}
    fitting = max(1, MAX_COLUMNS // math.prod((*one.small, *kernel)))
    for name, choices in SIZES.items():
        sizes[name] = draw(st.sampled_from([s for s in choices if (s or 1) <= fitting]))
        fitting //= sizes[name] or 1
    maps = draw(_maps(call, rank, sizes["n"] is not None)) if sizes["mapped"] else ()
    sizes["mapped"] = sizes["mapped"] or 1
    one = dataclasses.replace(one, maps=maps, **sizes)
    return dataclasses.replace(one, lowering=draw(st.sampled_from((None, *one.serving()))))


@st.composite
def _axis(draw: Callable, padding: str, most: int, taps: int) -> tuple:
    """(big, kernel, stride, dilation, pads) of one axis whose conv is valid."""
    big, stride, dilation = (draw(st.integers(1, limit)) for limit in (most, 5, 4))
    kernel = draw(st.integers(1, min(5, taps)) | st.integers(1, taps))
    low, high = (draw(st.integers(-3, 8)) for _ in range(2)) if padding == "pairs" else (0, 0)
    if big + low + high < 1:
        low = high = 0
    if not padding.startswith("SAME"):
        kernel = min(kernel, (big + low + high - 1) // dilation + 1)
    return big, kernel, stride, dilation, (low, high)


@st.composite
def _maps(draw: Callable, call: str, rank: int, batched: bool) -> tuple:
    """Axes that one or two vmaps map; at least one operand has one."""
    ranks = [rank + 1 + (batched or role == "kernel") for role in CONTRACTIONS[call][:2]]
    found = []
    for _ in range(draw(st.integers(1, 2))):  # the innermost first
        which = draw(st.sampled_from(((True, True), (True, False), (False, True))))
        pairs = list(zip(which, ranks, strict=True))
        found.append(tuple(draw(st.integers(0, r)) if m else None for m, r in pairs))
        ranks = [r + m for m, r in pairs]
    return tuple(found[::-1])


def campaign(count: int, seed: int) -> int:
    """Compare so many random problems; 1 if one is wrong, and how to replay the least such."""
    at_hand = Path(tempfile.gettempdir()) / f"jdeconv-campaign-{os.getpid()}.json"
    print(f"the problem at hand is in {at_hand}, should the process die of it")
    ran = itertools.count(1)
    bar = tqdm(total=count, unit=" problems", disable=None)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list[Any](hypothesis.HealthCheck),
    )
    @hypothesis.given(problems())
    def run(problem: Problem) -> None:
        at_hand.write_text(str(problem))
        bar.update()
        if next(ran) % KEPT == 0:
            jax.clear_caches()
        compare(problem)

    clean = False
    try:
        with bar:
            run()
        clean = True
    except AssertionError as error:
        print(error)
    finally:
        if not clean:
            print(f"to see it again: python -m tests.campaign --replay '{at_hand.read_text()}'")
    at_hand.unlink()
    print(f"{next(ran) - 1} problems, {'0 failures' if clean else 'stopped at a failure'}")
    return int(not clean)


def replay(problem: Problem) -> int:
    """Compare one problem; 1 if it is wrong."""
    try:
        compare(problem)
    except AssertionError as error:
        print(error)
        return 1
    print("1 problem, 0 failures")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign or one problem; 1 if a result is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "count", nargs="?", type=int, default=100, help="the number of problems (default: 100)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of the random problems (default: 0)"
    )
    parser.add_argument(
        "--replay",
        type=Problem.read,
        metavar="JSON",
        help="repeat one problem, from the line that a failure printed",
    )
    options = parser.parse_args(arguments)
    if options.replay is not None:
        return replay(options.replay)
    return campaign(options.count, options.seed)


if __name__ == "__main__":
    sys.exit(main())
