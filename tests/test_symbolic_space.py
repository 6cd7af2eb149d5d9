"""Spatial sizes that are symbols in an export: written out, read back, called, beside the eager result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from thinned import thinned

from jdeconv import col2im, conv, deconv, im2col

LAST = ("NHWC", "OIHW", "NHWC")
OPTIONS = [
    {},
    {"stride": (2, 3)},
    {"padding": 1, "stride": 2, "dilation": (1, 2)},
    {"padding": "SAME", "stride": 2},
    {"padding": ((-1, 2), (0, 1)), "groups": 2},
    {"dimension_numbers": LAST},
]


def draw(*shape):
    return np.random.default_rng(shape).integers(-4, 5, shape).astype(np.float32)


def assert_exports(function, shapes, sizes):
    """The function of float32 arrays exported for all sizes agrees with itself at these."""
    names = dict(zip("nhw", export.symbolic_shape("n, h, w"), strict=True))
    types = [
        jax.ShapeDtypeStruct([names.get(size, size) for size in shape], np.float32)
        for shape in shapes
    ]
    exported = export.deserialize(export.export(jax.jit(function))(*types).serialize())
    for h, w in sizes:
        known = {"n": 2, "h": h, "w": w}
        arrays = [draw(*(known.get(size, size) for size in shape)) for shape in shapes]
        found, expected = exported.call(*arrays), jax.jit(function)(*arrays)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("options", thinned(OPTIONS, {2, 5}), ids=str)
def test_conv_and_deconv(options):
    groups = options.get("groups", 1)
    kernel = draw(4, 2 // groups, 3, 2)
    place = (lambda c: ("n", "h", "w", c)) if "dimension_numbers" in options else None
    place = place or (lambda c: ("n", c, "h", "w"))
    assert_exports(lambda x: conv(x, kernel, **options), [place(2)], [(7, 9), (8, 6)])
    assert_exports(lambda y: deconv(y, kernel, **options), [place(4)], [(4, 5), (5, 3)])


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients(options):
    kernel = draw(4, 2 // options.get("groups", 1), 3, 2)
    shape = ("n", "h", "w", 2) if "dimension_numbers" in options else ("n", 2, "h", "w")
    gradients = jax.grad(lambda x, k: (conv(x, k, **options) ** 2).sum(), (0, 1))
    assert_exports(gradients, [shape, kernel.shape], [(7, 9), (8, 6)])


@pytest.mark.parametrize("padding", [1, pytest.param("SAME", marks=pytest.mark.slow)])
def test_back_to_the_size_that_a_conv_came_from(padding):
    """With the gradients of both, and output_size as a symbol."""
    steps = {"stride": 2, "padding": padding}

    def loss(x, k):
        return (deconv(conv(x, k, **steps), k, output_size=x.shape[2:], **steps) ** 2).sum()

    gradients = jax.value_and_grad(loss, (0, 1))
    assert_exports(gradients, [("n", 2, "h", "w"), (4, 2, 3, 2)], [(7, 9), (8, 6)])


def test_the_gradient_of_a_kernel_of_groups():
    gradient = jax.grad(lambda k, x: (conv(x, k, groups=3) ** 2).sum())
    assert_exports(gradient, [(6, 2, 2), (1, 6, "h")], [(5, 0), (7, 0)])


def test_im2col_and_col2im():
    steps = {"kernel_size": (3, 2), "stride": 2, "padding": 1}
    assert_exports(lambda x: im2col(x, **steps), [(2, 3, "h", 5)], [(7, 0), (8, 0)])

    def back(columns):
        return col2im(columns, (2 * columns.shape[2] - 1, 6), **steps)

    assert_exports(back, [(2, 18, "h", 4)], [(4, 0), (7, 0)])


def test_a_size_that_is_known_to_be_too_small_is_refused():
    h, w = export.symbolic_shape("h, w", constraints=["h <= 2"])
    x = jax.ShapeDtypeStruct((1, 2, h, w), np.float32)
    with pytest.raises(ValueError, match="padding is too small on spatial axis 0"):
        jax.eval_shape(lambda x: conv(x, jnp.ones((1, 2, 3, 2))), x)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"padding": 1, "padding_mode": "circular"}, "padding_mode 'circular' needs"),
        ({"lowering": "taps"}, "lowering 'taps' cannot serve: it needs"),
    ],
)
def test_what_needs_sizes_says_so(options, text):
    h, w = export.symbolic_shape("h, w")
    x = jax.ShapeDtypeStruct((1, 2, h, w), np.float32)
    with pytest.raises((ValueError, NotImplementedError), match=text):
        jax.eval_shape(lambda x: conv(x, jnp.ones((1, 2, 3, 2)), **options), x)
