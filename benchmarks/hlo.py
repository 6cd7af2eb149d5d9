"""What the kernels of a compiled GPU program do, read from its text: products and bytes, by kind of kernel.

The text lists the operations in the order in which they run. One operation is one kernel, but for those that
only name memory, and for loops, which run their bodies' kernels as often as the text says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # others have them in their names
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "iota"}
VENDOR = {
    "__cudnn$convForward": "forward",
    "__cudnn$convBackwardInput": "backward-input",
    "__cudnn$convBackwardFilter": "backward-filter",
    "__cudnn$convBiasActivationForward": "fused forward",
    "__cudnn$convForwardGraph": "forward graph",
}
KINDS = (*VENDOR.values(), "naive", "dot", "other")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


@dataclass(frozen=True)
class Array:
    """An element type, such as bf16, and a shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        named = re.search(r"[1-9]\d*", self.dtype)
        return self.size * BITS.get(self.dtype, int(named[0]) if named else 0) // 8


@dataclass(frozen=True)
class Operation:
    """A line of the text."""

    name: str
    code: str
    results: list[Array]
    arguments: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.arguments)

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.results)

    def named(self, pattern: str) -> str:
        """What the attribute says that the pattern finds, or nothing."""
        found = re.search(pattern, self.rest)
        return found[1] if found else ""


@dataclass(frozen=True)
class Kernel:
    """One kernel, and how often it runs.

    Args:
      kind: one of KINDS, or of COLLECTIVES.
      dtype: of what is multiplied, the wider of the two operands.
      products: multiply-adds of a convolution or dot, stuffed zeros among them.
      bytes: read and written.
      times: more than 1 in a loop.
      name: the operation's.
    """

    kind: str
    dtype: str
    products: int
    bytes: int
    times: int
    name: str


def kernels(text: str) -> list[Kernel]:
    """The kernels of a compiled program, those of loops once, with how often they run."""
    program, entry = computations(text)
    return list(_kernels(program, entry, 1))


def collectives(text: str) -> Iterator[tuple[str, list[Array]]]:
    """Kind and results of what devices send one another, those of loops once."""
    program, _ = computations(text)
    for operation in (o for own in program.values() for o in own.values()):
        kind = next((c for c in COLLECTIVES if operation.code.startswith(c)), "")
        if kind and not operation.code.endswith("-done"):
            # Where it is started by itself, its operands are listed before its results.
            count = len(operation.operands) if operation.code.endswith("-start") else 0
            yield kind, operation.results[count:] or operation.results


def computations(text: str) -> tuple[dict[str, dict[str, Operation]], str]:
    """Each computation's operations by name, and the entry's name."""
    program: dict[str, dict[str, Operation]] = {}
    entry = name = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name, program[head[2]] = head[2], {}
            entry = name if head[1] else entry
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.-]+) = ", line):
            operation = _operation(found[1], line[found.end() :])
            program[name][operation.name] = operation
    return program, entry


def _operation(name: str, text: str) -> Operation:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    results = [
        Array(dtype, tuple(map(int, filter(None, shape.split(",")))))
        for dtype, shape in re.findall(r"([a-z]+\d*\w*)\[([\d,]*)\]", text[:end])
    ]
    start = text.index("(", end)
    stop = _closing(text, start)
    arguments = text[start + 1 : stop]
    return Operation(name, text[end:start].strip(), results, arguments, text[stop + 1 :])


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"no closing parenthesis in {text}")


def _kernels(program: dict, name: str, times: int) -> Iterator[Kernel]:
    own = program[name]
    for operation in own.values():
        code = operation.code
        if code == "while":
            trips = int(operation.named(r'"known_trip_count":\{"n":"(\d+)"') or 0)
            if not trips:
                raise ValueError(f"nobody knows how often {operation.name} runs")
            yield from _kernels(program, operation.named(r"body=%?([\w.-]+)"), times * trips)
        elif code in ("call", "async-start"):
            called = operation.named(r"(?:to_apply|calls)=%?([\w.-]+)")
            yield from _kernels(program, called, times)
        elif code == "conditional":
            names = re.findall(r"%([\w.-]+)", operation.named(r"branch_computations=\{(.*?)\}"))
            branches = [list(_kernels(program, branch, times)) for branch in names]
            yield from max(branches, key=lambda found: sum(kernel.bytes for kernel in found))
        elif code not in FREE and not code.endswith("-done"):
            yield replace(_kernel(program, own, operation), times=times)


