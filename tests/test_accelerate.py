"""accelerate: what it sees through, what it composes with, and what it leaves alone."""

import pickle
import re
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from jdeconv import accelerate

X, KERNEL = (3, 2, 7, 6), (2, 2, 3, 3)


def draw(rng, shape):
    return rng.integers(-4, 5, shape).astype(np.float32)


def conv(x, k):
    """Of the shape of x, so that it can be iterated."""
    return lax.conv_general_dilated(x, k, (1, 1), "SAME") % 5


def laid_out(numbers):
    """An image and a kernel of small integers in these layouts."""
    rng = np.random.default_rng(0)
    sizes = {"N": 2, "C": 3, "H": 16, "W": 15}, {"O": 4, "I": 3, "H": 3, "W": 2}
    return [
        draw(rng, [own[letter] for letter in spec])
        for own, spec in zip(sizes, numbers[:2], strict=True)
    ]


def jitted(x, k):
    return jax.jit(conv)(x, k)


def scanned(x, k):
    return lax.scan(lambda x, k: (conv(x, k), x.sum()), x, jnp.stack([k, 2 * k, k - 1]))


def whiled(x, k):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, conv(c[1], k)), (0, x))


def while_condition(x, k):
    return lax.while_loop(lambda c: conv(c[1], k).sum() > c[0], lambda c: (c[0] + 99, c[1]), (0, x))


def counted(x, k):
    return lax.fori_loop(0, 3, lambda _, x: conv(x, k), x)


def branched(x, k):
    return lax.cond(x.sum() > 0, conv, lambda x, k: -conv(x, k), x, k)


def switched(x, k):
    return lax.switch(1, [lambda x: x, lambda x: conv(x, k), lambda x: 2 * x], x)


def mapped(x, k):
    return jax.vmap(conv, (None, 0))(x, jnp.stack([k, 2 * k]))


def rematerialized(x, k):
    return jax.checkpoint(conv)(x, k)


@jax.custom_jvp
def with_jvp(x, k):
    return conv(x, k)


@with_jvp.defjvp
def _(primals, tangents):
    (x, k), (dx, dk) = primals, tangents
    return conv(x, k), lax.conv(dx, k, (1, 1), "SAME") + 2 * lax.conv(x, dk, (1, 1), "SAME")


@jax.custom_vjp
def with_vjp(x, k):
    return conv(x, k)


def _forward(x, k):
    return conv(x, k), (conv(2 * x, k), x, k)


def _backward(residuals, y):
    z, x, k = residuals
    return lax.conv(y + z, k, (1, 1), "SAME"), jnp.zeros_like(k) + x.sum()


with_vjp.defvjp(_forward, _backward)


def sharded(x, k):
    mesh = jax.make_mesh((3,), ("b",), axis_types=(jax.sharding.AxisType.Auto,))
    inner = jax.shard_map(conv, mesh=mesh, in_specs=(P("b"), P()), out_specs=P("b"))
    return inner(x, k)


def solved(x, k):
    """custom_linear_solve carries a named tuple of jaxprs."""
    matvec = lambda v: v + conv(v, k) * 0  # noqa: E731
    return lax.custom_linear_solve(matvec, x, lambda matvec, b: matvec(b), symmetric=True)


INSIDE = [
    conv,
    jitted,
    scanned,
    whiled,
    while_condition,
    counted,
    branched,
    switched,
    mapped,
    rematerialized,
    with_jvp,
    with_vjp,
    sharded,
    solved,
]
DIFFERENTIABLE = [f for f in INSIDE if f not in (whiled, while_condition, solved)]


@pytest.fixture
def operands(rng):
    return draw(rng, X), draw(rng, KERNEL)


def check(function, original, *args, compiled=jax.jit):
    """The same numbers, and no convolution of XLA's on the way."""
    expected, result = jax.jit(original)(*args), compiled(function)(*args)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, result, expected)
    assert "conv_general_dilated" in str(jax.make_jaxpr(original)(*args))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(function)(*args))


@pytest.mark.parametrize("function", INSIDE)
def test_sees_through(function, operands):
    check(accelerate(function), function, *operands, compiled=lambda eager: eager)
    check(accelerate(function), function, *operands)
    check(accelerate(jax.jit(function)), function, *operands)


