"""What a layer is, and what makers of layers share.

A maker gets the layer's message and its bottoms' shapes, refuses what does not fit, and returns a `Layer`. The
decorator `maker` enters it in `LAYERS`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv.checks import refused
from jdeconv.compat.caffe.convolution import Filler

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A layer of a net, for bottoms of known shapes.

    Args:
      apply: (blobs, bottoms) -> tops; of a `random` layer (blobs, bottoms, key) -> tops.
      blobs: shapes of the blobs that it keeps.
      fillers: how they begin.
      tops: shapes of the tops, where tracing `apply` would take memory; none for the others.
      statistics: places of those blobs that are no parameters: no gradient reaches them.
      updates: whether apply returns (tops, new values of the statistics).
      random: whether apply takes a key.
      per_top, per_bottom: multiply-adds for each number of the tops, or of the bottoms.

    Example: a layer that `load` does not know, with a blob.
      >>> from jdeconv.compat import caffe
      >>> text = 'input: "x" input_shape { dim: 3 } layer { name: "y" type: "Times" bottom: "x" top: "y" }'
      >>> times = caffe.Layer(lambda blobs, bottoms: [blobs[0] * bottoms[0]], [(1,)], [caffe.Filler(value=2)])
      >>> net = caffe.load(text, layers={"Times": times})
      >>> net(net.params, {"x": jnp.array([1.0, 2.0, 3.0])})["y"].tolist()
      [2.0, 4.0, 6.0]
    """

    apply: Callable[..., Any]
    blobs: Sequence[Shape] = ()
    fillers: Sequence[Filler] = ()
    tops: Sequence[Shape] = ()
    statistics: Sequence[int] = ()
    updates: bool = False
    random: bool = False
    per_top: int = 0
    per_bottom: int = 0

    def __call__(
        self, blobs: Sequence[jax.Array], bottoms: Sequence[jax.Array], key: Any
    ) -> tuple[Sequence[jax.Array], Sequence[jax.Array]]:
        """The tops, and the new values of all blobs."""
        kept = [
            jax.lax.stop_gradient(blob) if i in self.statistics else blob
            for i, blob in enumerate(blobs)
        ]
        result = self.apply(kept, bottoms, key) if self.random else self.apply(kept, bottoms)
        if not self.updates:
            return result, blobs
        tops, new = result
        new = dict(zip(self.statistics, map(jax.lax.stop_gradient, new), strict=True))
        return tops, [new.get(i, blob) for i, blob in enumerate(blobs)]


Made = Any
"""A layer, or a function of the bottoms that gives a top or a list of tops."""
Maker = Callable[[Any, Sequence[Shape]], Layer]
LAYERS: dict[str, Maker] = {}
"""A maker for every type."""
MANY = sys.maxsize


def maker(*types: str, bottoms: int | tuple[int, int] = 1, axes: int | None = None) -> Callable:
    """Return a decorator of the function that makes the layers of these types.

    The function gets the layer's message and the shape of each bottom. `bottoms` is how many of them there must
    be, or the least and the most, and `axes` is how many axes the first must have.
    """
    least, most = bottoms if isinstance(bottoms, tuple) else (bottoms, bottoms)

    def enter(function: Callable[..., Made]) -> Callable[..., Made]:
        def make(layer: Any, shapes: Sequence[Shape]) -> Layer:
            if not least <= len(shapes) <= most:
                more = "" if most == least else " or more" if most == MANY else f" to {most}"
                raise refused("bottom", f"needs {least}{more}, got {list(layer.bottom)}")
            if axes not in (None, *map(len, shapes[:1])):
                raise refused("bottom", f"needs {axes} axes, got {shapes[0]}")
            return as_layer(function(layer, *shapes))

        LAYERS.update(dict.fromkeys(types, make))
        return function

    return enter


def as_layer(made: Made) -> Layer:
    """The layer; a function of the bottoms becomes one without blobs."""
    if isinstance(made, Layer):
        return made

    def apply(_, bottoms):
        tops = made(*bottoms)
        return tops if isinstance(tops, list | tuple) else [tops]

    return Layer(apply)


def filler_of(message: Any) -> Filler:
    """The filler of a message."""
    values = {f.name: getattr(message, f.name) for f in dataclasses.fields(Filler)}
    norm = message.DESCRIPTOR.fields_by_name["variance_norm"].enum_type.values_by_number
    return Filler(**values | {"variance_norm": norm[values["variance_norm"]].name})


def filler_or(message: Any, name: str, value: float) -> Filler:
    """The filler in a field; a constant where the field is absent."""
    return filler_of(getattr(message, name)) if message.HasField(name) else Filler(value=value)


def axis_of(name: str, axis: int, ndim: int) -> int:
    """An axis of the bottom, from either end."""
    if not -ndim <= axis < ndim:
        raise refused(name, f"is out of range, got {axis} for {ndim} axes")
    return axis % ndim


def need_channels(shape: Shape) -> None:
    """Refuse a bottom without an axis of channels."""
    if len(shape) < 2:
        raise refused("bottom", f"needs 2 axes or more, got {shape}")


def need_same(layer: Any, bottoms: Sequence[Shape]) -> None:
    """Refuse bottoms of different shapes."""
    if len(set(bottoms)) > 1:
        raise misfit(layer, bottoms, "shapes must be the same")


def misfit(layer: Any, bottoms: Sequence[Shape], reason: str) -> Exception:
    """The error for bottoms that do not fit one another, with their names and shapes."""
    named = [f"{name!r} {shape}" for name, shape in zip(layer.bottom, bottoms, strict=False)]
    return refused("bottom", f"{reason}, got {', '.join(named)}")


def field_of(message: Any, name: str) -> Any:
    """The value of an optional field, None where it is absent."""
    return getattr(message, name) if message.HasField(name) else None


def sides_of(message: Any, names: str) -> dict[str, int | None]:
    """The fields by _h and _w of these names."""
    return {
        f"{name}_{side}": field_of(message, f"{name}_{side}")
        for name in names.split()
        for side in "hw"
    }


def spread(blob: jax.Array, axis: int, ndim: int) -> jax.Array:
    """A blob whose first axis is the bottom's `axis`, in a shape that broadcasts."""
    return blob.reshape(*[1] * axis, *blob.shape, *[1] * (ndim - axis - blob.ndim))


def whole(a: jax.Array) -> jax.Array:
    """Labels and places, which Caffe keeps as floats, as integers."""
    return jax.lax.stop_gradient(a).astype(jnp.int32)
