"""`batch_norm` of `torch.nn.functional`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdeconv.checks import array, flag, number, refused, reporting, shown
from jdeconv.form import accumulator


@reporting()
def batch_norm(
    input: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Any:
    """Returns what `torch.nn.functional.batch_norm` returns: each channel normalized by mean and variance.

    Formula: ``(input - mean) / sqrt(var + eps) * weight + bias``, with the running mean and variance. In
    training, mean and variance are those of the batch, and var divides by the count of numbers.

    Shapes: input (n, c, *i), all others (c,) -> (n, c, *i).

    Returns:
      The result in input's dtype, or, in training with running statistics, a tuple (result, new mean, new
      variance). PyTorch changes the running statistics in place instead. Each new one is (1 - momentum) times
      the old one plus momentum times that of the batch, whose variance here divides by one less than the count.
      Half precision adds up in float32.

    Example:
      >>> import jax.numpy as jnp
      >>> mean, var = jnp.array([1.0]), jnp.array([4.0])
      >>> batch_norm(jnp.array([[1.0], [5.0]]), mean, var, eps=0).tolist()
      [[0.0], [2.0]]
      >>> [a.tolist() for a in batch_norm(jnp.array([[1.0], [5.0]]), mean, var, None, None, True, 0.5)[1:]]
      [[2.0], [6.0]]
    """
    a = array("input", input)
    if a.ndim < 2 or not jnp.issubdtype(a.dtype, jnp.floating):
        raise refused("input", f"needs floats and 2 axes or more, got {shown(a)}")
    vectors = {"running_mean": running_mean, "running_var": running_var}
    vectors |= {"weight": weight, "bias": bias}
    mean, var, scale, shift = (_vector(name, value, a) for name, value in vectors.items())
    if (mean is None) != (var is None):
        raise refused("running_var", "must be given with running_mean, or both be None")
    is_training, running = flag("training", training), (mean, var)
    momentum, eps = number("momentum", momentum), number("eps", eps)
    dtype, axes, count = a.dtype, (0, *range(2, a.ndim)), a.size // max(a.shape[1], 1)
    a = a.astype(accumulator(dtype))
    if is_training and count < 2:
        raise refused("input", f"needs more than one number per channel, got {shown(input)}")
    if is_training:
        mean, var = a.mean(axes), a.var(axes)
    elif mean is None:
        raise refused("running_mean", "must be given where training is False")
    factor = jax.lax.rsqrt(var + eps)
    factor = factor if scale is None else factor * scale
    offset = -mean * factor if shift is None else shift - mean * factor
    shape = (1, -1, *[1] * (a.ndim - 2))
    result = (a * factor.reshape(shape) + offset.reshape(shape)).astype(dtype)
    if not is_training or running[0] is None:
        return result
    unbiased = var * (count / (count - 1))
    new = (
        ((1 - momentum) * old + momentum * batch).astype(old.dtype)
        for old, batch in zip(running, (mean, unbiased), strict=True)
    )
    return result, *new


def _vector(name: str, value: Any, a: jax.Array) -> Any:
    """One number per channel, or None."""
    if value is None:
        return None
    vector = array(name, value)
    if vector.shape != (a.shape[1],):
        raise refused(
            name, f"needs shape ({a.shape[1]},), one number per channel, got {shown(vector)}"
        )
    return vector