def squares(function):
    def loss(*args):
        return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(function(*args)))

    return loss


@pytest.mark.parametrize("function", DIFFERENTIABLE)
def test_gradients_in_both_orders(function, operands):
    original = jax.grad(squares(function), (0, 1))
    check(jax.grad(accelerate(squares(function)), (0, 1)), original, *operands)
    check(accelerate(original), original, *operands)


@pytest.mark.parametrize("function", [f for f in DIFFERENTIABLE if f is not with_vjp])
def test_forward_mode_in_both_orders(function, operands):
    def tangent(function):
        return lambda x, k: jax.jvp(function, (x, k), (x + 1, k - 1))[1]

    check(tangent(accelerate(function)), tangent(function), *operands)
    check(accelerate(tangent(function)), tangent(function), *operands)


@pytest.mark.parametrize("function", [f for f in INSIDE if f is not sharded])
def test_vmap_in_both_orders(function, operands):
    x, k = operands
    args = jnp.stack([x, x - 1]), jnp.stack([k, k + 1])
    check(jax.vmap(accelerate(function)), jax.vmap(function), *args)
    check(accelerate(jax.vmap(function)), jax.vmap(function), *args)


def test_second_order(operands):
    def hessian(function):
        return jax.hessian(lambda k: function(operands[0], k).sum())

    def cubed(x, k):
        return lax.conv(x, k, (2, 1), "SAME") ** 3

    check(hessian(accelerate(cubed)), hessian(cubed), operands[1])
    check(accelerate(hessian(cubed)), hessian(cubed), operands[1])


def test_a_kernel_larger_than_the_image_is_a_kernel():
    """The sizes alone would make the conv a gradient, and the gradient a conv."""
    x, kernel = jnp.ones((5, 3, 2, 2)), jnp.ones((4, 3, 3, 3))

    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)])

    def gradient(x, kernel):
        return jax.linear_transpose(lambda kernel: conv(x, kernel), kernel)(conv(x, kernel))

    text = str(jax.make_jaxpr(accelerate(conv))(x, kernel))
    assert "jdeconv_conv[" in text
    assert "jdeconv_kernel_grad" not in text
    text = str(jax.make_jaxpr(accelerate(gradient))(x, kernel))
    assert text.count("jdeconv_conv[") == text.count("jdeconv_kernel_grad[") == 1


@pytest.mark.parametrize(
    "numbers",
    [
        ("NCHW", "OIHW", "NCHW"),
        ("NHWC", "HWIO", "NHWC"),
        ("NHWC", "OIHW", "NHWC"),
        ("NHWC", "OHWI", "NHWC"),
        ("NCHW", "HWIO", "NCHW"),
        ("CHWN", "IHWO", "CHWN"),
    ],
)
def test_a_conv_of_any_layout_is_a_conv(numbers):
    x, kernel = laid_out(numbers)
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": numbers}
    conv = partial(lax.conv_general_dilated, **options)
    text = str(jax.make_jaxpr(accelerate(conv))(x, kernel))
    assert "jdeconv_conv[" in text
    np.testing.assert_array_equal(accelerate(conv)(x, kernel), conv(x, kernel))


@pytest.mark.parametrize("numbers", [("NCHW", "OIHW", "NCHW"), ("NHWC", "HWIO", "NHWC")])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_gradient_of_a_conv_is_a_deconv(stride, numbers):
    x, kernel = laid_out(numbers)

    def loss(x, k):
        return lax.conv_general_dilated(x, k, (stride,) * 2, "VALID", None, None, numbers).sum()

    text = str(jax.make_jaxpr(accelerate(jax.grad(loss, (0, 1))))(x, kernel))
    calls = re.findall(r"jdeconv_(\w+)\[", text)
    assert sorted(calls) == ["conv", "deconv", "kernel_grad"]


