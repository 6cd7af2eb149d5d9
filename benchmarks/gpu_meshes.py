"""Compile training steps for eight H100s, and count the bytes that they would send one another.

The command needs no GPU. It compiles the steps of jdeconv and of jax.lax in bfloat16 and reads which data the
devices exchange. There are four ways to divide the arrays:

    batch      The images are sharded. All devices have all parameters.
    channels   The output channels of every kernel are sharded, if eight divides their number.
    groups     Depthwise kernels are sharded, with the layers before and after them.
    space      The height of the images is sharded. jdeconv's programs use `jdeconv.halo`.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks import architectures, h100, hlo, operations, report
from benchmarks.cases import Call, Step
from benchmarks.gpu import PACKAGES
from benchmarks.peers import LAX, OURS
from jdeconv import halo

DEVICES = 8
PROGRAMS = {
    "batch": ("ResNet-50", "DCGAN", "autoencoder"),
    "channels": ("DCGAN", "autoencoder"),
    "groups": ("MobileNetV2",),
    "space": ("U-Net", "autoencoder"),
}
SHARE = (DEVICES - 1) / DEVICES
SENT = {
    "all-reduce": 2 * SHARE,
    "all-gather": SHARE,
    "reduce-scatter": DEVICES - 1,
    "all-to-all": SHARE,
    "collective-permute": 1,
}  # times the bytes of the result


HEIGHT = PartitionSpec(None, "devices")
HALOS = functools.partial(operations.Jdeconv, functions=halo, spec=HEIGHT)


@dataclass(frozen=True)
class Program:
    """What the collectives of a compiled step carry.

    Args:
      counts: how many there are, by kind.
      bytes: of their results, by kind.
      largest: bytes of the largest result.
      sent: bytes that each device sends, where collectives go around a ring.
      gathered: bytes of the largest array that is gathered and is no parameter.
      rows: the most rows that one device sends another.
    """

    counts: dict[str, int]
    bytes: dict[str, int]
    largest: int
    sent: int
    gathered: int
    rows: int


def read(text: str, parameters: set[int]) -> Program:
    """The collectives of a compiled step, whose parameters have these sizes."""
    counts: Counter = Counter()
    moved: Counter = Counter()
    arrays = []
    for kind, results in hlo.collectives(text):
        counts[kind] += 1
        moved[kind] += sum(array.bytes for array in results)
        arrays += [(kind, array) for array in results]
    gathered = [a.bytes for kind, a in arrays if kind == "all-gather" and a.size not in parameters]
    rows = [a.shape[1] for kind, a in arrays if kind == "collective-permute" and len(a.shape) == 4]
    return Program(
        dict(counts),
        dict(moved),
        max((array.bytes for _, array in arrays), default=0),
        round(sum(SENT[kind] * size for kind, size in moved.items())),
        max(gathered, default=0),
        max(rows, default=0),
    )


def largest_activation(work: Step) -> int:
    """Bytes of the largest array with the batch in front that the network makes, on all devices together."""
    model = jax.make_jaxpr(
        lambda image, *kernels: work.model(operations.Lax("NCHW"), image, kernels)
    )
    made = [v.aval for e in model(*work.structs("bfloat16")).eqns for v in e.outvars]
    return max(a.size * a.dtype.itemsize for a in made if a.shape[:1] == work.image[:1])


def by_kernel(work: Step) -> dict[int, Call]:
    """A call of each kernel, by its place among the parameters."""
    return {call.kernel: call for call in work.calls()}


def reach(work: Step) -> int:
    """The most rows beside a position that a window of the network spans."""
    calls = work.calls()
    return max(c.steps.get("dilation", 1) * (work.kernels[c.kernel][-1] - 1) for c in calls)


def spec(way: str, shape: tuple[int, ...], call: Call | None) -> PartitionSpec:
    """How a parameter lies on the devices; its shape is O, I and space, but its axes are space, I and O."""
    if call is None or way not in ("channels", "groups"):
        return PartitionSpec()
    by_output = way == "channels" or call.steps.get("groups", 1) > 1 or shape[0] > shape[1]
    axis = -1 if by_output == (call.kind == "conv") else -2
    size = shape[0] if axis == -1 else shape[1]
    names = [None] * len(shape)
    names[axis] = "devices" if size % DEVICES == 0 else None
    return PartitionSpec(*names)


def placed(way: str, work: Step, mesh: Mesh) -> list[jax.ShapeDtypeStruct]:
    """The step's arrays, channels last."""
    batch, channels, *space = work.image
    images = {"batch": PartitionSpec("devices"), "space": HEIGHT}
    shapes = [((batch, *space, channels), images.get(way, PartitionSpec()))]
    calls = by_kernel(work)
    for i, shape in enumerate(work.kernels):
        last = shape if len(shape) == 1 else (*shape[2:], shape[1], shape[0])
        shapes.append((last, spec(way, shape, calls.get(i))))
    return [
        jax.ShapeDtypeStruct(shape, "bfloat16", sharding=NamedSharding(mesh, found))
        for shape, found in shapes
    ]


