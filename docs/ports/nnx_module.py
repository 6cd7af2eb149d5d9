"""The gradient of a model of Flax's nnx, as a function of its state."""

import numpy as np

NEEDS = "flax"


def theirs(x):
    """The gradient in Flax."""
    import jax
    from flax import nnx

    model = nnx.Sequential(
        nnx.Conv(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0)),
        nnx.relu,
        nnx.ConvTranspose(8, 3, (4, 4), (2, 2), rngs=nnx.Rngs(1)),
    )
    graph, params = nnx.split(model)

    def loss(params, x):
        return (nnx.merge(graph, params)(x) ** 2).mean()

    step = jax.jit(jax.grad(loss))
    gradients = step(params, x)
    return gradients["layers"][0]["kernel"][...]


def ours(x):
    """The same with jdeconv. Only the line of `step` differs."""
    import jax
    from flax import nnx

    import jdeconv

    model = nnx.Sequential(
        nnx.Conv(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0)),
        nnx.relu,
        nnx.ConvTranspose(8, 3, (4, 4), (2, 2), rngs=nnx.Rngs(1)),
    )
    graph, params = nnx.split(model)

    def loss(params, x):
        return (nnx.merge(graph, params)(x) ** 2).mean()

    step = jax.jit(jdeconv.accelerate(jax.grad(loss)))
    gradients = step(params, x)
    return gradients["layers"][0]["kernel"][...]


adapter = None


def arrays(rng):
    """Inputs: (n, h, w, c)."""
    return [rng.integers(-4, 5, (2, 8, 6, 3)).astype(np.float32)]
