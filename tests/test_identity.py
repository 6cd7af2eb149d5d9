"""The inner-product identity and the definition, exactly, over random geometries of ranks 1 to 4."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry import LAST, Geometry, arranged, columns, geometries, letters
from thinned import thinned

import jdeconv
from jdeconv.testing import as_matrix, conv_loops

GEOMETRIES = geometries(208, seed=1)


def assert_identity(results, x, kernel, y):
    conv, deconv, grad = results
    products = [np.vdot(conv, y), np.vdot(deconv, x), np.vdot(grad, kernel)]
    assert products[0] == products[1] == products[2]


def test_the_geometries_are_what_they_should_be():
    """Nothing below means much unless these occur."""
    windows = [g.window for g in GEOMETRIES]
    pairs = [(low, high) for g in GEOMETRIES for low, high in g.padding]
    assert {w.rank for w in windows} == {1, 2, 3, 4}
    assert sum(g.groups > 1 for g in GEOMETRIES) > 40
    assert sum(max(w.dilation) > 1 for w in windows) > 100
    assert sum(low != high for low, high in pairs) > 100
    assert sum(min(pair) < 0 for pair in pairs) > 100
    remainders = [
        g
        for g in GEOMETRIES
        if any(h < p for h, (_, p) in zip(g.window.high, g.padding, strict=True))
    ]
    assert len(remainders) > 60
    assert sum(g.c == g.o == 1 for g in GEOMETRIES) > 20


@pytest.mark.parametrize("index", thinned(range(0, len(GEOMETRIES), 8), 3))
def test_identity_and_definition(index):
    for i, g in enumerate(GEOMETRIES[index : index + 8], start=index):
        x, kernel, y = g.draw(seed=i)
        lowering = (None, "vendor", None, "im2col")[i // 8 % 4]
        results = g.contractions(x, kernel, y, lowering=lowering)
        for result, truth in zip(results, g.definition(x, kernel, y), strict=True):
            np.testing.assert_array_equal(result, truth, str(g))
        assert_identity(results, x, kernel, y)


@pytest.mark.parametrize("g", thinned(geometries(12, seed=2, ranks=(1, 2, 3)), 2), ids=str)
def test_channels_last(g):
    sides, kernels = letters(g.rank)
    side, last = LAST[g.rank]
    x, kernel, y = g.draw()
    expected = g.contractions(x, kernel, y)
    x, kernel, y = (
        arranged(a, s, t)
        for a, s, t in ((x, side, sides), (kernel, last, kernels), (y, side, sides))
    )
    found = g.contractions(x, kernel, y, (side, last, side))
    for a, b, place in zip(found, expected, ((side, sides),) * 2 + ((last, kernels),), strict=True):
        np.testing.assert_array_equal(a, arranged(b, *place))


NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def padded(x, padding, mode):
    """numpy's own padding, and slices where it is negative."""
    widths = [(max(low, 0), max(high, 0)) for low, high in padding]
    x = np.pad(x, [(0, 0), (0, 0), *widths], mode=NUMPY_MODES[mode])
    crops = (
        slice(max(-low, 0), size - max(-high, 0))
        for (low, high), size in zip(padding, x.shape[2:], strict=True)
    )
    return x[(slice(None), slice(None), *crops)]


