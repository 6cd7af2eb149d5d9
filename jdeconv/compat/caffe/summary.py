"""A net as a table of its layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jdeconv.compat.caffe.plan import Plan
from jdeconv.compat.caffe.sources import Known
from jdeconv.compat.caffe.wiring import Step

HEAD = ("layer", "type", "tops", "parameters", "multiply-adds")


def table(steps: Sequence[Step], plan: Plan, inputs: Mapping[str, Known]) -> str:
    """A line for each input and each layer, and one for all."""
    cells = {name: _cells(shape or ()) for name, shape in inputs.items()}
    rows = [HEAD]
    rows += [(name, "input", str(list(shape or ())), "", "") for name, shape in inputs.items()]
    all_parameters, all_work = 0, 0
    for step, made, tops in zip(steps, plan.layers, plan.tops, strict=True):
        parameters = sum(_cells(blob.shape) for blob in plan.blobs.get(step.name, ()))
        work = made.per_bottom * sum(cells[name] for name in step.bottoms)
        work += made.per_top * sum(map(_cells, tops))
        cells.update(zip(step.tops, map(_cells, tops), strict=True))
        shapes = ", ".join(str(list(top)) for top in tops)
        rows.append((step.name, step.message.type, shapes, _count(parameters), _count(work)))
        all_parameters, all_work = all_parameters + parameters, all_work + work
    rows.append(("all", f"{len(steps)} layers", "", f"{all_parameters:,}", f"{all_work:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust] * 3 + [str.rjust] * 2
    return "\n".join(
        "  ".join(
            put(text, width) for put, text, width in zip(sides, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _cells(shape: Sequence[int | None]) -> int:
    return math.prod(size or 1 for size in shape)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""
