"""Offsets of Crop layers that have none, as Caffe's forks for FCN and HED derive them.

Every top has coordinates: the cell t of a top stands over the place scale t + shift of the net's input.
A convolution's or a pooling's cell stands over the middle of its window, and a deconvolution does the contrary.

Source: the `coord` maps of Jonathan Long's Caffe and of HED's, include/caffe/util/coords.hpp.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from jdeconv.compat.caffe.convolution import Im2col
from jdeconv.compat.caffe.layers.pooling import pooled
from jdeconv.compat.caffe.layers.windows import CONVOLUTIONS, windowed
from jdeconv.compat.caffe.wiring import Step

Axis = tuple[Fraction, Fraction]
"""Scale and shift of one axis."""
Map = tuple[str, Axis, Axis]
"""The input, and both axes."""
ONE: Axis = (Fraction(1), Fraction(0))
MOVED = (
    "CropCenter", "Flatten", "Im2col", "InnerProduct", "Interp", "Permute", "Reduction", "Reshape",
    "ROIPooling", "SPP", "Upsample",
)  # fmt: skip
"""Layers whose tops have no coordinates here."""
ALONG = {"Concat": "concat_param", "Slice": "slice_param", "Tile": "tile_param"}
"""Layers whose tops have coordinates if they work along channels, and where the axis stands."""


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
    known = [first for first in firsts if first is not None]
    if layer.type in MOVED or not known or _is_along_space(layer):
        return None
    (name, *axes), windows = known[0], _windows(layer)
    if windows is None:
        return None
    moved = []
    for (scale, shift), (kernel, stride, pad), cut in zip(axes, windows, offset, strict=True):
        middle = Fraction(kernel - 1, 2) - pad
        if layer.type == "Deconvolution":
            moved.append((scale / stride, shift - scale * middle / stride))
        else:
            moved.append((scale * stride, shift + scale * (middle + cut)))
    return name, moved[0], moved[1]


def _is_along_space(layer: Any) -> bool:
    """Whether the layer changes cells along a spatial axis in a way that is not derived here."""
    if layer.type == "Crop":
        return any(layer.crop_param.offset) and layer.crop_param.axis not in (2, -2)
    param = getattr(layer, ALONG[layer.type]) if layer.type in ALONG else None
    return any(getattr(param, name, 1) != 1 for name in ("axis", "concat_dim", "slice_dim"))


def _windows(layer: Any) -> list[tuple[int, int, int]] | None:
    """Of both axes, kernel, stride and padding; None where they depend on the bottom's size, or do not fit."""
    apart: Sequence[int] = (1, 1)
    try:
        if layer.type == "Pooling":
            kernel, stride, pad = pooled(layer.pooling_param)
        elif layer.type in (*CONVOLUTIONS, "Deconvolution"):
            kernel, steps = Im2col(**windowed(layer.convolution_param)).steps(2)
            stride, pad, apart = steps["stride"], steps["padding"], steps["dilation"]
        else:
            return [(1, 1, 0)] * 2
    except ValueError:  # of another rank than two, or fields that the layer itself refuses
        return None
    if kernel is None or min(stride) < 1:
        return None
    return [((k - 1) * a + 1, s, p) for k, a, s, p in zip(kernel, apart, stride, pad, strict=True)]
