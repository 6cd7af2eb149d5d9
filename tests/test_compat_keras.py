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
