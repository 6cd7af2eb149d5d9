"""The definition: im2col, then dot; dot, then col2im. For every problem, on every platform.

Once x lies in columns, the trilinear form is a plain sum of products:

    T = sum over n, g, o, c, t, q of  y[n,g,o,q] * kernel[g,o,c,t] * columns[n,g,c,t,q]

As in Caffe, few images are in work at a time, so that their columns stay in cache: one large fresh
buffer costs more in page faults than the arithmetic that it feeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.form import Form
from jdeconv.im2col import fold, unfold

BLOCK_BYTES = 4 << 20

# A word is an axis in memory and a letter an index of the form, for channels before and behind space.
CHANNELS_FIRST = {"columns": "n gc t q", "kernel": "go c t", "y": "n go q"}
CHANNELS_LAST = {"columns": "n q t gc", "kernel": "t c go", "y": "n q go"}


def refuses(form: Form) -> str | None:
    """Nothing: the definition serves every form."""
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's forward_gemm: y = kernel . columns, where columns = im2col(x)."""
    algebra = _Algebra.of_kernel(form, kernel)
    kernel = algebra.split(algebra.arrange(kernel, "kernel"), "kernel")
    x = algebra.arrange(x, "x")

    def block(x):
        columns = algebra.split(
            unfold(x, form.window, channels_last=algebra.channels_last), "columns"
        )
        return algebra.merge(algebra.dot("y", dtype, columns=columns, kernel=kernel), "y")

    return algebra.restore(_map(block, x, algebra.images_per_block(dtype, x)), "y")


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's backward_gemm: x = col2im(columns), where columns = kernel^T . y."""
    algebra = _Algebra.of_kernel(form, kernel)
    kernel = algebra.split(algebra.arrange(kernel, "kernel"), "kernel")
    y = algebra.arrange(y, "y")

    def block(y):
        columns = algebra.dot("columns", dtype, y=algebra.split(y, "y"), kernel=kernel)
        columns = algebra.merge(columns, "columns")
        return fold(columns, form.window, channels_last=algebra.channels_last)

    return algebra.restore(_map(block, y, algebra.images_per_block(dtype, y)), "x")


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's weight_gemm: kernel = the sum over images of y . columns^T, where columns = im2col(x)."""
    algebra = _Algebra.of_sides(form, x, y)
    x, y = algebra.arrange(x, "x"), algebra.arrange(y, "y")

    def block(x, y):
        columns = algebra.split(
            unfold(x, form.window, channels_last=algebra.channels_last), "columns"
        )
        return algebra.dot("kernel", dtype, columns=columns, y=algebra.split(y, "y"))

    kernel = _sum(block, (x, y), algebra.images_per_block(dtype, x))
    return algebra.restore(algebra.merge(kernel, "kernel"), "kernel")


@dataclass(frozen=True)
class _Algebra:
    """Arrays as users keep them, as space with channels first or last, and as letters of the form."""

    form: Form
    c: int
    o: int

    @classmethod
    def of_kernel(cls, form: Form, kernel: jax.Array) -> _Algebra:
        outer, inner = (kernel.shape[axis] for axis in form.layout.kernel[:2])
        return cls(form, inner, outer // form.groups)

    @classmethod
    def of_sides(cls, form: Form, x: jax.Array, y: jax.Array) -> _Algebra:
        channels = x.shape[form.layout.x[1]], y.shape[form.layout.y[1]]
        return cls(form, *(total // form.groups for total in channels))

    @property
    def channels_last(self) -> bool:
        return self.form.layout.x[1] == self.form.window.rank + 1

    @property
    def words(self) -> dict[str, str]:
        return CHANNELS_LAST if self.channels_last else CHANNELS_FIRST

    def order(self, role: str) -> tuple[int, ...]:
        outer, inner, *space = getattr(self.form.layout, role)
        if not self.channels_last:
            return outer, inner, *space
        return (*space, inner, outer) if role == "kernel" else (outer, *space, inner)

    def arrange(self, a: jax.Array, role: str) -> jax.Array:
        return lax.transpose(a, self.order(role))

    def restore(self, a: jax.Array, role: str) -> jax.Array:
        return lax.transpose(a, np.argsort(self.order(role)))

    def split(self, a: jax.Array, name: str) -> jax.Array:
        sizes = {"n": a.shape[0], "g": self.form.groups, "c": self.c, "o": self.o}
        sizes |= {"t": math.prod(self.form.window.kernel), "q": math.prod(self.form.window.small)}
        return a.reshape([sizes[letter] for letter in self.words[name].replace(" ", "")])

    def merge(self, a: jax.Array, name: str) -> jax.Array:
        groups, window = self.form.groups, self.form.window
        sizes = {"n": a.shape[:1], "t": window.kernel, "q": window.small}
        sizes |= {"c": (self.c,), "gc": (groups * self.c,), "go": (groups * self.o,)}
        return a.reshape([size for word in self.words[name].split() for size in sizes[word]])

    def dot(self, result: str, dtype: np.dtype, **operands: jax.Array) -> jax.Array:
        letters = {name: word.replace(" ", "") for name, word in self.words.items()}
        subscripts = f"{','.join(letters[name] for name in operands)}->{letters[result]}"
        return jnp.einsum(
            subscripts,
            *operands.values(),
            precision=self.form.precision,
            preferred_element_type=dtype,
        )

    def images_per_block(self, dtype: np.dtype, images: jax.Array) -> int:
        """The most images whose columns fit BLOCK_BYTES and that divide the batch."""
        batch = images.shape[0]
        if not isinstance(batch, int):  # a symbolic size, in an export
            return 1
        window = self.form.window
        row = self.form.groups * self.c * math.prod(window.kernel)
        fitting = BLOCK_BYTES // max(1, row * math.prod(window.small) * np.dtype(dtype).itemsize)
        divisors = (n for n in range(1, min(batch, fitting) + 1) if batch % n == 0)
        return max(divisors, default=min(batch, 1))


def _map(block: Callable, images: jax.Array, size: int) -> jax.Array:
    """`block` over blocks of `size` images, one after the other."""
    count = images.shape[0]
    if count == size:
        return block(images)
    result = lax.map(block, images.reshape(-1, size, *images.shape[1:]))
    return result.reshape(count, *result.shape[2:])


def _sum(block: Callable, images: tuple[jax.Array, ...], size: int) -> jax.Array:
    """The sum of `block` over blocks of `size` images."""
    count = images[0].shape[0]
    if count == size:
        return block(*images)
    images = tuple(a.reshape(-1, size, *a.shape[1:]) for a in images)
    shape = jax.eval_shape(block, *(a[0] for a in images))
    zeros = jnp.zeros(shape.shape, shape.dtype)
    if axes := tuple(jax.typeof(images[0]).manual_axis_type.varying):  # in shard_map, as images do
        zeros = lax.pcast(zeros, axes, to="varying")
    total, _ = lax.scan(lambda total, a: (total + block(*a), None), zeros, images)
    return total
