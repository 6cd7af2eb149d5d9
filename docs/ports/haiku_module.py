"""A network of Haiku, unchanged."""

import numpy as np

NEEDS = "haiku"


def theirs(x):
    """The network in Haiku."""
    import haiku as hk
    import jax

    def network(x):
        return hk.Conv2DTranspose(3, 4, stride=2)(jax.nn.relu(hk.Conv2D(8, 3, stride=2)(x)))

    net = hk.without_apply_rng(hk.transform(network))
    params = net.init(jax.random.key(0), x)
    return net.apply(params, x)


def ours(x):
    """The same with jdeconv. Only the last line differs."""
    import haiku as hk
    import jax

    import jdeconv

    def network(x):
        return hk.Conv2DTranspose(3, 4, stride=2)(jax.nn.relu(hk.Conv2D(8, 3, stride=2)(x)))

    net = hk.without_apply_rng(hk.transform(network))
    params = net.init(jax.random.key(0), x)
    return jdeconv.accelerate(net.apply)(params, x)


adapter = None


def arrays(rng):
    """Inputs: (n, h, w, c)."""
    return [rng.integers(-4, 5, (2, 8, 6, 3)).astype(np.float32)]
