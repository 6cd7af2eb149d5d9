"""compat.keras against keras.ops over JAX: random arguments, values, gradients and tangents, exactly."""

import inspect
import os
import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometry import drawn
from thinned import thinned

from jdeconv.compat import keras as compat

os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras is over another backend"
)


def derivatives(function, arrays):
    def run(*arrays):
        result, vjp = jax.vjp(function, *arrays)
        cotangent = jnp.arange(result.size, dtype=result.dtype).reshape(result.shape) % 7 - 3
        return result, vjp(cotangent), jax.jvp(function, arrays, arrays)[1]

    return jax.jit(run)(*arrays)


def keras_s(name):
    """Keras's function of that name."""
    return getattr(keras.ops, name, None) or getattr(keras.ops.image, name)


def assert_same(name, arrays, options):
    calls = (partial(found, **options) for found in (getattr(compat, name), keras_s(name)))
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


@pytest.mark.parametrize("seed", thinned(range(12), 5))
def test_unfold_and_fold(seed):
    rng = random.Random(seed)
    pair = lambda least, most: tuple(rng.randint(least, most) for _ in range(2))  # noqa: E731
    k, d, p, s, q = pair(1, 3), pair(1, 2), pair(0, 2), pair(1, 3), pair(1, 3)
    s = tuple(
        min(s, d * (k - 1) + 1) for s, d, k in zip(s, d, k, strict=True)
    )  # or Keras adds cells
    steps = {"kernel_size": k, "dilation": d, "padding": p, "stride": s}
    covered = [(q - 1) * s + d * (k - 1) + 1 for q, s, d, k in zip(q, s, d, k, strict=True)]
    size = tuple(c - 2 * p for c, p in zip(covered, p, strict=True))
    if min(size) < 1:  # nothing but padding
        size, steps["padding"] = tuple(covered), 0
    x, columns = drawn(seed, (2, 3, *size), (2, 3 * k[0] * k[1], q[0] * q[1]))
    for name, array, options in (("unfold", x, {}), ("fold", columns, {"output_size": size})):
        ours, theirs = (
            jax.vjp(jax.jit(partial(f, **steps, **options)), array)
            for f in (getattr(compat, name), keras_s(name))
        )
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1](2 * ours[0]), theirs[1](2 * theirs[0]))


def test_fold_leaves_zeros_where_no_window_lies():
    found = compat.fold(jnp.ones((1, 2, 2)), (1, 5), (1, 2), stride=2)
    assert found.ravel().tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("seed", thinned(range(16), 5))
def test_extract_patches(seed):
    rng = random.Random(seed)
    rank = 2 + seed % 2
    size = rng.choice([2, (3, 2)]) if rank == 2 else (2, 1, 3)
    options = {
        "size": size,
        "strides": rng.choice([None, 1, 3]),
        "padding": rng.choice(["valid", "same", "SAME"]),
        "data_format": rng.choice([None, "channels_first"]),
    }
    if options["strides"] == 1:
        options["dilation_rate"] = 2
    i, batch = (7, 6, 5)[:rank], rng.choice([(), (2,)])
    first = options["data_format"] == "channels_first"
    (images,) = drawn(seed, (*batch, 3, *i) if first else (*batch, *i, 3))
    assert_same("extract_patches", (images,), options)


@pytest.mark.parametrize(
    ("data_format", "padding", "size", "batch"),
    [
        (None, "valid", (3, 2), (2,)),
        (None, "same", 2, ()),
        ("channels_first", "valid", 2, ()),
        ("channels_first", "same", (2, 1, 3), (2,)),
    ],
)
def test_reconstruct_patches_is_the_inverse_of_keras_s_extract_patches(
    data_format, padding, size, batch
):
    taps = size if isinstance(size, tuple) else (size, size)
    big = tuple(
        k * q - (padding == "same") * (k - 1) for k, q in zip(taps, (3, 4, 2), strict=False)
    )
    (images,) = drawn(3, (*batch, 5, *big) if data_format else (*batch, *big, 5))
    options = {"padding": padding, "data_format": data_format}
    patches = keras.ops.image.extract_patches(images, size, **options)
    found = compat.reconstruct_patches(patches, size, big, **options)
    np.testing.assert_array_equal(found, images)
    if padding == "valid":
        found = compat.reconstruct_patches(patches, size, strides=size, data_format=data_format)
        np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("strides", {"strides": 1}),
        ("output_size", {"padding": "same"}),
        ("output_size", {"output_size": (4, 5)}),
        ("output_size", {"output_size": (4, 9), "padding": "same"}),
        ("padding", {"padding": "full"}),
        ("size", {"size": (1, 2, 3, 4)}),
        ("patches", {"size": 3}),
    ],
)
def test_reconstruct_patches_refuses(argument, options):
    with pytest.raises(ValueError, match=f"^reconstruct_patches: {argument} ") as caught:
        compat.reconstruct_patches(jnp.ones((1, 2, 2, 4)), **{"size": 2} | options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("name", [n for n in compat.__all__ if n != "reconstruct_patches"])
def test_signatures_are_keras_s(name):
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(f).parameters.values()]
        for f in (getattr(compat, name), keras_s(name))
    )
    assert ours == theirs
