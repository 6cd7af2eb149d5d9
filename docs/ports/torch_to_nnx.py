"""The weights of a ConvTranspose2d of PyTorch, in a layer for Flax."""

import numpy as np

NEEDS = "torch"


def theirs(y, weight, bias):
    """The layer in PyTorch."""
    import torch

    up = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    up.weight.data, up.bias.data = torch.tensor(weight), torch.tensor(bias)
    return up(torch.tensor(y)).detach().numpy()


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


def arrays(rng):
    """Inputs: (n, c, h, w), (in, out / groups, h, w), (out,)."""
    return [rng.integers(-4, 5, s).astype(np.float32) for s in ((2, 4, 5, 7), (4, 3, 3, 3), (6,))]
