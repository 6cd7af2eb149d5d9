"""Each filler against its definition in Caffe, and the bilinear one end to end."""

from functools import partial
from math import ceil, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdeconv import (
    bilinear_kernel,
    checks,
    constant,
    deconv,
    fillers,
    gaussian,
    msra,
    positive_unitball,
    uniform,
    xavier,
)

KEY = jax.random.key(20261122)
SHAPE = (64, 32, 3, 3)
FANS = {"fan_in": 32 * 9, "fan_out": 64 * 9, "average": 48 * 9}


def within(values, scale):
    """The fraction not farther than `scale` from 0; at one std, 0.577 is uniform and 0.683 normal."""
    return np.mean(np.abs(values) <= scale)


@pytest.mark.parametrize(
    "shape",
    [(1, 2, 1), (2, 1, 2), (2, 1, 3), (1, 3, 4), (2, 3, 5, 3), (3, 1, 4, 6), (1, 1, 3, 4, 2)],
)
def test_bilinear_kernel_is_caffes(shape):
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        weight = 1.0
        for t, k in zip(index[2:], shape[2:], strict=True):
            f = ceil(k / 2.0)
            c = (k - 1) / (2.0 * f)
            weight *= 1 - abs(t / f - c)
        expected[index] = weight
    np.testing.assert_allclose(bilinear_kernel(shape), expected, rtol=1e-7)


@pytest.mark.parametrize(("factor", "rank"), [(2, 1), (3, 1), (2, 2), (3, 2), (4, 2), (2, 3)])
def test_bilinear_kernel_enlarges_ramps_to_ramps(factor, rank):
    sizes = (6, 5, 4)[:rank]
    slopes = np.array([[0, 0, 0], [3, -2, 1]])[:, :rank]  # a constant channel and a ramp

    def ramps(*positions):
        grid = np.stack(np.meshgrid(*positions, indexing="ij"))
        return 7 + np.tensordot(slopes, grid, 1)

    k = 2 * factor - factor % 2
    enlarged = deconv(
        ramps(*map(np.arange, sizes)).astype(np.float32),
        bilinear_kernel((2, 1, *[k] * rank)),
        stride=factor,
        padding=ceil((factor - 1) / 2),
        groups=2,
    )
    assert enlarged.shape == (2, *[factor * size for size in sizes])
    # Cell j of the result is centered on this position of the input.
    positions = [(np.arange(factor * size) + 0.5) / factor - 0.5 for size in sizes]
    between = [(p >= 0) & (p <= size - 1) for p, size in zip(positions, sizes, strict=True)]
    interior = np.ix_([True, True], *between)
    expected = ramps(*positions)
    np.testing.assert_allclose(enlarged[interior], expected[interior], rtol=1e-6, atol=1e-12)
    assert enlarged[(0,) * (rank + 1)] < 7  # at the edge, zeros beyond it count


def test_constant():
    assert constant((2, 3), np.int8, value=-5).tolist() == [[-5] * 3] * 2
    assert constant((2,)).tolist() == [0.0, 0.0]


def test_uniform():
    weights = np.asarray(uniform(KEY, SHAPE, min=-1, max=3))
    assert -1 <= weights.min() < -0.99
    assert 2.99 < weights.max() < 3
    np.testing.assert_allclose([weights.mean(), weights.std()], [1, 4 / sqrt(12)], rtol=0.03)
    weights = np.asarray(uniform(KEY, SHAPE))
    assert 0 <= weights.min() < 0.01
    assert 0.99 < weights.max() < 1


def test_gaussian():
    weights = np.asarray(gaussian(KEY, SHAPE, mean=2, std=0.5))
    np.testing.assert_allclose([weights.mean(), weights.std()], [2, 0.5], rtol=0.03)
    np.testing.assert_allclose(within(weights - 2, 0.5), 0.683, atol=0.02)
    weights = np.asarray(gaussian(KEY, SHAPE))
    np.testing.assert_allclose([weights.mean(), weights.std()], [0, 1], atol=0.03)


@pytest.mark.parametrize("sparse", [0, 8, 48, 64])
def test_gaussian_sparse_keeps_a_fraction_of_the_same_weights(sparse):
    weights = np.asarray(gaussian(KEY, SHAPE, mean=2, sparse=sparse))
    kept = weights != 0
    np.testing.assert_allclose(kept.mean(), sparse / 64, atol=0.02)
    np.testing.assert_array_equal(weights[kept], np.asarray(gaussian(KEY, SHAPE, mean=2))[kept])
    # Whether a weight stays has nothing to do with what it is.
    assert sparse in (0, 64) or abs(weights[kept].mean() - 2) < 0.05


