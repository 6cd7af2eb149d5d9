"""Time training steps of models of Flax, Equinox, Haiku and Keras, with and without jdeconv.accelerate.

A DCGAN generator, a U-Net and a stack of MobileNet blocks in each library, of its own layers. Loss and
gradients are compared, then both are timed in turn.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdeconv
from benchmarks import report

Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]

# Channels: of the generator's deconvs, of the U-Net's levels, outside and inside of a MobileNet block.
DCGAN, UNET, MOBILENET = (256, 128, 64, 32, 3), (16, 32, 64), (32, 96)
INPUTS = {"DCGAN": (16, 4, 4, DCGAN[0]), "U-Net": (4, 48, 48, 3), "MobileNet": (8, 28, 28, 32)}
TOLERANCE = (
    5e-3  # of the largest number in an array; XLA's own gradients of depthwise kernels err by 1e-3
)
ROUNDS = 9
PAUSE_SECONDS = 0.02


def network(name: str, x: Any, conv, deconv, depthwise, relu=jax.nn.relu, concat=None) -> Any:
    """The three models, over makers of layers: conv(o, k), deconv(o, k, s), depthwise(c, k)."""
    concat = concat or (lambda *parts: jnp.concatenate(parts, -1))
    if name == "DCGAN":
        for o in DCGAN[1:-1]:
            x = relu(deconv(o, 4, 2)(x))
        return deconv(DCGAN[-1], 4, 2)(x)
    if name == "MobileNet":
        outside, inside = MOBILENET
        for _ in range(2):
            h = relu(conv(inside, 1)(x))
            h = relu(depthwise(inside, 3)(h))
            x = x + conv(outside, 1)(h)
        return x
    levels = []
    for o in UNET[:-1]:
        levels.append(relu(conv(o, 3)(x)))
        x = relu(conv(o, 3, 2)(levels[-1]))
    x = relu(conv(UNET[-1], 3)(x))
    for o, level in zip(UNET[-2::-1], reversed(levels), strict=True):
        x = concat(relu(deconv(o, 2, 2)(x)), level)
        x = relu(conv(o, 3)(x))
    return conv(3, 1)(x)


def linen(name: str, x: jax.Array) -> tuple[Step, Any]:
    """Flax's linen."""
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return network(
                name,
                x,
                lambda o, k, s=1: nn.Conv(o, (k, k), (s, s)),
                lambda o, k, s: nn.ConvTranspose(o, (k, k), (s, s)),
                lambda c, k: nn.Conv(c, (k, k), feature_group_count=c),
            )

    net = Net()
    return _step(net.apply), net.init(jax.random.key(0), x)


def nnx(name: str, x: jax.Array) -> tuple[Step, Any]:
    """Flax's nnx."""
    from flax import nnx as nn

    rngs, layers = nn.Rngs(0), _Layers(-1)
    network(
        name,
        x,
        layers.noted(lambda i, o, k, s=1: nn.Conv(i, o, (k, k), (s, s), rngs=rngs)),
        layers.noted(lambda i, o, k, s: nn.ConvTranspose(i, o, (k, k), (s, s), rngs=rngs)),
        layers.noted(lambda i, c, k: nn.Conv(i, c, (k, k), feature_group_count=c, rngs=rngs)),
    )

    class Net(nn.Module):
        def __init__(self):
            self.layers = nn.List(layers.made)

        def __call__(self, x):
            following = _following(self.layers)
            return network(name, x, following, following, following)

    definition, params = nn.split(Net())
    return _step(lambda params, x: nn.merge(definition, params)(x)), params


def equinox(name: str, x: jax.Array) -> tuple[Step, Any]:
    """Equinox, whose layers take one image with channels first."""
    import equinox as eqx

    layers, key = _Layers(0), jax.random.key(0)
    concat = lambda *parts: jnp.concatenate(parts)  # noqa: E731
    images = jnp.moveaxis(x, -1, 1)
    options = {"padding": "SAME", "key": key}
    network(
        name,
        images[0],
        layers.noted(lambda i, o, k, s=1: eqx.nn.Conv2d(i, o, k, s, **options)),
        layers.noted(lambda i, o, k, s: eqx.nn.ConvTranspose2d(i, o, k, s, **options)),
        layers.noted(lambda i, c, k: eqx.nn.Conv2d(i, c, k, groups=c, **options)),
        concat=concat,
    )
    params, rest = eqx.partition(layers.made, eqx.is_array)

    def apply(params, x):
        following = _following(eqx.combine(params, rest))
        image = lambda x: network(name, x, following, following, following, concat=concat)  # noqa: E731
        return jax.vmap(image)(jnp.moveaxis(x, -1, 1))

    return _step(apply), params


