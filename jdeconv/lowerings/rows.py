"""im2col along the last axis only: the taps of the other axes become channels of the small side.

A kernel of k rows is k kernels of one row, each of which sees all rows of x; y is their results, shifted
by a row each, and summed. So the form stays what it is, with wider y and kernel and a flatter window:

    T = sum of  y_rows[n,(g,r,o),p] * kernel_rows[(g,r,o),c,t] * x[n,(g,c),p,...]
    y_rows[n,(g,r,o),p] = y[n,(g,o),p - r*dilation]

Columns take k_last copies of x and k_others copies of y, in place of k_last*k_others copies of x. It
needs stride 1 on the other axes, since every row of x is used.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.form import Form, Layout
from jdeconv.lowerings import im2col
from jdeconv.lowerings.arrange import arrange, channels_last, restore
from jdeconv.lowerings.blocks import images_per_block, map_blocks, sum_blocks
from jdeconv.window import Window


def refuses(form: Form, c: int, o: int) -> str | None:
    """The reason why rows cannot serve."""
    if any(s != 1 for s in form.window.stride[:-1]):
        return f"rows needs stride 1 on all axes but the last, not {form.window.stride}"
    return None


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The flat conv to all rows' channels, and their shifted sum."""
    flat = _flat(form)
    kernel = _kernel_to_rows(arrange(kernel, form, "kernel"), form)

    def block(x):
        return _sum_of_rows(im2col.conv(x, kernel, flat, dtype), form)

    x = arrange(x, form, "x")
    return restore(map_blocks(block, x, _block_size(x, kernel, flat)), form, "y")


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """Shifted copies of y as channels, and the flat deconv of them."""
    flat = _flat(form)
    kernel = _kernel_to_rows(arrange(kernel, form, "kernel"), form)

    def block(y):
        return im2col.deconv(_y_to_rows(y, form), kernel, flat, dtype)

    y = arrange(y, form, "y")
    return restore(map_blocks(block, y, _block_size(y, kernel, flat)), form, "x")


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """The flat kernel gradient between x and shifted copies of y."""
    flat = _flat(form)
    c, o = form.channels("kernel_grad", x.shape, y.shape)
    shape = jax.ShapeDtypeStruct(_kernel_shape(form, c, o), dtype)
    rows = jax.eval_shape(lambda kernel: _kernel_to_rows(kernel, form), shape)

    def block(x, y):
        return im2col.kernel_grad(x, _y_to_rows(y, form), flat, dtype)

    x, y = arrange(x, form, "x"), arrange(y, form, "y")
    kernel = sum_blocks(block, (x, y), _block_size(x, rows, flat))
    return restore(_kernel_from_rows(kernel, form, c, o), form, "kernel")


def _flat(form: Form) -> Form:
    """The form between x and the rows of y, of arranged arrays."""
    w = form.window
    ones = (1,) * (w.rank - 1)
    small, kernel = (*w.full[:-1], w.small[-1]), (*ones, w.kernel[-1])
    window = Window(w.big, small, kernel, w.stride, (*ones, w.dilation[-1]), w.low)
    space = tuple(range(w.rank))
    if channels_last(form):
        side = (0, w.rank + 1, *(axis + 1 for axis in space))
        layout = Layout(side, (w.rank + 1, w.rank, *space), side)
    else:
        layout = Layout(*[tuple(range(w.rank + 2))] * 3)
    return Form(window, form.groups, layout, form.precision)


def _offsets(w: Window) -> list[tuple[int, ...]]:
    """Where each row of the kernel begins, in positions of the big side."""
    axes = zip(w.kernel[:-1], w.dilation[:-1], strict=True)
    return list(itertools.product(*(range(0, k * d, d) for k, d in axes)))


