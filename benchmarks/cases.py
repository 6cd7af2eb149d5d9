"""The work that is timed. A case makes arrays, and says with a peer's operations what to compute of them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from benchmarks import models
from benchmarks.operations import Recorder
from jdeconv.window import Window


@dataclass(frozen=True)
class Array:
    """An array as cases and results exchange it: channels first, O before I, mapped axes in front."""

    role: str  # "image" (N, C, *space), "kernel" (O, I, *space) or "plain"
    value: np.ndarray
    mapped: int = 0


class Zeros:
    """In the place of a random generator, where only shapes are asked for: zeros that take no memory."""

    def normal(self, size: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(np.float32(0), size)


@dataclass(frozen=True)
class Layer:
    """One conv or deconv, forward and both gradients."""

    kind: str  # "conv" or "deconv"
    batch: int
    channels: tuple[int, int]  # into and out of the layer
    size: tuple[int, ...]  # of its input
    kernel: int
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    dilation: int = 1
    groups: int = 1
    scan: int = 0  # length of a chain of such layers, in a loop
    examples: int = 0  # per-example gradients of one kernel
    ensemble: int = 0  # as many inputs as kernels

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def steps(self) -> dict[str, int]:
        extra = {"output_padding": self.output_padding} if self.kind == "deconv" else {}
        return extra | {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    @property
    def window(self) -> Window:
        make = Window.of_conv if self.kind == "conv" else Window.of_deconv
        steps = {name: step for name, step in self.steps.items() if name != "groups"}
        return make(self.size, (self.kernel,) * self.rank, **steps)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of input, kernel and output, channels first."""
        (into, out), w = self.channels, self.window
        sizes = (w.big, w.small) if self.kind == "conv" else (w.small, w.big)
        outer, inner = (out, into // self.groups)
        if self.kind == "deconv":
            outer, inner = into, out // self.groups
        return (
            (self.batch, into, *sizes[0]),
            (outer, inner, *w.kernel),
            (self.batch, out, *sizes[1]),
        )

    @property
    def repeats(self) -> int:
        return max(1, self.scan, self.examples, self.ensemble)

    @property
    def flops(self) -> float:
        """Of the three contractions, every tap counted, a multiply-add as two."""
        _, kernel, _ = self.shapes
        once = self.batch * math.prod(kernel) * math.prod(self.window.small)
        return 3 * 2 * once * self.repeats

    @property
    def elements(self) -> float:
        """The least that must be read and written: input, kernel, cotangent; output and both gradients."""
        image, kernel, output = map(math.prod, self.shapes)
        images = 2 * (image + output) * max(1, self.examples, self.ensemble)
        kernels = max(1, self.scan, self.ensemble)
        return images + kernel * (kernels + max(kernels, self.examples))

    def arrays(self, rng: np.random.Generator | Zeros) -> list[Array]:
        image, kernel, output = self.shapes
        fan = math.prod(kernel) / self.groups / self.channels[1]
        fan /= self.stride**self.rank if self.kind == "deconv" else 1
        lead = [self.examples or self.ensemble] if self.examples or self.ensemble else []
        many = [self.ensemble] if self.ensemble else [self.scan] if self.scan else []
        kernels = rng.normal(size=(*many, *kernel)) / math.sqrt(max(fan, 1))
        return [
            Array("image", rng.normal(size=(*lead, *image)), len(lead)),
            Array("kernel", kernels, len(many)),
            Array("image", rng.normal(size=(*lead, *output)), len(lead)),
        ]

    def results(self) -> list[tuple[str, int]]:
        """Role and mapped axes of output and both gradients."""
        lead = int(bool(self.examples or self.ensemble))
        many = int(bool(self.examples or self.ensemble or self.scan))
        return [("image", lead), ("image", lead), ("kernel", many)]

    def forward(self, ops: Any, image: Any, kernel: Any) -> Any:
        return getattr(ops, self.kind)(image, kernel, **self.steps)

    def run(self, ops: Any, image: Any, kernel: Any, cotangent: Any) -> tuple:
        forward = functools.partial(self.forward, ops)
        if self.scan:
            return ops.vjp(
                lambda x, kernels: ops.scan(forward, x, kernels), cotangent, image, kernel
            )
        if self.examples:
            return ops.map(lambda x, c: ops.vjp(forward, c, x, kernel), image, cotangent)
        if self.ensemble:
            return ops.map(lambda x, k, c: ops.vjp(forward, c, x, k), image, kernel, cotangent)
        return ops.vjp(forward, cotangent, image, kernel)


@dataclass(frozen=True)
class Call:
    """A conv or deconv of a network."""

    kind: str
    of_image: bool
    kernel: int  # its place among the parameters
    positions: int  # of the side with fewer, in all images
    steps: dict[str, int]


@dataclass(frozen=True)
class Step:
    """A training step: the loss of a network, and its gradient with respect to every parameter."""

    model: Callable
    image: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def flops(self) -> float:
        """Of the convolutions, forward and backward; nobody asks for the gradient of the image."""
        return sum(
            2 * (2 if call.of_image else 3) * math.prod(self.kernels[call.kernel]) * call.positions
            for call in self.calls()
        )

    def calls(self) -> list[Call]:
        """The convs and deconvs of the network."""
        recorder, places = Recorder(), {}

        def model(*arrays: jax.Array) -> jax.Array:
            places.update((id(array), place) for place, array in enumerate(arrays))
            return self.model(recorder, arrays[0], arrays[1:])

        jax.eval_shape(model, *self.structs())
        return [
            Call(kind, places.get(id(a)) == 0, places[id(kernel)] - 1, y.size // y.shape[1], steps)
            for kind, a, kernel, y, steps in recorder.calls
        ]

    def structs(self, dtype: str = "float32") -> list[jax.ShapeDtypeStruct]:
        """What stands for the image and the parameters where only shapes matter."""
        return [jax.ShapeDtypeStruct(shape, dtype) for shape in (self.image, *self.kernels)]

    @property
    def elements(self) -> float:
        return 0.0  # no bound from memory is claimed for a network

    def arrays(self, rng: np.random.Generator | Zeros) -> list[Array]:
        images = [Array("image", rng.normal(size=self.image))]
        scales = [1 / math.sqrt(math.prod(shape[1:])) for shape in self.kernels]
        return images + [
            Array(_role(shape), scale * rng.normal(size=shape))
            for scale, shape in zip(scales, self.kernels, strict=True)
        ]

    def results(self) -> list[tuple[str, int]]:
        return [("plain", 0)] + [(_role(shape), 0) for shape in self.kernels]

    def run(self, ops: Any, image: Any, *kernels: Any) -> tuple:
        def loss(*kernels):
            return ops.mean_square(self.model(ops, image, kernels))

        return ops.value_and_grad(loss, *kernels)


def _role(shape: tuple[int, ...]) -> str:
    """Of a network's parameter: biases and scales have one axis."""
    return "kernel" if len(shape) > 1 else "plain"


GRADIENTS = {
    "backward": slice(0, 2),
    "image gradient": slice(0, 1),
    "kernel gradient": slice(1, 2),
}


@dataclass(frozen=True)
class Case:
    """Work, with a name, a family whose geometric mean is told, a dtype, a layout, and what is timed of it.

    The part of a layer is "both", "forward", "backward" (both gradients), "image gradient" or
    "kernel gradient"; that of a network is "step".
    """

    name: str
    family: str
    work: Layer | Step
    dtype: str = "float32"
    layout: str = "NCHW"
    part: str = "both"

    def __str__(self) -> str:
        return f"{self.name}, {self.layout}"

    @property
    def title(self) -> str:
        """The name with the part."""
        return self.name if self.part == "step" else f"{self.name} {self.part}"

    def function(self, ops: Any) -> Callable:
        """The work as a function of JAX arrays."""
        if self.part in ("both", "step"):
            return functools.partial(self.work.run, ops)
        forward = functools.partial(self.work.forward, ops)
        if self.part == "forward":
            return forward
        chosen = GRADIENTS[self.part]
        return lambda image, kernel, bar: jax.vjp(forward, image, kernel)[1](bar)[chosen]

    def arrays(self, rng: Any) -> list[Array]:
        """What the function takes."""
        return self.work.arrays(rng)[: 2 if self.part == "forward" else None]

    def results(self) -> list[tuple[str, int]]:
        """Role and mapped axes of what the function returns."""
        found = self.work.results()
        if self.part in ("both", "step"):
            return found
        return found[:1] if self.part == "forward" else found[1:][GRADIENTS[self.part]]

    def row(self) -> dict[str, Any]:
        """What says in a table which case it is."""
        names = ("name", "family", "part", "dtype", "layout")
        return {name: getattr(self, name) for name in names} | {"programs": {}, "refused": {}}

    @property
    def flops(self) -> float:
        return self.work.flops

    @property
    def bytes(self) -> float:
        return self.work.elements * {"float64": 8, "bfloat16": 2, "float16": 2}.get(self.dtype, 4)

    def larger(self, factor: int) -> Case:
        """The same with so many times the batch."""
        if isinstance(self.work, Layer):
            work = dataclasses.replace(self.work, batch=factor * self.work.batch)
        else:
            batch, *image = self.work.image
            work = dataclasses.replace(self.work, image=(factor * batch, *image))
        return dataclasses.replace(self, work=work)


_conv, _deconv = functools.partial(Layer, "conv"), functools.partial(Layer, "deconv")

DENSE = {
    "3x3 56": _conv(8, (64, 64), (56, 56), 3, padding=1),
    "3x3 28": _conv(8, (128, 128), (28, 28), 3, padding=1),
    "3x3 14": _conv(8, (256, 256), (14, 14), 3, padding=1),
    "3x3 7": _conv(8, (512, 512), (7, 7), 3, padding=1),
    "1x1": _conv(8, (256, 64), (28, 28), 1),
    "3x3 s2": _conv(8, (64, 128), (56, 56), 3, stride=2, padding=1),
    "stem 7x7 s2": _conv(4, (3, 64), (224, 224), 7, stride=2, padding=3),
    "stem 4x4 s4": _conv(4, (3, 96), (224, 224), 4, stride=4),
    "3x3 d2": _conv(8, (64, 64), (28, 28), 3, padding=2, dilation=2),
    "3x3 d4": _conv(8, (64, 64), (28, 28), 3, padding=4, dilation=4),
    "3x3x3": _conv(2, (32, 32), (16, 16, 16), 3, padding=1),
    "1-D k9": _conv(8, (128, 128), (512,), 9, padding=4),
}
DEPTHWISE = {
    "3x3": _conv(8, (128, 128), (56, 56), 3, padding=1, groups=128),
    "5x5 s2": _conv(8, (128, 128), (56, 56), 5, stride=2, padding=2, groups=128),
    "7x7": _conv(4, (96, 96), (56, 56), 7, padding=3, groups=96),
    "1-D k31": _conv(8, (256, 256), (1024,), 31, padding=15, groups=256),
    "3-D k3": _conv(2, (32, 32), (24, 24, 24), 3, padding=1, groups=32),
}
GROUPED = {
    str(groups): _conv(8, (128, 128), (28, 28), 3, padding=1, groups=groups)
    for groups in (2, 4, 8, 32)
}
DECONV = {
    "k4 s2 p1": _deconv(8, (128, 64), (28, 28), 4, stride=2, padding=1),
    "k3 s2 p1 op1": _deconv(8, (128, 64), (28, 28), 3, stride=2, padding=1, output_padding=1),
    "k2 s2": _deconv(8, (128, 64), (28, 28), 2, stride=2),
    "k5 s3": _deconv(8, (64, 32), (20, 20), 5, stride=3, padding=1),
    "bilinear k16 s8": _deconv(2, (21, 21), (28, 28), 16, stride=8, padding=4, groups=21),
    "1-D k16 s8 p4": _deconv(4, (128, 64), (512,), 16, stride=8, padding=4),
    "3-D k3 s2 p1 op1": _deconv(
        2, (32, 16), (12, 12, 12), 3, stride=2, padding=1, output_padding=1
    ),
    "grouped(4) k4 s2 p1": _deconv(8, (128, 64), (28, 28), 4, stride=2, padding=1, groups=4),
    "depthwise k4 s2 p1": _deconv(8, (128, 128), (28, 28), 4, stride=2, padding=1, groups=128),
}
LARGE = {f"k{k}": _conv(1, (1, 1), (512, 512), k, padding=k // 2) for k in (41, 71, 101)}
TRANSFORMED = {
    "scan of 8 convs": ("scan", _conv(8, (64, 64), (28, 28), 3, padding=1, scan=8)),
    "per-example gradients of 32": (
        "vmap",
        _conv(1, (32, 64), (28, 28), 3, padding=1, examples=32),
    ),
    "ensemble of 8": ("vmap", _conv(4, (32, 64), (28, 28), 3, padding=1, ensemble=8)),
}
STEPS = {name: Step(*model) for name, model in models.MODELS.items()}


def _cases() -> list[Case]:
    cases = [Case(f"dense {name}", "dense", work) for name, work in DENSE.items()]
    cases += [Case(f"depthwise {name}", "depthwise", work) for name, work in DEPTHWISE.items()]
    cases += [Case(f"grouped({name}) 3x3", "grouped", work) for name, work in GROUPED.items()]
    cases += [Case(f"deconv {name}", "deconv", work) for name, work in DECONV.items()]
    cases += [Case(f"large {name}", "large kernel", work) for name, work in LARGE.items()]
    cases += [
        Case(f"large {name} float64", "large kernel", LARGE[name], "float64")
        for name in ("k41", "k101")
    ]
    for dtype in ("float64", "bfloat16"):
        cases += [
            Case(f"dense 3x3 28 {dtype}", "other dtypes", DENSE["3x3 28"], dtype),
            Case(f"deconv k4 s2 p1 {dtype}", "other dtypes", DECONV["k4 s2 p1"], dtype),
        ]
    cases += [Case(name, family, work) for name, (family, work) in TRANSFORMED.items()]
    cases += [Case(f"step {name}", "step", work) for name, work in STEPS.items()]
    # One channel lies in memory in the same way before and behind space.
    twice = [case for case in cases if case.family != "large kernel"]
    return cases + [dataclasses.replace(case, layout="NHWC") for case in twice]


CASES = _cases()

ACCELERATOR_BATCH = (
    16  # times that of a CPU: a few milliseconds for a case, so that it fills a large GPU
)


def for_accelerator(cases: Iterable[Case]) -> list[Case]:
    """Larger, and in narrow floats too, which are what its units are made for; without float64."""
    found = []
    for case in cases:
        if case.dtype == "float64" or case.family == "other dtypes":
            continue
        large = case.larger(ACCELERATOR_BATCH)
        found.append(large)
        if case.family in ("dense", "depthwise", "grouped", "deconv"):
            found += [
                dataclasses.replace(
                    large, name=f"{case.name} {dtype}", family=f"{case.family} {dtype}", dtype=dtype
                )
                for dtype in ("bfloat16", "float16")
            ]
    return found


QUICK = (
    "dense 3x3 28",
    "dense 3x3 s2",
    "depthwise 3x3",
    "grouped(4) 3x3",
    "deconv k4 s2 p1",
    "deconv 3-D k3 s2 p1 op1",
    "step DCGAN",
)