def test_the_gradients_of_a_transposed_conv_are_recognized(operands):
    def loss(x, k):
        numbers = ("NCHW", "OIHW", "NCHW")
        return lax.conv_transpose(x, k, (2, 2), "SAME", dimension_numbers=numbers).sum()

    text = str(jax.make_jaxpr(accelerate(jax.grad(loss, (0, 1))))(*operands))
    assert "jdeconv_kernel_grad" in text
    assert "jdeconv_conv" in text


def test_what_has_no_convolution_stays_as_it_is(operands):
    def function(x, k):
        return jax.jit(lambda x: lax.fori_loop(0, 3, lambda _, x: jnp.sin(x), x))(x), k @ k

    assert str(jax.make_jaxpr(accelerate(function))(*operands)) == str(
        jax.make_jaxpr(function)(*operands)
    )


def test_names_stay(operands):
    @jax.jit
    def layer_of_mine(x, k):
        return conv(x, k)

    fast = accelerate(layer_of_mine)
    assert fast.__name__ == "layer_of_mine"
    assert "name=layer_of_mine" in str(jax.make_jaxpr(fast)(*operands))
    (call,) = jax.make_jaxpr(fast)(*operands).eqns
    assert call.params["name"] == "layer_of_mine"


def test_donated_buffers_stay_donated(operands):
    x, k = map(jnp.array, operands)
    expected = conv(x, k)
    with jax.debug_nans(False):  # which needs the operands once more
        result = accelerate(jax.jit(conv, donate_argnums=0))(x, k)
    np.testing.assert_array_equal(result, expected)
    assert x.is_deleted()
    assert not k.is_deleted()


def test_arguments_that_are_no_arrays_reach_the_function(operands):
    x, k = operands

    def function(batch, *, train, steps=1, activation=None, name="a"):
        assert isinstance(train, bool)
        assert isinstance(steps, int)
        out = batch["x"] if not train else conv(batch["x"], batch["k"][0])
        for _ in range(steps):
            out = activation(out)
        return {"out": out, "name": name, "steps": steps, "none": None}

    batch = {"x": x, "k": [k]}
    options = {"train": True, "steps": 2, "activation": jnp.negative, "name": "b"}
    result, expected = accelerate(function)(batch, **options), function(batch, **options)
    assert (result["name"], result["steps"], result["none"]) == ("b", 2, None)
    np.testing.assert_array_equal(result["out"], expected["out"])
    static = jax.jit(accelerate(function), static_argnames=("train", "steps", "activation", "name"))
    with pytest.raises(TypeError, match="str"):  # as without accelerate, jit returns no text
        static(batch, **options)
    assert accelerate(lambda x, n: x.reshape(n, -1))(x, np.int32(2)).shape[0] == 2
    by_position = accelerate(jax.jit(lambda x, k, n: n * conv(x, k), static_argnums=2))
    np.testing.assert_array_equal(by_position(x, k, 3), 3 * conv(x, k))


def test_a_jitted_function_compiles_once(operands):
    fast, events = accelerate(jax.jit(lambda x, k: conv(x, k) + 41)), []

    def listen(name, _, **__):
        events.append(name) if "backend_compile" in name else None

    jax.monitoring.register_event_duration_secs_listener(listen)
    fast(*operands)
    assert events
    events.clear()
    for _ in range(3):
        fast(*operands)
    assert not events


def test_effects_and_keys_pass(operands, capfd):
    def function(x, k, key):
        jax.debug.print("saw {}", x.sum(), ordered=True)
        return conv(x, k) + jax.random.randint(key, (), 0, 5).astype(x.dtype)

    key = jax.random.key(3)
    np.testing.assert_array_equal(accelerate(function)(*operands, key), function(*operands, key))
    jax.effects_barrier()
    assert capfd.readouterr().out.count("saw") == 2


def test_closures_over_traced_values(operands):
    x, k = operands

    def loss(function):
        return lambda k: function(lambda x: conv(x, k) * 2)(x).sum()

    np.testing.assert_array_equal(jax.grad(loss(accelerate))(k), jax.grad(loss(lambda f: f))(k))


def test_numpy_arguments_and_numbers(operands):
    x, k = map(np.asarray, operands)
    function = lambda x, k, a: a * conv(x, k)  # noqa: E731
    np.testing.assert_array_equal(accelerate(function)(x, k, 2), function(x, k, 2))
    assert jax.grad(accelerate(lambda a: (a * conv(x, k)).sum()))(2.0) == conv(x, k).sum()


