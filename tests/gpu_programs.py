"""Programs that are compiled for an H100, in a process of their own: `python -m tests.gpu_programs`.

Prints a JSON object: for each program by name, what ours and jax.lax's became. JAX's settings have to be
changed for this, and other tests must not see it. With `--fault`, float32 is asked for as it once was.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

import jdeconv
from benchmarks import architectures, gpu, gpu_meshes, h100, hlo
from benchmarks.cases import Case, Layer
from jdeconv import accelerate
from jdeconv.compat import caffe as compat_caffe
from jdeconv.compat import keras as compat_keras
from jdeconv.compat import lax as compat_lax
from jdeconv.compat import onnx as compat_onnx
from jdeconv.compat import torch as compat_torch
from jdeconv.problem import Problem

SHORT = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
LAYERS = {
    "conv 1-D k9": Layer("conv", 4, (32, 48), (256,), 9, padding=4),
    "conv 3x3": Layer("conv", 8, (64, 64), (28, 28), 3, padding=1),
    "conv 3x3 s2": Layer("conv", 8, (64, 96), (28, 28), 3, stride=2, padding=1),
    "conv 7x7 s2 of 3": Layer("conv", 4, (3, 64), (64, 64), 7, stride=2, padding=3),
    "conv 4x4 s4 of 3": Layer("conv", 4, (3, 96), (64, 64), 4, stride=4),
    "conv 1x1": Layer("conv", 8, (96, 64), (14, 14), 1),
    "conv 1x1 s2": Layer("conv", 8, (96, 64), (28, 28), 1, stride=2),
    "conv 3x3 d2": Layer("conv", 8, (64, 48), (28, 28), 3, padding=2, dilation=2),
    "conv 3-D k3": Layer("conv", 2, (16, 32), (16, 12, 14), 3, padding=1),
    "conv 3-D k2 s2": Layer("conv", 2, (16, 32), (16, 12, 14), 2, stride=2),
    "conv grouped(4)": Layer("conv", 8, (64, 64), (28, 28), 3, padding=1, groups=4),
    "conv 1-D k7 d3": Layer("conv", 4, (64, 48), (240,), 7, padding=9, dilation=3),
    "conv depthwise 1-D k31": Layer("conv", 4, (64, 64), (256,), 31, padding=15, groups=64),
    "conv depthwise": Layer("conv", 8, (64, 64), (28, 28), 3, padding=1, groups=64),
    "conv depthwise 5x5 s2": Layer("conv", 8, (64, 64), (28, 28), 5, 2, 2, groups=64),
    "deconv 1-D k16 s8": Layer("deconv", 2, (64, 32), (128,), 16, stride=8, padding=4),
    "deconv k4 s2": Layer("deconv", 8, (64, 48), (14, 14), 4, stride=2, padding=1),
    "deconv k3 s2 op1": Layer("deconv", 8, (64, 48), (14, 14), 3, 2, 1, output_padding=1),
    "deconv k2 s2": Layer("deconv", 8, (64, 48), (14, 14), 2, stride=2),
    "deconv k5 s3": Layer("deconv", 8, (64, 32), (20, 20), 5, stride=3, padding=1),
    "deconv 3-D k3 s2": Layer("deconv", 2, (32, 16), (8, 9, 7), 3, 2, 1, output_padding=1),
    "deconv grouped(4)": Layer("deconv", 8, (64, 48), (14, 14), 4, 2, 1, groups=4),
}
OTHER_DTYPES = ("conv 3x3 s2", "conv 3-D k3", "deconv k4 s2", "deconv 1-D k16 s8")
FIRST = ("conv 3x3 s2", "deconv k4 s2")  # with channels first as well

NUMBERS = ("NHWC", "HWIO", "NHWC")
IMAGE, KERNEL = (8, 14, 14, 64), (4, 4, 48, 64)
ACTIVATION, FILTER = (8, 28, 28, 48), (3, 3, 48, 64)


def tasks() -> list[Case]:
    """Layers, forward and backward."""
    cases = [Case(name, work.kind, work, "bfloat16", "NHWC") for name, work in LAYERS.items()]
    for dtype in ("float16", "float32"):
        cases += [dataclasses.replace(c, dtype=dtype) for c in cases if c.name in OTHER_DTYPES]
    cases = list(dict.fromkeys(cases))
    cases += [dataclasses.replace(c, layout="NCHW") for c in cases if c.name in FIRST]
    parts = ("forward", "backward")
    return [dataclasses.replace(case, part=part) for case in cases for part in parts]


def name_of(case: Case) -> str:
    return f"{case.title}, {case.dtype}, {case.layout}"


def _deconv(y, kernel):
    return jdeconv.deconv(y, kernel, stride=2, padding=1, dimension_numbers=NUMBERS)


def _grads(function):
    def total(*args):
        return function(*args).astype("float32").sum()

    return lambda *args: jax.grad(total, tuple(range(len(args))))(*args)


def _lax_conv(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=NUMBERS)


def _caffe(bottom, up, down):
    """A Deconvolution and a Convolution, each of stride 2."""
    windows = {"kernel_size": (4,), "stride": (2,), "pad": (1,), "bias_term": False}
    (top,) = compat_caffe.Deconvolution(num_output=48, **windows).forward([up], bottom)
    return compat_caffe.Convolution(num_output=64, **windows).forward([down], top)[0]


FIRST_SHAPES = (8, 64, 14, 14), (64, 48, 4, 4)
WAYS = {
    "gradients through accelerate": (_grads(accelerate(_lax_conv)), [ACTIVATION, FILTER]),
    "gradients through compat.lax": (
        _grads(
            lambda y, k: compat_lax.conv_transpose(y, k, (2, 2), "SAME", dimension_numbers=NUMBERS)
        ),
        [IMAGE, (4, 4, 64, 48)],
    ),
    "gradients through compat.torch": (
        _grads(lambda y, k: compat_torch.conv_transpose2d(y, k, stride=2, padding=1)),
        FIRST_SHAPES,
    ),
    "gradients through compat.onnx": (
        _grads(lambda y, k: compat_onnx.ConvTranspose(y, k, strides=[2, 2], pads=[1, 1, 1, 1])),
        FIRST_SHAPES,
    ),
    "gradients through compat.keras": (
        _grads(lambda y, k: compat_keras.conv_transpose(y, k, 2, "same")),
        [IMAGE, KERNEL],
    ),
    "gradients through compat.caffe": (_grads(_caffe), [*FIRST_SHAPES, (64, 48, 4, 4)]),
    "per-example gradients": (
        jax.vmap(jax.grad(lambda k, y: _deconv(y, k).astype("float32").sum()), (None, 0)),
        [KERNEL, (3, 2, 14, 14, 64)],
    ),
    "ensemble": (jax.vmap(_deconv), [(3, *IMAGE), (3, *KERNEL)]),
    "reflected": (
        _grads(
            lambda x, k: jdeconv.conv(
                x, k, padding=1, padding_mode="reflect", dimension_numbers=NUMBERS
            )
        ),
        [ACTIVATION, FILTER],
    ),
}


def program(function: Callable, shapes: list[tuple], device: Any) -> dict[str, Any]:
    """What becomes of a function of bfloat16 arrays on a device."""
    place = SingleDeviceSharding(device)
    given = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place) for shape in shapes]
    return dataclasses.asdict(h100.program(function, given))


def ways(device: Any) -> dict[str, Any]:
    """Other ways to the same contractions, in bfloat16."""
    return {name: program(function, shapes, device) for name, (function, shapes) in WAYS.items()}


def asked(device: Any) -> dict[str, Any]:
    """What preferred_element_type asks for, as in jax.lax."""
    options = {"dimension_numbers": NUMBERS, "preferred_element_type": jnp.float32}
    functions = {
        "jdeconv": lambda x, k: jdeconv.conv(x, k, padding="SAME", **options),
        "jax.lax": lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "SAME", **options),
    }
    return {name: program(f, [ACTIVATION, FILTER], device) for name, f in functions.items()}


def fused(device: Any) -> dict[str, Any]:
    """A conv, a bias and a relu, which are one call of cuDNN."""

    def theirs(x, k, b):
        y = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=NUMBERS)
        return jax.nn.relu(y + b.reshape(1, 1, 1, -1))

    def ours(x, k, b):
        return jax.nn.relu(jdeconv.conv(x, k, b, padding="SAME", dimension_numbers=NUMBERS))

    functions, shapes = {"jdeconv": ours, "jax.lax": theirs}, [ACTIVATION, FILTER, (64,)]
    return {name: program(f, shapes, device) for name, f in functions.items()}


def sharded() -> dict[str, Any]:
    """Gradients of a deconv whose batch lies on eight devices: collectives and the widest products."""
    mesh = jax.sharding.Mesh(np.array(h100.devices(8)), ("data",))
    y, kernel = (
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, spec))
        for shape, spec in ((IMAGE, PartitionSpec("data")), (KERNEL, PartitionSpec()))
    )
    text = h100.compiled(_grads(_deconv), (y, kernel)).as_text()
    kernels = hlo.kernels(text)
    return {
        "collectives": [[k.kind, k.dtype] for k in kernels if k.kind in hlo.COLLECTIVES],
        "products": [[k.kind, k.dtype] for k in kernels if k.products],
    }


def meshes() -> dict[str, Any]:
    """Steps of a small network that lies on eight devices in several ways: what is wrong, and what is sent."""
    mesh = jax.sharding.Mesh(np.array(h100.devices(8)), ("devices",))
    work = architectures.step(architectures.autoencoder, (16, 3, 64, 64), width=16, levels=3)
    found = {}
    for way in ("batch", "channels", "space"):
        programs = gpu_meshes.programs(work, way, mesh)
        found[way] = {name: dataclasses.asdict(program) for name, program in programs.items()}
        found[way]["faults"] = gpu_meshes.faults(work, way, programs)
    return found


def main(arguments: list[str]) -> None:
    """Compile all; with --fault, one that shows it."""
    (device,) = h100.devices()
    if "--fault" in arguments:
        Problem.answer = property(lambda p: p.wide)
        faulty = [
            task for task in tasks() if name_of(task) == "deconv k4 s2 backward, bfloat16, NHWC"
        ]
        print(json.dumps({name_of(task): gpu.row(task, device) for task in faulty}))
        return
    rows = {name_of(task): gpu.row(task, device) for task in tasks()}
    found = {"layers": rows, "ways": ways(device), "asked": asked(device), "fused": fused(device)}
    found["sharded"], found["meshes"] = sharded(), meshes()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
