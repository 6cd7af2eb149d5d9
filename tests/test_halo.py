"""Spatially sharded conv and deconv on eight devices: exactly the unsharded results and gradients."""

import itertools
import math
import random
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collective import collectives
from geometry import LAST
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from thinned import thinned

import jdeconv
from jdeconv import halo

MESHES = {
    1: [((8,), ("h",), P(None, None, "h")), ((2, 4), ("n", "h"), P("n", None, "h"))],
    2: [
        ((2, 4), ("h", "w"), P(None, None, "h", "w")),
        ((2, 2, 2), ("n", "h", "w"), P("n", None, "h", "w")),
        ((4, 2), ("a", "b"), P(None, None, None, ("b", "a"))),
    ],
    3: [
        ((2, 2, 2), ("d", "h", "w"), P(None, None, "d", "h", "w")),
        ((4, 2), ("d", "w"), P("w", None, "d")),
    ],
}
SPEC = P(None, None, "h")


def counts(shape, names, spec, rank):
    sizes = dict(zip(names, shape, strict=True))
    entries = (*spec, *[None] * (rank + 2 - len(spec)))[2:]
    return [
        int(np.prod([sizes[n] for n in (e if isinstance(e, tuple) else (e,)) if n]))
        for e in entries
    ]


def case(seed):
    """A window whose sides are both multiples of the devices, side by side or not, and the mesh."""
    rng = random.Random(seed)
    rank = 1 + seed % 3
    shape, names, spec = rng.choice(MESHES[rank])
    big, kernel, stride, dilation, padding = [], [], [], [], []
    for count in counts(shape, names, spec, rank):
        s, d, k = rng.randint(1, 3), rng.randint(1, 2), rng.randint(1, 4)
        span = d * (k - 1) + 1
        q = count * rng.randint(1, 3)
        b = q * s if rng.random() < 0.6 else count * rng.randint(1, 8)
        rest = rng.randint(0, s - 1)
        total = (q - 1) * s + span + rest - b
        low = rng.randint(-1, span) if b > 1 else 0
        big.append(b), kernel.append(k), stride.append(s), dilation.append(d)
        padding.append((low, total - low))
    groups = rng.choice([1, 2])
    steps = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    draw = np.random.default_rng(seed).integers
    x = draw(-4, 5, (2, 2 * groups, *big)).astype(np.float32)
    k = draw(-4, 5, (3 * groups, 2, *kernel)).astype(np.float32)
    return (shape, names, spec), x, k, steps


def derivatives(function, order):
    """The value, and gradients of both arguments that use it; to second order those of the gradients too."""

    def loss(a, k):
        out = function(a, k)
        return (out * (out % 3)).sum(), out

    first = jax.grad(loss, (0, 1), has_aux=True)

    def second(a, k):
        (da, dk), out = first(a, k)
        return (da % 5 * a).sum() + (dk % 5 * k).sum(), (out, da, dk)

    return jax.jit(first if order == 1 else jax.grad(second, (0, 1), has_aux=True))


SECOND = (0, 1, 2, 3, 5, 7, 10)  # the second order takes long to compile; every mesh once
# Every mesh once, and halos of several shards.
QUICK = ((0, 2), (1, 1), (2, 1), (6, 1), (10, 2), (11, 1), (16, 1), (17, 1))
ALL = [(seed, 2 if seed in SECOND else 1) for seed in range(18)]


@pytest.mark.parametrize(
    ("seed", "order"), thinned([*QUICK, *(case for case in ALL if case not in QUICK)], range(8))
)
def test_conv_and_deconv(seed, order):
    (shape, names, spec), x, k, steps = case(seed)
    y = np.asarray(jdeconv.conv(x, k, **steps)) % 7
    for name, a, size in (("conv", x, {}), ("deconv", y, {"output_size": x.shape[2:]})):
        ours, theirs = (partial(getattr(m, name), **steps, **size) for m in (halo, jdeconv))
        expected = derivatives(theirs, order)(a, k)
        for kind, given in ((AxisType.Auto, {"spec": spec}), (AxisType.Explicit, {})):
            mesh = jax.make_mesh(shape, names, axis_types=(kind,) * len(shape))
            with jax.set_mesh(mesh):
                placed = jax.device_put(a, NamedSharding(mesh, spec))
                result = derivatives(partial(ours, **given), order)(placed, k)
            equal = partial(np.testing.assert_array_equal, err_msg=f"{name} {kind}")
            jax.tree.map(equal, result, expected)


# Halos side by side; of two shards; shards of y that run ahead of x's, or fall behind; several copies of x;
# padding that copies what lies on the other side of a shard.
GEOMETRIES = (
    {"big": 8, "kernel": 3, "padding": (1, 1)},
    {"big": 4, "kernel": 5, "padding": (2, 2)},
    {"big": 16, "kernel": 4, "stride": 2, "padding": (4, 6)},
    {"big": 16, "kernel": 3, "padding": (-2, 0)},
    {"big": 4, "kernel": 3, "padding": (9, 5)},
    {"big": 4, "kernel": 4, "padding": (3, 0)},
)


