"""python -m docs.examples.autoencoder_equinox: an autoencoder of photographs with half the usual parameters.

Each layer of the decoder is a `TiedConvTranspose` of `jdeconv.layers.equinox`: the exact adjoint of a conv
of the encoder, with that conv's weight. One gradient sums both uses.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from docs.examples import training
from jdeconv.layers import equinox as layers

BATCH = 16


class Autoencoder(eqx.Module):
    """Convs that each halve a picture, and their adjoints."""

    convs: list[layers.Conv]
    back: list[layers.TiedConvTranspose]

    def __init__(self, widths: Sequence[int], key: jax.Array) -> None:
        keys = iter(jax.random.split(key, 2 * len(widths)))
        channels = zip((1, *widths), widths, strict=False)
        options = {"kernel_size": 4, "stride": 2, "padding": "SAME", "padding_mode": "REFLECT"}
        self.convs = [layers.Conv2d(a, b, **options, key=next(keys)) for a, b in channels]
        self.back = [layers.TiedConvTranspose(conv, key=next(keys)) for conv in self.convs]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the code (widths[-1], h', w') of a picture (1, h, w), and the picture that it stands for."""
        sizes, last = [], self.convs[-1]
        for conv in self.convs:
            sizes.append(x.shape[1:])
            x = conv(x) if conv is last else jax.nn.gelu(conv(x))
        code = x
        for conv, back in zip(reversed(self.convs), reversed(self.back), strict=True):
            x = back(x, conv, output_size=sizes.pop())
            x = jax.nn.gelu(x) if sizes else x
        return code, x


@eqx.filter_jit
def step(model: Autoencoder, optimizer: Any, state: tuple, photos: jax.Array) -> tuple:
    """Return the network and the optimizer's state after a step, and the loss before it."""

    def loss(model: Autoencoder) -> jax.Array:
        return jnp.square(jax.vmap(model)(photos)[1] - photos).mean()

    value, gradients = eqx.filter_value_and_grad(loss)(model)
    updates, state = optimizer.update(gradients, state)
    return eqx.apply_updates(model, updates), state, value


def trained(widths: Sequence[int], steps: int, patch: int, seed: int) -> Iterator[tuple]:
    """After every step, the network and the loss."""
    model = Autoencoder(widths, jax.random.key(seed))
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    state = optimizer.init(eqx.filter(model, eqx.is_array))
    batches = training.batches(patch, BATCH, np.random.default_rng(seed))
    for photos in itertools.islice(batches, steps):
        model, state, value = step(model, optimizer, state, photos)
        yield model, float(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and measure and write what becomes of photographs that the network never saw."""
    options = training.options(__spec__.name, __doc__, arguments, steps=600, quick_steps=40)
    widths, patch, size = ((8, 6), 32, 95) if options.quick else ((32, 64, 16), 64, 287)
    steps = trained(widths, options.steps, patch, options.seed)
    apply, rows = eqx.filter_jit(training.finished(steps, options.steps)), []
    for name, truth in training.held_out(size).items():
        code, found = apply(truth[None])
        ours = np.asarray(found)[0]
        rows.append({name: truth, "from the code": ours})
        ratio = code.size / truth.size
        print(f"{name:10}{training.psnr(ours, truth):6.2f} dB from {ratio:.2f} numbers a pixel")
    training.write(rows, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
