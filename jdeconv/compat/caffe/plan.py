"""The layers of a net for inputs of known shapes: shapes of all tops, and where each blob is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv.checks import refused
from jdeconv.compat.caffe.convolution import Filler
from jdeconv.compat.caffe.files import MAX_NUMBERS
from jdeconv.compat.caffe.layers import Layer, Shape
from jdeconv.compat.caffe.wiring import Step


@dataclass(frozen=True)
class Blob:
    """What is known of a blob before it has numbers.

    Args:
      shape: its shape.
      filler: how it begins.
      lr_mult, decay_mult: the file's factors of the learning rate and of the weight decay.
      index: its place among the blobs of its layer, shared ones too.
      count: how many these are.
    """

    shape: Shape
    filler: Filler
    lr_mult: float
    decay_mult: float
    index: int
    count: int


class Places:
    """Where each blob is kept: with its layer, or with the first that shares it."""

    def __init__(self) -> None:
        self.blobs: dict[str, list[Blob]] = {}
        self._owners: dict[str, tuple[str, int]] = {}  # by shared name

    def of(self, step: Step, made: Layer) -> list[tuple[str, int]]:
        """Of a layer's blobs, the layer and the place where each is."""
        return [self._place(step, made, index) for index in range(len(made.blobs))]

    def _place(self, step: Step, made: Layer, index: int) -> tuple[str, int]:
        shape, shared = tuple(made.blobs[index]), step.message.shared(index)
        if shared in self._owners:
            owner, place = self._owners[shared]
            owned = self.blobs[owner][place].shape
            if owned != shape:
                reason = f"{shared!r} has shape {owned} in layer {owner!r}, and {shape} here"
                raise refused("param", reason)
            return owner, place
        kept = self.blobs.setdefault(step.name, [])
        if shared:
            self._owners[shared] = (step.name, len(kept))
        rate, decay = step.message.multipliers(index)
        if index in made.statistics:
            rate = 0.0
        kept.append(Blob(shape, made.fillers[index], rate, decay, index, len(made.blobs)))
        return step.name, len(kept) - 1


@dataclass(frozen=True)
class Plan:
    """A net for inputs of these shapes.

    Args:
      layers: of each step.
      tops: of each step, the shapes of its tops.
      blobs: by layer.
    """

    layers: list[Layer]
    tops: list[list[Shape]]
    blobs: dict[str, list[Blob]]


def planned(
    steps: Sequence[Step], inputs: Mapping[str, Any], error: Callable[[str], Exception]
) -> Plan:
    """The plan, without computing anything; `error` makes the exception for a reason."""
    shapes = dict(inputs)
    for name, shape in inputs.items():
        _sized(shape, f"input {name!r}", error)
    places, layers, tops, numbers = Places(), [], [], 0
    for step in steps:
        with named(step, error):
            made = step.maker(step.message, [shapes[name] for name in step.bottoms])
            for index, shape in enumerate(made.blobs):
                _sized(shape, f"{step.message.where}, blob {index}", error, numbers)
            found = top_shapes(made, [shapes[name] for name in step.bottoms])
            need_tops(step, len(found))
            before = len(places.blobs.get(step.name, ()))
            places.of(step, made)
        numbers += sum(math.prod(b.shape) for b in places.blobs.get(step.name, ())[before:])
        for top, shape in zip(step.tops, found, strict=True):
            _sized(shape, f"{step.message.where}, top {top!r}", error)
            shapes[top] = shape
        layers.append(made)
        tops.append(found)
    return Plan(layers, tops, places.blobs)


def top_shapes(made: Layer, bottoms: Sequence[Shape]) -> list[Shape]:
    """The shapes of a layer's tops."""
    if made.tops:
        return [tuple(shape) for shape in made.tops]
    kinds = [
        [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        for shapes in (made.blobs, bottoms)
    ]
    tops, _ = jax.eval_shape(lambda blobs, given: made(blobs, given, jax.random.key(0)), *kinds)
    return [top.shape for top in tops]


def need_tops(step: Step, count: int) -> None:
    """Refuse a layer that names more or fewer tops than it has."""
    if count != len(step.tops):
        raise refused("top", f"names {list(step.tops)}, and the layer has {count}")


@contextmanager
def named(step: Step, error: Callable[[str], Exception]) -> Iterator[None]:
    """Inside, what is refused is refused in the name of the layer."""
    try:
        yield
    except (TypeError, ValueError) as raised:
        found = vars(raised)
        if "reason" not in found or found["argument"] in ("prototxt", "inputs", "params", "key"):
            raise
        reason = f"{step.message.where}: {found['argument']} {found['reason']}"
        raise error(reason) from None


def _sized(shape: Shape, where: str, error: Callable[[str], Exception], others: int = 0) -> None:
    """Every size at least 1, and not too many numbers, together with those of other blobs."""
    if min(shape, default=1) < 1 or math.prod(shape) + others > MAX_NUMBERS:
        reason = f"shape {list(shape)}; sizes are at least 1, {MAX_NUMBERS} numbers the most"
        raise error(f"{where}: {reason}")
