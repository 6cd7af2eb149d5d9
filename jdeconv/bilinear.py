"""The functions conv, deconv and kernel_grad with forward mode and linear transposition.

JAX allows no jvp, linearize or linear_transpose of `custom_vjp` functions. These functions are JAX primitives
instead, so all transformations work. Their arguments, results and errors are those of `jdeconv.conv`, `deconv`
and `kernel_grad`.

Example:
  >>> import jax
  >>> import jax.numpy as jnp
  >>> x, k = jnp.array([[[1.0, 2.0, 3.0, 4.0]]]), jnp.array([[[1.0, 10.0]]])
  >>> jax.jvp(lambda k: conv(x, k), (k,), (jnp.ones_like(k),))[1].tolist()
  [[[3.0, 5.0, 7.0]]]
  >>> x = jnp.ones((1, 1, 4))
  >>> (y,) = jax.linear_transpose(lambda y: deconv(y, k, stride=2), jnp.zeros((1, 1, 2)))(x)
  >>> y.tolist()
  [[[11.0, 11.0]]]
"""

from jdeconv import api, primitives

__all__ = ["conv", "deconv", "kernel_grad"]

conv = api.public(api.conv_by, primitives.conv, __name__)
deconv = api.public(api.deconv_by, primitives.deconv, __name__)
kernel_grad = api.public(api.kernel_grad_by, primitives.kernel_grad, __name__)
