"""On a mesh of eight devices: results equal the unsharded ones, and shardings are as types say."""

import dataclasses
import itertools
from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from thinned import thinned

import jdeconv
from jdeconv.evaluate import MEMORY

X, KERNEL = (16, 4, 7, 6), (8, 2, 3, 2)


@pytest.fixture(params=["whole batch", "image by image"])
def blocks(request, monkeypatch):
    size = {"whole batch": 1 << 30, "image by image": 1}[request.param]
    for name, memory in MEMORY.items():
        monkeypatch.setitem(MEMORY, name, dataclasses.replace(memory, block_bytes=size))
    jax.clear_caches()
    return request.param


@pytest.fixture
def operands(rng):
    return tuple(rng.integers(-3, 4, s).astype(np.float32) for s in (X, KERNEL))


MODE = "reflect"  # whose adjoint has to keep the types of shards, too


def loss(x, kernel):
    steps = {"stride": 2, "padding": 1, "groups": 2, "padding_mode": MODE}
    y = jdeconv.conv(x, kernel, **steps)
    return (
        y
        * jdeconv.conv(jdeconv.deconv(y, kernel, output_size=(7, 6), **steps) % 5, kernel, **steps)
    ).sum()


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(b)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("axis_type", "sharded"),
    thinned(itertools.product([AxisType.Explicit, AxisType.Auto], ["batch", "output channels"]), 3),
)
def test_meshes(axis_type, sharded, operands):
    gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
    expected = gradient(*operands)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(axis_type,))
    specs = (P("d"), P()) if sharded == "batch" else (P(), P("d"))
    with jax.set_mesh(mesh):
        x, kernel = (
            jax.device_put(a, NamedSharding(mesh, spec))
            for a, spec in zip(operands, specs, strict=True)
        )
        value, gradients = gradient(x, kernel)
    assert_same((value, gradients), expected)
    if axis_type == AxisType.Explicit:
        for g, a in zip(gradients, (x, kernel), strict=True):
            assert g.sharding.is_equivalent_to(a.sharding, g.ndim)


@pytest.mark.usefixtures("blocks")
def test_shard_map_sums_the_gradient_of_a_replicated_kernel(operands):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P("d"), P()), "out_specs": (P(), (P("d"), P()))}

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, check_vma=True, **specs)
    def sharded(x, kernel):
        return jax.value_and_grad(lambda *a: jax.lax.psum(loss(*a), "d"), (0, 1))(x, kernel)

    assert_same(sharded(*operands), jax.value_and_grad(loss, (0, 1))(*operands))


@pytest.mark.parametrize("axis", [0, 1])
def test_columns_stay_sharded(axis):
    """im2col, its gradient and col2im keep the sharding of images and channels."""
    x = np.arange(2 * 2 * 8.0, dtype=np.float32).reshape(2, 2, 8)
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])

    def columns(x):
        return (jdeconv.im2col(x, (3,)) ** 2).sum()

    expected = jdeconv.col2im(jdeconv.im2col(x, (3,)), 8, (3,)), jax.grad(columns)(x)
    with jax.set_mesh(mesh):
        x = jax.device_put(x, P(*[None] * axis, "d"))
        for wrapper in (jax.jit, lambda function: function):
            found = wrapper(lambda x: jdeconv.col2im(jdeconv.im2col(x, (3,)), 8, (3,)))(x)
            assert jax.typeof(found).sharding.spec[0] == ("d" if axis == 0 else None)
            assert_same((found, wrapper(jax.grad(columns))(x)), expected)


def test_sharded_space_is_refused_by_name(operands):
    x, kernel = operands
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        x = jax.device_put(x, P(None, None, None, "d"))
        with pytest.raises(ValueError, match=r"conv: x has spatial axes sharded.*reshard"):
            jdeconv.conv(x, kernel, groups=2)
