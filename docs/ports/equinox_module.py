"""The gradient of a model of Equinox."""

import numpy as np

NEEDS = "equinox"


def theirs(x):
    """The gradient in Equinox."""
    import equinox as eqx
    import jax

    keys = jax.random.split(jax.random.key(0), 2)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 8, 3, stride=2, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1, key=keys[1]),
        ]
    )

    def loss(model, x):
        return (jax.vmap(model)(x) ** 2).mean()

    gradients = eqx.filter_grad(loss)(model, x)
    return gradients.layers[0].weight


def ours(x):
    """The same with jdeconv. Only the line before the last differs."""
    import equinox as eqx
    import jax

    import jdeconv

    keys = jax.random.split(jax.random.key(0), 2)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 8, 3, stride=2, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1, key=keys[1]),
        ]
    )

    def loss(model, x):
        return (jax.vmap(model)(x) ** 2).mean()

    gradients = eqx.filter_grad(jdeconv.accelerate(loss))(model, x)
    return gradients.layers[0].weight


adapter = None


def arrays(rng):
    """Inputs: (n, c, h, w)."""
    return [rng.integers(-4, 5, (2, 3, 8, 6)).astype(np.float32)]