def both_and_gradients(conv, deconv, x, k, **steps):
    """conv, the deconv of its result, and the gradients of both."""
    y, conv_back = jax.vjp(partial(conv, **steps), x, k)
    z, deconv_back = jax.vjp(partial(deconv, output_size=x.shape[2:], **steps), y, k)
    return y, conv_back(y % 5), z, deconv_back(z % 5)


MODES = "circular", "reflect", "replicate"
IN_ALL_MODES = list(itertools.product(MODES, range(len(GEOMETRIES))))


@pytest.mark.parametrize(("mode", "geometry"), thinned(IN_ALL_MODES, {1, 2, 4, 10, 11, 14}))
def test_padding_modes(mode, geometry):
    """Over an axis that is sharded, and one that is not."""
    window, mesh = GEOMETRIES[geometry], row(4)
    draw = np.random.default_rng(geometry).integers
    x = draw(-4, 5, (1, 2, window["big"], 3)).astype(np.float32)
    k = draw(-4, 5, (1, 2, window["kernel"], 2)).astype(np.float32)
    steps = {"stride": (window.get("stride", 1), 1), "padding": (window["padding"], (1, 2))}
    steps["padding_mode"] = mode
    expected = both_and_gradients(jdeconv.conv, jdeconv.deconv, x, k, **steps)
    with jax.set_mesh(mesh):
        ours = partial(both_and_gradients, halo.conv, halo.deconv, spec=SPEC, **steps)
        result = jax.jit(ours)(jax.device_put(x, NamedSharding(mesh, SPEC)), k)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def row(count, kind=AxisType.Auto):
    return jax.make_mesh((count,), ("h",), axis_types=(kind,), devices=jax.devices()[:count])


def test_layouts_bias_names_of_padding_and_half_precision():
    draw = np.random.default_rng(0).integers
    (side, kernel_letters), spec = LAST[2], P(None, "h")
    for padding, dtype in (("SAME", "float32"), ("SAME_LOWER", "bfloat16")):
        x, k, b = (jnp.asarray(draw(-3, 4, s), dtype) for s in ((2, 16, 5, 4), (3, 2, 4, 3), (3,)))
        numbers = {"dimension_numbers": (side, kernel_letters, side)}
        steps = {"stride": (2, 1), "padding": padding}
        with jax.set_mesh(row(4)):
            y = halo.conv(x, k, b, spec=spec, **steps, **numbers)
            back = halo.deconv(y, k, jnp.arange(4, dtype=dtype), spec=spec, **steps, **numbers)
        expected = jdeconv.conv(x, k, b, **steps, **numbers)
        np.testing.assert_array_equal(y, expected)
        assert y.dtype == expected.dtype
        again = jdeconv.deconv(expected, k, jnp.arange(4, dtype=dtype), **steps, **numbers)
        np.testing.assert_array_equal(back, again)
    steps |= {"preferred_element_type": "float32", "precision": "highest", "lowering": "im2col"}
    placed = jax.device_put(x, NamedSharding(row(4), spec))
    wide = halo.conv(placed, k, **steps, **numbers)  # outside of set_mesh, the array knows its mesh
    assert wide.dtype == np.float32
    assert tuple(wide.sharding.spec)[:2] == (None, "h")


def test_gradients_in_half_precision_are_rounded_once():
    draw = np.random.default_rng(0).integers
    x, k, y = (
        jnp.asarray(draw(-9, 10, s), "bfloat16") for s in ((2, 6, 16), (7, 6, 5), (2, 7, 16))
    )
    with jax.set_mesh(row(4)):
        found = jax.vjp(lambda x, k: halo.conv(x, k, padding=2, spec=SPEC), x, k)[1](y)
    expected = jax.vjp(lambda x, k: jdeconv.conv(x, k, padding=2), x, k)[1](y)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["conv", "deconv"])
def test_accelerators_add_half_precision_in_float32(name, platform):
    x, k = (jax.ShapeDtypeStruct(s, "bfloat16") for s in ((2, 16, 16), (16, 16, 3)))

    def step(x, k, y):
        return jax.vjp(partial(getattr(halo, name), padding=1, spec=SPEC), x, k)[1](y)

    with jax.set_mesh(row(4)):
        lowered = jax.jit(step).trace(x, k, x).lower(lowering_platforms=(platform,))
    added = re.findall(r"stablehlo.add .* : tensor<(?:\d+x)*(\w+)>", lowered.as_text())
    assert set(added) == {"f32"}


