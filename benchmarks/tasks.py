"""Cases for accelerators, divided into the parts that are compiled or timed by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from fnmatch import fnmatchcase

from benchmarks import architectures
from benchmarks.cases import ACCELERATOR_BATCH, CASES, Case, Layer

DTYPES = ("bfloat16", "float16", "float32")


def tasks(patterns: list[str], dtypes: Iterable[str], layout: str | None) -> list[Case]:
    """The parts of the cases that match any of the patterns; layers in both layouts, networks in NHWC."""
    cases = [case for case in CASES if case.family not in ("step", "other dtypes")]
    cases = [case.larger(ACCELERATOR_BATCH) for case in cases if case.dtype == "float32"]
    cases += [
        Case(f"step {name}", "step", work, layout=order)
        for order in ("NCHW", "NHWC")
        for name, work in architectures.steps().items()
    ]
    found = [
        dataclasses.replace(case, dtype=dtype, part=part)
        for dtype in dtypes
        for case in cases
        if case.layout == layout
        or (layout is None and (case.family, case.layout) != ("step", "NCHW"))
        for part in _parts(case)
    ]
    return [case for case in found if matches(case, patterns)]


def matches(case: Case, patterns: list[str]) -> bool:
    """Whether the case has one of the names, with its part or without; without patterns every case has."""
    names = case.name, case.title, f"{case.title}, {case.dtype}"
    return not patterns or any(fnmatchcase(name, p) for p in patterns for name in names)


def _parts(case: Case) -> tuple[str, ...]:
    if not isinstance(case.work, Layer):
        return ("step",)
    return ("forward", "backward") if case.work.repeats == 1 else ("both",)