def _kernel(program: dict, own: dict, operation: Operation) -> Kernel:
    reads = [own[name] for name in dict.fromkeys(operation.operands)]
    if operation.code == "fusion":
        inner = program[operation.named(r"calls=%?([\w.-]+)")]
        found = [multiplied for o in inner.values() if (multiplied := _multiplied(inner, o))]
        kind, dtype, _ = found[0] if found else ("other", operation.results[0].dtype, 0)
        moved = _fusion_bytes(inner, operation)
        return Kernel(kind, dtype, sum(p for *_, p in found), moved, 1, operation.name)
    moved = sum(read.bytes for read in reads) + operation.bytes
    kind, dtype, products = _multiplied(own, operation) or (
        next((c for c in COLLECTIVES if operation.code.startswith(c)), "other"),
        operation.results[0].dtype if operation.results else "",
        0,
    )
    return Kernel(kind, dtype, products, moved, 1, operation.name)


def _fusion_bytes(inner: dict, operation: Operation) -> int:
    """Of an operand, no more than the slices of it that are used; of one updated in place, the update."""
    moved, aliased = 0, 0
    for parameter in (o for o in inner.values() if o.code == "parameter"):
        used, whole = 0, False
        names = {parameter.name}
        for user in inner.values():  # in order, so that a bitcast precedes its uses
            if names.isdisjoint(user.operands):
                continue
            if user.code == "bitcast":
                names.add(user.name)
            elif user.code in ("slice", "dynamic-slice", "gather") and user.operands[0] in names:
                used += user.bytes
            elif user.code == "dynamic-update-slice" and user.operands[0] in names:
                update = inner[user.operands[1]]
                aliased += parameter.bytes - update.bytes
            else:
                whole = True
        moved += parameter.bytes if whole else min(used, parameter.bytes)
    return moved + operation.bytes - min(aliased, operation.bytes)


def _multiplied(own: dict, operation: Operation) -> tuple[str, str, int] | None:
    """Kind, operands' dtype and multiply-adds of a convolution or dot; None of all else."""
    target = operation.named(r'custom_call_target="([^"]*)"')
    if operation.code == "convolution" or target in VENDOR:
        arrays = [own[name].results[0] for name in operation.operands[:2]]
        kind = VENDOR.get(target, "naive")
        # The labels are those of the forward convolution, whichever of its arrays is the result.
        roles = {
            "backward-input": ("y", "kernel", "x"),
            "backward-filter": ("x", "y", "kernel"),
        }.get(kind, ("x", "kernel", "y"))
        found = dict(zip(roles, (*arrays, operation.results[0]), strict=True))
        outputs = operation.named(r"dim_labels=\w+_(\w+)->").index("o")
        once = found["kernel"].size // found["kernel"].shape[outputs]
        return kind, _wider(arrays), found["y"].size * once
    if operation.code != "dot" and not target.startswith("__cublas"):
        return None
    arrays = [own[name].results[0] for name in operation.operands[:2]]
    # lhs_contracting_dims={1} of a dot, "lhs_contracting_dimensions":["1"] of a library's call
    listed = operation.named(r'lhs_contracting_dim\w+"?[=:][{[](.*?)[]}]')
    axes = map(int, re.findall(r"\d+", listed))
    summed = math.prod(arrays[0].shape[axis] for axis in axes)
    return "dot", _wider(arrays), operation.results[0].size * summed


def _wider(arrays: list[Array]) -> str:
    return max(arrays, key=lambda a: a.bytes / max(a.size, 1)).dtype
