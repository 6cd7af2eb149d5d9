"""Large problems, compiled and not run: what lies in memory beside operands and results; and empty ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry import problem

from jdeconv import conv, deconv, kernel_grad
from jdeconv.choose import choose
from jdeconv.form import accumulator
from jdeconv.lowerings import LOWERINGS
from jdeconv.window import Window

MIB = 1 << 20
LARGE = (  # x, kernel, options
    ((1, 16, 4096, 4096), (16, 16, 3, 3), {"padding": 1}),  # columns of 2.4e9 numbers
    ((1, 16, 4096, 4096), (16, 16, 4, 4), {"stride": 2, "padding": 1}),
    ((1, 16, 4096, 4096), (16, 1, 3, 3), {"groups": 16}),
    ((1, 16, 4096, 4096), (1, 16, 7, 7), {}),
    ((1, 32, 4096, 4096), (32, 16, 5, 5), {"groups": 2, "dilation": 2}),
    ((1, 4, 256, 256, 256), (8, 4, 3, 3, 3), {"padding": 1}),
    ((1, 16, 256, 256, 256), (16, 16, 3, 3, 3), {"padding": 1}),  # of 7.2e9
    ((1, 4, 1 << 24), (4, 4, 31), {}),
    ((64, 16, 512, 512), (16, 16, 3, 3), {}),
    ((1, 2, 512, 512, 64), (2, 2, 9, 9, 9), {}),  # slabs of one position that are cut again
    ((1, 1, 24, 24, 24, 24, 24), (1, 1, 3, 3, 3, 3, 3), {"padding": 1}),
    ((1, 1, 64, 64), (1, 1, 3, 3), {"padding": 2000}),
    ((1, 1, 1 << 20), (1, 1, 3), {"stride": 1 << 19}),
    ((1, 2048, 7, 7), (2048, 2048, 3, 3), {"padding": 1}),
    ((1, 1, 4096, 4096), (1, 1, 31, 31), {"padding": 15}),  # by FFT, as those that follow
    ((1, 1, 1 << 24), (1, 1, 129), {}),
    ((8, 8, 700, 700), (8, 8, 13, 13), {}),
)


def chosen(x, kernel, options, dtype):
    steps = {name: value for name, value in options.items() if name != "groups"}
    window = Window.of_conv(x[2:], kernel[2:], **steps)
    groups = options.get("groups", 1)
    sizes = groups, kernel[1], kernel[0] // groups
    return choose(problem(window, *sizes, None, dtype, jax.default_backend()))


def temporaries(x, kernel, options, dtype, lowering=None):
    """Bytes beside operands and results, of conv and both its gradients; and those of padded x, kernel, y."""
    x, kernel = (jax.ShapeDtypeStruct(shape, dtype) for shape in (x, kernel))

    def forward(x, kernel):
        return conv(x, kernel, lowering=lowering, **options)

    def backward(x, kernel, y):
        value, pullback = jax.vjp(forward, x, kernel)
        return value, pullback(y)

    y = jax.eval_shape(forward, x, kernel)
    compiled = jax.jit(backward).lower(x, kernel, y).compile()
    wide = accumulator(np.dtype(dtype)).itemsize
    pad = 2 * options.get("padding", 0)
    padded = (*x.shape[:2], *(size + pad for size in x.shape[2:]))
    sizes = [math.prod(shape) * wide for shape in (padded, kernel.shape, y.shape)]
    return compiled.memory_analysis().temp_size_in_bytes, sizes


@pytest.mark.parametrize(("x", "kernel", "options"), LARGE, ids=str)
def test_temporaries_keep_to_the_formula_of_the_docs(x, kernel, options):
    found, (x_bytes, kernel_bytes, y_bytes) = temporaries(x, kernel, options, np.float32)
    bound = 2.5 * (x_bytes + y_bytes) + 4 * kernel_bytes + 64 * MIB
    bound += 256 * MIB * (chosen(x, kernel, options, np.float32) == "fft")
    assert found <= bound


@pytest.mark.parametrize("lowering", ["im2col", "taps", "nhwc", "vendor"])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_no_lowering_but_fft_lays_out_a_large_image_at_once(lowering, dtype):
    """One that does would need nine times x for its columns."""
    x, kernel, options = (1, 4, 2048, 2048), (4, 4, 3, 3), {"padding": 1}
    if lowering == "taps":
        x, kernel, options = (1, 4, 2048, 2048), (4, 1, 3, 3), {"padding": 1, "groups": 4}
    found, (x_bytes, _, y_bytes) = temporaries(x, kernel, options, dtype, lowering)
    assert found <= 2.5 * (x_bytes + y_bytes) + 64 * MIB


def test_a_gather_of_many_taps_goes_by_slabs():
    found, (x_bytes, _, y_bytes) = temporaries((1, 16, 1 << 20), (16, 16, 257), {}, np.float32)
    assert found <= 2.5 * (x_bytes + y_bytes) + 64 * MIB


@pytest.mark.parametrize("lowering", [None, *LOWERINGS])
@pytest.mark.parametrize(("n", "c", "o"), [(0, 3, 2), (2, 0, 2), (2, 3, 0), (0, 0, 0)])
def test_empty_sums_are_zero_and_empty_results_are_empty(lowering, n, c, o):
    groups = 2
    x, kernel = jnp.ones((n, groups * c, 9, 8)), jnp.ones((groups * o, c, 3, 2))
    y = jnp.ones((n, groups * o, 7, 7))
    options = {"groups": groups, "lowering": lowering}
    found = conv(x, kernel, **options), deconv(y, kernel, **options)
    found += (kernel_grad(x, y, (3, 2), **options),)
    assert [a.shape for a in found] == [y.shape, x.shape, kernel.shape]
    assert not any(a.any() for a in found)
    value, pullback = jax.vjp(lambda x, k: conv(x, k, **options), x, kernel)
    assert [a.shape for a in pullback(value)] == [x.shape, kernel.shape]


def test_a_stride_of_half_a_million_compiles_and_lands_where_it_should():
    """One array for each phase would be as many as the stride."""
    y, kernel, stride = jnp.array([[[1.0, 10.0, 100.0]]]), jnp.array([[[2.0, 3.0, 5.0]]]), 1 << 19
    x = np.asarray(deconv(y, kernel, stride=stride, dilation=7, lowering="im2col"))[0, 0]
    at = [q * stride + t * 7 for q in range(3) for t in range(3)]
    assert x[at].tolist() == [2, 3, 5, 20, 30, 50, 200, 300, 500]
    assert np.count_nonzero(x) == 9


def test_slabs_copy_no_whole_operand():
    """A deconv of a large image needs its own columns and result, and no second copy of y."""
    y, kernel = np.ones((1, 16, 1024, 512), np.float32), np.ones((16, 8, 3, 3), np.float32)
    f = jax.jit(lambda y, k: deconv(y, k, padding=1, lowering="im2col"))
    temporary = f.lower(y, kernel).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 70 * MIB
