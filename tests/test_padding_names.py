"""Paddings by name beside numpy's convolution, and as the pairs for which they stand."""

import numpy as np
import pytest

from jdeconv import Window, conv, deconv, kernel_grad
from jdeconv.testing import conv_loops, deconv_loops


def draw(rng, *shape):
    return rng.integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("name", ["FULL", "full", "CAUSAL", "causal"])
def test_over_one_axis(name, rng):
    x, k = draw(rng, 9), draw(rng, 4)
    whole = np.convolve(x, k[::-1])  # whose kernel is flipped
    expected = whole if name.upper() == "FULL" else whole[:9]
    found = conv(x.reshape(1, 1, -1), k.reshape(1, 1, -1), padding=name)
    np.testing.assert_array_equal(found.ravel(), expected)


def test_a_causal_conv_sees_nothing_of_what_comes():
    x, k = np.ones((1, 1, 9), np.float32), np.ones((1, 1, 3), np.float32)
    late = x + np.float32(7) * (np.arange(9) > 5)
    steps = {"padding": "CAUSAL", "dilation": 2, "stride": 2}
    change = np.asarray(conv(late, k, **steps) != conv(x, k, **steps)).ravel()
    assert change.tolist() == [False, False, False, True, True]


def test_full_over_two_axes_and_its_transpose(rng):
    x, k = draw(rng, 2, 4, 6, 5), draw(rng, 6, 2, 3, 2)
    steps = {"stride": (2, 1), "dilation": (1, 3), "groups": 2}
    low = (2, 3)
    small = (4, 8)  # (6 + 4 - 3) // 2 + 1, 5 + 6 - 4 + 1
    y = conv(x, k, padding="FULL", **steps)
    np.testing.assert_array_equal(y, conv_loops(x, k, small, low=low, **steps))
    expected = deconv_loops(np.asarray(y), k, (6, 5), low=low, **steps)
    found = deconv(y, k, padding="full", output_size=(6, 5), **steps)
    np.testing.assert_array_equal(found, expected)
    assert kernel_grad(x, y, (3, 2), padding="FULL", **steps).shape == k.shape


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER", "VALID", "CAUSAL", "FULL"])
@pytest.mark.parametrize("size", [7, 8])
def test_names_are_pairs(name, size):
    rest = max((-(-size // 2) - 1) * 2 + 4 - size, 0)
    pair = {
        "SAME": (rest // 2, rest - rest // 2),
        "SAME_LOWER": (rest - rest // 2, rest // 2),
        "VALID": (0, 0),
        "CAUSAL": (3, 0),
        "FULL": (3, 3),
    }[name]
    steps = {"stride": 2, "dilation": 3}
    window = Window.of_conv((size,), (2,), padding=name, **steps)
    assert window == Window.of_conv((size,), (2,), padding=name.lower(), **steps)
    assert window == Window.of_conv((size,), (2,), padding=(pair,), **steps)
    assert window == Window.of_deconv(
        window.small, (2,), padding=name.lower(), output_size=size, **steps
    )


def test_a_causal_padding_has_one_axis():
    with pytest.raises(ValueError, match="padding 'causal' needs a single spatial axis, got 2"):
        conv(np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2)), padding="causal")