def test_output_padding():
    y, k = jnp.arange(8.0).reshape(1, 1, 8), jnp.array([[[1.0, 2, 3]]])
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    with jax.set_mesh(row(4)):
        x = halo.deconv(y, k, spec=P(None, None, "h"), **options)
    np.testing.assert_array_equal(x, jdeconv.deconv(y, k, **options))


def sent(function, *args):
    """Kind and bytes of each collective of float32 in the compiled text."""
    found = collectives(jax.jit(function).lower(*args).compile())
    return [(kind, 4 * math.prod(shape)) for kind, shape in found]


@pytest.mark.parametrize(("k", "stride"), thinned([(3, 1), (5, 1), (4, 2), (7, 3)], 3))
def test_halos_are_as_small_as_they_can_be_however_many_devices(k, stride):
    """Weak scaling: at a fixed shard, what a device receives does not grow."""
    c, o, width, shard, spec = 2, 3, 5, 6, P(None, None, "h")
    options = {"spec": spec, "stride": (stride, 1), "padding": "SAME"}
    conv, deconv = (partial(f, **options) for f in (halo.conv, halo.deconv))
    received, kernel = 4 * c * width * (k - stride), jnp.ones((o, c, k, 1), np.float32)
    for count in (2, 4, 8):
        mesh = row(count)
        shapes = (1, c, count * shard, width), (1, o, count * shard // stride, width)
        x, y = (np.ones(shape, np.float32) for shape in shapes)
        x, y = (jax.device_put(a, NamedSharding(mesh, spec)) for a in (x, y))
        with jax.set_mesh(mesh):
            for forward, a in ((conv, x), (deconv, y)):
                found = sent(forward, a, kernel)
                assert {kind for kind, _ in found} == {"collective-permute"}
                assert sum(size for _, size in found) == received
                gradients = jax.grad(lambda a, k, f=forward: (f(a, k) ** 2).sum(), (0, 1))
                found = sent(gradients, a, kernel)
                permuted = [size for kind, size in found if kind == "collective-permute"]
                assert sum(permuted) == 2 * received
                assert [size for kind, size in found if kind == "all-reduce"] == [kernel.nbytes]
                assert {kind for kind, _ in found} == {"collective-permute", "all-reduce"}


def test_forward_mode():
    x, k = jnp.arange(8.0).reshape(1, 1, 8), jnp.array([[[1.0, 2, 3]]])
    with jax.set_mesh(row(4)):
        conv = partial(halo.conv, x, spec=P(None, None, "h"), padding=1)
        y, y_dot = jax.jvp(conv, (k,), (k + 1,))
    np.testing.assert_array_equal(y, jdeconv.conv(x, k, padding=1))
    np.testing.assert_array_equal(y_dot, jdeconv.conv(x, k + 1, padding=1))


X, K = np.ones((1, 2, 8, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("args", "options", "text"),
    [
        ((X[:, :, :6], K), {"spec": SPEC}, r"conv: x has size 6 on spatial axis 0, not a "
         r"multiple of the 4 devices of mesh axis 'h'; 4 and 8 fit"),
        ((X, K), {"spec": SPEC}, r"gives a result of size 6 on spatial axis 0, not a multiple of the 4"),
        ((X[:, :, :2], K), {"spec": SPEC, "padding": 1}, r"size 2 on spatial axis 0, .* 'h'; 4 fits"),
        ((X, K), {"spec": P(None, "h")}, r"conv: spec must not shard channels"),
        ((X, K), {"spec": P(None, None, "q")}, r"spec names 'q', but the mesh has"),
        ((X, K), {}, r"conv: spec is needed"),
        ((X[0], K), {"spec": SPEC}, r"conv: x needs 4 axes"),
        ((X, K[0, 0]), {"spec": SPEC}, r"conv: x needs 2 axes"),
        ((X, K), {"spec": SPEC, "padding": "Same"}, r"conv: padding must be one of SAME"),
        ((X, K), {"spec": SPEC, "padding": 1, "groups": 3}, r"conv: groups must divide"),
    ],
)  # fmt: skip
def test_what_is_refused(args, options, text):
    with jax.set_mesh(row(4)), pytest.raises(ValueError, match=text):
        jax.jit(lambda x, k: halo.conv(x, k, **options))(*args)


def test_what_deconv_refuses():
    y = jnp.ones((1, 3, 4, 6))
    with jax.set_mesh(row(4)):
        with pytest.raises(
            ValueError, match=r"deconv: y gives a result of size 6 on spatial axis 0"
        ):
            halo.deconv(y, K, spec=SPEC)
        with pytest.raises(ValueError, match=r"deconv: output_size needs"):
            halo.deconv(y, K, spec=SPEC, output_size=9)
    with pytest.raises(ValueError, match=r"spec needs a mesh; call it within jax.set_mesh"):
        halo.deconv(y, K, spec=SPEC)
