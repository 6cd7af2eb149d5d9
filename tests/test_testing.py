"""The oracles themselves: against near misses, by hand, and against each other."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import jdeconv
from jdeconv.testing import (
    as_matrix,
    assert_adjoint,
    conv_loops,
    deconv_loops,
    kernel_grad_loops,
)

X, KERNEL, Y = (2, 4, 7, 5), (6, 2, 3, 2), (2, 6, 3, 4)
STEPS = {"stride": (2, 1), "dilation": (1, 2), "low": (0, 1), "groups": 2}


@pytest.fixture
def kernel(rng):
    return rng.integers(-4, 5, KERNEL)


def forward(kernel, dtype=np.float64, **changes):
    return lambda x: conv_loops(x, kernel, Y[2:], **STEPS | changes).astype(dtype)


def adjoint(kernel, size=X[2:], **changes):
    return lambda y: deconv_loops(y, kernel, size, **STEPS | changes)


@pytest.mark.parametrize("seed", range(3))
def test_adjoint_accepts_a_true_pair(kernel, seed):
    assert_adjoint(forward(kernel), adjoint(kernel), X, Y, seed=seed)
    assert_adjoint(adjoint(kernel), forward(kernel), Y, X, seed=seed)


def test_adjoint_accepts_conv_and_deconv(kernel):
    steps = {"stride": (2, 1), "dilation": (1, 2), "padding": ((0, 0), (1, 0)), "groups": 2}
    kernel = kernel.astype(np.float32)
    assert_adjoint(
        lambda x: jdeconv.conv(x, kernel, **steps),
        lambda y: jdeconv.deconv(y, kernel, **steps),
        X,
        Y,
    )


NEAR_MISSES = {
    "flipped kernel": lambda k: adjoint(k[..., ::-1, ::-1]),
    "kernel flipped on one axis": lambda k: adjoint(k[..., ::-1]),
    "exchanged output channels": lambda k: adjoint(k[::-1]),
    "exchanged input channels": lambda k: adjoint(k[:, ::-1]),
    "shift by one": lambda k: adjoint(k, low=(0, 0)),
    "other dilation": lambda k: adjoint(k, dilation=(1, 1)),
    "twice": lambda k: lambda y: 2 * adjoint(k)(y),
    "opposite sign": lambda k: lambda y: -adjoint(k)(y),
    "one number off": lambda k: lambda y: adjoint(k)(y) + np.eye(1, 280, 3).reshape(X),
    "nan": lambda k: lambda y: adjoint(k)(y) * np.nan,
}


@pytest.mark.parametrize("wrong", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_adjoint_rejects_a_near_miss(kernel, wrong):
    with pytest.raises(AssertionError, match=r"^assert_adjoint: <forward\(x\), y> = .*, but <x, "):
        assert_adjoint(forward(kernel), wrong(kernel), X, Y)


def test_adjoint_rejects_wrong_shapes(kernel):
    def refuses(forward, adjoint, *gives):
        text = "assert_adjoint: forward gives {} for y (2, 6, 3, 4), adjoint {} for x (2, 4, 7, 5)"
        with pytest.raises(AssertionError, match=f"^{re.escape(text.format(*gives))}$"):
            assert_adjoint(forward, adjoint, X, Y)

    refuses(forward(kernel), adjoint(kernel, size=(8, 5)), Y, (2, 4, 8, 5))
    # These shapes of forward and y would broadcast.
    refuses(lambda x: forward(kernel)(x)[..., :1], adjoint(kernel), (2, 6, 3, 1), X)


def test_adjoint_takes_no_conjugate(kernel):
    kernel = kernel + 1j * kernel[::-1]
    pair = forward(kernel, np.complex128), adjoint(kernel)
    assert_adjoint(*pair, X, Y, dtype=np.complex64)
    with pytest.raises(AssertionError, match="but <x, adjoint"):
        assert_adjoint(pair[0], adjoint(kernel.conj()), X, Y, dtype=np.complex64)


def test_adjoint_draws_the_dtype_and_the_seed_that_it_is_told():
    drawn = []

    def identity(a):
        drawn.append(a)
        return a

    for dtype, seed in ((np.int32, 0), (np.float32, 0), (np.float32, 1)):
        assert_adjoint(identity, identity, (40,), (40,), dtype=dtype, seed=seed)
    assert [a.dtype for a in drawn] == [np.int32] * 2 + [np.float32] * 4
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert np.any(drawn[2] != drawn[4])
    assert sorted(set(np.concatenate(drawn).tolist())) == list(range(-4, 5))


def test_adjoint_within_rtol(kernel):
    close, far = (adjoint(kernel * (1 + error)) for error in (1e-7, 1e-2))
    assert_adjoint(forward(kernel), close, X, Y, rtol=1e-6)
    for wrong, rtol in ((close, 0.0), (far, 1e-6)):
        with pytest.raises(AssertionError, match="but <x, adjoint"):
            assert_adjoint(forward(kernel), wrong, X, Y, rtol=rtol)


def test_matrix_by_hand():
    kernel = jnp.array([[[1, 2, 3]]])
    steps = {"stride": 2, "padding": 1}
    matrix = [[2, 3, 0, 0, 0], [0, 1, 2, 3, 0], [0, 0, 0, 1, 2]]
    conv = as_matrix(lambda x: jdeconv.conv(x, kernel, **steps), (1, 1, 5), int)
    assert conv.tolist() == matrix
    deconv = as_matrix(lambda y: jdeconv.deconv(y, kernel, **steps), (1, 1, 3), int)
    assert deconv.T.tolist() == matrix


def test_matrix_of_maps_between_ranks():
    matrix = as_matrix(lambda a: a.T[:2], (2, 3), np.int32)
    expected = [[1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert matrix.tolist() == expected
    assert matrix.dtype == np.int32
    matrix = as_matrix(lambda a: a @ jnp.array([1.0, 10.0, 100.0]), (3,))
    assert matrix.tolist() == [[1, 10, 100]]
    assert matrix.dtype == jnp.result_type(float)


def steps(stride=1, dilation=1, low=0, rank=1, **groups):
    return {
        "stride": (stride,) * rank,
        "dilation": (dilation,) * rank,
        "low": (low,) * rank,
    } | groups


LINE, TAPS = [[[1, 2, 3, 4, 5]]], [[[1, 10, 100]]]
PAIR, TWO = [[[1, 2], [3, 4]]], [[[1, 2]]]
POINTS, SQUARES = [[[3], [5]]], [[[1, 10], [2, 20]], [[100, 1000], [200, 2000]]]
FOUR_GROUPS = [[[10, 1]], [[100, 1]], [[1, 20]], [[1, 200]]]
LOOPS = {"conv": conv_loops, "deconv": deconv_loops, "kernel_grad": kernel_grad_loops}
BY_HAND = {  # both operands, steps, and the result, whose sizes are asked for
    "conv": (LINE, TAPS, steps(), [[[321, 432, 543]]]),
    "conv stride": (LINE, TAPS, steps(2), [[[321, 543]]]),
    "conv remainder": (LINE, TAPS, steps(3), [[[321]]]),
    "conv dilation": (LINE, TAPS, steps(dilation=2), [[[531]]]),
    "conv low": (LINE, TAPS, steps(2, low=1), [[[210, 432, 54]]]),
    "conv negative low": (LINE, TAPS, steps(low=-1), [[[432, 543, 54]]]),
    "conv channels": (PAIR, [[[1, 10], [100, 1000]]], steps(), [[[4321]]]),
    "conv groups": (PAIR, FOUR_GROUPS, steps(groups=2), [[[12], [102], [83], [803]]]),
    "conv plane": (
        [PAIR, [[[5, 6], [7, 8]]]],
        [[[[1, 10], [100, 1000]]]],
        steps(rank=2),
        [[[[4321]]], [[[8765]]]],
    ),
    "conv complex": ([[[1 + 2j, 1]]], [[[3j, 1]]], steps(), [[[-5 + 3j]]]),
    "deconv": (TWO, TAPS, steps(), [[[1, 12, 120, 200]]]),
    "deconv stride": (TWO, TAPS, steps(2), [[[1, 10, 102, 20, 200]]]),
    "deconv size": (TWO, TAPS, steps(3), [[[1, 10, 100, 2, 20, 200, 0]]]),
    "deconv dilation": (TWO, TAPS, steps(dilation=2), [[[1, 2, 10, 20, 100, 200]]]),
    "deconv low": (TWO, TAPS, steps(2, low=1), [[[10, 102, 20]]]),
    "deconv negative low": (TWO, TAPS, steps(low=-1), [[[0, 1, 12, 120, 200]]]),
    "deconv channels": (POINTS, SQUARES, steps(), [[[503, 5030], [1006, 10060]]]),
    "deconv groups": (
        POINTS,
        SQUARES,
        steps(groups=2),
        [[[3, 30], [6, 60], [500, 5000], [1000, 10000]]],
    ),
    "deconv complex": ([[[1 + 2j]]], [[[3j, 1]]], steps(), [[[3j - 6, 1 + 2j]]]),
    "kernel_grad": (LINE, TAPS, steps(), [[[321, 432, 543]]]),
    "kernel_grad stride": (LINE, [[[1, 10]]], steps(2), [[[31, 42, 53]]]),
    "kernel_grad dilation": (LINE, [[[1, 10]]], steps(dilation=2), [[[21, 43, 5]]]),
    "kernel_grad low": (LINE, [[[1, 10]]], steps(2, low=1), [[[20, 31, 42]]]),
    "kernel_grad negative low": (LINE, [[[1, 10]]], steps(2, low=-1), [[[42, 53, 4]]]),
    "kernel_grad batch": ([[[1, 2]], [[3, 4]]], [[[1]], [[10]]], steps(), [[[31, 42]]]),
    "kernel_grad channels": (
        PAIR,
        [[[1, 10], [100, 1000]]],
        steps(),
        [[[21], [43]], [[2100], [4300]]],
    ),
    "kernel_grad groups": (PAIR, [[[1, 10], [100, 1000]]], steps(groups=2), [[[21]], [[4300]]]),
    "kernel_grad complex": ([[[1 + 2j, 1]]], [[[3j]]], steps(), [[[3j - 6, 3j]]]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_loops_by_hand(name):
    a, b, options, expected = BY_HAND[name]
    result = LOOPS[name.split()[0]](np.array(a), np.array(b), np.shape(expected)[2:], **options)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == (np.complex128 if np.iscomplexobj(expected) else np.float64)


def test_loops_take_narrow_and_jax_arrays_and_widen_them():
    x = jnp.array([[[200, 100]]], jnp.uint8)
    result = conv_loops(x, np.array([[[2, 3]]], np.int8), (1,), **steps())
    assert result.tolist() == [[[700.0]]]
    assert isinstance(result, np.ndarray)


@pytest.mark.parametrize(
    ("big", "kernel", "small", "stride", "dilation", "low", "groups"),
    [
        ((7,), (3,), (4,), (2,), (1,), (1,), 1),
        ((5,), (4,), (6,), (1,), (2,), (3,), 3),
        ((9,), (2,), (3,), (3,), (4,), (-2,), 2),
        ((6, 5), (3, 2), (3, 4), (2, 1), (1, 2), (1, 0), 2),
        ((4, 6), (1, 3), (2, 3), (3, 2), (1, 1), (-1, 2), 1),
        ((3, 4, 5), (2, 1, 3), (2, 3, 4), (1, 2, 1), (2, 1, 1), (1, -1, 1), 2),
    ],
)
@pytest.mark.parametrize("unit", [0, 1j], ids=["real", "complex"])
def test_loops_give_one_form(big, kernel, small, stride, dilation, low, groups, unit, rng):
    def draw(*shape):
        real, imaginary = rng.integers(-4, 5, (2, *shape))
        return real + unit * imaginary

    x, k, y = (
        draw(2, groups * 3, *big),
        draw(groups * 2, 3, *kernel),
        draw(2, groups * 2, *small),
    )
    options = {"stride": stride, "dilation": dilation, "low": low, "groups": groups}
    form = (conv_loops(x, k, small, **options) * y).sum()
    assert form == (x * deconv_loops(y, k, big, **options)).sum()
    assert form == (k * kernel_grad_loops(x, y, kernel, **options)).sum()
    assert form != 0
