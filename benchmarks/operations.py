"""The operations in the benchmark's layers and networks, as jdeconv and each of its peers writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import jdeconv


class JaxOperations:
    """What JAX's peers share. Each has its own `conv` and `deconv`."""

    def __init__(self, layout: str) -> None:
        self.last = layout == "NHWC"

    def numbers(self, rank: int) -> tuple[str, str, str]:
        space = "TDHW"[4 - rank :]
        if self.last:
            return f"N{space}C", f"{space}IO", f"N{space}C"
        return f"NC{space}", f"OI{space}", f"NC{space}"

    def channels(self, x: jax.Array) -> int:
        return x.shape[-1 if self.last else 1]

    def concatenate(self, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.concatenate([a, b], -1 if self.last else 1)

    def norm(self, x: jax.Array) -> jax.Array:
        axis = -1 if self.last else 1
        x = x - x.mean(axis, keepdims=True)
        return x * lax.rsqrt((x * x).mean(axis, keepdims=True) + 1e-6)

    def batch_norm(self, x: jax.Array) -> jax.Array:
        """Every channel normalized over all else, in float32 at least."""
        channel = x.ndim - 1 if self.last else 1
        axes = tuple(axis for axis in range(x.ndim) if axis != channel)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        wide = wide - wide.mean(axes, keepdims=True)
        return (wide * lax.rsqrt((wide * wide).mean(axes, keepdims=True) + 1e-5)).astype(x.dtype)

    def per_channel(self, vector: jax.Array, x: jax.Array) -> jax.Array:
        """One number a channel, shaped to meet x."""
        channel = x.ndim - 1 if self.last else 1
        return vector.reshape([-1 if axis == channel else 1 for axis in range(x.ndim)])

    def max_pool(self, x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
        rank = x.ndim - 2

        def everywhere(value, other):
            return (other, *[value] * rank, other) if self.last else (other, other, *[value] * rank)

        return lax.reduce_window(
            x,
            -jnp.inf,
            lax.max,
            everywhere(size, 1),
            everywhere(stride, 1),
            everywhere((padding, padding), (0, 0)),
        )

    def average(self, x: jax.Array) -> jax.Array:
        """The mean over space, which keeps its axes."""
        return x.mean(range(1, x.ndim - 1) if self.last else range(2, x.ndim), keepdims=True)

    def without_last(self, x: jax.Array, count: int) -> jax.Array:
        """A sequence without its last positions."""
        return x[:, :-count] if self.last else x[..., :-count]

    def prelu(self, x: jax.Array, slope: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, self.per_channel(slope, x) * x)

    relu = staticmethod(jax.nn.relu)
    leaky_relu = staticmethod(jax.nn.leaky_relu)
    tanh = staticmethod(jnp.tanh)
    gelu = staticmethod(jax.nn.gelu)
    silu = staticmethod(jax.nn.silu)
    sigmoid = staticmethod(jax.nn.sigmoid)

    def repeat(self, function: Callable, x: jax.Array, times: int) -> jax.Array:
        return lax.scan(lambda x, _: (function(x), None), x, length=times)[0]

    def mean_square(self, x: jax.Array) -> jax.Array:
        return (x * x).mean()

    def vjp(self, forward: Callable, cotangent: jax.Array, *primals: jax.Array) -> tuple:
        result, backward = jax.vjp(forward, *primals)
        return result, *backward(cotangent)

    def value_and_grad(self, loss: Callable, *arrays: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(loss, tuple(range(len(arrays))))(*arrays)
        return value, *grads

    def map(self, function: Callable, *arrays: jax.Array) -> tuple:
        return jax.vmap(function)(*arrays)

    def scan(self, function: Callable, x: jax.Array, kernels: jax.Array) -> jax.Array:
        return lax.scan(lambda x, kernel: (function(x, kernel), None), x, kernels)[0]


class Jdeconv(JaxOperations):
    """The library itself, or another module with its functions, and what they take beside the steps."""

    def __init__(self, layout: str, functions: Any = jdeconv, **options: Any) -> None:
        super().__init__(layout)
        self.functions, self.options = functions, options

    def conv(self, x: jax.Array, kernel: jax.Array, **steps: int) -> jax.Array:
        numbers = self.numbers(kernel.ndim - 2)
        return self.functions.conv(x, kernel, dimension_numbers=numbers, **self.options, **steps)

    def deconv(self, y: jax.Array, kernel: jax.Array, **steps: int) -> jax.Array:
        numbers = self.numbers(kernel.ndim - 2)
        return self.functions.deconv(y, kernel, dimension_numbers=numbers, **self.options, **steps)


class Lax(JaxOperations):
    """`jax.lax` as its users write it, with JAX's own autodiff."""

    is_transposed = True

    def conv(self, x, kernel, *, stride=1, padding=0, dilation=1, groups=1):
        rank = kernel.ndim - 2
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride,) * rank,
            [(padding, padding)] * rank,
            rhs_dilation=(dilation,) * rank,
            dimension_numbers=self.numbers(rank),
            feature_group_count=groups,
        )

    def deconv(self, y, kernel, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
        """`lax.conv_transpose`; where it has no groups, the convolution that it stands for."""
        rank = kernel.ndim - 2
        size = kernel.shape[:rank] if self.last else kernel.shape[2:]
        full = [dilation * (k - 1) for k in size]
        pads = [(f - padding, f - padding + output_padding) for f in full]
        numbers, stride, dilation = self.numbers(rank), (stride,) * rank, (dilation,) * rank
        if groups == 1:
            if not self.is_transposed:
                kernel = kernel.swapaxes(-1, -2) if self.last else kernel.swapaxes(0, 1)
            steps = stride, pads, dilation, numbers
            return lax.conv_transpose(y, kernel, *steps, transpose_kernel=self.is_transposed)
        space = range(rank) if self.last else range(2, rank + 2)
        kernel = jnp.flip(kernel, space)
        if self.last:  # groups from O to I
            kernel = kernel.reshape(*kernel.shape[:-1], groups, -1)
            kernel = jnp.moveaxis(kernel, -2, -3).reshape(*kernel.shape[:-3], -1, kernel.shape[-1])
        else:
            kernel = kernel.reshape(groups, -1, *kernel.shape[1:])
            kernel = jnp.moveaxis(kernel, 0, 1).reshape(kernel.shape[1], -1, *kernel.shape[3:])
        swapped = numbers[1].translate(str.maketrans("OI", "IO"))
        return lax.conv_general_dilated(
            y,
            kernel,
            (1,) * rank,
            pads,
            lhs_dilation=stride,
            rhs_dilation=dilation,
            dimension_numbers=(numbers[0], swapped, numbers[2]),
            feature_group_count=groups,
        )


class LaxDefault(Lax):
    """`lax.conv_transpose` as it is called without transpose_kernel, as in Flax; without groups."""

    is_transposed = False


class Recorder(Lax):
    """`Lax` with a list of its calls: name, both arrays, the side with fewer positions, steps."""

    def __init__(self) -> None:
        super().__init__("NCHW")
        self.calls: list[tuple[str, jax.Array, jax.Array, jax.Array, dict[str, int]]] = []

    def conv(self, x, kernel, **steps):
        y = super().conv(x, kernel, **steps)
        self.calls.append(("conv", x, kernel, y, steps))
        return y

    def deconv(self, y, kernel, **steps):
        self.calls.append(("deconv", y, kernel, y, steps))
        return super().deconv(y, kernel, **steps)


class Equinox(JaxOperations):
    """Equinox's ConvTranspose layer, with kernels in its own order."""

    def deconv(self, y, kernel, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
        import equinox

        layer = equinox.nn.ConvTranspose(
            kernel.ndim - 2,
            y.shape[1],
            kernel.shape[0],
            kernel.shape[2:],
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            use_bias=False,
            key=jax.random.key(0),
        )
        return jax.vmap(equinox.tree_at(lambda layer: layer.weight, layer, kernel))(y)


class TorchOperations:
    """PyTorch's functional interface and its eager autograd; under vmap, `torch.func`'s."""

    def __init__(self, mapped: bool) -> None:
        import torch

        self.torch, self.mapped = torch, mapped
        for name in ("relu", "leaky_relu", "tanh", "silu", "sigmoid", "prelu"):
            setattr(self, name, getattr(torch.nn.functional, name))

    def conv(self, x, kernel, **steps):
        rank = kernel.ndim - 2
        return getattr(self.torch.nn.functional, f"conv{rank}d")(x, kernel, None, **steps)

    def deconv(self, y, kernel, **steps):
        rank = kernel.ndim - 2
        function = getattr(self.torch.nn.functional, f"conv_transpose{rank}d")
        return function(y, kernel, None, **steps)

    def channels(self, x):
        return x.shape[1]

    def concatenate(self, a, b):
        return self.torch.cat([a, b], 1)

    def norm(self, x):
        x = x - x.mean(1, keepdim=True)
        return x * self.torch.rsqrt((x * x).mean(1, keepdim=True) + 1e-6)

    def batch_norm(self, x):
        function = self.torch.nn.functional.batch_norm
        return function(x, None, None, training=True, eps=1e-5)

    def per_channel(self, vector, x):
        return vector.reshape(-1, *[1] * (x.ndim - 2))

    def max_pool(self, x, size, stride, padding):
        function = getattr(self.torch.nn.functional, f"max_pool{x.ndim - 2}d")
        return function(x, size, stride, padding)

    def gelu(self, x):
        return self.torch.nn.functional.gelu(x, approximate="tanh")

    def average(self, x):
        return x.mean(tuple(range(2, x.ndim)), keepdim=True)

    def without_last(self, x, count):
        return x[..., :-count]

    def repeat(self, function, x, times):
        for _ in range(times):
            x = function(x)
        return x

    def mean_square(self, x):
        return (x * x).mean()

    def vjp(self, forward, cotangent, *primals):
        if self.mapped:
            result, backward = self.torch.func.vjp(forward, *primals)
            return result, *backward(cotangent)
        result = forward(*primals)
        return result.detach(), *self.torch.autograd.grad(result, primals, cotangent)

    def value_and_grad(self, loss, *arrays):
        value = loss(*arrays)
        return value.detach(), *self.torch.autograd.grad(value, arrays)

    def map(self, function, *arrays):
        return self.torch.func.vmap(function)(*arrays)

    def scan(self, function, x, kernels):
        for kernel in kernels:
            x = function(x, kernel)
        return x
