"""A deploy net read from Caffe's own files: a pytree of blobs and a pure function."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv import checks
from jdeconv.checks import array, refused, reporting
from jdeconv.compat.caffe import files
from jdeconv.compat.caffe.files import MAX_LAYERS, MAX_NUMBERS, LayerMessage
from jdeconv.compat.caffe.layers import LAYERS, Layer, Shape

Params = dict[str, list[jax.Array]]


@dataclass(frozen=True)
class _Step:
    """One layer in its place: which tops it reads and writes, and where each of its blobs is kept."""

    name: str
    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Net:
    """A deploy net: ``net(net.params, {"data": x})`` gives the net's top blobs by name.

    Args:
      inputs: the shape of each input blob, by name.
      steps: the layers, in the order of the file.
      outputs: the names of the tops that no layer reads.
      params: the blobs of each layer that learns, by its name; layers that share a blob find it with the first.

    The call is a pure function of params and inputs, through which jit, grad, vmap and the others pass. The
    size of the batch is free.
    """

    inputs: dict[str, Shape]
    steps: tuple[_Step, ...] = field(repr=False)
    outputs: tuple[str, ...]
    params: Params = field(repr=False)

    @reporting()
    def __call__(
        self, params: Params, inputs: Mapping[str, jax.Array], tops: Sequence[str] | None = None
    ) -> dict[str, jax.Array]:
        """The tops by name: those of the net's end, or the ones named."""
        if set(inputs) != set(self.inputs):
            raise refused("inputs", f"need {sorted(self.inputs)}, got {sorted(inputs)}")
        blobs = {name: array("inputs", a) for name, a in inputs.items()}
        for name, a in blobs.items():
            if a.shape[1:] != self.inputs[name][1:] or a.ndim != len(self.inputs[name]):
                reason = f"need shape {self.inputs[name]} for {name!r} (the batch size may differ)"
                raise refused("inputs", f"{reason}, got {a.shape}")
        wanted = self.outputs if tops is None else tuple(tops)
        known = {*self.inputs, *(top for step in self.steps for top in step.tops)}
        if unknown := set(wanted) - known:
            raise refused("tops", f"must be of {sorted(known)}, got {sorted(unknown)}")
        for step in self.steps:
            learned = [params[owner][index] for owner, index in step.blobs]
            results = step.layer.apply(learned, [blobs[name] for name in step.bottoms])
            blobs.update(zip(step.tops, results, strict=True))
        return {name: blobs[name] for name in wanted}


@reporting()
def load(
    prototxt: str | os.PathLike,
    caffemodel: str | os.PathLike | None = None,
    *,
    key: jax.Array | None = None,
) -> Net:
    """A net from its definition and its weights, in phase TEST.

    Args:
      prototxt: the definition, of today's layers or of V1's.
      caffemodel: the weights; None lets the fillers make them.
      key: for the fillers; None is `jax.random.key(0)`.

    Returns:
      The `Net`.

    Raises:
      ValueError: for a file that cannot be read as such, a layer or a field that is not known, a blob that is
        missing or of another shape, sizes that do not fit, more than 2**29 numbers in a top or in all blobs
        together, more than 2**13 layers; with file, layer and field.
      TypeError: for what is no path and no key.
      ModuleNotFoundError: without protobuf, which is in the extra "caffe".

    Example: a layer that adds neighbors, from a file of two layers.
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> file = pathlib.Path(tempfile.mkdtemp(), "sum.prototxt")
      >>> _ = file.write_text('''
      ...     layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 4 } } }
      ...     layer { name: "y" type: "Convolution" bottom: "x" top: "y" convolution_param {
      ...       num_output: 1 kernel_size: 2 weight_filler { type: "constant" value: 1 } } }''')
      >>> net = load(file)
      >>> net(net.params, {"x": jnp.array([[[1.0, 2.0, 3.0, 4.0]]])})["y"].tolist()
      [[[3.0, 5.0, 7.0]]]
    """
    key = jax.random.key(0) if key is None else checks.key(key)
    message = files.read_prototxt(prototxt)
    build = _Build(str(prototxt), key)
    if caffemodel is not None:
        weights = files.layers(files.read_caffemodel(caffemodel))
        build.weights, build.stored = str(caffemodel), {layer.name: layer for layer in weights}
    build.declare(message)
    used = [layer for layer in files.layers(message) if layer.in_test]
    if len(used) > MAX_LAYERS:
        raise build.refused(f"{len(used)} layers, {MAX_LAYERS} are the most")
    for layer in used:
        build.add(layer)
    return Net(build.inputs, tuple(build.steps), tuple(build.available), build.params)


