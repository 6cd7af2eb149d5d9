"""The texts of errors: what is wrong, what came, and what would help."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdeconv
from jdeconv import Window
from jdeconv.compat import caffe, keras, onnx, torch


def ones(*shape):
    return np.ones(shape, np.float32)


LAST = "dimension_numbers=('NHWC', 'HWIO', 'NHWC')"
X, K = ones(1, 8, 5, 5), ones(6, 8, 3, 3)

TEXTS = [
    (lambda: jdeconv.conv(X, K, stride=0), "conv: stride must be at least 1, got 0"),
    (lambda: jdeconv.conv(X, K, stride=1.5), "conv: stride must be an int or a sequence of 2 ints, got 1.5"),
    (
        lambda: jdeconv.kernel_grad(X, ones(2, 8, 5, 5), (1, 1)),
        "kernel_grad: y has size 2 on axis 0, but the other array has 1",
    ),
    (lambda: jdeconv.accelerate(None), "accelerate: function must be a function, got None"),
    (lambda: jdeconv.conv(X, K, groups=0), "conv: groups must be at least 1, got 0"),
    (lambda: jdeconv.conv(X, K, groups=3), "conv: groups must divide 8 channels, got 3; pass groups=1"),
    (
        lambda: jdeconv.conv(X, ones(6, 3, 3, 3), groups=2),
        "conv: kernel has size 3 on axis 1, but 8 channels in 2 groups need 4",
    ),
    (
        lambda: torch.conv2d(X, ones(6, 3, 3, 3), groups=2),
        "conv2d: weight has size 3 on axis 1, but 8 channels in 2 groups need 4",
    ),
    (
        lambda: jdeconv.conv(X, ones(8, 1, 3, 3)),
        "conv: kernel has size 1 on axis 1, but 8 channels in 1 group need 8; pass groups=8",
    ),
    (
        lambda: onnx.Conv(X, ones(8, 1, 3, 3)),
        "Conv: W has size 1 on axis 1, but 8 channels in 1 group need 8; pass group=8",
    ),
    (
        lambda: jdeconv.conv(ones(1, 9, 9, 3), ones(3, 3, 3, 8)),
        f"conv: kernel has size 3 on axis 1, but 9 channels in 1 group need 9; pass {LAST}",
    ),
    (
        lambda: jdeconv.deconv(ones(1, 9, 9, 8), ones(3, 3, 3, 8)),
        f"deconv: kernel has size 3 on axis 0, but 9 channels in 1 group need 9; pass {LAST}",
    ),
    (  # which has no such argument
        lambda: torch.conv2d(ones(1, 9, 9, 3), ones(3, 3, 3, 8)),
        "conv2d: weight has size 3 on axis 1, but 9 channels in 1 group need 9",
    ),
    (
        lambda: jdeconv.conv(X, K, padding="Same"),
        "conv: padding must be one of SAME, SAME_LOWER, VALID, CAUSAL, FULL, got 'Same'; did you mean 'SAME'?",
    ),
    (
        lambda: torch.conv2d(X, K, padding="SAME"),
        "conv2d: padding must be one of valid, same, got 'SAME'; did you mean 'same'?",
    ),
    (
        lambda: jdeconv.conv(X, ones(6, 8, 7, 3)),
        "conv: padding is too small on spatial axis 0: the kernel spans 7 cells, and the padded input "
        "has 5; pad more, or use a smaller kernel",
    ),
    (
        lambda: jdeconv.deconv(X, ones(8, 8, 3, 3), output_size=3),
        "deconv: output_size needs 7 cells on spatial axis 0, which 5 windows of stride 1 reach, got 3",
    ),
    (
        lambda: jdeconv.kernel_grad(X, X, (3, 3)),
        "kernel_grad: x needs 7 cells on spatial axis 0, which 5 windows of stride 1 reach, got 5",
    ),
    (
        lambda: jdeconv.conv(X, K, dimension_numbers=("NHWC", "HWIO")),
        "conv: dimension_numbers must be three strings, such as ('NHWC', 'HWIO', 'NHWC'), "
        "got ('NHWC', 'HWIO')",
    ),
    (
        lambda: jdeconv.conv(ones(1, 17, 5), ones(17, 1, 3), groups=17, lowering="nhwc"),
        "conv: lowering 'nhwc' cannot serve: nhwc unrolls up to 16 groups, not 17",
    ),
    (lambda: Window.of_conv((7,), (0,)), "Window.of_conv: kernel must be at least 1, got 0"),
    (
        lambda: keras.conv(X, ones(3, 3, 5, 5), strides=0),
        "conv: strides must be at least 1, got 0",
    ),
    (
        lambda: keras.separable_conv(ones(1, 5, 5, 4), ones(3, 3, 4, 2), ones(1, 1, 4, 3)),
        "separable_conv: pointwise_kernel needs 8 channels on axis -2, got 4",
    ),
    (
        lambda: caffe.Convolution(num_output=4, kernel_size=3, group=3).blob_shapes((1, 4, 7, 6)),
        "Convolution: group must divide 4 channels, got 3",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), TEXTS, ids=[text[:60] for _, text in TEXTS])
def test_texts(call, text):
    with pytest.raises((TypeError, ValueError, NotImplementedError)) as caught:
        call()
    assert str(caught.value).split("\n")[0] == text


def test_the_second_line_shows_what_the_outermost_call_was_given():
    with pytest.raises(ValueError, match="channels in 2 groups need 4") as caught:
        torch.conv2d(X, ones(6, 3, 3, 3), groups=2)
    assert (caught.value.argument, caught.value.reason[:12]) == ("weight", "has size 3 o")
    second = str(caught.value).split("\n")[1]
    assert second == "conv2d got input float32[1,8,5,5], weight float32[6,3,3,3], groups=2"


def test_a_field_is_shown_where_it_has_the_default_of_another_field():
    with pytest.raises(ValueError, match=r"\nSolver got momentum=0.5, iter_size=0$"):
        caffe.Solver(momentum=0.5, iter_size=0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: jdeconv.conv(
                ones(2, 9, 8, 4), ones(3, 3, 4, 5), dimension_numbers=("NHCW", "HWIO", "NHWC")
            ),
            "conv got x float32[N=2,H=9,C=8,W=4], kernel float32[H=3,W=3,I=4,O=5], ",
        ),
        (
            lambda: jdeconv.deconv(
                ones(9, 8, 5), ones(3, 3, 4, 5), ones(9), dimension_numbers=("NHWC", "HWIO", "NHWC")
            ),
            "deconv got y float32[H=9,W=8,C=5], kernel float32[H=3,W=3,I=4,O=5], bias float32[9], ",
        ),
        (
            lambda: jdeconv.kernel_grad(
                ones(2, 7, 3), ones(7, 2, 4), (1,), dimension_numbers=("NHC", "NHC", "HIO")
            ),
            "kernel_grad got x float32[N=2,H=7,C=3], y float32[N=7,H=2,C=4], ",
        ),
        (
            lambda: jdeconv.im2col(ones(2, 3, 9), (4,), dimension_numbers="NHC"),
            "im2col got x float32[N=2,H=3,C=9], ",
        ),
        (  # no layout fits, so none is shown
            lambda: jdeconv.conv(X, K, dimension_numbers=("NHC", "HIO", "NHC")),
            "conv got x float32[1,8,5,5], kernel float32[6,8,3,3], ",
        ),
    ],
)
def test_an_error_shows_by_which_letter_each_axis_was_read(call, text):
    with pytest.raises(ValueError, match=re.escape("\n" + text)):
        call()


def test_forward_mode_of_a_custom_vjp_names_bilinear():
    with pytest.raises(TypeError, match="forward-mode") as caught:
        jax.jvp(lambda k: jdeconv.conv(X, k), (K,), (K,))
    assert "jdeconv.bilinear.conv is this function with forward mode." in caught.value.__notes__


def test_strict_promotion_is_refused_by_name():
    text = r"^conv: kernel has dtype bfloat16, which JAX does not combine with float32; cast one\n"
    with jax.numpy_dtype_promotion("strict"), pytest.raises(TypeError, match=text):
        jdeconv.conv(X, K.astype(jnp.bfloat16))
