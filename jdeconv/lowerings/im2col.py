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

# The order in memory. Each word is one axis, except t and q, which stand for all axes of taps and of positions.
# Each letter is an index of the form.
# Batch and positions are neighbors, so that a block of images is one matrix.
CHANNELS_FIRST = {"columns": "gc t n q", "kernel": "go c t", "y": "go n q"}
CHANNELS_LAST = {"columns": "n q t gc", "kernel": "t c go", "y": "n q go"}

MAX_SUMMED = 2048  # numbers that XLA's loop for a matrix and a vector may add up on a CPU
PART = "p"  # the letter of the parts of a long sum


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
    return _exchanged(dot(p, "y", p.answer, columns=_columns(x, p), kernel=kernel), p)


def deconv(y: jax.Array, kernel: jax.Array, p: Problem) -> jax.Array:
    """Caffe's backward_gemm: x = col2im(columns), where columns = kernel^T . y."""
    columns = dot(p, "columns", p.wide, y=_exchanged(y, p), kernel=kernel)
    return _exchanged(fold(columns, p.window, **_axes(p)), p)


def kernel_grad(x: jax.Array, y: jax.Array, p: Problem) -> jax.Array:
    """Caffe's weight_gemm: kernel = the sum over images of y . columns^T, where columns = im2col(x)."""
    return dot(p, "kernel", p.wide, columns=_columns(x, p), y=_exchanged(y, p))


def _columns(x: jax.Array, p: Problem) -> jax.Array:
    return unfold(_exchanged(x, p), p.window, **_axes(p))


def _exchanged(a: jax.Array, p: Problem) -> jax.Array:
    """The array with its axes of images and channels exchanged; unchanged if channels come last."""
    return a if p.last else a.swapaxes(0, 1)


def _axes(p: Problem) -> dict[str, int]:
    """Where space and taps begin, for `unfold` and `fold`."""
    return {"space": 1, "tap": 1 + p.window.rank} if p.last else {"space": 2, "tap": 1}


def dot(p: Problem, result: str, dtype: np.dtype, **operands: jax.Array) -> jax.Array:
    """The sum of products of two arrays, whose axes are those of their words."""
    words = CHANNELS_LAST if p.last else CHANNELS_FIRST
    sizes = {"n": p.n, "g": p.g, "c": p.c, "o": p.o, "t": p.taps, "q": p.positions}
    *terms, total = (words[name].replace(" ", "") for name in (*operands, result))
    arrays = [
        a.reshape([sizes[letter] for letter in term])
        for a, term in zip(operands.values(), terms, strict=True)
    ]
    options = {"precision": p.precision, "preferred_element_type": dtype}
    # In an export, sizes may be symbolic.
    on_cpu = p.platform == "cpu" and all(isinstance(size, int) for size in sizes.values())
    if on_cpu:
        terms, arrays, total = _staged(sizes, terms, arrays, total)
    if total.startswith(PART):
        product = jnp.einsum(f"{','.join(terms)}->{total}", *arrays, **options).sum(0)
    elif p.g == 1:
        product = _matrix_product(on_cpu, sizes, terms, arrays, total, **options)
    else:
        product = jnp.einsum(f"{','.join(terms)}->{total}", *arrays, **options)
    space = {"t": p.window.kernel, "q": p.window.small}
    axes = [space.get(w, (math.prod(sizes[i] for i in w),)) for w in words[result].split()]
    return product.reshape(sum(axes, ()))


def _matrix_product(
    on_cpu: bool, sizes: dict, terms: list[str], arrays: list[jax.Array], total: str, **options
) -> jax.Array:
    """The einsum of two arrays of one group as a product of matrices, without a copy of a large one.

    In each array the letters that are summed are neighbors, and so are the others. An einsum would move the
    group to the front and the result's axes behind it.
    """
    matrices = []
    for term, a in zip(terms, arrays, strict=True):
        kept = [letter for letter in term if letter in total and letter != "g"]
        is_first = term.replace("g", "").startswith(kept[0])
        rows = math.prod(sizes[letter] for letter in kept)
        summed = math.prod(sizes[letter] for letter in term if letter not in total)
        shape = (rows, summed) if is_first else (summed, rows)
        matrices.append((total.index(kept[0]), a.reshape(shape), int(is_first)))
    (_, a, i), (_, b, j) = sorted(matrices, key=lambda matrix: matrix[0])
    if on_cpu and i == 0 and _is_larger(a.shape, b.shape[1 - j]):
        b = b if j else written(b.T)[0]
        return written(lax.dot_general(b, a, (((1,), (0,)), ((), ())), **options))[0].T
    return lax.dot_general(a, b, (((i,), (j,)), ((), ())), **options)


def _is_larger(shape: tuple[int, ...], columns: int) -> bool:
    """Whether a matrix of (summed, rows) has more numbers than another one and their product together.

    XLA's CPU backend has no fast product that begins with such a matrix. With the second matrix first it takes
    0.07 to 0.8 of the time, although that matrix and the product are then transposed. Both are written to
    memory, because XLA would otherwise move the transposes into the product.
    """
    summed, rows = shape
    return summed * rows > columns * (summed + rows)


def _staged(sizes: dict, terms: list[str], arrays: list[jax.Array], total: str) -> tuple:
    """The same einsum, but with the longest summed index in parts if XLA would use a loop for it."""
    summed = [letter for letter in terms[0] if letter not in total]
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

    arrays = [parted(term, a) for term, a in zip(terms, arrays, strict=True)]
    return [term.replace(long, PART + long) for term in terms], arrays, PART + total