def test_positive_unitball():
    weights = np.asarray(positive_unitball(KEY, SHAPE))
    np.testing.assert_allclose(weights.sum((1, 2, 3)), np.full(64, 1.0), rtol=1e-5)
    assert weights.min() >= 0
    # Drawn evenly from (0, 2 / n], but for the sum's own spread.
    np.testing.assert_allclose(weights.std() * 288, 1 / sqrt(3), rtol=0.03)


@pytest.mark.parametrize("filler", [uniform, gaussian, positive_unitball, xavier, msra])
def test_what_is_drawn_is_finite_in_every_dtype(filler):
    """One weight to an output: in half precision a draw from [0, 1) is often 0."""
    for dtype in set(checks.FLOATS) - {"float64"}:
        weights = filler(KEY, (5000, 1), dtype)
        assert weights.dtype == dtype
        assert np.isfinite(np.asarray(weights, np.float32)).all(), dtype


def test_gaussian_within_what_the_dtype_holds():
    most = float(jnp.finfo("float16").max)
    weights = gaussian(KEY, (10**6,), "float16", mean=most / 10, std=most / 11)
    assert np.isfinite(weights).all()
    with pytest.raises(ValueError, match=r"^gaussian: std makes mean \+ 9 std .*, which float16"):
        gaussian(KEY, (2,), "float16", mean=most / 10, std=most / 9.5)


@pytest.mark.parametrize(("fan", "n"), FANS.items())
def test_xavier(fan, n):
    weights, bound = np.asarray(xavier(KEY, SHAPE, variance_norm=fan)), sqrt(3 / n)
    assert 0.99 * bound < np.abs(weights).max() <= np.float32(bound)
    np.testing.assert_allclose(weights.std(), 1 / sqrt(n), rtol=0.03)
    np.testing.assert_allclose(weights.mean() / bound, 0, atol=0.03)
    np.testing.assert_allclose(within(weights, 1 / sqrt(n)), 0.577, atol=0.02)


@pytest.mark.parametrize(("fan", "n"), FANS.items())
def test_msra(fan, n):
    weights, std = np.asarray(msra(KEY, SHAPE, variance_norm=fan)), sqrt(2 / n)
    np.testing.assert_allclose(weights.std(), std, rtol=0.03)
    np.testing.assert_allclose(weights.mean() / std, 0, atol=0.03)
    np.testing.assert_allclose(within(weights, std), 0.683, atol=0.02)


@pytest.mark.parametrize("filler", [uniform, partial(gaussian, sparse=30_000)])
def test_many_numbers_are_drawn_in_blocks(filler):
    """Three of them, of which none repeats another, and the same in a trace."""
    weights = np.asarray(filler(KEY, (60_000, 3)))
    blocks = weights.ravel()[: 2 * fillers.BLOCK].reshape(2, -1)
    assert abs(np.corrcoef(*blocks)[0, 1]) < 0.02
    assert weights.ravel()[-40_000:].std() > 0.2
    np.testing.assert_allclose(
        jax.jit(filler, static_argnums=1)(KEY, (60_000, 3)), weights, rtol=1e-6
    )
    two = jax.vmap(lambda key: filler(key, (60_000, 3)))(KEY[None])
    np.testing.assert_allclose(two[0], weights, rtol=1e-6)


def test_a_new_shape_compiles_nothing(caplog):
    def fill(o):
        for filler in (uniform, gaussian, positive_unitball, xavier, msra):
            filler(KEY, (o, 3, 2))
        gaussian(KEY, (o, 3, 2), sparse=1)
        xavier(KEY, (2, o, 3), dimension_numbers="WOI")
        bilinear_kernel((o, 1, 4, 4))
        constant((o,), value=2)

    fill(5)
    with jax.log_compiles():
        fill(6)
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize("filler", [xavier, msra])
def test_fan_in_is_the_default(filler):
    weights = filler(KEY, SHAPE)
    np.testing.assert_array_equal(weights, filler(KEY, SHAPE, variance_norm="fan_in"))
    assert np.any(weights != filler(KEY, SHAPE, variance_norm="fan_out"))