@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("g", thinned(geometries(6, seed=3, ranks=(1, 2, 3)), 2), ids=str)
def test_padding_modes(mode, g):
    x, kernel, y = g.draw()
    results = g.contractions(x, kernel, y, padding_mode=mode)
    loops = g.loops | {"low": (0,) * g.rank}
    expected = conv_loops(padded(x, g.padding, mode), kernel, g.window.small, **loops)
    np.testing.assert_array_equal(results[0], expected)
    assert_identity(results, x, kernel, y)
    zeros = g.contractions(x, kernel, y)[0]
    assert np.array_equal(results[0], zeros) == all(max(pair) <= 0 for pair in g.window.padding)


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_padding_modes_in_half_precision(mode):
    """All is rounded once but conv's gradient of x where copies are added to it, as docs/limits.md says."""
    draw = np.random.default_rng(0).integers
    arrays = [draw(-9, 10, s).astype(np.float32) for s in ((2, 8, 20), (8, 8, 5), (2, 8, 20))]
    pad = {"padding": 2, "padding_mode": mode}
    widths = ((0, 0), (0, 0), (2, 2))

    def ours(x, kernel, y):
        conv, conv_vjp = jax.vjp(partial(jdeconv.conv, **pad), x, kernel)
        deconv, deconv_vjp = jax.vjp(partial(jdeconv.deconv, **pad), y, kernel)
        return conv, *conv_vjp(y), deconv, *deconv_vjp(x)

    def exact(x, kernel, y):
        def by_lax(x, kernel):
            wide = jnp.pad(x, widths, NUMPY_MODES[mode])
            return jax.lax.conv_general_dilated(wide, kernel, (1,), "VALID")

        conv, vjp = jax.vjp(by_lax, x, kernel)
        deconv, grad = vjp(y)
        return conv, deconv, grad, deconv, conv, grad

    found = jax.jit(ours)(*(jnp.asarray(a, jnp.bfloat16) for a in arrays))
    for i, (result, sums) in enumerate(zip(found, jax.jit(exact)(*arrays), strict=True)):
        assert result.dtype == jnp.bfloat16
        rounded, inside = sums.astype(jnp.bfloat16), np.s_[..., 3:-3] if i == 1 else np.s_[:]
        np.testing.assert_array_equal(result[inside], rounded[inside])
        np.testing.assert_allclose(*(np.float32(a) for a in (result, rounded)), rtol=2**-7)


@pytest.mark.parametrize(("mode", "size"), thinned(itertools.product(NUMPY_MODES, (1, 2, 5)), 2))
def test_padding_of_many_copies(mode, size):
    """More than one on a side, on one side, and on an axis that is cropped at its other end."""
    rng = np.random.default_rng(size)
    x = rng.integers(-9, 10, (2, 1, size, 4)).astype(np.float32)
    one = np.ones((1, 1, 1, 1), np.float32)
    front = ((0, 2), (-1, 3))  # a crop in front of a padding of one copy
    for padding in (
        ((7, 13), (0, 4)),
        ((13, 0), (-2, 11)),
        ((0, 6), (1, -1)),
        ((3, -1), (5, 5)),
        front,
    ):
        expected = padded(x, padding, mode)
        steps = {"padding": padding, "padding_mode": mode}
        result, deconv = jax.vjp(lambda x, steps=steps: jdeconv.conv(x, one, **steps), x)
        np.testing.assert_array_equal(result, expected)
        y = rng.integers(-9, 10, result.shape).astype(np.float32)
        assert np.vdot(result, y) == np.vdot(x, deconv(y)[0])


def test_padding_of_a_million_copies_compiles_at_once():
    """Copies that are laid beside one another, in place of a gather, take longer than a minute here."""
    options = {"padding": ((0, 5_000_000),), "padding_mode": "circular"}
    x, one = np.arange(5, dtype=np.float32).reshape(1, 1, 5), np.ones((1, 1, 1), np.float32)
    result, deconv = jax.vjp(lambda x: jdeconv.conv(x, one, **options), x)
    np.testing.assert_array_equal(result[0, 0], np.tile(x[0, 0], 1_000_001))
    assert deconv(result)[0].tolist() == (x * 1_000_001).tolist()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("g", thinned(geometries(4, seed=4, ranks=(1, 2)), 3), ids=str)
def test_the_matrix_of_deconv_is_the_transpose(mode, g):
    x, kernel, y = g.draw()
    steps = g.steps | {"padding_mode": mode}
    conv = as_matrix(lambda x: jdeconv.conv(x, kernel, **steps), x.shape)
    back = partial(jdeconv.deconv, kernel=kernel, output_size=g.window.big, **steps)
    np.testing.assert_array_equal(as_matrix(back, y.shape), conv.T)
    assert conv.any()


