"""The definition: im2col and a matrix product, or a matrix product and col2im. It serves every problem.

Once x lies in columns, the trilinear form is a plain sum of products:

    T = sum over n, g, o, c, t, q of  y[n,g,o,q] * kernel[g,o,c,t] * columns[n,g,c,t,q]
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv._jax import written
from jdeconv.axes import padded, reshaped
from jdeconv.im2col import fold, unfold
from jdeconv.problem import Problem

# The order in memory. Each letter is an index of the form. Batch and positions are neighbors, so that a block
# of images is one matrix.
CHANNELS_FIRST = {"columns": "gctnq", "kernel": "goct", "y": "gonq"}
CHANNELS_LAST = {"columns": "nqtgc", "kernel": "tcgo", "y": "nqgo"}

MAX_SUMMED = 2048  # numbers that XLA's loop for a matrix and a vector may add up on a CPU
PART = "p"  # the letter of such stages of a sum


def refuses(p: Problem) -> str | None:
    """Returns None: the definition serves every problem."""
    return None


def temporary_bytes(p: Problem) -> int:
    """The bytes of one image's columns, or 0 if the columns are x itself."""
    if p.last and p.window.big == p.window.small and p.taps == 1:
        return 0
    return p.g * p.c * p.taps * p.positions * p.wide.itemsize


def conv(x: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """Caffe's forward_gemm: y = kernel . columns, where columns = im2col(x)."""
    y = dot(p, "y", p.answer, columns=_columns(x, p), kernel=kernel)
    return y if p.last else jnp.moveaxis(y, 2, 0)


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """Caffe's backward_gemm: x = col2im(columns), where columns = kernel^T . y."""
    columns = dot(p, "columns", p.wide, y=_images_inside(y, p), kernel=kernel)
    columns = reshaped(columns, columns.ndim - 2 if p.last else 0, 2, (p.g * p.c,))
    x = fold(columns, p.window, **_axes(p))
    x = x if p.last else x.swapaxes(0, 1)
    return reshaped(x, x.ndim - 1 if p.last else 1, 1, (p.g, p.c))


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """Caffe's weight_gemm: kernel = the sum over images of y . columns^T, where columns = im2col(x)."""
    return dot(p, "kernel", p.wide, columns=_columns(x, p), y=_images_inside(y, p))


def _columns(x: jax.Array, p: Problem) -> jax.Array:
    x = reshaped(x, x.ndim - 2 if p.last else 1, 2, (p.g * p.c,))
    return unfold(x if p.last else x.swapaxes(0, 1), p.window, **_axes(p))


def _images_inside(a: jax.Array, p: Problem) -> jax.Array:
    """The array, with the axis of images behind groups and channels if channels come first."""
    return a if p.last else jnp.moveaxis(a, 0, 2)


def _axes(p: Problem) -> dict[str, int]:
    """Where space and taps begin, for `unfold` and `fold`, while groups and channels are one axis.

    With one more axis of size 1, XLA would choose other layouts and copy.
    """
    return {"space": 1, "tap": 1 + p.window.rank} if p.last else {"space": 2, "tap": 1}


def dot(p: Problem, result: str, dtype: np.dtype, **operands: jax.Array) -> jax.Array:
    """The sum of products of two arrays, whose axes are those of their letters."""
    letters = CHANNELS_LAST if p.last else CHANNELS_FIRST
    sizes = {"n": (p.n,), "g": (p.g,), "c": (p.c,), "o": (p.o,)}
    sizes |= {"t": p.window.kernel, "q": p.window.small}
    terms, total = [letters[name] for name in operands], letters[result]
    arrays = [
        a.reshape([math.prod(sizes[letter]) for letter in term])
        for a, term in zip(operands.values(), terms, strict=True)
    ]
    options = {"precision": p.precision, "preferred_element_type": dtype}
    if p.platform == "cpu":
        terms, arrays, total = _staged(terms, arrays, total)
    if p.g == 1 and not total.startswith(PART):
        product = _matrix_product(p, terms, arrays, total, **options)
    else:
        product = jnp.einsum(f"{','.join(terms)}->{total}", *arrays, **options)
    product = product.sum(0) if total.startswith(PART) else product
    return product.reshape([size for letter in letters[result] for size in sizes[letter]])


def _matrix_product(
    p: Problem, terms: list[str], arrays: list[jax.Array], total: str, **options
) -> jax.Array:
    """The einsum of two arrays of one group as a product of matrices, which moves no large one in memory.

    In each array the letters that are summed are neighbors, and so are the others. An einsum would move the
    group to the front and the result's axes behind it.
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
    if p.platform == "cpu" and i == 0 and _is_larger(a, b, j):
        b = b if j else written(b.T)[0]
        product = written(lax.dot_general(b, a, (((1,), (0,)), ((), ())), **options))[0].T
    else:
        product = lax.dot_general(a, b, (((i,), (j,)), ((), ())), **options)
    return product.reshape([sizes[letter] for letter in total])


def _is_larger(a: jax.Array, b: jax.Array, summed_axis: int) -> bool:
    """Whether `a`, a matrix of (summed, rows), has more numbers than `b` and their product together.

    XLA's CPU backend has no fast product that begins with such a matrix. With `b` first it takes 0.07 to 0.8 of
    the time, although `b` and the product are then transposed. They are written to memory, because XLA would
    otherwise move the transposes into the product.
    """
    sizes = (*a.shape, b.shape[1 - summed_axis])
    if not all(isinstance(size, int) for size in sizes):  # symbolic, in an export
        return False
    summed, rows, columns = sizes
    return summed * rows > columns * (summed + rows)


def _staged(terms: list[str], arrays: list[jax.Array], total: str) -> tuple:
    """The same einsum, but with the longest summed index in parts if XLA would use a loop for it."""
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