def haiku(name: str, x: jax.Array) -> tuple[Step, Any]:
    """Haiku."""
    import haiku as hk

    def forward(x):
        return network(
            name,
            x,
            lambda o, k, s=1: hk.Conv2D(o, k, s),
            lambda o, k, s: hk.Conv2DTranspose(o, k, s),
            lambda c, k: hk.DepthwiseConv2D(1, k),
        )

    net = hk.without_apply_rng(hk.transform(forward))
    return _step(net.apply), net.init(jax.random.key(0), x)


def keras(name: str, x: jax.Array) -> tuple[Step, Any]:
    """Keras, over JAX."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras as k3

    if k3.backend.backend() != "jax":
        raise SystemExit(f"Keras runs over {k3.backend.backend()}; set KERAS_BACKEND=jax")
    k3.utils.set_random_seed(0)
    image = k3.Input(x.shape[1:])
    out = network(
        name,
        image,
        lambda o, k, s=1: k3.layers.Conv2D(o, k, s, padding="same"),
        lambda o, k, s: k3.layers.Conv2DTranspose(o, k, s, padding="same"),
        lambda c, k: k3.layers.DepthwiseConv2D(k, padding="same"),
        relu=k3.ops.relu,
        concat=lambda *parts: k3.ops.concatenate(parts, -1),
    )
    net = k3.Model(image, out)
    params = [v.value for v in net.trainable_variables]
    return _step(lambda params, x: net.stateless_call(params, [], x)[0]), params


LIBRARIES = {
    "flax.linen": linen,
    "flax.nnx": nnx,
    "equinox": equinox,
    "haiku": haiku,
    "keras": keras,
}
DISTRIBUTIONS = {"flax.linen": "flax", "flax.nnx": "flax", "haiku": "dm-haiku"}


def _step(apply: Callable[[Any, jax.Array], jax.Array]) -> Step:
    """Loss and gradients of the parameters."""
    return jax.value_and_grad(lambda params, x: jnp.mean((apply(params, x) - 0.5) ** 2))


class _Layers:
    """Layers of a library that wants to be told the channels of their input, made as data comes by."""

    def __init__(self, channel_axis: int) -> None:
        self.made, self.axis = [], channel_axis

    def noted(self, make: Callable) -> Callable:
        def maker(*args):
            def apply(x):
                self.made.append(make(x.shape[self.axis], *args))
                return self.made[-1](x)

            return apply

        return maker


def _following(layers) -> Callable:
    """A maker that hands out layers that exist, in their order."""
    remaining = iter(layers)
    return lambda *_: next(remaining)


def setting(library: str, name: str) -> tuple[Step, Any, jax.Array]:
    """One model's training step, its parameters and its input."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=INPUTS[name]), jnp.float32)
    return *LIBRARIES[library](name, x), x


def difference(result: Any, expected: Any) -> float:
    """The largest of any array, as a share of the largest number in it."""

    def share(a, b):
        return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())

    return max(jax.tree.leaves(jax.tree.map(share, result, expected)))


def timed(step: Callable, *args: Any) -> float:
    """Seconds of one call, after a pause in which no other's threads go on."""
    time.sleep(PAUSE_SECONDS)
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    return time.perf_counter() - start


def measured(library: str, name: str) -> str:
    """One line of the table."""
    step, params, x = setting(library, name)
    original, fast = jax.jit(step), jax.jit(jdeconv.accelerate(step))
    share = difference(fast(params, x), original(params, x))
    if not share < TOLERANCE:
        raise SystemExit(f"{library} {name}: results differ by {share:.1e} of the largest number")
    times = [[timed(f, params, x) for f in (original, fast)] for _ in range(ROUNDS)]
    before, after = 1e3 * np.median(times, axis=0)
    return f"| {library} | {name} | {before:.1f} | {after:.1f} | {before / after:.1f} |"


def main() -> int:
    """Print the table, and write it if told where."""
    parser = report.parser("benchmarks.switch", __doc__)
    report.add_outputs(parser, "table")
    parser.add_argument(
        "libraries",
        nargs="*",
        metavar="LIBRARY",
        help=f"some of {', '.join(LIBRARIES)} (default: all)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.libraries) - set(LIBRARIES):
        parser.error(f"{', '.join(unknown)}: the libraries are {', '.join(LIBRARIES)}")
    lines = [
        "| library | model | its own, ms | accelerated, ms | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    versions = {"jax": metadata.version("jax")}
    print("\n".join(lines), flush=True)
    for library in arguments.libraries or LIBRARIES:
        package = DISTRIBUTIONS.get(library, library)
        if importlib.util.find_spec(library.partition(".")[0]) is None:
            print(f"{library} is missing: pip install {package}", file=sys.stderr)
            continue
        versions[package] = metadata.version(package)
        for name in INPUTS:
            lines.append(measured(library, name))
            print(lines[-1], flush=True)
    lines.append("\n" + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print(lines[-1])
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    report.run(main)
