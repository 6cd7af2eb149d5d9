"""PyTorch's convolutions, values and all gradients, exactly, in both channel layouts."""

import random

import jax
import numpy as np
import pytest
from geometry import LAST, arranged, drawn, geometries, letters

import jdeconv

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def theirs(function, arrays, cotangent, **options):
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    result = function(*tensors, **options)
    result.backward(torch.tensor(cotangent))
    return [t.detach().numpy() for t in (result, *(t.grad for t in tensors))]


def ours(function, arrays, cotangent):
    @jax.jit
    def run(*arrays):
        result, vjp = jax.vjp(function, *arrays)
        return result, *vjp(cotangent)

    return run(*arrays)


def assert_agree(layer, reference, g, arrays, cotangent, last, options):
    """`arrays` are input, kernel and bias, in the layouts of torch."""
    sides, kernels = letters(g.rank)
    side, kernel = LAST[g.rank] if last else (sides, kernels)
    specs = (side, kernel, None, side)
    originals = (sides, kernels, None, sides)

    def place(a, spec, original):
        return a if spec is None else arranged(np.asarray(a), spec, original)

    placed = [place(*t) for t in zip((*arrays, cotangent), specs, originals, strict=True)]

    def function(a, k, b):
        return layer(a, k, b, dimension_numbers=(side, kernel, side), **options)

    expected = theirs(reference, arrays, cotangent, **options)
    actual = ours(function, placed[:3], placed[3])
    order = (3, 0, 1, 2)  # the result, then the gradients of input, kernel and bias
    for a, b, i in zip(actual, expected, order, strict=True):
        np.testing.assert_array_equal(a, place(b, specs[i], originals[i]))


GEOMETRIES = geometries(30, seed=7, ranks=(1, 2, 3), symmetric=True)


@pytest.mark.parametrize(("last", "g"), [(i % 2 == 1, g) for i, g in enumerate(GEOMETRIES)])
def test_conv(last, g):
    x, kernel, y = g.draw()
    bias = np.arange(1, kernel.shape[0] + 1, dtype=np.float32)
    reference = getattr(functional, f"conv{g.rank}d")
    options = g.steps | {"padding": [low for low, _ in g.padding]}
    assert_agree(jdeconv.conv, reference, g, (x, kernel, bias), y, last, options)


@pytest.mark.parametrize(("last", "g"), [(i % 2 == 0, g) for i, g in enumerate(GEOMETRIES)])
def test_conv_transpose(last, g):
    rng = random.Random(str(g))
    _, kernel, y = g.draw()
    w = g.window
    extra = [rng.randrange(max(s, d)) for s, d in zip(w.stride, w.dilation, strict=True)]
    options = g.steps | {"padding": [low for low, _ in g.padding], "output_padding": extra}
    steps = {name: value for name, value in options.items() if name != "groups"}
    try:
        big = jdeconv.Window.of_deconv(w.small, w.kernel, **steps).big
    except ValueError:
        pytest.skip("its padding leaves nothing of a deconv")
    (x,) = drawn(1, (g.n, g.groups * g.c, *big))
    bias = np.arange(1, x.shape[1] + 1, dtype=np.float32)
    reference = getattr(functional, f"conv_transpose{g.rank}d")
    assert_agree(jdeconv.deconv, reference, g, (y, kernel, bias), x, last, options)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes(mode):
    x, kernel = drawn(0, (2, 4, 6, 7), (6, 2, 3, 2))
    layer = torch.nn.Conv2d(
        4, 6, (3, 2), stride=(2, 1), padding=(3, 2), groups=2, bias=False, padding_mode=mode
    )
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel))
    expected = layer(torch.tensor(x)).detach().numpy()
    options = {"stride": (2, 1), "padding": (3, 2), "groups": 2, "padding_mode": mode}
    np.testing.assert_array_equal(jdeconv.conv(x, kernel, **options), expected)


def test_unfold_and_fold():
    (x,) = drawn(0, (2, 3, 7, 6))
    options = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    expected = functional.unfold(torch.tensor(x), **options)
    columns = np.asarray(jdeconv.im2col(x, **options))
    np.testing.assert_array_equal(columns.reshape(2, 18, -1), expected)
    back = functional.fold(expected, (7, 6), **options)
    np.testing.assert_array_equal(jdeconv.col2im(columns, (7, 6), **options), back)