class _Build:
    """A net in the making: what is known after each layer of the file."""

    def __init__(self, file: str, key: Any) -> None:
        self.file, self.key = file, key
        self.weights: str | None = None
        self.stored: dict[str, LayerMessage] = {}
        self.inputs: dict[str, Shape] = {}
        self.shapes: dict[str, Shape] = {}
        self.available: dict[str, None] = {}  # tops that nobody has read, in their order
        self.owners: dict[str, tuple[str, int, Shape]] = {}  # of shared blobs, by their shared name
        self.params: Params = {}
        self.numbers = 0  # in them
        self.steps: list[_Step] = []

    def declare(self, message: Any) -> None:
        """The inputs in the head of a file of old."""
        shapes = [tuple(shape.dim) for shape in message.input_shape]
        if message.input_dim:
            dims = list(message.input_dim)
            shapes = [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
        if len(shapes) != len(message.input):
            raise self.refused(f"{len(shapes)} shapes for {len(message.input)} inputs")
        for name, shape in zip(message.input, shapes, strict=True):
            self._input(name, shape, f"input {name!r}")

    def add(self, layer: LayerMessage) -> None:
        """One layer."""
        if layer.type == "Input":
            shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
            shapes *= len(layer.top) if len(shapes) == 1 else 1
            if len(shapes) != len(layer.top):
                raise self._refused(layer, f"input_param has {len(shapes)} shapes")
            for top, shape in zip(layer.top, shapes, strict=True):
                self._input(top, shape, f"layer {layer.name!r}")
            return
        if layer.type not in LAYERS:
            known = ", ".join(("Input", *LAYERS))
            raise self._refused(layer, f"there is no such type; known are {known}")
        for bottom in layer.bottom:
            if bottom not in self.shapes:
                raise self._refused(layer, f"bottom {bottom!r} is no top of a layer before")
        made, tops = self._made(layer, [self.shapes[name] for name in layer.bottom])
        places = tuple(self._place(layer, made, index) for index in range(len(made.blobs)))
        self.steps.append(_Step(layer.name, made, tuple(layer.bottom), tuple(layer.top), places))
        for bottom in layer.bottom:
            self.available.pop(bottom, None)
        for top, shape in zip(layer.top, tops, strict=True):
            if top in self.shapes and top not in layer.bottom:
                raise self._refused(layer, f"top {top!r} is one of another layer already")
            self._sized(shape, f"layer {layer.name!r}, top {top!r}")
            self.shapes[top], self.available[top] = shape, None

    def _made(self, layer: LayerMessage, bottoms: list[Shape]) -> tuple[Layer, list[Shape]]:
        """The layer, and the shapes of its tops, without computing any."""
        with self._named(layer):
            made = LAYERS[layer.type](layer, bottoms)
            for index, shape in enumerate(made.blobs):
                self._sized(shape, f"layer {layer.name!r}, blob {index}", self.numbers)
            types = [
                [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
                for shapes in (made.blobs, bottoms)
            ]
            tops = [*made.tops] or [top.shape for top in jax.eval_shape(made.apply, *types)]
        if len(tops) != len(layer.top):
            raise self._refused(layer, f"top: it has {len(tops)}, the file names {list(layer.top)}")
        return made, tops

    def _place(self, layer: LayerMessage, made: Layer, index: int) -> tuple[str, int]:
        """Where one blob is kept: with this layer, or with the first that shares it."""
        shape = tuple(made.blobs[index])
        shared = layer.shared[index] if index < len(layer.shared) else ""
        if shared in self.owners:
            owner, place, owned = self.owners[shared]
            if owned != shape:
                reason = f"param {shared!r} has shape {owned} in layer {owner!r}, and {shape} here"
                raise self._refused(layer, reason)
            return owner, place
        kept = self.params.setdefault(layer.name, [])
        if shared:
            self.owners[shared] = (layer.name, len(kept), shape)
        kept.append(self._value(layer, made, index, shape))
        self.numbers += math.prod(shape)
        return layer.name, len(kept) - 1

    def _value(self, layer: LayerMessage, made: Layer, index: int, shape: Shape) -> jax.Array:
        """A blob from the weights, or from its filler."""
        if self.weights is None:
            key = jax.random.fold_in(self.key, sum(map(len, self.params.values())))
            with self._named(layer):
                return made.fillers[index](key, shape)
        source = self.stored.get(layer.name)
        found = [] if source is None else source.blobs
        if len(found) != len(made.blobs):
            reason = f"layer {layer.name!r}: {len(found)} blobs, where {self.file} needs {len(made.blobs)}"
            raise refused("caffemodel", f"{self.weights!r}: {reason}")
        value = files.blob(found[index], shape)
        if value is None:
            came = files.stored(found[index])
            reason = f"layer {layer.name!r}, blob {index}: {came}, needed is {list(shape)}"
            raise refused("caffemodel", f"{self.weights!r}: {reason}")
        return jnp.asarray(value).reshape(shape)

    def _input(self, name: str, shape: Shape, where: str) -> None:
        self._sized(shape, where)
        self.inputs[name] = self.shapes[name] = shape
        self.available[name] = None

    def _sized(self, shape: Shape, where: str, others: int = 0) -> None:
        """Every size at least 1, and not too many numbers, together with those of other blobs."""
        if min(shape, default=1) < 1 or math.prod(shape) + others > MAX_NUMBERS:
            reason = f"{where}: shape {list(shape)}; sizes are at least 1, {MAX_NUMBERS} numbers the most"
            raise self.refused(reason)

    @contextmanager
    def _named(self, layer: LayerMessage) -> Iterator[None]:
        """Inside, what is refused is refused in the name of file and layer."""
        try:
            yield
        except (TypeError, ValueError) as error:
            found: Any = vars(error)
            if "reason" not in found or found["argument"] == "prototxt":
                raise
            raise self._refused(layer, f"{found['argument']} {found['reason']}") from None

    def _refused(self, layer: LayerMessage, reason: str) -> Exception:
        return self.refused(f"layer {layer.name!r} ({layer.type}): {reason}")

    def refused(self, reason: str) -> Exception:
        """The error for what the definition holds."""
        return refused("prototxt", f"{self.file!r}: {reason}")