DRAWN = {
    "gaussian": partial(gaussian, KEY),
    "sparse": partial(gaussian, KEY, sparse=2),
    "positive_unitball": partial(positive_unitball, KEY),
    "xavier": partial(xavier, KEY, variance_norm="fan_out"),
    "msra": partial(msra, KEY, variance_norm="average"),
    "bilinear_kernel": bilinear_kernel,
}


@pytest.mark.parametrize("filler", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize("spec", ["OIHW", "HWIO", "IHOW", "WOIH"])
def test_dimension_numbers_permute_the_same_numbers(filler, spec):
    sizes = {"O": 5, "I": 4, "H": 3, "W": 2}
    weights = filler(tuple(sizes[letter] for letter in spec), dimension_numbers=spec)
    # The first spatial letter of the string is the first spatial axis.
    order = ["O", "I", *(letter for letter in spec if letter in "HW")]
    plain = filler(tuple(sizes[letter] for letter in order))
    expected = np.transpose(plain, [order.index(letter) for letter in spec])
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("name", ["sparse", "positive_unitball", "xavier", "msra"])
@pytest.mark.parametrize(
    "shape",
    [(3, 3, 3, 32), (3, 3, 64, 64), (2, 2, 16, 8), (16, 16, 3, 64), (5, 8, 16), (3, 3, 3, 4, 8)],
)
def test_a_shape_that_looks_channels_last_needs_its_order(name, shape):
    with pytest.raises(ValueError, match=r"shape .* may be \(o, c, \*k\) or \(\*k, c, o\)"):
        DRAWN[name](shape)
    space = "DHW"[-(len(shape) - 2) :]
    for numbers in (f"{space}IO", f"OI{space}"):
        fill = partial(DRAWN[name], shape, dimension_numbers=numbers)
        assert jax.eval_shape(fill).shape == shape


@pytest.mark.parametrize(
    "shape",
    [(64, 3, 7, 7), (768, 3, 16, 16), (3, 64, 9, 9), (1, 1, 5, 5), (3, 3, 1, 7), (16, 1, 15)],
)
def test_a_shape_with_channels_first_needs_no_order(shape):
    assert jax.eval_shape(lambda: msra(KEY, shape)).shape == shape


def test_the_scale_is_that_of_the_order():
    shape = (3, 3, 3, 32)
    weights = np.asarray(msra(KEY, shape, dimension_numbers=("NHWC", "HWIO", "NHWC")))
    np.testing.assert_allclose(weights.std(), sqrt(2 / 27), rtol=0.05)


@pytest.mark.parametrize("filler", DRAWN.values(), ids=DRAWN)
def test_a_convolution_s_triple_names_the_kernel_s_order(filler):
    for triple in (("NHWC", "HWIO", "NHWC"), ["NHWC", "NHWC", "HWIO"]):
        found = filler((3, 2, 4, 5), dimension_numbers=triple)
        np.testing.assert_array_equal(found, filler((3, 2, 4, 5), dimension_numbers="HWIO"))
    for wrong in (("NHWC", "NCHW"), ("HWIO", "OIHW")):
        with pytest.raises(TypeError, match="dimension_numbers must be a string such as 'HWIO'"):
            filler((3, 2, 4, 5), dimension_numbers=wrong)


@pytest.mark.parametrize("filler", DRAWN.values(), ids=DRAWN)
def test_dtype(filler):
    with jax.enable_x64(False):
        assert filler((4, 3, 2)).dtype == np.float32
    for dtype in ("float16", jnp.bfloat16, np.float32):
        weights = filler((4, 3, 2), dtype)
        assert weights.dtype == dtype
        assert np.all(np.isfinite(weights.astype(np.float32)))
    with jax.enable_x64(True):
        assert filler((4, 3, 2)).dtype == np.float64


def test_numpy_numbers_do_not_widen_the_dtype():
    std, mean = np.float64(0.5), np.float32(2)
    assert gaussian(KEY, (4, 3), np.float16, std=std, mean=mean, sparse=2).dtype == np.float16
    assert uniform(KEY, (4, 3), np.float16, min=-std, max=mean).dtype == np.float16


@pytest.mark.parametrize("filler", [uniform, gaussian, positive_unitball, xavier, msra])
def test_the_key_decides_under_jit_too(filler):
    first, second = (np.asarray(filler(key, (4, 3))) for key in jax.random.split(KEY))
    assert np.all(first != second)
    jitted = jax.jit(lambda key: filler(key, (4, 3)))(jax.random.split(KEY)[0])
    np.testing.assert_allclose(jitted, first, rtol=1e-6)
