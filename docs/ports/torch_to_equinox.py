"""The weights of a ConvTranspose2d of PyTorch, in a layer for Equinox."""

from docs.ports.torch_layer import NEEDS, arrays, theirs

__all__ = ["NEEDS", "adapter", "arrays", "ours", "theirs"]


def ours(y, weight, bias):
    """The same in Equinox. Its weight has reversed taps, and the two channel axes exchanged in each group."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from jdeconv.layers import equinox as layers

    up = layers.ConvTranspose2d(
        4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, key=jax.random.key(0)
    )
    kernel = jnp.asarray(weight)[:, :, ::-1, ::-1]
    kernel = kernel.reshape(2, 2, 3, 3, 3).swapaxes(1, 2)  # groups, in / groups, out / groups, h, w
    kernel, shift = kernel.reshape(6, 2, 3, 3), jnp.asarray(bias).reshape(6, 1, 1)
    up = eqx.tree_at(lambda layer: (layer.weight, layer.bias), up, (kernel, shift))
    return jax.vmap(up)(y)


adapter = None