def test_a_symbolic_batch_is_exported(operands):
    x, k = operands
    fast = jax.jit(accelerate(lambda x, k: lax.conv(x, k, (1, 1), "SAME")))
    (n,) = jax.export.symbolic_shape("n")
    exported = jax.export.export(fast)(jax.ShapeDtypeStruct((n, *X[1:]), x.dtype), k)
    np.testing.assert_array_equal(exported.call(x, k), fast(x, k))
    assert "stablehlo.convolution" not in exported.mlir_module()


def test_symbolic_space_stays_with_xla(operands):
    k = operands[1]
    fast = jax.jit(accelerate(lambda x, k: lax.conv(x, k, (1, 1), "SAME")))
    (h,) = jax.export.symbolic_shape("h")
    exported = jax.export.export(fast)(jax.ShapeDtypeStruct((3, 2, h, 6), k.dtype), k)
    assert "stablehlo.convolution" in exported.mlir_module()


def test_no_space_stays_with_xla(rng):
    """As in a layer that flax calls a convolution over zero axes."""
    x, k = (rng.integers(-3, 4, s).astype(np.float32) for s in ((6, 4), (8, 2)))

    def f(x, k):
        return (lax.conv_general_dilated(x, k, (), [], feature_group_count=2) ** 2).sum()

    for function in (f, jax.grad(f, (0, 1))):
        ours, theirs = (f(x, k) for f in (accelerate(function), function))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("dtype", ["int4", "float8_e8m0fnu"])
def test_dtypes_that_are_not_ours_stay_with_xla(dtype):
    x, k = jnp.ones((1, 2, 5), dtype), jnp.ones((3, 2, 2), dtype)

    def f(x, k):
        return lax.conv_general_dilated(x, k, (1,), [(0, 0)])

    assert str(jax.make_jaxpr(accelerate(f))(x, k)) == str(jax.make_jaxpr(f)(x, k))


def test_a_function_that_changes_its_arguments_is_refused(operands):
    def function(batch):
        batch["y"] = conv(*batch["operands"])

    with pytest.raises(ValueError, match=r"accelerate: function .*changes its arguments in place"):
        accelerate(function)({"operands": operands})


def test_space_sharded_on_an_explicit_mesh_stays_with_xla(rng):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))

    def function(x, k):
        return lax.conv(x, k, (1,), "SAME")

    with jax.set_mesh(mesh):
        x = jax.device_put(draw(rng, (2, 3, 16)), P(None, None, "d"))
        k = jnp.asarray(draw(rng, (4, 3, 5)))
        expected, found = (jax.jit(f)(x, k) for f in (function, accelerate(function)))
        assert found.sharding == expected.sharding
        np.testing.assert_array_equal(found, expected)
        assert "jdeconv" not in str(jax.make_jaxpr(accelerate(function))(x, k))
        batch = jax.device_put(draw(rng, (4, 3, 16)), P("d", None, None))
        assert "jdeconv" in str(jax.make_jaxpr(accelerate(function))(batch, k))


@pytest.mark.parametrize("transposed", [False, True])
def test_space_sharded_on_an_automatic_mesh_gathers_nothing(transposed, rng):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, P(None, None, "d"))
    x, k = jax.device_put(draw(rng, (2, 3, 16)), place), draw(rng, (3, 3, 5))
    numbers = ("NCH", "IOH", "NCH")

    def loss(x, k):
        if transposed:
            return (lax.conv_transpose(x, k, (2,), "SAME", dimension_numbers=numbers) ** 2).sum()
        return (lax.conv(x, k, (2,), "SAME") ** 2).sum()

    gradients = jax.value_and_grad(loss, (0, 1))
    compiled = jax.jit(accelerate(gradients)).lower(x, k).compile()
    jax.tree.map(np.testing.assert_array_equal, compiled(x, k), jax.jit(gradients)(x, k))
    kinds = {kind for kind in ("all-gather", "collective-permute") if kind in compiled.as_text()}
    assert kinds == {"collective-permute"}