@pytest.mark.parametrize(("k", "s", "d"), [(5, 1, 1), (6, 2, 1), (7, 2, 3)])
def test_col2im_adds_up_in_the_order_of_the_taps(k, s, d):
    """Over one axis, as Caffe's loop does, and shifted additions: the same bits."""
    columns = np.random.default_rng(0).normal(size=(1, k, 9)).astype(np.float32)
    expected = np.zeros((1, 1, 8 * s + d * (k - 1) + 1), np.float32)
    for t in range(k):
        expected[0, 0, t * d : t * d + 8 * s + 1 : s] += columns[0, t]
    found = jdeconv.col2im(columns, expected.shape[2], (k,), stride=s, dilation=d)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("g", thinned(geometries(8, seed=5), 3), ids=str)
def test_im2col_and_col2im(g):
    w, steps = g.window, {k: v for k, v in g.steps.items() if k != "groups"}
    x, _, _ = g.draw()
    found = np.asarray(jdeconv.im2col(x, w.kernel, **steps))  # the last axis fastest, as in Caffe
    np.testing.assert_array_equal(found, columns(x, w).reshape(found.shape))

    weights = np.random.default_rng(0).integers(-3, 4, found.shape).astype(np.float32)
    back = jdeconv.col2im(weights, w.big, w.kernel, **steps)
    assert np.vdot(found, weights) == np.vdot(back, x)
    gradient = jax.grad(lambda x: (jdeconv.im2col(x, w.kernel, **steps) * weights).sum())
    np.testing.assert_array_equal(jax.jit(gradient)(x), back)

    def energy(x):
        return (jdeconv.im2col(x, w.kernel, **steps) ** 3).sum()

    curvature = jax.jit(jax.grad(lambda x: (jax.grad(energy)(x) * x).sum()))(x)
    square = jdeconv.col2im(9 * found**2, w.big, w.kernel, **steps)
    np.testing.assert_array_equal(curvature, square)


def test_conv_is_the_kernels_matrix_times_im2col():
    g = geometries(1, seed=6, ranks=(2,))[0]
    x, kernel, _ = g.draw()
    steps = {k: v for k, v in g.steps.items() if k != "groups"}
    kernel = np.concatenate([kernel] * g.groups, axis=1)
    columns = jdeconv.im2col(x, g.window.kernel, **steps)
    product = np.einsum("or,nrhw->nohw", kernel.reshape(kernel.shape[0], -1), columns)
    np.testing.assert_array_equal(product, jdeconv.conv(x, kernel, **steps))


def test_im2col_layouts_and_batch():
    x = np.random.default_rng(0).integers(-4, 5, (2, 3, 6, 5)).astype(np.float32)
    options = {"stride": (2, 1), "padding": 1}
    columns = np.asarray(jdeconv.im2col(x, (3, 2), **options))
    last = jdeconv.im2col(x.transpose(0, 2, 3, 1), (3, 2), dimension_numbers="NHWC", **options)
    np.testing.assert_array_equal(last, columns.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(jdeconv.im2col(x[0], (3, 2), **options), columns[0])
    back = np.asarray(jdeconv.col2im(columns, (6, 5), (3, 2), **options))
    assert not np.array_equal(back, x)
    last = jdeconv.col2im(last, (6, 5), (3, 2), dimension_numbers="NHWC", **options)
    np.testing.assert_array_equal(last, back.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(jdeconv.col2im(columns[0], (6, 5), (3, 2), **options), back[0])


def test_many_taps_on_one_axis():
    """Past 128 taps, columns come from one gather; the gradient of that is a scatter."""
    padding = ((7, -2),)
    window = jdeconv.Window.of_conv((310,), (150,), stride=3, padding=padding, dilation=2)
    g = Geometry(window, padding, 1, 1, 2, 3)
    arrays = g.draw()
    jax.tree.map(np.testing.assert_array_equal, g.contractions(*arrays), g.definition(*arrays))
