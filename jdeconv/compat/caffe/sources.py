"""Data layers as inputs of the net: the shapes of their tops, as far as the text says."""

from __future__ import annotations

from typing import Any

from jdeconv.checks import refused
from jdeconv.compat.caffe.definition import LayerMessage

Known = tuple[int | None, ...] | None
"""A shape whose sizes may be unknown; None where even their number is."""

COLORED = ("ImageData", "WindowData", "DenseImageData")  # which give three channels by default
LABELED = ("Data", "ImageData", "WindowData", "MemoryData", "VideoData")


def head_shapes(message: Any) -> list[tuple[str, Known]]:
    """The inputs in the head of a file of old."""
    shapes: list[Known] = [tuple(shape.dim) for shape in message.input_shape]
    if message.input_dim:
        dims = list(message.input_dim)
        shapes = [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    if not shapes:
        shapes = [None] * len(message.input)
    if len(shapes) != len(message.input):
        raise refused("input", f"has {len(shapes)} shapes for {len(message.input)} inputs")
    return list(zip(message.input, shapes, strict=True))


def source_shapes(layer: LayerMessage) -> list[Known]:
    """Of the tops of a layer without bottoms."""
    if layer.type == "Input":
        shapes: list[Known] = [tuple(shape.dim) for shape in layer.input_param.shape]
        shapes = shapes * (len(layer.top) if len(shapes) == 1 else 1)
        if len(shapes) != len(layer.top):
            raise refused("top", f"names {list(layer.top)}, and there are {len(shapes)} shapes")
        return shapes
    numbers = layer.numbers
    batch = numbers.get("batch_size")
    first: Known = None
    if layer.type in (*LABELED, "DenseImageData"):
        crop = numbers.get("crop_size") or None
        sides = [crop or numbers.get(f"new_{s}") or numbers.get(s) for s in ("height", "width")]
        first = (batch, _channels(layer), *sides)
    others: Known = None
    if layer.type in LABELED:
        others = (batch,)
    if layer.type == "DenseImageData":
        others = (batch, 1, *first[2:]) if first else None
    return [first, *[others] * (len(layer.top) - 1)][: len(layer.top)]


def _channels(layer: LayerMessage) -> int | None:
    """From the field, or from the number of means; a single one may stand for all channels."""
    given = layer.numbers.get("channels")
    means = layer.text.count("mean_value") + layer.text.partition("mean_value")[2].partition("]")[
        0
    ].count(",")
    colored = 3 if layer.type in COLORED else None
    return given or (means if means > 1 else colored)
