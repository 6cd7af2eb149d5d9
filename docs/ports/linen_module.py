"""A network of Flax's linen, unchanged."""

import numpy as np

NEEDS = "flax"


def theirs(x):
    """The network in Flax."""
    import jax
    from flax import linen as nn

    net = nn.Sequential(
        [nn.Conv(8, (3, 3), strides=2), nn.relu, nn.ConvTranspose(3, (4, 4), (2, 2))]
    )
    params = net.init(jax.random.key(0), x)
    return net.apply(params, x)


def ours(x):
    """The same with jdeconv. Only the last line differs."""
    import jax
    from flax import linen as nn

    import jdeconv

    net = nn.Sequential(
        [nn.Conv(8, (3, 3), strides=2), nn.relu, nn.ConvTranspose(3, (4, 4), (2, 2))]
    )
    params = net.init(jax.random.key(0), x)
    return jdeconv.accelerate(net.apply)(params, x)


adapter = None


def arrays(rng):
    """Inputs: (n, h, w, c)."""
    return [rng.integers(-4, 5, (2, 8, 6, 3)).astype(np.float32)]
