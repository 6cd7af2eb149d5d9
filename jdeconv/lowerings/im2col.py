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
from jax import lax

from jdeconv.axes import padded, reshaped
from jdeconv.form import Form
from jdeconv.im2col import fold, unfold
from jdeconv.lowerings import blocks
from jdeconv.lowerings.arrange import arrange, channels_last, restore
from jdeconv.lowerings.blocks import items_per_block, map_blocks, sum_blocks
from jdeconv.lowerings.slabs import in_slabs

# A word is an axis in memory and a letter an index of the form, for channels before and behind space.
# Batch and positions stand side by side, so that a block of images is one matrix.
CHANNELS_FIRST = {"columns": "gc t n q", "kernel": "go c t", "y": "go n q"}
CHANNELS_LAST = {"columns": "n q t gc", "kernel": "t c go", "y": "n q go"}

MAX_SUMMED = 2048  # numbers in a row, by the loop that XLA has on a CPU for a matrix and a vector
PART = "p"  # the letter of such stages of a sum


def refuses(form: Form, c: int, o: int, dtype: np.dtype) -> str | None:
    """Nothing: the definition serves every form."""
    return None


def _columns_bytes(form: Form, c: int, o: int, dtype: np.dtype) -> int:
    """Of one image."""
    taps, positions = math.prod(form.window.kernel), math.prod(form.window.small)
    return form.groups * c * taps * positions * np.dtype(dtype).itemsize


@in_slabs(_columns_bytes)
def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's forward_gemm: y = kernel . columns, where columns = im2col(x)."""
    letters = _Letters(form, *form.channels("conv", x.shape, kernel.shape))
    kernel = letters.split(arrange(kernel, form, "kernel"), "kernel")

    def block(x):
        answer = form.answer(x.dtype, dtype)
        return letters.join(letters.dot("y", answer, columns=letters.columns(x), kernel=kernel))

    x = arrange(x, form, "x")
    return restore(map_blocks(block, x, letters.images_per_block(x, dtype)), form, "y")


@in_slabs(_columns_bytes)
def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's backward_gemm: x = col2im(columns), where columns = kernel^T . y."""
    letters = _Letters(form, *form.channels("deconv", y.shape, kernel.shape))
    kernel = letters.split(arrange(kernel, form, "kernel"), "kernel")

    def block(y):
        columns = letters.dot("columns", dtype, y=letters.part(y), kernel=kernel)
        return letters.big(columns)

    y = arrange(y, form, "y")
    return restore(map_blocks(block, y, letters.images_per_block(y, dtype)), form, "x")


@in_slabs(_columns_bytes)
def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Caffe's weight_gemm: kernel = the sum over images of y . columns^T, where columns = im2col(x)."""
    letters = _Letters(form, *form.channels("kernel_grad", x.shape, y.shape))

    def block(x, y):
        return letters.dot("kernel", dtype, columns=letters.columns(x), y=letters.part(y))

    x, y = arrange(x, form, "x"), arrange(y, form, "y")
    kernel = sum_blocks(block, (x, y), letters.images_per_block(x, dtype))
    return restore(letters.merge(kernel, "kernel"), form, "kernel")


