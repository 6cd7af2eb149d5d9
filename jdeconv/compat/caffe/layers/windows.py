"""Layers with kernels: Convolution, Deconvolution, Im2col."""

from __future__ import annotations

import math
from typing import Any

from jdeconv.checks import refused
from jdeconv.compat.caffe.convolution import Convolution, Deconvolution, Im2col
from jdeconv.compat.caffe.layers.base import (
    MANY,
    Layer,
    Made,
    Shape,
    field_of,
    filler_of,
    maker,
    sides_of,
)
from jdeconv.window import Window

CONVOLUTIONS = ("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")


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


@maker(*CONVOLUTIONS, "Deconvolution", bottoms=(1, MANY))
def convolution(layer: Any, *bottoms: Shape) -> Made:
    """Convolution and Deconvolution, of several bottoms at need."""
    message = layer.convolution_param
    kind = Convolution if layer.type in CONVOLUTIONS else Deconvolution
    made = kind(
        **windowed(message),
        num_output=message.num_output,
        group=message.group,
        bias_term=message.bias_term,
        weight_filler=filler_of(message.weight_filler),
        bias_filler=filler_of(message.bias_filler),
    )
    shapes = made.blob_shapes(bottoms[0])
    fills = (made.weight_filler, made.bias_filler)[: len(shapes)]
    each = math.prod(shapes[0][1:])
    work: dict[str, Any] = {"per_top" if kind is Convolution else "per_bottom": each}
    return Layer(lambda blobs, bottoms: made.forward(blobs, *bottoms), shapes, fills, **work)


@maker("Im2col")
def im2col(layer: Any, shape: Shape) -> Made:
    """Im2col."""
    made = Im2col(**windowed(layer.convolution_param))
    items, channels, space = made.split(shape)
    kernel, steps = made.steps(len(space))
    if not space:
        raise refused("bottom", f"needs a spatial axis behind the channels, got {shape}")
    small = Window.of_conv(space, kernel, **steps).small
    top = (*items, channels * math.prod(kernel), *small)
    return Layer(lambda _, bottoms: [made.forward(bottoms[0])], tops=[top])
