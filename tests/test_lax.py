"""jax.lax, values and gradients: where the conventions agree, and where lax has no arguments for it."""

import dataclasses

import jax
import numpy as np
import pytest
from geometry import LAST, ODD, arranged, drawn, geometries, lax_conv, letters
from jax import lax

import jdeconv


def usable(g):
    """Lax's own transpose has no negative padding either."""
    return all(
        max(pair) < span or (span == 1 and max(pair) <= 0)
        for pair, span in zip(g.window.padding, g.window.span, strict=True)
    )


GEOMETRIES = [g for g in geometries(90, seed=11, ranks=(1, 2, 3)) if usable(g)][:24]


@pytest.mark.parametrize(("i", "g"), list(enumerate(GEOMETRIES)))
def test_values_and_gradients_in_any_layout(i, g):
    sides, kernels = letters(g.rank)
    side, kernel_spec = (LAST, ODD)[i % 2][g.rank]
    specs = (side, kernel_spec, side)
    x, kernel, y = g.draw(seed=100 + i)
    x, kernel, y = (
        arranged(a, s, t)
        for a, s, t in ((x, side, sides), (kernel, kernel_spec, kernels), (y, side, sides))
    )
    # Spatial arguments follow the kernel's letters, in lax and here.
    space = [letter for letter in kernel_spec if letter not in "OI"]
    order = [sides[2:].index(letter) for letter in space]
    g = reordered(g, order)
    w = g.window

    def conv(x, kernel):
        return lax_conv(x, kernel, w.stride, w.padding, w.dilation, g.groups, specs)

    @jax.jit
    def run(x, kernel, y):
        deconv = {"output_size": g.window.big, **g.steps, "dimension_numbers": specs}
        ours, vjp = jax.vjp(
            lambda x, k: jdeconv.conv(x, k, dimension_numbers=specs, **g.steps), x, kernel
        )
        theirs, lax_vjp = jax.vjp(conv, x, kernel)
        back, back_vjp = jax.vjp(lambda y, k: jdeconv.deconv(y, k, **deconv), y, kernel)
        lax_back, lax_back_vjp = jax.vjp(
            lambda y, k: jax.linear_transpose(lambda x: conv(x, k), x)(y)[0], y, kernel
        )
        grad = jdeconv.kernel_grad(
            x, y, g.window.kernel, **g.steps, dimension_numbers=(side, side, kernel_spec)
        )
        return (ours, *vjp(y), back, *back_vjp(x), grad), (
            theirs,
            *lax_vjp(y),
            lax_back,
            *lax_back_vjp(x),
            lax_vjp(y)[1],
        )

    ours, theirs = run(x, kernel, y)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert any(map(np.any, theirs))


def reordered(g, order):
    """The same geometry with its axes in another order."""

    fields = (f.name for f in dataclasses.fields(g.window))
    window = jdeconv.Window(**{f: tuple(getattr(g.window, f)[i] for i in order) for f in fields})
    padding = tuple(g.padding[i] for i in order)
    return dataclasses.replace(g, window=window, padding=padding)


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_named_paddings_of_conv(padding, stride):
    x, kernel = drawn(0, (2, 3, 8, 7), (4, 3, 3, 2))
    expected = lax.conv_general_dilated(x, kernel, (stride, stride), padding)
    np.testing.assert_array_equal(jdeconv.conv(x, kernel, stride=stride, padding=padding), expected)


@pytest.mark.parametrize("kernel_size", [(3, 4), (5, 3), (2, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_same_and_valid_of_deconv(kernel_size, stride):
    """lax.conv_transpose, where its kernel is no smaller than its stride.

    Elsewhere its VALID adds stride - kernel cells of zeros, which jdeconv does for output_size.
    """
    y, kernel = drawn(0, (2, 4, 5, 6), (4, 3, *kernel_size))
    layout = ("NCHW", "OIHW", "NCHW")
    options = {"dimension_numbers": layout, "transpose_kernel": True}
    strides = (stride, stride)
    valid = lax.conv_transpose(y, kernel, strides, "VALID", **options)
    ours = jdeconv.deconv(y, kernel, stride=stride, output_size=valid.shape[2:])
    np.testing.assert_array_equal(ours, valid)
    same = lax.conv_transpose(y, kernel, strides, "SAME", **options)
    assert same.shape[2:] == (5 * stride, 6 * stride)
    np.testing.assert_array_equal(jdeconv.deconv(y, kernel, stride=stride, padding="SAME"), same)


def test_same_lower_of_deconv_is_the_transpose_of_its_conv():
    """lax.conv_transpose refuses SAME_LOWER with a stride."""
    y, kernel = drawn(0, (2, 4, 5, 6), (4, 3, 3, 4))

    def conv(x):
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME_LOWER")

    x = jax.ShapeDtypeStruct((2, 3, 10, 12), np.float32)
    expected = jax.linear_transpose(conv, x)(y)[0]
    np.testing.assert_array_equal(
        jdeconv.deconv(y, kernel, stride=2, padding="SAME_LOWER"), expected
    )
    assert not np.array_equal(jdeconv.deconv(y, kernel, stride=2, padding="SAME"), expected)
