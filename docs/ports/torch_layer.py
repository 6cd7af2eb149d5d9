"""A strided, grouped ConvTranspose2d of PyTorch."""

import numpy as np

NEEDS = "torch"


def theirs(y, weight, bias):
    """The layer in PyTorch."""
    import torch

    up = torch.nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
    up.weight.data, up.bias.data = torch.tensor(weight), torch.tensor(bias)
    return up(torch.tensor(y)).detach().numpy()


def ours(y, weight, bias):
    """The same with jdeconv."""
    import jdeconv

    return jdeconv.deconv(y, weight, bias, stride=2, padding=1, output_padding=1, groups=2)


def adapter(y, weight, bias):
    """The same with jdeconv and PyTorch's signature."""
    from jdeconv.compat import torch as F  # noqa: N812

    return F.conv_transpose2d(y, weight, bias, 2, 1, 1, 2)


def arrays(rng):
    """Inputs: (n, c, h, w), (in, out / groups, h, w), (out,)."""
    return [rng.integers(-4, 5, s).astype(np.float32) for s in ((2, 4, 5, 7), (4, 3, 3, 3), (6,))]
