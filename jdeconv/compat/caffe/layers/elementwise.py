"""Layers that treat every number by itself, and Dropout."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv.checks import refused
from jdeconv.compat.caffe.layers.base import Layer, Shape, elementwise, need_bottoms


def relu(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """ReLU, with a slope below zero at need."""
    slope = layer.relu_param.negative_slope
    function = (lambda x: jnp.where(x > 0, x, slope * x)) if slope else jax.nn.relu
    return elementwise(function, layer, bottoms)


def elu(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """ELU: x above zero, alpha (e^x - 1) below."""
    alpha = layer.elu_param.alpha

    def function(x):
        return jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))

    return elementwise(function, layer, bottoms)


def power(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Power: (shift + scale x)^power."""
    message = layer.power_param

    def function(x):
        y = message.shift + message.scale * x
        if message.power.is_integer():
            return jax.lax.integer_pow(y, int(message.power))
        return y**message.power

    return elementwise(function, layer, bottoms)


def _log_of_base(message: Any) -> float:
    """ln(base), where -1 stands for e."""
    if message.base != -1 and message.base <= 0:
        raise refused("base", f"must be above 0, or -1 for e, got {message.base}")
    return 1.0 if message.base == -1 else math.log(message.base)


def exp(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Exp: base^(shift + scale x)."""
    message = layer.exp_param
    base = _log_of_base(message)
    return elementwise(
        lambda x: jnp.exp(base * (message.shift + message.scale * x)), layer, bottoms
    )


def log(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Log: the logarithm to a base of shift + scale x."""
    message = layer.log_param
    base = _log_of_base(message)
    if base == 0:
        raise refused("base", "must not be 1")
    return elementwise(lambda x: jnp.log(message.shift + message.scale * x) / base, layer, bottoms)


def threshold(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Threshold: 1 above the threshold, else 0."""
    level = layer.threshold_param.threshold
    return elementwise(lambda x: (x > level).astype(x.dtype), layer, bottoms)


def clip(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Clip: not less than min and not more than max."""
    message = layer.clip_param
    if not (message.HasField("min") and message.HasField("max")):
        raise refused("clip_param", "needs min and max")

    def function(x):
        inside = (x >= message.min) & (x <= message.max)
        return jnp.where(inside, x, jax.lax.stop_gradient(jnp.clip(x, message.min, message.max)))

    return elementwise(function, layer, bottoms)


def swish(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Swish: x sigmoid(beta x)."""
    beta = layer.swish_param.beta
    return elementwise(lambda x: x * jax.nn.sigmoid(beta * x), layer, bottoms)


def relu6(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """ReLU6: between 0 and 6."""
    return elementwise(
        lambda x: jnp.where((x > 0) & (x < 6), x, jnp.where(x < 6, 0.0, 6.0).astype(x.dtype)),
        layer,
        bottoms,
    )


def dropout(layer: Any, bottoms: Sequence[Shape]) -> Layer:
    """Dropout: in training each number is zero with probability dropout_ratio, and the others grow.

    With `scale_train: false` they shrink in testing instead. With SegNet's `sample_weights_test` it is the same
    in testing as in training.
    """
    need_bottoms(layer, bottoms, 1)
    message = layer.dropout_param
    kept = 1 - message.dropout_ratio
    if not 0 < kept <= 1:
        raise refused(
            "dropout_ratio", f"must be at least 0 and below 1, got {message.dropout_ratio}"
        )
    if not (layer.train or message.sample_weights_test):
        factor = 1 if message.scale_train else kept
        return elementwise(lambda x: x if factor == 1 else x * factor, layer, bottoms)

    def apply(_, bottoms, key):
        x = bottoms[0]
        drawn = jax.random.bernoulli(key, kept, x.shape)
        return [jnp.where(drawn, x / kept if message.scale_train else x, 0).astype(x.dtype)]

    return Layer(apply, random=True)


SIMPLE = {
    "AbsVal": jnp.abs,
    "BNLL": jax.nn.softplus,
    "Sigmoid": jax.nn.sigmoid,
    "TanH": jnp.tanh,
}
MAKERS = {name: functools.partial(elementwise, function) for name, function in SIMPLE.items()} | {
    "Clip": clip,
    "Dropout": dropout,
    "ELU": elu,
    "Exp": exp,
    "Log": log,
    "Power": power,
    "ReLU": relu,
    "ReLU6": relu6,
    "Swish": swish,
    "Threshold": threshold,
}
