"""The demo's network: convs at low resolution, then one stride-2 deconv that starts as bilinear upsampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jdeconv.api import conv, deconv
from jdeconv.fillers import bilinear_kernel, msra

WIDTH = 32
FLOAT = jnp.float32  # as the photographs are, under jax_enable_x64 too
REACH = 6  # low-resolution pixels beyond a tile that its result depends on, with one to spare

Params = dict[str, dict[str, jax.Array]]
Layer = Callable[..., jax.Array]


def init(key: jax.Array) -> Params:
    """Returns initial kernels from Caffe's fillers. The deconv's weights of the features are 0 at the start."""
    keys = jax.random.split(key, 3)
    shapes = {
        "conv1": (WIDTH, 1, 5, 5),
        "conv2": (WIDTH, WIDTH, 3, 3),
        "conv3": (WIDTH, WIDTH, 3, 3),
    }
    params = {
        name: {"kernel": msra(key, shape, FLOAT), "bias": jnp.zeros(shape[0], FLOAT)}
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }
    kernel = jnp.zeros((1 + WIDTH, 1, 4, 4), FLOAT)
    kernel = kernel.at[0].set(bilinear_kernel((1, 1, 4, 4), FLOAT)[0])
    return params | {"deconv": {"kernel": kernel, "bias": jnp.zeros(1, FLOAT)}}


def lax_conv(x: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """The conv through jax.lax."""
    return lax.conv_general_dilated(x, kernel, (1, 1), [(padding, padding)] * 2)


def lax_deconv(y: jax.Array, kernel: jax.Array, padding: int) -> jax.Array:
    """The deconv of stride 2 through jax.lax, whose padding is that of the equivalent conv of stride 1."""
    pads = [(k - 1 - padding, k - 1 - padding) for k in kernel.shape[2:]]
    layout = ("NCHW", "OIHW", "NCHW")
    return lax.conv_transpose(
        y, kernel, (2, 2), pads, dimension_numbers=layout, transpose_kernel=True
    )


JDECONV = (conv, partial(deconv, stride=2))
LAX = (lax_conv, lax_deconv)


def apply(params: Params, images: jax.Array, layers: tuple[Layer, Layer] = JDECONV) -> jax.Array:
    """Returns images (n, 1, h, w) at twice their size, with the layers of jdeconv or of jax.lax."""
    conv, deconv = layers
    features = images - 0.5
    for name, padding in (("conv1", 2), ("conv2", 1), ("conv3", 1)):
        layer = params[name]
        features = conv(features, layer["kernel"], padding=padding)
        features = jax.nn.relu(features + layer["bias"].reshape(1, -1, 1, 1))
    both = jnp.concatenate([images, features], axis=1)
    result = deconv(both, params["deconv"]["kernel"], padding=1)
    return result + params["deconv"]["bias"].reshape(1, 1, 1, 1)


def loss(params: Params, low: jax.Array, high: jax.Array, layers=JDECONV) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((apply(params, low, layers) - high) ** 2)


def gradient(layers: tuple[Layer, Layer]) -> Callable:
    """Loss and gradient as one jitted function of (params, low, high): the work of a training step."""
    return jax.jit(lambda params, low, high: jax.value_and_grad(loss)(params, low, high, layers))


def train(params: Params, batches: Iterator[Any], steps: int) -> Iterator[tuple[Params, float]]:
    """Adam with a cosine schedule; yields parameters and loss after each step."""
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    @jax.jit
    def step(params, state, low, high):
        value, slope = jax.value_and_grad(loss)(params, low, high)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for _, (low, high) in zip(range(steps), batches, strict=False):
        params, state, value = step(params, state, low, high)
        yield params, float(value)
