"""Offsets of Crop layers that have none, as Caffe's forks for FCN and HED derive them.

Every top has coordinates: the cell t of a top stands over the place scale t + shift of the net's input.
A convolution's or a pooling's cell stands over the middle of its window, and a deconvolution does the contrary.

Source: the `coord` maps of Jonathan Long's Caffe and of HED's, include/caffe/util/coords.hpp.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from jdeconv.compat.caffe.layers.base import sides_of
from jdeconv.compat.caffe.wiring import Step

Axis = tuple[Fraction, Fraction]
"""Scale and shift of one axis."""
Map = tuple[str, Axis, Axis]
"""The input, and both axes."""
ONE: Axis = (Fraction(1), Fraction(0))


def offsets(
    steps: Iterable[Step], inputs: Iterable[str], align: bool, error: Callable[[str], Exception]
) -> dict[str, tuple[int, int]]:
    """By name, the offset that aligns the bottoms of a Crop layer that has none; a warning without `align`."""
    maps: dict[str, Map | None] = {name: (name, ONE, ONE) for name in inputs}
    found: dict[str, tuple[int, int]] = {}
    for step in steps:
        layer, firsts = step.message, [maps.get(name) for name in step.bottoms]
        if layer.type == "Crop" and not layer.crop_param.offset and len(firsts) == 2:
            derived = _derived(*firsts)
            if derived is None:
                if align:
                    raise error(f"{layer.where}: offset cannot be derived; give it in the file")
            elif any(derived) and align:
                found[step.name] = derived
            elif any(derived):
                warnings.warn(
                    f"{layer.where} has no offset, and gets 0, as in BVLC's Caffe; Caffe's forks for FCN and "
                    f"HED take {list(derived)}, which aligns its bottoms: pass align=True for a net of theirs",
                    stacklevel=5,
                )
        cut = found.get(step.name) or _cut(layer)
        maps.update(dict.fromkeys(step.tops, _moved(layer, firsts, cut)))
    return found


def _derived(first: Map | None, second: Map | None) -> tuple[int, int] | None:
    """Where the second bottom's first cell lies in the first bottom; None where no cell lies there."""
    if first is None or second is None or first[0] != second[0]:
        return None
    places = []
    for (scale, shift), (other, goal) in zip(first[1:], second[1:], strict=True):
        place = (goal - shift) / scale
        if scale != other or place.denominator != 1 or place < 0:
            return None
        places.append(int(place))
    return places[0], places[1]


def _cut(layer: Any) -> tuple[int, int]:
    """What a Crop layer of a file with offsets takes away in front of both spatial axes."""
    offset = list(layer.crop_param.offset) if layer.type == "Crop" else []
    last = (offset * 2)[-2:] if offset and layer.crop_param.axis in (2, -2) else [0, 0]
    return last[0], last[1]


def _moved(layer: Any, firsts: list[Map | None], offset: tuple[int, int]) -> Map | None:
    """The map of a layer's tops from those of its bottoms."""
    if layer.type in ("Flatten", "InnerProduct", "Reshape", "Permute", "Im2col", "SPP", "Interp"):
        return None
    known = [first for first in firsts if first is not None]
    if not known:
        return None
    name, *axes = known[0]
    moved = []
    for (scale, shift), steps, cut in zip(axes, _windows(layer), offset, strict=True):
        if steps is None:
            return None
        kernel, stride, pad = steps
        middle = Fraction(kernel - 1, 2) - pad
        if layer.type == "Deconvolution":
            moved.append((scale / stride, shift - scale * middle / stride))
        else:
            moved.append((scale * stride, shift + scale * (middle + cut)))
    return name, moved[0], moved[1]


def _windows(layer: Any) -> list[tuple[int, int, int] | None]:
    """Of both axes, kernel, stride and padding; None where they depend on the bottom's size."""
    if layer.type == "Pooling":
        message = layer.pooling_param
        if message.global_pooling:
            return [None, None]
    elif layer.type in ("Convolution", "Deconvolution"):
        message = layer.convolution_param
    else:
        return [(1, 1, 0)] * 2
    dilation = _both(message, "dilation", "", 1) if layer.type != "Pooling" else [1, 1]
    kernels = _both(message, "kernel_size", "kernel", 1)
    strides, pads = _both(message, "stride", "stride", 1), _both(message, "pad", "pad", 0)
    return [
        ((kernel - 1) * apart + 1, max(stride, 1), pad)
        for kernel, apart, stride, pad in zip(kernels, dilation, strides, pads, strict=True)
    ]


def _both(message: Any, name: str, short: str, default: int) -> list[int]:
    """The values of both axes: from the fields by _h and _w, or from a field, single or repeated."""
    if short:
        sides = sides_of(message, short)
        height, width = sides[f"{short}_h"], sides[f"{short}_w"]
        if height is not None and width is not None:
            return [height, width]
    value = getattr(message, name)
    values = [value] if isinstance(value, int) else list(value)
    return (values * 2)[:2] if values else [default] * 2
