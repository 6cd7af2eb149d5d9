"""The weights of a ConvTranspose2d of PyTorch, in a layer for Flax."""

from docs.ports.torch_layer import NEEDS, arrays, theirs

__all__ = ["NEEDS", "adapter", "arrays", "ours", "theirs"]


def ours(y, weight, bias):
    """The same in Flax. With transpose_kernel, only the order of the axes differs."""
    import jax.numpy as jnp
    from flax import nnx

    from jdeconv.layers import nnx as layers

    pad = 3 - 1 - 1  # dilation * (kernel_size - 1) - padding
    up = layers.ConvTranspose(
        4,
        6,
        (3, 3),
        strides=2,
        padding=((pad, pad), (pad, pad)),
        output_padding=1,
        feature_group_count=2,
        transpose_kernel=True,
        rngs=nnx.Rngs(0),
    )
    up.kernel[...] = jnp.asarray(weight).transpose(2, 3, 1, 0)
    up.bias[...] = jnp.asarray(bias)
    return up(y.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


adapter = None
