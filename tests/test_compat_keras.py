"""compat.keras against keras.ops over JAX: random arguments, values, gradients and tangents, exactly."""

import inspect
import os
import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from thinned import thinned

from jdeconv.compat import keras as compat

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras is over another backend"
)


def drawn(seed, *shapes):
    draw = np.random.default_rng(seed).integers
    return [jnp.asarray(draw(-4, 5, shape), jnp.float32) for shape in shapes]


def derivatives(function, arrays):
    def run(*arrays):
        result, vjp = jax.vjp(function, *arrays)
        cotangent = jnp.arange(result.size, dtype=result.dtype).reshape(result.shape) % 7 - 3
        return result, vjp(cotangent), jax.jvp(function, arrays, arrays)[1]

    return jax.jit(run)(*arrays)


def assert_same(name, arrays, options):
    calls = (partial(getattr(module, name), **options) for module in (compat, keras.ops))
    ours, theirs = (derivatives(call, arrays) for call in calls)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def geometry(seed):
    rng = random.Random(seed)
    rank = 1 + seed % 3
    value = lambda least, most: rng.choice(  # noqa: E731
        [rng.randint(least, most), tuple(rng.randint(least, most) for _ in range(rank))]
    )
    options = {"padding": rng.choice(["valid", "same", "SAME"]), "data_format": rng.choice(
        [None, "channels_last", "channels_first"])}  # fmt: skip
    steps = value(1, 3), value(1, 2)
    if rng.random() < 0.5:  # Keras takes no dilation under a stride for granted
        steps = rng.choice([(steps[0], 1), (1, steps[1])])
    options |= dict(zip(("strides", "dilation_rate"), steps, strict=True))
    k = tuple(rng.randint(1, 4) for _ in range(rank))
    i = tuple(rng.randint(7, 9) for _ in range(rank))
    place = lambda n, c: (n, c, *i) if options["data_format"] == "channels_first" else (n, *i, c)  # noqa: E731
    return rng, rank, k, place, options


@pytest.mark.parametrize("seed", thinned(range(30), 5))
def test_conv(seed):
    rng, _, k, place, options = geometry(seed)
    groups, c, o = rng.choice([1, 1, 2, 3]), rng.randint(1, 3), rng.randint(1, 3)
    assert_same("conv", drawn(seed, place(2, groups * c), (*k, c, groups * o)), options)


@pytest.mark.parametrize("seed", thinned(range(24), 5))
def test_depthwise_and_separable_conv(seed):
    rng, rank, k, place, options = geometry(seed)
    c, m, o = (rng.randint(1, 3) for _ in range(3))
    x, kernel, pointwise = drawn(seed, place(2, c), (*k, c, m), (*[1] * rank, c * m, o))
    assert_same("depthwise_conv", (x, kernel), options)
    assert_same("separable_conv", (x, kernel, pointwise), options)


@pytest.mark.parametrize("seed", thinned(range(54), 5))
def test_conv_transpose(seed):
    rng, rank, k, place, options = geometry(seed)
    c, o = rng.randint(1, 3), rng.randint(1, 3)
    options["output_padding"] = rng.choice(
        [None, 0, rng.randint(0, 2), tuple(rng.randint(0, 2) for _ in range(rank))]
    )
    assert_same("conv_transpose", drawn(seed, place(2, c), (*k, o, c)), options)


def test_no_output_padding_is_not_none():
    x, k = drawn(0, (1, 4, 1), (3, 1, 1))
    sizes = [compat.conv_transpose(x, k, 2, "same", p).shape[1] for p in (None, 0, 1)]
    assert sizes == [8, 7, 8]


@pytest.mark.parametrize("name", compat.__all__)
def test_signatures_are_keras_s(name):
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(m, name)).parameters.values()]
        for m in (compat, keras.ops)
    )
    assert ours == theirs


X, K = jnp.ones((1, 5, 6, 4), jnp.float32), jnp.ones((3, 3, 4, 2), jnp.float32)


@pytest.mark.parametrize(
    ("call", "args", "options", "text"),
    [
        ("conv", (X, K), {"padding": "causal"}, r"conv\(padding='causal'\): the names are valid, same"),
        ("conv", (X, K), {"data_format": "NHWC"}, r"conv\(data_format='nhwc'\): the names are channels_last"),
        ("conv", (X, K[:, :, :3]), {}, r"conv\(inputs=.*its 4 channels must be a multiple of the kernel's 3"),
        ("conv", (X, K), {"strides": (1, 1, 1)}, r"conv\(strides=\(1, 1, 1\)\): expected an int or one int"),
        ("conv", (X, K), {"dilation_rate": 0}, r"conv\(dilation_rate=0\): must be at least 1"),
        ("conv", (X, K), {"dilation_rate": 3}, r"conv\(padding='VALID'\): the window is larger"),
        ("conv", (X[0], K), {}, r"conv\(inputs=float32\[5,6,4\]\): needs 4 axes, as many as the kernel"),
        ("conv", (X, K[0, 0]), {}, r"conv\(kernel=float32\[4,2\]\): needs 3 to 5 axes"),
        ("conv", (X, jnp.ones((1, 1, 2, 3))), {}, r"conv\(groups=2\): must divide kernel's 3 channels"),
        ("depthwise_conv", (X, K[:, :, :3]), {}, r"depthwise_conv\(kernel=.*axis -2 has 3 channels; it needs"),
        ("conv_transpose", (X, K), {}, r"conv_transpose\(kernel=.*axis -1 has 2 channels; it needs 4"),
        ("conv_transpose", (X[..., :2], K), {"output_padding": -1}, r"output_padding=-1\): must be at least 0"),
        ("separable_conv", (X, K[:, :, :3], K), {}, r"separable_conv\(depthwise_kernel=.*axis -2 has 3"),
        ("separable_conv", (X, K, K), {}, r"separable_conv\(pointwise_kernel=.*the spatial ones of size 1"),
        ("separable_conv", (X, K, K[:1, :1]), {}, r"separable_conv\(pointwise_kernel=.*axis -2 has 4.*needs 8"),
    ],
)  # fmt: skip
def test_what_is_refused(call, args, options, text):
    with pytest.raises(ValueError, match=text):
        getattr(compat, call)(*args, **options)