def _sum_of_rows(y_rows: jax.Array, form: Form) -> jax.Array:
    """y[q] = sum over r of y_rows[r, q + r*dilation]."""
    w, last = form.window, channels_last(form)
    axis = y_rows.ndim - 1 if last else 1
    y_rows = _split(y_rows, axis, (form.groups, len(_offsets(w)), -1))
    first_space = 1 if last else 4
    total = None
    for r, offset in enumerate(_offsets(w)):
        row = lax.index_in_dim(y_rows, r, axis + 1)
        for i, start in enumerate(offset):
            row = lax.slice_in_dim(row, start, start + w.small[i], axis=first_space + i)
        total = row if total is None else total + row
    shape = total.shape
    return total.reshape(*shape[:axis], -1, *shape[axis + 3 :])


def _y_to_rows(y: jax.Array, form: Form) -> jax.Array:
    """The adjoint: y_rows[r, p] = y[p - r*dilation], zero outside of y."""
    w, last = form.window, channels_last(form)
    axis = y.ndim - 1 if last else 1
    y = _split(y, axis, (form.groups, 1, -1))
    first_space = 1 if last else 4
    rows = []
    for offset in _offsets(w):
        edges = [(0, 0, 0)] * y.ndim
        for i, start in enumerate(offset):
            edges[first_space + i] = (start, w.full[i] - start - w.small[i], 0)
        rows.append(lax.pad(y, jnp.zeros((), y.dtype), edges))
    rows = jnp.concatenate(rows, axis + 1)
    return rows.reshape(*rows.shape[:axis], -1, *rows.shape[axis + 3 :])


def _kernel_shape(form: Form, c: int, o: int) -> tuple[int, ...]:
    outer = form.groups * o
    return (
        (*form.window.kernel, c, outer) if channels_last(form) else (outer, c, *form.window.kernel)
    )


def _kernel_to_rows(kernel: jax.Array, form: Form) -> jax.Array:
    """(go, c, *k) to (gro, c, 1.., k), and the same for channels last."""
    w, ones = form.window, [1] * (form.window.rank - 1)
    g, r = form.groups, math.prod(w.kernel[:-1])
    if channels_last(form):
        c, outer = kernel.shape[-2:]
        kernel = kernel.reshape(r, w.kernel[-1], c, g, outer // g).transpose(1, 2, 3, 0, 4)
        return kernel.reshape(*ones, w.kernel[-1], c, r * outer)
    outer, c = kernel.shape[:2]
    kernel = kernel.reshape(g, outer // g, c, r, w.kernel[-1]).transpose(0, 3, 1, 2, 4)
    return kernel.reshape(r * outer, c, *ones, w.kernel[-1])


def _kernel_from_rows(kernel: jax.Array, form: Form, c: int, o: int) -> jax.Array:
    """The inverse of `_kernel_to_rows`."""
    w = form.window
    g, r = form.groups, math.prod(w.kernel[:-1])
    if channels_last(form):
        kernel = kernel.reshape(w.kernel[-1], c, g, r, o).transpose(3, 0, 1, 2, 4)
    else:
        kernel = kernel.reshape(g, r, o, c, w.kernel[-1]).transpose(0, 2, 3, 1, 4)
    return kernel.reshape(_kernel_shape(form, c, o))


def _split(a: jax.Array, axis: int, sizes: tuple[int, ...]) -> jax.Array:
    known = math.prod(size for size in sizes if size != -1)
    sizes = tuple(a.shape[axis] // known if size == -1 else size for size in sizes)
    return a.reshape(*a.shape[:axis], *sizes, *a.shape[axis + 1 :])


def _block_size(images: jax.Array, kernel_rows, flat: Form) -> int:
    """Images whose columns and rows together fit a block."""
    w, last = flat.window, channels_last(flat)
    outer = kernel_rows.shape[-1 if last else 0]
    c = kernel_rows.shape[-2 if last else 1]
    numbers = math.prod(w.small) * (flat.groups * c * w.kernel[-1] + outer)
    return images_per_block(images.shape[0], numbers * kernel_rows.dtype.itemsize)
