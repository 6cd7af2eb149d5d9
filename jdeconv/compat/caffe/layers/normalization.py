"""Layers that normalize: BatchNorm, BN, LRN, MVN, Normalize, Softmax."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdeconv.checks import refused
from jdeconv.compat.caffe.convolution import Filler
from jdeconv.compat.caffe.layers.base import (
    Layer,
    Made,
    Shape,
    axis_of,
    filler_or,
    maker,
    need_channels,
)
from jdeconv.compat.caffe.layers.pooling import Pool

SEGNET_EPS = 1e-9  # written out in SegNet's layer


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each channel."""
    axes = [i for i in range(x.ndim) if i != 1] if x.ndim > 1 else None
    mean = x.mean(axes, keepdims=True)
    return mean.reshape(-1), ((x - mean) ** 2).mean(axes).reshape(-1)


def _standard(x: jax.Array, mean: jax.Array, variance: jax.Array, eps: float) -> jax.Array:
    """Channels less their mean, over the root of their variance plus eps."""
    shape = (1, mean.size, *[1] * (x.ndim - 2))[: x.ndim]
    return (x - mean.reshape(shape)) / jnp.sqrt(variance.reshape(shape) + eps)


@maker("BatchNorm")
def batch_norm(layer: Any, shape: Shape) -> Made:
    """BatchNorm: in training with the batch's mean and variance, else with those collected so far.

    `use_global_stats` says otherwise. The blobs are sums of means and of unbiased variances, which decay by
    moving_average_fraction at each step, and the sum of their weights.
    """
    message = layer.batch_norm_param
    channels = shape[1] if len(shape) > 1 else 1
    stored = message.use_global_stats if message.HasField("use_global_stats") else not layer.train

    def apply(blobs, bottoms):
        (x,), (mean, variance, weight) = bottoms, blobs
        if stored:
            factor = jnp.where(weight == 0, 0, 1 / jnp.where(weight == 0, 1, weight))
            mean, variance = factor * mean, factor * variance
        else:
            mean, variance = _moments(x)
        top = _standard(x, mean, variance, message.eps)
        if stored:
            return [top]
        count = x.size // channels
        unbiased = variance * (count / (count - 1) if count > 1 else 1)
        new, decay = (mean, unbiased, jnp.ones(1, x.dtype)), message.moving_average_fraction
        return [top], [decay * old + a for old, a in zip(blobs, new, strict=True)]

    blobs = [(channels,), (channels,), (1,)]
    return Layer(apply, blobs, [Filler()] * 3, statistics=(0, 1, 2), updates=not stored)


@maker("BN")
def bn(layer: Any, shape: Shape) -> Made:
    """BN, of SegNet or of PSPNet, whichever the fields say."""
    message = layer.bn_param
    need_channels(shape)
    segnet = [
        name for name in ("scale_filler", "shift_filler", "bn_mode") if message.HasField(name)
    ]
    pspnet = ["slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine"]
    pspnet = [name for name in pspnet if message.HasField(name)]
    if segnet and pspnet:
        raise refused("bn_param", f"has {segnet[0]} of SegNet's BN and {pspnet[0]} of PSPNet's")
    return _segnet_bn(message, shape) if segnet else _pspnet_bn(message, shape, layer.train)


def _segnet_bn(message: Any, shape: Shape) -> Layer:
    """Scale x + shift; in mode LEARN x is normalized by its batch first, in any phase."""
    ours = (1, shape[1], *[1] * (len(shape) - 2))

    def apply(blobs, bottoms):
        (x,), (scale, shift) = bottoms, blobs
        if message.bn_mode == 0:
            x = _standard(x, *_moments(x), SEGNET_EPS)
        return [x * scale.reshape(ours) + shift.reshape(ours)]

    fills = [filler_or(message, "scale_filler", 0.0), filler_or(message, "shift_filler", 0.0)]
    return Layer(apply, [(1, shape[1], 1, 1)] * 2, fills)


def _pspnet_bn(message: Any, shape: Shape, train: bool) -> Layer:
    """Slope (x - mean) / sqrt(variance + eps) + bias, with the batch's moments in training unless frozen."""
    ours = (1, shape[1], *[1] * (len(shape) - 2))
    stored = message.frozen or not train

    def apply(blobs, bottoms):
        (x,), (slope, bias, *kept), rate = bottoms, blobs, message.momentum
        mean, variance = moments = kept if stored else _moments(x)
        normal = _standard(x, mean, variance, message.eps)
        top = slope.reshape(ours) * normal + bias.reshape(ours)
        if stored:
            return [top]
        pairs = zip(kept, moments, strict=True)
        return [top], [rate * old + (1 - rate) * a.reshape(old.shape) for old, a in pairs]

    fills = [filler_or(message, "slope_filler", 0.0), filler_or(message, "bias_filler", 0.0)]
    return Layer(
        apply,
        [(1, shape[1], 1, 1)] * 4,
        [*fills, Filler(), Filler()],
        statistics=(0, 1, 2, 3) if message.frozen else (2, 3),
        updates=not stored,
    )


@maker("LRN", axes=4)
def lrn(layer: Any, shape: Shape) -> Made:
    """LRN: x / (k + alpha mean of squares)^beta, over near channels or, with k = 1, over near cells."""
    message = layer.lrn_param
    size = message.local_size
    if size % 2 == 0:
        raise refused("local_size", f"must be odd, got {size}")
    if message.norm_region == 1:
        pool = Pool(shape, [size] * 2, [1] * 2, [(size - 1) // 2] * 2)

        def near(x):
            return 1 + message.alpha * pool.average(x * x)[0]
    else:

        def near(x):
            edge = (size - 1) // 2
            window = ((1, size, 1, 1), (1, 1, 1, 1), ((0, 0), (edge, edge), (0, 0), (0, 0)))
            return message.k + message.alpha / size * lax.reduce_window(
                x * x, 0.0, lax.add, *window
            )

    return lambda x: x * near(x) ** -message.beta


@maker("MVN", axes=4)
def mvn(layer: Any, shape: Shape) -> Made:
    """MVN: each channel of each item, or each item, less its mean and over its standard deviation plus eps."""
    message = layer.mvn_param
    axes = (1, 2, 3) if message.across_channels else (2, 3)

    def apply(x):
        y = x - x.mean(axes, keepdims=True)
        if not message.normalize_variance:
            return y
        variance = (y * y).mean(axes, keepdims=True)
        flat = variance == 0  # the root has no derivative there
        deviation = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, variance)))
        return y / (deviation + message.eps)

    return apply


@maker("Normalize", axes=4)
def normalize(layer: Any, shape: Shape) -> Made:
    """Normalize, of SSD: each item, or each cell's channels, over its length, times a learned scale."""
    message = layer.norm_param
    axes = (1, 2, 3) if message.across_spatial else (1,)

    def apply(blobs, bottoms):
        (x,), (scale,) = bottoms, blobs
        length = jnp.sqrt((x * x).sum(axes, keepdims=True) + message.eps)
        return [x / length * scale.reshape(1, -1, 1, 1)]

    blob = () if message.channel_shared else shape[1:2]
    return Layer(apply, [blob], [filler_or(message, "scale_filler", 1.0)])


@maker("Softmax")
def softmax(layer: Any, shape: Shape) -> Made:
    """Softmax over one axis."""
    axis = axis_of("axis", layer.softmax_param.axis, len(shape))
    return functools.partial(jax.nn.softmax, axis=axis)
