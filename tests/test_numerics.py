"""Errors beside lax's, on a few of the problems that `benchmarks.numerics` measures by the thousand."""

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks import numerics
from benchmarks.numerics import LAX, Record
from jdeconv.cli.problem import WIDE


def assert_within_the_bound(problem, kinds, rng, only=""):
    """The worst error of every way over all data and parts, as the table has it; of those that begin so."""
    worst = {}
    with jax.enable_x64(problem.dtype in WIDE):
        known = {name: way for name, way in numerics.ways(problem, None) if name != "torch"}
        for data in kinds:
            for way, parts in numerics.measure(problem, data, rng, known).items():
                errors = [worst.get(way, 1), *(whole for whole, _ in parts.values())]
                worst[way] = max(errors)
    bound = numerics.WORST * worst[LAX]
    beyond = {way: e for way, e in worst.items() if way.startswith(only) and e > bound}
    assert not beyond, worst


@pytest.mark.parametrize("dtype", numerics.DTYPES)
def test_every_lowering_is_within_the_bound(dtype, rng):
    problem = numerics.problem(2, 8, 5, (15, 13), (3, 3), 2, dtype)
    problem = dataclasses.replace(problem, padding=((1, 1), (0, 2)))
    # Of positive terms the errors add up, one way or the other, and a single problem is no measure.
    kinds = [data for data in numerics.DATA if data is not numerics.positive]
    assert_within_the_bound(problem, kinds, rng)


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

    What is chosen; by name, `winograd` and `direct` may be beyond, by how much depends on the processor.
    """
    problem = numerics.problem(*sizes, "float32")
    assert_within_the_bound(problem, [numerics.normal], rng, only=numerics.CHOSEN)


def test_random_geometries_are_few_enough_columns_and_all_differ():
    rng = np.random.default_rng(0)
    drawn = [numerics.geometry(rng, "float32") for _ in range(200)]
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