def programs(work: Step, way: str, mesh: Mesh) -> dict[str, Program]:
    """What ours and jax.lax's become."""
    arrays, sizes = placed(way, work, mesh), {math.prod(shape) for shape in work.kernels}
    found = {}
    for peer, ops in {
        OURS: HALOS if way == "space" else operations.Jdeconv,
        LAX: operations.Lax,
    }.items():
        with jax.set_mesh(mesh):
            compiled = h100.compiled(functools.partial(work.run, ops("NHWC")), arrays)
        found[peer] = read(compiled.as_text(), sizes)
    return found


def faults(work: Step, way: str, found: dict[str, Program]) -> list[str]:
    """What is wrong with ours, in words."""
    ours, theirs = found[OURS], found[LAX]
    wrong = []
    if ours.gathered > theirs.gathered:
        wrong.append(f"an array of {ours.gathered} bytes is gathered, by jax.lax {theirs.gathered}")
    if way == "space" and ours.rows > (rows := reach(work)):
        wrong.append(f"{ours.rows} rows are sent, where windows reach {rows}")
    return wrong


def lines(work: Step, found: dict[str, Program]) -> list[str]:
    """The rows of the table."""
    parameters = 2 * sum(map(math.prod, work.kernels)) / 1e6
    activation = largest_activation(work) / 1e6
    told = [f"  parameters {parameters:.1f} MB, largest activation {activation:.1f} MB"]
    for peer, program in found.items():
        parts = [
            f"{count} {kind} of {program.bytes[kind] / 1e6:.2f} MB"
            for kind, count in sorted(program.counts.items())
        ]
        parts.append(f"the largest of {program.largest / 1e6:.2f} MB")
        told.append(f"  {peer}: {', '.join(parts)}; each device sends {program.sent / 1e6:.1f} MB")
    return told


def main(arguments: list[str] | None = None) -> int:
    """Compile, read, write; 1 if an activation is gathered that lax does not gather, or a halo is too large."""
    parser = report.parser("benchmarks.gpu_meshes", __doc__)
    parser.add_argument(
        "ways", nargs="*", metavar="WAY", help=f"some of {', '.join(PROGRAMS)} (default: all)"
    )
    report.add_outputs(parser, "table")
    options = parser.parse_args(arguments)
    if unknown := set(options.ways) - set(PROGRAMS):
        parser.error(f"there is no {', '.join(unknown)}")
    if reason := h100.missing():
        print(reason, file=sys.stderr)
        return 2
    mesh = Mesh(np.array(h100.devices(DEVICES)), ("devices",), axis_types=(AxisType.Auto,))
    chosen = [(n, way) for way in options.ways or PROGRAMS for n in PROGRAMS[way]]
    written: list[str] = []
    wrong: list[str] = []
    for name, way in report.progress(chosen, "step"):
        work = architectures.steps()[name]
        found = programs(work, way, mesh)
        written += [f"{name}, {way}", *lines(work, found)]
        report.show("\n".join(written[-4:]))
        wrong += [f"{name}, {way}: {fault}" for fault in faults(work, way, found)]
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    written += ["", f"Read from programs compiled for {DEVICES} H100s; nothing was run. {versions}"]
    print(*written[-2:], sep="\n")
    if options.table is not None:
        options.table.write_text("\n".join(written) + "\n")
    print(*wrong, sep="\n", end="\n" * bool(wrong), file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    report.run(main)
