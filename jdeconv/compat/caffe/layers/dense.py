"""Layers with blobs but no windows: InnerProduct, Embed, Scale, Bias, PReLU, Parameter; and DummyData."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv.checks import refused
from jdeconv.compat.caffe.convolution import Filler
from jdeconv.compat.caffe.layers.base import (
    Layer,
    Made,
    Shape,
    axis_of,
    filler_of,
    filler_or,
    maker,
    misfit,
    need_channels,
    spread,
    whole,
)


@maker("InnerProduct")
def inner_product(layer: Any, shape: Shape) -> Made:
    """InnerProduct."""
    message = layer.inner_product_param
    axis = axis_of("axis", message.axis, len(shape))
    n, k = message.num_output, math.prod(shape[axis:])
    if n < 1:
        raise refused("num_output", f"must be at least 1, got {n}")
    shapes = [(k, n) if message.transpose else (n, k), (n,)][: 1 + message.bias_term]
    fills = [filler_of(message.weight_filler), filler_of(message.bias_filler)][: len(shapes)]

    def apply(blobs, bottoms):
        (x,) = bottoms
        rows = x.reshape(*x.shape[:axis], -1)
        y = rows @ (blobs[0] if message.transpose else blobs[0].T)
        return [y + blobs[1].reshape([1] * axis + [n]) if message.bias_term else y]

    return Layer(apply, shapes, fills, per_top=k)


@maker("Embed")
def embed(layer: Any, shape: Shape) -> Made:
    """Embed: for each index of the bottom, the row of the weight."""
    message = layer.embed_param
    n, k = message.num_output, message.input_dim
    if min(n, k) < 1:
        raise refused("embed_param", f"needs num_output and input_dim of at least 1, got {n}, {k}")

    def apply(blobs, bottoms):
        top = blobs[0][whole(bottoms[0])]
        return [top + spread(blobs[1], top.ndim - 1, top.ndim) if message.bias_term else top]

    shapes = [(k, n), (n,)][: 1 + message.bias_term]
    fills = [filler_of(message.weight_filler), filler_of(message.bias_filler)][: len(shapes)]
    return Layer(apply, shapes, fills)


def _learned_axes(layer: Any, message: Any, bottoms: Sequence[Shape]) -> tuple[int, Shape]:
    """Where the second bottom or the blob of a Scale or Bias layer lies, and its shape."""
    shape = bottoms[0]
    if len(bottoms) == 2 and bottoms[1] == ():
        return 0, ()
    axis = axis_of("axis", message.axis, len(shape))
    if len(bottoms) == 2:
        ours = bottoms[1]
    else:
        stop = len(shape) if message.num_axes == -1 else axis + message.num_axes
        ours = shape[axis:stop]
        if message.num_axes < -1 or stop > len(shape):
            reason = f"is out of range, got {message.num_axes} for {len(shape)} axes"
            raise refused("num_axes", reason)
    if shape[axis : axis + len(ours)] != ours:
        raise misfit(layer, bottoms, f"shapes must fit one another at axis {axis}")
    return axis, ours


@maker("Scale", bottoms=(1, 2))
def scale(layer: Any, *bottoms: Shape) -> Made:
    """Scale, by a second bottom or by a blob; and a bias."""
    message, ndim = layer.scale_param, len(bottoms[0])
    axis, ours = _learned_axes(layer, message, bottoms)

    def apply(blobs, bottoms):
        x, *rest = [*bottoms, *blobs]
        y = x * spread(rest[0], axis, ndim)
        return [y + spread(rest[1], axis, ndim) if message.bias_term else y]

    learned = [(ours, filler_or(message, "filler", 1.0))] * (len(bottoms) == 1)
    learned += [(ours, filler_of(message.bias_filler))] * message.bias_term
    return Layer(apply, [shape for shape, _ in learned], [filler for _, filler in learned])


@maker("Bias", bottoms=(1, 2))
def bias(layer: Any, *bottoms: Shape) -> Made:
    """Bias: a second bottom or a blob, added."""
    message, ndim = layer.bias_param, len(bottoms[0])
    axis, ours = _learned_axes(layer, message, bottoms)

    def apply(blobs, bottoms):
        x, added = [*bottoms, *blobs]
        return [x + spread(added, axis, ndim)]

    own = len(bottoms) == 1
    return Layer(apply, [ours] * own, [filler_or(message, "filler", 0.0)] * own)


@maker("PReLU")
def prelu(layer: Any, shape: Shape) -> Made:
    """PReLU: a slope per channel, or one for all."""
    message = layer.prelu_param
    need_channels(shape)
    blob = () if message.channel_shared else shape[1:2]

    def apply(blobs, bottoms):
        (x,), slope = bottoms, blobs[0].reshape(1, -1, *[1] * (len(shape) - 2))
        return [jnp.where(x > 0, x, slope * x)]

    return Layer(apply, [blob], [filler_or(message, "filler", 0.25)])


@maker("Parameter", bottoms=0)
def parameter(layer: Any) -> Made:
    """Parameter: a blob, as the top."""
    return Layer(lambda blobs, _: [blobs[0]], [tuple(layer.parameter_param.shape.dim)], [Filler()])


@maker("DummyData", bottoms=0)
def dummy_data(layer: Any) -> Made:
    """DummyData: what fillers draw, anew in each pass; zeros without a filler."""
    message, count = layer.dummy_data_param, len(layer.top)

    def for_each(values: Any) -> Any:
        return list(values) * (count if len(values) == 1 else 1)

    columns = map(for_each, (message.num, message.channels, message.height, message.width))
    shapes = list(zip(*columns, strict=False))
    shapes = shapes or for_each([tuple(shape.dim) for shape in message.shape])
    fills = for_each([filler_of(filler) for filler in message.data_filler] or [Filler()])
    if not len(shapes) == len(fills) == count:
        reason = f"needs a shape and a filler for each of {count} tops, or one for all"
        raise refused("dummy_data_param", f"{reason}, got {len(shapes)} and {len(fills)}")

    def apply(_, bottoms, key: Any = None):
        keys: list[Any] = [key if key is None else jax.random.fold_in(key, i) for i in range(count)]
        return [fill(*given) for fill, *given in zip(fills, keys, shapes, strict=True)]

    draws = any(fill.type not in ("constant", "bilinear") for fill in fills)
    return Layer(apply, tops=shapes, random=draws)
