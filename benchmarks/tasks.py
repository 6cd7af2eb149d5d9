"""The parts of a case that are compiled or timed by themselves: forward, a gradient, or a whole step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import jax

from benchmarks import architectures
from benchmarks.cases import ACCELERATOR_BATCH, CASES, Case, Layer

DTYPES = ("bfloat16", "float16", "float32")


@dataclasses.dataclass(frozen=True)
class Task:
    """A part of a case.

    Args:
      case: the work.
      part: "forward", "backward" (both gradients), "image gradient" or "kernel gradient" of a layer; "both" is
        forward and backward; "step" is the training step of a network.
    """

    case: Case
    part: str

    def __str__(self) -> str:
        return self.case.name if self.part == "step" else f"{self.case.name} {self.part}"

    def function(self, ops: Any) -> Callable:
        """The work of the part as a function of JAX arrays."""
        work = self.case.work
        if self.part in ("both", "step"):
            return functools.partial(work.run, ops)
        forward = functools.partial(work.forward, ops)
        if self.part == "forward":
            return forward
        chosen = {"image gradient": slice(0, 1), "kernel gradient": slice(1, 2)}
        results = chosen.get(self.part, slice(0, 2))
        return lambda image, kernel, bar: jax.vjp(forward, image, kernel)[1](bar)[results]

    @property
    def operands(self) -> slice:
        """Which of the case's arrays the function takes."""
        return slice(0, 2 if self.part == "forward" else None)

    @property
    def results(self) -> list[tuple[str, int]]:
        """Role and mapped axes of what the function returns."""
        found = self.case.work.results()
        parts = {"forward": (0, 1), "backward": (1, 3), "image gradient": (1, 2)}
        parts["kernel gradient"] = (2, 3)
        return found[slice(*parts.get(self.part, (None,)))]


def tasks(patterns: list[str], dtypes: list[str], layout: str | None) -> list[Task]:
    """The parts of the cases that match any of the patterns; layers in both layouts, networks in NHWC."""
    cases = [case for case in CASES if case.family not in ("step", "other dtypes")]
    cases = [case.larger(ACCELERATOR_BATCH) for case in cases if case.dtype == "float32"]
    cases += [
        Case(f"step {name}", "step", work, layout=order)
        for order in ("NCHW", "NHWC")
        for name, work in architectures.steps().items()
    ]
    found = [
        Task(dataclasses.replace(case, dtype=dtype), part)
        for dtype in dtypes
        for case in cases
        if case.layout == layout
        or (layout is None and (case.family, case.layout) != ("step", "NCHW"))
        for part in _parts(case)
    ]
    return [task for task in found if matches(task, patterns)]


def matches(task: Task, patterns: list[str]) -> bool:
    """Whether the task or its case has one of the names; without patterns every task has."""
    names = task.case.name, str(task), f"{task}, {task.case.dtype}"
    return not patterns or any(fnmatchcase(name, p) for p in patterns for name in names)


def _parts(case: Case) -> tuple[str, ...]:
    if not isinstance(case.work, Layer):
        return ("step",)
    return ("forward", "backward") if case.work.repeats == 1 else ("both",)
