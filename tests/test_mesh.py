"""What XLA's partitioner makes of the contractions on eight devices: sums where there must be, no gathers."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from collective import collectives
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from thinned import thinned

import jdeconv

KINDS = {"conv": jdeconv.conv, "deconv": jdeconv.deconv}
# How input, kernel and result lie, where letters are (batch, channel) and (O, I); d and m are mesh axes.
DENSE = {
    "batch": (("d", None), (None, None), ("d", None)),
    "output channels": ((None, None), ("d", None), (None, "d")),
    "input channels": ((None, "d"), (None, "d"), (None, None)),
}
GROUPED = {
    "batch": (("d", None), (None, None), ("d", None)),
    "groups": ((None, "d"), ("d", None), (None, "d")),
    "groups of x": ((None, "d"), (None, None), (None, "d")),
}
LOWERINGS = ["nhwc", "fft", "im2col", "vendor", "taps"]


def step(kind, steps, x, kernel, cotangent):
    """The result and both gradients."""
    result, vjp = jax.vjp(lambda x, k: KINDS[kind](x, k, **steps), x, kernel)
    return result, *vjp(cotangent)


def work(kind, groups, last, rng, batch=16, channels=(2, 3), size=(7, 6)):
    """Arrays of one layer, of 8 times so many channels if dense, and its options."""
    c, o = channels if groups > 1 else (8 * channels[0], 8 * channels[1])
    into = c if kind == "conv" else o
    x, kernel = (batch, groups * into, *size), (groups * o, c, 3, 3)
    steps = {"padding": 1, "groups": groups}
    result = jax.eval_shape(partial(KINDS[kind], **steps), jnp.zeros(x), jnp.zeros(kernel))
    arrays = [rng.integers(-3, 4, s).astype(np.float32) for s in (x, kernel, result.shape)]
    if last:
        steps["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
        arrays = [
            np.transpose(a, order)
            for a, order in zip(arrays, [(0, 2, 3, 1), (2, 3, 1, 0), (0, 2, 3, 1)], strict=True)
        ]
    return arrays, steps


def placed(mesh, arrays, specs, last):
    """On the mesh: a spec names the first two axes, channels first."""
    put = []
    for i, (a, (outer, inner)) in enumerate(zip(arrays, specs, strict=True)):
        spec = P(outer, inner)
        if last:
            spec = P(None, None, inner, outer) if i == 1 else P(outer, None, None, inner)
        put.append(jax.device_put(a, NamedSharding(mesh, spec)))
    return put


def check(
    kind, groups, last, specs, axis_type, rng, lowering=None, shape=(8,), names=("d",), **size
):
    """Equal to the unsharded results; returns the collectives, the arrays and the results."""
    arrays, steps = work(kind, groups, last, rng, **size)
    expected = step(kind, steps, *arrays)
    mesh = jax.make_mesh(shape, names, axis_types=(axis_type,) * len(shape))
    steps["lowering"] = lowering
    with jax.set_mesh(mesh):
        operands = placed(mesh, arrays, specs, last)
        compiled = jax.jit(partial(step, kind, steps)).lower(*operands).compile()
        results = compiled(*operands)
    for ours, theirs in zip(results, expected, strict=True):
        scale = np.abs(theirs).max() * (1e-6 if lowering == "fft" else 0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=scale)
    return collectives(compiled), operands, results


def switched(specs, kind):
    """A deconv's input channels are the kernel's O."""
    first, kernel, result = specs
    return (first, kernel[::-1], result) if kind == "deconv" else specs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize(
    ("groups", "name"), [*((1, name) for name in DENSE), *((8, name) for name in GROUPED)]
)
def test_no_device_needs_an_activation_of_another(groups, name, axis_type, kind, rng):
    """One sum, of the kernel's gradient for a sharded batch, of an activation for sharded channels."""
    specs = DENSE[name] if groups == 1 else GROUPED[name]
    specs = switched(specs, kind) if groups == 1 else specs
    found, operands, results = check(kind, groups, False, specs, axis_type, rng)
    sums = [shape for operation, shape in found if operation == "all-reduce"]
    assert len(sums) == (0 if "groups" in name else 1)
    gathered = [shape for operation, shape in found if operation != "all-reduce"]
    # Of groups that x alone is sharded by, each device has the gradient of its own groups' kernels.
    weights = [] if name != "groups of x" else gathered
    assert gathered == weights
    assert all(np.prod(shape) <= operands[1].size for shape in gathered)
    if axis_type == AxisType.Explicit:
        for gradient, primal in zip(results[1:], operands[:2], strict=True):
            assert gradient.sharding.is_equivalent_to(primal.sharding, primal.ndim)


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize(("groups", "name"), [(1, "batch"), (8, "groups"), (1, "input channels")])
def test_however_it_is_evaluated(groups, name, lowering, rng):
    specs = DENSE[name] if groups == 1 else GROUPED[name]
    last = lowering in ("nhwc", "vendor")
    channels = (1, 1) if lowering == "taps" else (2, 3)
    found, *_ = check("conv", groups, last, specs, AxisType.Auto, rng, lowering, channels=channels)
    assert {operation for operation, _ in found} <= {"all-reduce"}
    assert len(found) == (0 if name == "groups" else 1)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_batch_and_channels_over_two_mesh_axes(axis_type, rng):
    specs = (("d", None), ("m", None), ("d", "m"))
    found, *_ = check(
        "conv", 1, False, specs, axis_type, rng, shape=(4, 2), names=("d", "m"), batch=4
    )
    assert [operation for operation, _ in found] == ["all-reduce"] * 2  # kernel over d, x over m
    both = ((("d", "m"), None), (None, None), (("d", "m"), None))
    found, *_ = check("conv", 1, True, both, axis_type, rng, shape=(4, 2), names=("d", "m"))
    assert [operation for operation, _ in found] == ["all-reduce"]