def test_constants_and_numpys_results_come_back_as_arrays(operands):
    x, k = operands

    def function(x, k):
        constants = jnp.float32(2), jnp.zeros(()), np.arange(3), np.asarray(4)
        return constants, x, conv(x, k), 3.0

    *arrays, number = jax.tree.leaves(accelerate(function)(x, k))
    assert all(isinstance(a, jax.Array) for a in arrays)
    assert isinstance(number, float)
    for found, expected in zip(arrays, jax.tree.leaves(function(x, k)), strict=False):
        assert found.dtype == jax.dtypes.canonicalize_dtype(expected.dtype)
        np.testing.assert_array_equal(found, expected)
    no_gradient = accelerate(jax.grad(lambda n, x, k: conv(x, k).sum(), allow_int=True))(3, x, k)
    assert no_gradient.dtype == jax.dtypes.float0


@accelerate
def decorated(x, k):
    return conv(x, k)


def test_pickle_takes_what_a_name_leads_to(operands):
    again = pickle.loads(pickle.dumps(decorated))
    np.testing.assert_array_equal(again(*operands), conv(*operands))
    with pytest.raises(pickle.PicklingError, match="conv"):
        pickle.dumps(accelerate(conv))


SAVES = jax.checkpoint_policies


@pytest.mark.parametrize(
    ("policy", "count"), [(SAVES.save_only_these_names("y"), 2), (SAVES.nothing_saveable, 3)]
)
def test_checkpoint_policies_by_name_save_the_same(policy, count, operands):
    @partial(jax.checkpoint, policy=policy)
    def loss(x, k):
        return jnp.sin(checkpoint_name(lax.conv(x, k, (1, 1), "SAME"), "y")).sum()

    own, ours = (
        str(jax.make_jaxpr(jax.grad(function))(*operands)) for function in (loss, accelerate(loss))
    )
    counts = len(re.findall(r"= conv_general", own)), len(re.findall(r"= jdeconv_\w+\[", ours))
    assert counts == (count, count)
    np.testing.assert_allclose(
        jax.grad(accelerate(loss))(*operands), jax.grad(loss)(*operands), atol=1e-4
    )


def test_a_call_that_stays_xlas_adds_no_operation_to_the_program(rng):
    """For a GPU, where the vendor's convolution is taken, forward and backward."""
    x, k = jnp.asarray(draw(rng, (2, 9, 8, 4))), jnp.asarray(draw(rng, (3, 3, 4, 5)))
    numbers = ("NHWC", "HWIO", "NHWC")

    def loss(k, x):
        y = lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=numbers)
        return jnp.sin(y).sum()

    def operations(function):
        traced = jax.jit(function).trace(k, x)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        return Counter(re.findall(r"stablehlo\.\w+", text))

    for function in (loss, jax.grad(loss)):
        assert operations(accelerate(function)) == operations(function)


def writes_remat(nnx, module, x):
    return nnx.remat(lambda m, x: m(x))(module, x)


def writes_jit(nnx, module, x):
    return nnx.jit(lambda m, x: m(x))(module, x)


def writes_dropout(nnx, module, x):
    return module.dropout(module(x))


@pytest.mark.parametrize("function", [writes_remat, writes_jit, writes_dropout])
def test_what_writes_into_a_state_of_flax_needs_a_copy(function):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 2, (3, 3), rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.conv(x)

    graph, state = nnx.split(Model(nnx.Rngs(0)))

    def loss(state, x, **options):
        module = nnx.merge(graph, state, **options)
        return (function(nnx, module, x) ** 2).sum()

    x = jnp.ones((1, 5, 4, 3))
    copied = accelerate(lambda *a: loss(*a, copy=True))
    np.testing.assert_allclose(jax.jit(copied)(state, x), jax.jit(loss)(state, x), rtol=1e-5)
    ours, theirs = (jax.jit(jax.grad(f, allow_int=True))(state, x) for f in (copied, loss))
    for found, expected in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        if found.dtype == np.float32:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="copy=True"):
        jax.jit(accelerate(loss))(state, x)
