"""Errors beside lax's, on a few of the problems that `tests.numerics` measures by the thousand."""

import dataclasses

import jax
import numpy as np
import pytest
from thinned import thinned

from jdeconv.lowerings import LOWERINGS
from tests import draws, numerics
from tests.numerics import LAX, Record
from tests.problem import WIDE

# Of positive terms the errors add up, one way or the other, and a few problems are no measure.
HARD = [draw for draw in draws.DATA if draw is not draws.positive]


def measured(problems, kinds, rng, only=""):
    """The records of lax's and of every way whose name begins so."""
    found = []
    for p in problems:
        with jax.enable_x64(p.dtype in WIDE):
            ways = {name: way for name, way in numerics.ways(p, None) if name != numerics.TORCH}
            ways = {name: ways[name] for name in ways if name.startswith((LAX, only))}
            for draw in kinds:
                found += numerics.measure(p, draw, rng, ways, draw.__name__)
    return found


@pytest.mark.parametrize("dtype", thinned(numerics.DTYPES, 2))
def test_every_lowering_is_within_the_bound(dtype, rng):
    plane = draws.problem(2, 8, 5, (15, 13), (3, 3), 2, dtype)
    line = draws.problem(3, 4, 16, (61,), (3,), 1, dtype)
    problems = [
        dataclasses.replace(plane, padding=((1, 1), (0, 2))),
        dataclasses.replace(line, padding=((2, 0),)),
    ]
    found = measured(problems, HARD, rng)
    unfit = {"complex64": {"fft"}}.get(dtype, set())
    for p in problems:
        names = {r.way for r in found if r.problem == str(p)}
        assert names >= {"im2col (cuda)", "vendor (tpu)", *LOWERINGS} - unfit
    assert numerics.broken(found, ("way", "dtype")) == []


@pytest.mark.parametrize(
    "sizes",
    [
        (1, 2, 3, (100_000,), (3,), 1),
        (1, 1, 1, (310, 320), (5, 5), 3),
        (1, 11_111, 1, (5, 4), (3, 3), 1),
    ],
)
def test_long_sums_are_within_the_bound(sizes, rng):
    """One number after the other, they would be at 100 units, where lax's are at 10.

    What is chosen; by name, `nhwc` may be beyond, by how much depends on the processor.
    """
    problem = draws.problem(*sizes, "float32")
    found = measured([problem], [draws.normal], rng, only=numerics.CHOSEN)
    # Only the worst: the other parts of one problem are sums of few terms.
    lax_, ours = (
        max(r.whole for r in found if r.way.startswith(way)) for way in (LAX, numerics.CHOSEN)
    )
    assert ours <= numerics.WORST * lax_


@pytest.mark.parametrize("dtype", thinned(["float32", "float16", "bfloat16", "float64"], 4))
def test_ffts_are_within_the_bound_where_they_are_chosen(dtype):
    """For each kind of data by itself: over wide magnitudes, an FFT by name is far beyond."""
    rng = np.random.default_rng(7)
    found = measured([draws.large(rng, dtype) for _ in range(3)], HARD, rng, numerics.CHOSEN)
    assert {r.way for r in found} == {LAX, f"{numerics.CHOSEN}: fft"}
    assert numerics.broken(found) == []


def test_gradients_that_lax_reads_from_outside_are_left_out(rng):
    """Beside a kernel of 2, a second cell of padding makes that of jax.lax's gradient negative."""
    line = draws.problem(1, 2, 3, (9,), (2,), 1, "float32")
    for padding, parts in ((((1, 0),), {"x", "kernel", "y"}), (((1, 2),), {"kernel", "y"})):
        problem = dataclasses.replace(line, padding=padding)
        found = measured([problem], [draws.normal], rng, only=numerics.CHOSEN)
        assert {r.part for r in found} == parts


def test_random_geometries_are_few_enough_columns_and_all_differ():
    rng = np.random.default_rng(0)
    drawn = [draws.geometry(rng, "float32") for _ in range(200)]
    assert len(set(drawn)) == 200
    assert {p.rank for p in drawn} == {1, 2, 3, 4}
    assert {p.groups for p in drawn} == {1, 2, 4}


def records(way, errors):
    return [
        Record("float32", "normal", way, "y", str(i), error, 2 * error)
        for i, error in enumerate(errors)
    ]


def test_a_way_beyond_the_bound_is_told_and_its_row_is_right():
    found = records(LAX, [1.0, 1.0, 3.0]) + records("ours", [1.0, 2.5, 3.0])
    assert numerics.broken(found) == ["ours, float32, normal: median 2.50, worst 1.00 of lax's"]
    assert numerics.broken(records(LAX, [1, 1, 3]) + records("ours", [1, 1, 12])) == []
    assert len(numerics.broken(records(LAX, [1, 1, 3]) + records("ours", [1, 1, 12.1]))) == 1
    row = numerics.table(found, ("way", "dtype")).splitlines()[-1]
    assert row == "| ours | float32 | 3 | 2.5 | 2.50 | 3 | 1.00 | 5 | 2.50 | 6 | 1.00 |"
