"""Layers that treat every number by itself, and Dropout."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv.checks import refused
from jdeconv.compat.caffe.layers.base import Layer, Made, Shape, maker

SIMPLE = {
    "AbsVal": jnp.abs,
    "BNLL": jax.nn.softplus,
    "ReLU6": lambda x: jnp.where((x > 0) & (x < 6), x, jnp.where(x < 6, 0.0, 6.0).astype(x.dtype)),
    "Sigmoid": jax.nn.sigmoid,
    "TanH": jnp.tanh,
}


@maker(*SIMPLE)
def simple(layer: Any, shape: Shape) -> Made:
    """A function without parameters."""
    return SIMPLE[layer.type]


@maker("ReLU")
def relu(layer: Any, shape: Shape) -> Made:
    """ReLU, with a slope below zero at need."""
    slope = layer.relu_param.negative_slope
    return (lambda x: jnp.where(x > 0, x, slope * x)) if slope else jax.nn.relu


@maker("ELU")
def elu(layer: Any, shape: Shape) -> Made:
    """ELU: x above zero, alpha (e^x - 1) below."""
    alpha = layer.elu_param.alpha
    return lambda x: jnp.where(x > 0, x, alpha * jnp.expm1(jnp.minimum(x, 0)))


@maker("Power")
def power(layer: Any, shape: Shape) -> Made:
    """Power: (shift + scale x)^power."""
    message = layer.power_param

    def function(x):
        y = message.shift + message.scale * x
        if message.power.is_integer():
            return jax.lax.integer_pow(y, int(message.power))
        return y**message.power

    return function


def _log_of_base(message: Any) -> float:
    """ln(base), where -1 stands for e."""
    if message.base != -1 and message.base <= 0:
        raise refused("base", f"must be above 0, or -1 for e, got {message.base}")
    return 1.0 if message.base == -1 else math.log(message.base)


@maker("Exp")
def exp(layer: Any, shape: Shape) -> Made:
    """Exp: base^(shift + scale x)."""
    message = layer.exp_param
    base = _log_of_base(message)
    return lambda x: jnp.exp(base * (message.shift + message.scale * x))


@maker("Log")
def log(layer: Any, shape: Shape) -> Made:
    """Log: the logarithm to a base of shift + scale x."""
    message = layer.log_param
    base = _log_of_base(message)
    if base == 0:
        raise refused("base", "must not be 1")
    return lambda x: jnp.log(message.shift + message.scale * x) / base


@maker("Threshold")
def threshold(layer: Any, shape: Shape) -> Made:
    """Threshold: 1 above the threshold, else 0."""
    level = layer.threshold_param.threshold
    return lambda x: (x > level).astype(x.dtype)


@maker("Clip")
def clip(layer: Any, shape: Shape) -> Made:
    """Clip: not less than min and not more than max."""
    message = layer.clip_param
    if not (message.HasField("min") and message.HasField("max")):
        raise refused("clip_param", "needs min and max")

    def function(x):
        inside = (x >= message.min) & (x <= message.max)
        return jnp.where(inside, x, jax.lax.stop_gradient(jnp.clip(x, message.min, message.max)))

    return function


@maker("Swish")
def swish(layer: Any, shape: Shape) -> Made:
    """Swish: x sigmoid(beta x)."""
    beta = layer.swish_param.beta
    return lambda x: x * jax.nn.sigmoid(beta * x)


@maker("Dropout")
def dropout(layer: Any, shape: Shape) -> Made:
    """Dropout: in training each number is zero with probability dropout_ratio, and the others grow.

    With `scale_train: false` they shrink in testing instead. With SegNet's `sample_weights_test` it is the same
    in testing as in training.
    """
    message = layer.dropout_param
    kept = 1 - message.dropout_ratio
    if not 0 < kept <= 1:
        raise refused(
            "dropout_ratio", f"must be at least 0 and below 1, got {message.dropout_ratio}"
        )
    if not (layer.train or message.sample_weights_test):
        factor = 1 if message.scale_train else kept
        return lambda x: x if factor == 1 else x * factor

    def apply(_, bottoms, key):
        x = bottoms[0]
        drawn = jax.random.bernoulli(key, kept, x.shape)
        return [jnp.where(drawn, x / kept if message.scale_train else x, 0).astype(x.dtype)]

    return Layer(apply, random=True)
