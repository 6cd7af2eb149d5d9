"""compat.torch, compat.onnx and compat.keras beside loops and jax.lax, without these frameworks."""

import numpy as np
import pytest
from jax import lax

from jdeconv.compat import keras, onnx, torch
from jdeconv.testing import conv_loops, deconv_loops

# No two arguments are equal, so that none can stand in another one's place.
STRIDE, PADDING, DILATION, GROUPS, SIZES, KERNEL = 4, 1, 3, 2, (7, 6, 8), (2, 3, 1)


def draw(rng, *shapes):
    return [rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes]


def by_channel(bias, rank):
    return bias.reshape(-1, *[1] * rank)


def loops(rank, low=PADDING, stride=STRIDE, dilation=DILATION):
    steps = {"stride": (stride,) * rank, "dilation": (dilation,) * rank, "low": (low,) * rank}
    return steps | {"groups": GROUPS}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_torch_conv(rank, rng):
    sizes, k = SIZES[:rank], KERNEL[:rank]
    small = [
        (i + 2 * PADDING - DILATION * (a - 1) - 1) // STRIDE + 1
        for i, a in zip(sizes, k, strict=True)
    ]
    x, w, b = draw(rng, (2, 6, *sizes), (4, 3, *k), (4,))
    found = getattr(torch, f"conv{rank}d")(x, w, b, STRIDE, PADDING, DILATION, GROUPS)
    expected = conv_loops(x, w, small, **loops(rank)) + by_channel(b, rank)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_torch_conv_transpose(rank, rng):
    sizes, k, extra = SIZES[:rank], KERNEL[:rank], 2
    big = [
        (i - 1) * STRIDE + DILATION * (a - 1) + 1 - 2 * PADDING + extra
        for i, a in zip(sizes, k, strict=True)
    ]
    y, w, b = draw(rng, (2, 6, *sizes), (6, 5, *k), (10,))
    function = getattr(torch, f"conv_transpose{rank}d")
    found = function(y, w, b, STRIDE, PADDING, extra, GROUPS, DILATION)
    expected = deconv_loops(y, w, big, **loops(rank)) + by_channel(b, rank)
    np.testing.assert_array_equal(found, expected)


def ends(auto_pad, total):
    """The padding in front and behind, of which SAME_UPPER has an odd cell behind."""
    low = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
    return low, total - low


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_onnx_conv(auto_pad, rng):
    x, w, b = draw(rng, (2, 6, 7), (4, 3, 4), (4,))
    total = {"NOTSET": 3, "VALID": 0}.get(auto_pad, (-(-7 // 2) - 1) * 2 + 4 - 7)
    low, high = (2, 1) if auto_pad == "NOTSET" else ends(auto_pad, total)
    options = {"pads": [low, high]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    found = onnx.Conv(x, w, b, group=GROUPS, strides=[2], **options)
    small = [(7 + total - 4) // 2 + 1]
    expected = conv_loops(x, w, small, **loops(1, low, 2, 1)) + by_channel(b, 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_onnx_conv_transpose(auto_pad, rng):
    y, w, b = draw(rng, (2, 6, 5), (6, 4, 5), (8,))
    full = 4 * 2 + 5
    total = {"NOTSET": 3, "VALID": 0}.get(auto_pad, full - 5 * 2)
    low, high = (1, 2) if auto_pad == "NOTSET" else ends(auto_pad, total)
    options = {"pads": [low, high]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    found = onnx.ConvTranspose(y, w, b, group=GROUPS, strides=[2], **options)
    expected = deconv_loops(y, w, [full - total], **loops(1, low, 2, 1)) + by_channel(b, 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 2), 2), ((4, 4), 2), ((1, 2), 3)])
def test_keras_conv_and_conv_transpose(kernel, stride, padding, rng):
    """Without output_padding, Keras has the sizes of jax.lax."""
    x, w = draw(rng, (2, 7, 6, 3), (*kernel, 3, 4))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    expected = lax.conv_general_dilated(x, w, (stride,) * 2, padding.upper(), **options)
    np.testing.assert_array_equal(keras.conv(x, w, stride, padding), expected)
    y, w = draw(rng, (2, 5, 4, 3), (*kernel, 6, 3))
    options["transpose_kernel"] = True
    expected = lax.conv_transpose(y, w, (stride,) * 2, padding.upper(), **options)
    np.testing.assert_array_equal(keras.conv_transpose(y, w, stride, padding), expected)
