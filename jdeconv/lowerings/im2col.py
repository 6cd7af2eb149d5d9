"""The definition: im2col, then dot; dot, then col2im. For every problem, on every platform.

Once x lies in columns, the trilinear form is a plain sum of products:

    T = sum over n, g, o, c, t, q of  y[n,g,o,q] * kernel[g,o,c,t] * columns[n,g,c,t,q]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv.form import Form
from jdeconv.im2col import fold, unfold
from jdeconv.lowerings.arrange import arrange, channels_last, restore
from jdeconv.lowerings.blocks import images_per_block, map_blocks, sum_blocks

# A word is an axis in memory and a letter an index of the form, for channels before and behind space.
CHANNELS_FIRST = {"columns": "n gc t q", "kernel": "go c t", "y": "n go q"}
CHANNELS_LAST = {"columns": "n q t gc", "kernel": "t c go", "y": "n q go"}


def refuses(form: Form, c: int, o: int) -> str | None:
    """Nothing: the definition serves every form."""
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's forward_gemm: y = kernel . columns, where columns = im2col(x)."""
    letters = _Letters(form, *form.channels("conv", x.shape, kernel.shape))
    kernel = letters.split(arrange(kernel, form, "kernel"), "kernel")
    x = arrange(x, form, "x")

    def block(x):
        columns = letters.split(
            unfold(x, form.window, channels_last=channels_last(form)), "columns"
        )
        return letters.merge(letters.dot("y", dtype, columns=columns, kernel=kernel), "y")

    return restore(map_blocks(block, x, letters.images_per_block(x, dtype)), form, "y")


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's backward_gemm: x = col2im(columns), where columns = kernel^T . y."""
    letters = _Letters(form, *form.channels("deconv", y.shape, kernel.shape))
    kernel = letters.split(arrange(kernel, form, "kernel"), "kernel")
    y = arrange(y, form, "y")

    def block(y):
        columns = letters.dot("columns", dtype, y=letters.split(y, "y"), kernel=kernel)
        columns = letters.merge(columns, "columns")
        return fold(columns, form.window, channels_last=channels_last(form))

    return restore(map_blocks(block, y, letters.images_per_block(y, dtype)), form, "x")


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's weight_gemm: kernel = the sum over images of y . columns^T, where columns = im2col(x)."""
    letters = _Letters(form, *form.channels("kernel_grad", x.shape, y.shape))
    x, y = arrange(x, form, "x"), arrange(y, form, "y")

    def block(x, y):
        columns = letters.split(
            unfold(x, form.window, channels_last=channels_last(form)), "columns"
        )
        return letters.dot("kernel", dtype, columns=columns, y=letters.split(y, "y"))

    kernel = sum_blocks(block, (x, y), letters.images_per_block(x, dtype))
    return restore(letters.merge(kernel, "kernel"), form, "kernel")


@dataclass(frozen=True)
class _Letters:
    """Arranged arrays split into the letters of the form, and merged again."""

    form: Form
    c: int
    o: int

    @property
    def words(self) -> dict[str, str]:
        return CHANNELS_LAST if channels_last(self.form) else CHANNELS_FIRST

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

    def images_per_block(self, images: jax.Array, dtype: np.dtype) -> int:
        window = self.form.window
        columns = self.form.groups * self.c * math.prod(window.kernel) * math.prod(window.small)
        return images_per_block(images.shape[0], columns * np.dtype(dtype).itemsize)