SPACE = [  # sizes, their specs behind the channels, and options
    ((16, 5), P("d"), {"padding": 1}),
    ((32, 3), P("d"), {"padding": "SAME", "stride": (2, 1), "groups": 2}),
    ((3, 8), P(None, "d"), {"padding": (0, 2), "dilation": (1, 2)}),
    ((24, 16), P("m", "d"), {"padding": "SAME", "stride": (3, 2)}),
    ((8, 7), P(("m", "d")), {"padding": ((3, -1), (0, 0)), "groups": 2}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "spec", "steps"), thinned(SPACE, {1, 4}), ids=str)
def test_neighbors_exchange_halos(kind, size, spec, steps, rng):
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Auto,) * 2)
    groups = steps.get("groups", 1)
    x, kernel = (rng.integers(-3, 4, s) for s in ((2, 4, *size), (6, 4 // groups, 3, 3)))
    y = rng.integers(-3, 4, jax.eval_shape(partial(jdeconv.conv, **steps), x, kernel).shape)
    arrays = [a.astype(np.float32) for a in (x, kernel, y)]
    if kind == "deconv":
        arrays, steps = arrays[::-1], steps | {"output_size": size}
    first, kernel, last = arrays
    place, whole = NamedSharding(mesh, P(None, None, *spec)), NamedSharding(mesh, P())
    operands = [jax.device_put(a, at) for a, at in ((first, place), (kernel, whole), (last, place))]
    compiled = jax.jit(partial(step, kind, steps)).lower(*operands).compile()
    jax.tree.map(np.testing.assert_array_equal, compiled(*operands), step(kind, steps, *arrays))
    found = collectives(compiled)
    assert {operation for operation, _ in found} == {"collective-permute", "all-reduce"}
    sums = [np.prod(shape) for operation, shape in found if operation == "all-reduce"]
    assert sums == [kernel.size]


def test_halos_beside_a_sharded_batch_in_half_precision(rng):
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Auto,) * 2)
    x, kernel, y = (
        jnp.asarray(rng.integers(-9, 10, s), jnp.bfloat16)
        for s in ((4, 16, 8), (3, 8, 8), (4, 16, 8))
    )
    steps = {"padding": 1, "dimension_numbers": ("NHC", "HIO", "NHC")}
    specs = P("m", "d"), P(), P("m", "d")
    operands = [
        jax.device_put(a, NamedSharding(mesh, spec))
        for a, spec in zip((x, kernel, y), specs, strict=True)
    ]
    found = jax.jit(partial(step, "conv", steps))(*operands)  # rounded once, as on one device
    jax.tree.map(np.testing.assert_array_equal, found, step("conv", steps, x, kernel, y))


UNEVEN = [  # sizes, their specs behind the channels, and options of two layers without padding
    ((33,), P(("m", "d")), {"stride": 2}),
    ((21, 6), P("d"), {"groups": 2}),
    ((17,), P("d"), {}),
    ((19, 18), P("m", "d"), {"stride": 2}),
    ((14, 5, 16), P("d", None, "m"), {"stride": (1, 1, 2)}),
    ((32, 7), P(("d", "m")), {"stride": (3, 1), "dilation": (2, 1)}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "spec", "steps"), thinned(UNEVEN, {0}), ids=str)
def test_neighbors_exchange_halos_of_uneven_shards(kind, size, spec, steps, rng):
    """Two layers without padding, and both kernels' gradients."""
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Auto,) * 2)
    groups, taps = steps.get("groups", 1), (3,) * len(size)
    shapes = ((2, 4, *size), (4, 4 // groups, *taps), (4, 4 // groups, *taps))
    arrays = [rng.integers(-1, 2, shape).astype(np.float32) for shape in shapes]
    contract = partial(KINDS[kind], **steps)

    def loss(x, first, second):
        x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(None, None, *spec)))
        return contract(jax.nn.relu(contract(x, first)), second).sum()

    def plain(x, first, second):
        return contract(jax.nn.relu(contract(x, first)), second).sum()

    weights = 1, 2
    compiled = jax.jit(jax.value_and_grad(loss, weights)).lower(*arrays).compile()
    ours, theirs = compiled(*arrays), jax.value_and_grad(plain, weights)(*arrays)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    found = collectives(compiled)
    assert {operation for operation, _ in found} == {"collective-permute", "all-reduce"}
    sums = [np.prod(shape) for operation, shape in found if operation == "all-reduce"]
    assert max(sums) <= sum(a.size for a in arrays[1:])


