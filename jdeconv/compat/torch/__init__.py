"""Functions of `torch.nn.functional`, with its signatures and weight layouts, on JAX arrays.

Arrays are channels first, with or without a batch axis. Weights are PyTorch's: (out, in / groups, *k) for conv,
(in, out / groups, *k) for conv_transpose, both as they come from a `state_dict`. PyTorch's convolutions are
cross-correlations, as Caffe's are, and its conv_transpose is the adjoint of its conv: nothing is reversed.

Each function of a fixed rank refuses arrays of another; `unfold` and `fold` take any. Beside the convolutions
there is what surrounds them in most networks: pooling, `interpolate` and `batch_norm`.
"""

from jdeconv.compat.torch.convolutions import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    fold,
    unfold,
)
from jdeconv.compat.torch.interpolation import interpolate
from jdeconv.compat.torch.normalization import batch_norm
from jdeconv.compat.torch.pooling import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "interpolate",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "unfold",
]
