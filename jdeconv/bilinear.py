"""The same three functions as bare primitives: with forward mode and linear transposition too.

JAX refuses jvp, linearize and linear_transpose of any `custom_vjp` function. These functions are bilinear as
far as JAX can see, so every transformation passes. Arguments, results and errors are those of `jdeconv.conv`,
`deconv` and `kernel_grad`.

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