@dataclass(frozen=True)
class _Letters:
    """Blocks of arranged arrays, split into the letters of the form and merged again."""

    form: Form
    c: int
    o: int

    @property
    def last(self) -> bool:
        return channels_last(self.form)

    @property
    def words(self) -> dict[str, str]:
        return CHANNELS_LAST if self.last else CHANNELS_FIRST

    @property
    def axes(self) -> dict[str, int]:
        """For `unfold` and `fold`: where space and taps begin."""
        return (
            {"space": 1, "tap": 1 + self.form.window.rank} if self.last else {"space": 2, "tap": 1}
        )

    def columns(self, x: jax.Array) -> jax.Array:
        """A block of x in letters, by im2col."""
        return self.split(
            unfold(self.turned(x), self.form.window, **self.axes), "columns", x.shape[0]
        )

    def big(self, columns: jax.Array) -> jax.Array:
        """A block of x from its columns in letters, by col2im."""
        return self.turned(fold(self.merge(columns, "columns"), self.form.window, **self.axes))

    def part(self, y: jax.Array) -> jax.Array:
        """A block of y in letters."""
        return self.split(self.turned(y), "y", y.shape[0])

    def join(self, y: jax.Array) -> jax.Array:
        """A block of y from its letters."""
        return self.turned(self.merge(y, "y"))

    def turned(self, block: jax.Array) -> jax.Array:
        """Channels, then batch, for channels first; and back."""
        return block if self.last else block.swapaxes(0, 1)

    def split(self, a: jax.Array, name: str, n: int = 1) -> jax.Array:
        sizes = {"n": n, "g": self.form.groups, "c": self.c, "o": self.o}
        sizes |= {"t": math.prod(self.form.window.kernel), "q": math.prod(self.form.window.small)}
        return a.reshape([sizes[letter] for letter in self.words[name].replace(" ", "")])

    def merge(self, a: jax.Array, name: str) -> jax.Array:
        groups, window, letters = (
            self.form.groups,
            self.form.window,
            self.words[name].replace(" ", ""),
        )
        sizes = {"t": window.kernel, "q": window.small, "c": (self.c,)}
        sizes |= {"gc": (groups * self.c,), "go": (groups * self.o,)}
        sizes |= {"n": (a.shape[letters.index("n")],)} if "n" in letters else {}
        return a.reshape([size for word in self.words[name].split() for size in sizes[word]])

    def dot(self, result: str, dtype: np.dtype, **operands: jax.Array) -> jax.Array:
        """The sum of products of two arrays in letters."""
        letters = {name: word.replace(" ", "") for name, word in self.words.items()}
        terms, total = [letters[name] for name in operands], letters[result]
        arrays = [*operands.values()]
        options = {"precision": self.form.precision, "preferred_element_type": dtype}
        if self.form.platform == "cpu":
            terms, arrays, total = _staged(terms, arrays, total)
        if total.startswith(PART):
            return jnp.einsum(f"{','.join(terms)}->{total}", *arrays, **options).sum(0)
        if self.form.groups == 1:
            return _matrix_product(terms, arrays, total, **options)
        return jnp.einsum(f"{','.join(terms)}->{total}", *arrays, **options)

    def images_per_block(self, images: jax.Array, dtype: np.dtype) -> int:
        window = self.form.window
        if self.last and window.big == window.small and math.prod(window.kernel) == 1:
            return images.shape[0]  # the columns are x itself, and nothing is laid out
        size = _columns_bytes(self.form, self.c, self.o, dtype)
        most = blocks.bytes_for(self.form.platform, blocks.BLOCK_BYTES)
        return items_per_block(images.shape[0], size, most)


def _matrix_product(terms: list[str], arrays: list[jax.Array], total: str, **options) -> jax.Array:
    """The einsum of two arrays of one group as a product of matrices, for which nothing moves in memory.

    In each array the letters that are summed stand side by side, and so do the others. An einsum would move the
    group in front, and the result's axes behind it.
    """
    sizes, matrices = {"g": 1}, []
    for term, a in zip(terms, arrays, strict=True):
        sizes |= dict(zip(term, a.shape, strict=True))
        kept = [letter for letter in term if letter in total and letter != "g"]
        rows = math.prod(sizes[letter] for letter in kept)
        is_first = term.replace("g", "").startswith(kept[0])
        summed = math.prod(sizes[i] for i in term if i not in total)
        shape = (rows, summed) if is_first else (summed, rows)
        matrices.append((total.index(kept[0]), a.reshape(shape), int(is_first)))
    (_, a, i), (_, b, j) = sorted(matrices, key=lambda matrix: matrix[0])
    product = lax.dot_general(a, b, (((i,), (j,)), ((), ())), **options)
    return product.reshape([sizes[letter] for letter in total])


def _staged(terms: list[str], arrays: list[jax.Array], total: str) -> tuple:
    """The same einsum, with the longest index that is summed in parts, where XLA would take a loop for it."""
    sizes = dict(zip("".join(terms), sum((a.shape for a in arrays), ()), strict=True))
    if not all(isinstance(size, int) for size in sizes.values()):  # symbolic, in an export
        return terms, arrays, total
    summed = [letter for letter in sizes if letter not in total]
    free = [math.prod(sizes[i] for i in term if i in total and i != "g") for term in terms]
    long = max(summed, key=sizes.__getitem__)
    parts = -(-math.prod(sizes[i] for i in summed) // MAX_SUMMED)
    if min(free) > 1 or not 1 < parts <= sizes[long]:
        return terms, arrays, total
    length = -(-sizes[long] // parts)

    def parted(term: str, a: jax.Array) -> jax.Array:
        axis = term.index(long)
        a = padded(a, axis, 0, parts * length - sizes[long])
        return reshaped(a, axis, 1, (parts, length))

    arrays = [parted(term, a) if long in term else a for term, a in zip(terms, arrays, strict=True)]
    return [term.replace(long, PART + long) for term in terms], arrays, PART + total