def test_uneven_shards_of_the_gradient_of_x(rng):
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Auto,) * 2)
    x, kernel = (rng.integers(-3, 4, s).astype(np.float32) for s in ((2, 3, 16), (4, 3, 3)))
    place = NamedSharding(mesh, P(None, None, ("m", "d")))

    def grad(x):
        return jax.grad(lambda x: jdeconv.conv(x, kernel, stride=2).sum() ** 2)(x)

    compiled = jax.jit(grad, in_shardings=place, out_shardings=place).lower(x).compile()
    np.testing.assert_array_equal(compiled(jax.device_put(x, place)), grad(x))
    assert {kind for kind, _ in collectives(compiled)} == {"collective-permute", "all-reduce"}


def test_what_lies_behind_the_end_of_uneven_shards_is_not_read(rng):
    """Infinities, which the logarithm makes of zeros there, reach no result."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    x, kernel = (rng.choice([1, 2, 4], s).astype(np.float32) for s in ((2, 3, 19), (4, 3, 3)))

    def loss(x, kernel, is_divided):
        if is_divided:
            x = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(None, None, "d")))
        return jdeconv.conv(jnp.log2(x), kernel, padding=1).sum()

    run = jax.jit(jax.value_and_grad(loss, 1), static_argnums=2)
    ours, theirs = (run(x, kernel, is_divided) for is_divided in (True, False))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("last", [False, True])
def test_sums_that_lie_apart_are_scattered(last, rng):
    """Where channels of image, kernel and result lie alike, no device needs the whole sum."""
    specs = ((None, "d"), ("d", None), (None, "d"))
    arrays, steps = work("conv", 1, last, rng)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    x, kernel, like = placed(mesh, arrays, specs, last)
    conv = jax.jit(partial(jdeconv.conv, **steps), out_shardings=like.sharding)
    np.testing.assert_array_equal(conv(x, kernel), jdeconv.conv(*arrays[:2], **steps))
    found = collectives(conv.lower(x, kernel).compile())
    # The kernel may change places, from shards of its outputs to shards of its inputs.
    assert [kind for kind, _ in found if kind != "all-to-all"] == ["reduce-scatter"]


def test_a_sharded_kernel_gets_only_its_part_of_the_sums(rng):
    """In half precision too, where the sum is of float32."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    x, y = (
        jax.device_put(
            jnp.asarray(rng.integers(-2, 3, (8, c, 6)), "bfloat16"),
            NamedSharding(mesh, P("d")),
        )
        for c in (5, 16)
    )
    place = NamedSharding(mesh, P("d"))

    def grad(x, y):
        return jdeconv.kernel_grad(x, y, (3,), padding=1)

    divided = jax.jit(grad, out_shardings=place)
    np.testing.assert_array_equal(divided(x, y), grad(*jax.device_get((x, y))))
    found = collectives(divided.lower(x, y).compile())
    assert [kind for kind, _ in found] == ["reduce-scatter"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_divided_is_gathered(kind, rng):
    """Two groups over eight devices, and batch and channels that claim the same ones: right, if slow."""
    spread = ((None, "d"), ("d", None), (None, "d"))
    check(kind, 2, False, spread, AxisType.Auto, rng, channels=(4, 8))
    twice = (("d", None), ("d", None), (None, "d"))
    check(kind, 1, False, switched(twice, kind), AxisType.Auto, rng)


def test_shards_without_a_name(rng):
    """The program's own reshapes leave parts of a mesh axis to an axis, and uneven ones."""
    mesh = jax.make_mesh((4, 2), ("d", "m"), axis_types=(AxisType.Auto,) * 2)
    x = rng.integers(-3, 4, (8, 6, 5, 4)).astype(np.float32)
    kernel = rng.integers(-3, 4, (3, 6, 2, 2)).astype(np.float32)

    def parts(x):
        return jdeconv.conv(x.reshape(2, 4, 6, 20).swapaxes(1, 2)[:, :, :, :4], kernel)

    def uneven(x):
        return jdeconv.conv(x[:6], kernel) + jdeconv.conv(x[2:], kernel)

    for f in (parts, uneven):
        sharded = jax.device_put(x, NamedSharding(mesh, P("d")))
        np.testing.assert_array_equal(jax.jit(f)(sharded), f(x))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_an_export_for_several_devices_runs_again(axis_type, rng):
    arrays, steps = work("conv", 8, False, rng)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        operands = placed(mesh, arrays, GROUPED["batch"], False)
        exported = jax.export.export(jax.jit(partial(step, "conv", steps)))(*operands)
        again = jax.export.deserialize(exported.serialize()).call(*operands)
    jax.tree.map(np.testing.assert_array_equal, again, step("conv", steps, *arrays))


def test_the_older_partitioner_is_left_alone():
    """It takes no rules; in a process of its own, since the choice is made once."""
    script = """
import jax, jax.numpy as jnp, jdeconv
from jax.sharding import NamedSharding, PartitionSpec as P
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_use_shardy_partitioner", False)
x = jnp.arange(24.0).reshape(2, 2, 6)
k = jnp.ones((2, 1, 3))
sharded = jax.device_put(x, NamedSharding(jax.make_mesh((2,), ("d",)), P("d")))
f = lambda x: jdeconv.conv(x, k, groups=2)
print((jax.jit(f)(sharded) == f(x)).all())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"]


def test_outside_of_jit(rng):
    (x, kernel, _), steps = work("conv", 8, False, rng)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(x, NamedSharding(mesh, P("d")))
    y = jdeconv.conv(sharded, kernel, **steps)
    assert y.sharding.spec[0] == "d"
    np.testing.assert_array_equal(y, jdeconv.conv(x, kernel, **steps))


@pytest.mark.parametrize("kind", KINDS)
def test_shard_map_sums_once(kind, rng):
    arrays, steps = work(kind, 8, False, rng)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P("d"), P(), P("d")), "out_specs": (P("d"), P("d"), P())}
    mapped = jax.jit(jax.shard_map(partial(step, kind, steps), mesh=mesh, check_vma=True, **specs))
    jax.tree.map(np.testing.assert_array_equal, mapped(*arrays), step(kind, steps, *arrays))
    found = collectives(mapped.lower(*arrays).compile())
    assert found == [("all-reduce", arrays[1].shape)]


@pytest.mark.parametrize("wrt", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_shards(wrt, rng):
    """A mapped axis that is sharded stays so."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    x, kernel = (rng.integers(-3, 4, s).astype(np.float32) for s in ((8, 2, 3, 6), (8, 5, 3, 2)))
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), wrt, strict=True))
    f = jax.vmap(jdeconv.conv, wrt)
    sharded = [
        jax.device_put(a, NamedSharding(mesh, P("d") if axis == 0 else P()))
        for a, axis in zip((x, kernel), wrt, strict=True)
    ]
    compiled = jax.jit(f).lower(*sharded).compile()
    np.testing.assert_array_equal(compiled(*sharded), f(x, kernel))
    assert collectives(compiled) == []
