"""Layers with kernels: Convolution, Deconvolution, Im2col."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from jdeconv.checks import refused
from jdeconv.compat.caffe.convolution import Convolution, Deconvolution, Im2col
from jdeconv.compat.caffe.layers.base import (
    Layer,
    Shape,
    field_of,
    filler_of,
    need_bottoms,
    sides_of,
)
from jdeconv.window import Window


def windowed(message: Any) -> dict[str, Any]:
    """The fields of a ConvolutionParameter that `Im2col` has too."""
    names = ("kernel_size", "pad", "stride", "dilation")
    values: dict[str, Any] = {name: tuple(getattr(message, name)) for name in names}
    hole = tuple(message.hole)
    by_side = [field_of(message, f"hole_{side}") for side in "hw"]
    if by_side != [None, None]:
        hole = tuple(1 if side is None else side for side in by_side)
    if hole:  # DeepLab's name for the dilation
        if values["dilation"]:
            raise refused("hole", "came together with dilation; leave one out")
        values["dilation"] = hole
    values |= sides_of(message, "kernel pad stride")
    return values | {"axis": message.axis, "force_nd_im2col": message.force_nd_im2col}


def convolution(kind: type, layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Convolution and Deconvolution, of several bottoms at need."""
    message = layer.convolution_param
    made = kind(
        **windowed(message),
        num_output=message.num_output,
        group=message.group,
        bias_term=message.bias_term,
        weight_filler=filler_of(message.weight_filler),
        bias_filler=filler_of(message.bias_filler),
    )
    need_bottoms(layer, bottoms, 1, max(1, len(bottoms)))
    shapes = made.blob_shapes(bottoms[0])
    fills = (made.weight_filler, made.bias_filler)[: len(shapes)]
    each = math.prod(shapes[0][1:])
    top, bottom = (each, 0) if kind is Convolution else (0, each)
    return Layer(
        lambda blobs, bottoms: made.forward(blobs, *bottoms),
        shapes,
        fills,
        per_top=top,
        per_bottom=bottom,
    )


def im2col(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Im2col."""
    need_bottoms(layer, bottoms, 1)
    made = Im2col(**windowed(layer.convolution_param))
    items, channels, space = made.split(bottoms[0])
    kernel, steps = made.steps(len(space))
    if not space:
        raise refused("bottom", f"needs a spatial axis behind the channels, got {bottoms[0]}")
    small = Window.of_conv(space, kernel, **steps).small
    top = (*items, channels * math.prod(kernel), *small)
    return Layer(lambda _, bottoms: [made.forward(bottoms[0])], tops=[top])


MAKERS = {
    "Convolution": functools.partial(convolution, Convolution),
    "ConvolutionDepthwise": functools.partial(convolution, Convolution),
    "Deconvolution": functools.partial(convolution, Deconvolution),
    "DepthwiseConvolution": functools.partial(convolution, Convolution),
    "Im2col": im2col,
}
