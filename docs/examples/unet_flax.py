"""python -m docs.examples.unet_flax: a U-Net of Flax nnx learns to remove noise from photographs.

Its layers are those of `jdeconv.layers.nnx`. Convs and transposed convs reflect the picture at its border, and
each transposed conv returns to the size from which its conv came, whether that is even or odd.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from docs.examples import training
from jdeconv.layers import nnx as layers

NOISE = 0.1  # standard deviation, where 1 is white
BATCH = 8


class UNet(nnx.Module):
    """Convs that halve the picture, transposed convs that double it, and connections across."""

    def __init__(self, widths: Sequence[int], rngs: nnx.Rngs) -> None:
        options = {"kernel_size": (3, 3), "padding_mode": "REFLECT", "rngs": rngs}
        pairs = [*itertools.pairwise(widths)]
        self.first = layers.Conv(1, widths[0], **options)
        self.down = nnx.List([layers.Conv(a, b, strides=2, **options) for a, b in pairs])
        self.deep = nnx.List([layers.Conv(b, b, **options) for _, b in pairs])
        options |= {"kernel_size": (4, 4)}
        self.up = nnx.List([layers.ConvTranspose(b, a, strides=2, **options) for a, b in pairs])
        options |= {"kernel_size": (3, 3)}
        self.merge = nnx.List([layers.Conv(2 * a, a, **options) for a, _ in pairs])
        self.last = layers.Conv(widths[0], 1, **options, kernel_init=nnx.initializers.zeros)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the pictures (*batch, h, w, 1) with less noise."""
        h, across = nnx.relu(self.first(x)), []
        for down, deep in zip(self.down, self.deep, strict=True):
            across.append(h)
            h = nnx.relu(deep(nnx.relu(down(h))))
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            waiting = across.pop()
            h = nnx.relu(up(h, output_size=waiting.shape[-3:-1]))
            h = nnx.relu(merge(jnp.concatenate([h, waiting], -1)))
        return x - self.last(h)


@nnx.jit
def step(model: UNet, optimizer: nnx.Optimizer, seen: jax.Array, clean: jax.Array) -> jax.Array:
    """Change the network and the optimizer by a step, and return the loss before it."""

    def loss(model: UNet) -> jax.Array:
        return jnp.square(model(seen) - clean).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def trained(widths: Sequence[int], steps: int, patch: int, seed: int) -> Iterator[tuple]:
    """After every step, the network and the loss."""
    rng, model = np.random.default_rng(seed), UNet(widths, nnx.Rngs(seed))
    rate = optax.cosine_decay_schedule(3e-3, steps)
    optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)
    for photos in itertools.islice(training.batches(patch, BATCH, rng), steps):
        clean = np.moveaxis(photos, 1, -1)
        yield model, float(step(model, optimizer, noisy(clean, rng), clean))


def noisy(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture with normal noise."""
    return (clean + NOISE * rng.normal(size=clean.shape)).astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and measure and write what becomes of photographs that the network never saw."""
    options = training.options(__spec__.name, __doc__, arguments, steps=300, quick_steps=30)
    widths, patch, size = ((8, 16), 32, 95) if options.quick else ((16, 32, 64), 64, 287)
    steps = trained(widths, options.steps, patch, options.seed)
    model, apply = training.finished(steps, options.steps), nnx.jit(UNet.__call__)
    rng, rows = np.random.default_rng(options.seed), []
    for name, truth in training.held_out(size).items():
        seen = noisy(truth, rng)
        ours = np.asarray(apply(model, seen[..., None]))[..., 0]
        rows.append({f"{name} with noise": seen, "without": ours, "original": truth})
        before, after = training.psnr(seen, truth), training.psnr(ours, truth)
        print(f"{name:10}{before:6.2f} dB with noise, {after:6.2f} dB without")
    training.write(rows, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
