"""Every transformation of JAX, through conv and deconv, against the same transformation of jax.lax."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from thinned import thinned

import jdeconv
from jdeconv import bilinear
from jdeconv.lowerings import LOWERINGS

STEPS = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}
BIG, KERNEL, SMALL = (6, 5), (3, 2), (3, 5)
SHAPES = {"x": (2, 4, *BIG), "kernel": (6, 2, *KERNEL), "y": (2, 6, *SMALL)}
OPERANDS = {"conv": ("x", "kernel"), "deconv": ("y", "kernel"), "kernel_grad": ("x", "y")}


def lax_conv(x, kernel):
    window = (STEPS["stride"], STEPS["padding"], None, STEPS["dilation"])
    return lax.conv_general_dilated(x, kernel, *window, feature_group_count=2)


def lax_deconv(y, kernel):
    x = jax.ShapeDtypeStruct((y.shape[0], *SHAPES["x"][1:]), y.dtype)
    return jax.linear_transpose(lambda x: lax_conv(x, kernel), x)(y)[0]


def lax_kernel_grad(x, y):
    kernel = jax.ShapeDtypeStruct(SHAPES["kernel"], x.dtype)
    return jax.linear_transpose(lambda kernel: lax_conv(x, kernel), kernel)(y)[0]


def ours(module, name):
    more = {"conv": (), "deconv": (), "kernel_grad": (KERNEL,)}[name]
    size = {"output_size": BIG} if name == "deconv" else {}
    function = getattr(module, name)
    return lambda a, b: function(a, b, *more, groups=2, **size, **STEPS)


LAX = {"conv": lax_conv, "deconv": lax_deconv, "kernel_grad": lax_kernel_grad}
PAIRS = {
    f"{module.__name__}.{name}": (ours(module, name), LAX[name], name)
    for module in (jdeconv, bilinear)
    for name in LAX
}
REVERSE = [PAIRS[f"jdeconv.{name}"] for name in LAX]
FORWARD = [PAIRS[f"jdeconv.bilinear.{name}"] for name in LAX]


def draw(rng, shape, high=2):
    return rng.integers(-high, high + 1, shape).astype(np.float32)


def operands(rng, name):
    return tuple(draw(rng, SHAPES[role]) for role in OPERANDS[name])


def assert_same(ours, lax, *args):
    """Both functions, jitted, give equal trees of arrays, and not all zero."""
    left, right = jax.jit(ours)(*args), jax.jit(lax)(*args)
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.any(a)


def loss(function):
    """A polynomial of degree 2 in the result, so that derivatives up to the third differ."""
    return lambda a, b: (function(a, b) * (function(a, b) + 1)).sum()


@pytest.mark.parametrize(("function", "reference", "name"), PAIRS.values(), ids=PAIRS)
def test_jit_and_eager_agree_with_lax(function, reference, name, rng):
    a, b = operands(rng, name)
    np.testing.assert_array_equal(function(a, b), reference(a, b))
    assert_same(function, reference, a, b)


@pytest.mark.parametrize(("function", "reference", "name"), PAIRS.values(), ids=PAIRS)
def test_grad_and_vjp(function, reference, name, rng):
    a, b = operands(rng, name)
    assert_same(*(jax.grad(loss(f), (0, 1)) for f in (function, reference)), a, b)


@pytest.mark.parametrize(("function", "reference", "name"), PAIRS.values(), ids=PAIRS)
def test_grad_of_grad_of_grad(function, reference, name, rng):
    a, b = operands(rng, name)
    da, db = draw(rng, a.shape, 1), draw(rng, b.shape, 1)

    def third(f):
        def first(a, b):
            g = jax.grad(loss(f), (0, 1))(a, b)
            return (g[0] * da).sum() + (g[1] * db).sum()

        def second(a, b):
            g = jax.grad(first, (0, 1))(a, b)
            return (g[0] * da).sum() + (g[1] * db).sum()

        return jax.grad(second, (0, 1))

    assert_same(third(function), third(reference), a, b)


@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_jvp_of_grad(function, reference, name, rng):
    a, b = operands(rng, name)
    tangents = draw(rng, a.shape, 1), draw(rng, b.shape, 1)

    def product(f):
        return lambda a, b: jax.jvp(jax.grad(loss(f), (0, 1)), (a, b), tangents)

    assert_same(product(function), product(reference), a, b)


SUBSETS = [axes for axes in itertools.product((None, 0, 2), repeat=2) if axes != (None, None)]


@pytest.mark.parametrize("axes", SUBSETS)
@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_vmap_holds_one_contraction(function, reference, name, axes, rng):
    shapes = [list(SHAPES[role]) for role in OPERANDS[name]]
    for shape, axis in zip(shapes, axes, strict=True):
        if axis is not None:
            shape.insert(axis, 3)
    a, b = (draw(rng, shape) for shape in shapes)
    mapped = jax.vmap(function, axes)
    assert_same(mapped, jax.vmap(reference, axes), a, b)
    assert primitives(jax.make_jaxpr(mapped)(a, b)).count(f"jdeconv_{name}") == 1


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_vmap_of_gradients(function, reference, name, axes, rng):
    a, b = operands(rng, name)
    a = np.stack([a, 1 - a, 2 * a]) if axes[0] == 0 else a
    b = np.stack([b, b - 1, -b]) if axes[1] == 0 else b
    assert_same(*(jax.vmap(jax.grad(loss(f), (0, 1)), axes) for f in (function, reference)), a, b)


@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_vmap_of_vmap(function, reference, name, rng):
    a, b = operands(rng, name)
    a, b = np.stack([a, 1 - a]), np.stack([b, b - 1, -b])

    def outer(f):
        return jax.vmap(jax.vmap(f, (None, 0)), (0, None))

    assert_same(outer(function), outer(reference), a, b)


@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_vmap_of_nothing(function, reference, name, rng):
    a, b = operands(rng, name)
    for axes in ((0, None), (None, 0), (0, 0)):
        args = [
            m if axis is None else np.stack([m])[:0] for m, axis in zip((a, b), axes, strict=True)
        ]
        mapped = jax.vmap(function, axes)(*args)
        assert mapped.shape == (0, *reference(a, b).shape)


def test_vmap_gives_a_named_lowering_way(rng):
    """Mapped inputs and kernels make groups, which nhwc cannot serve."""
    xs, kernels = draw(rng, (17, 2, 4, 6, 5)), draw(rng, (17, 5, 4, 3, 2))
    named = jax.vmap(lambda x, k: jdeconv.conv(x, k, padding=1, lowering="nhwc"))(xs, kernels)
    for result, x, kernel in zip(named, xs, kernels, strict=True):
        np.testing.assert_array_equal(result, jdeconv.conv(x, kernel, padding=1))


def stack(function, inverse, wrap=lambda f: f):
    """Conv there and deconv back, some times over, by scan; the kernels are scanned over."""

    def step(x, kernel):
        return wrap(lambda x: inverse(function(x, kernel) % 5, kernel) % 7)(x), x.sum()

    return lambda x, kernels: lax.scan(step, x, kernels)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint], ids=["scan", "remat"])
def test_scan_and_remat(wrap, rng):
    x, kernels = draw(rng, SHAPES["x"]), draw(rng, (3, *SHAPES["kernel"]), 1)
    pairs = [(ours(jdeconv, "conv"), ours(jdeconv, "deconv")), (lax_conv, lax_deconv)]
    both = [stack(*pair, wrap) for pair in pairs]
    assert_same(*both, x, kernels)
    gradients = [jax.grad(lambda x, k, f=f: (f(x, k)[0] % 7).sum(), (0, 1)) for f in both]
    assert_same(*gradients, x, kernels)


@pytest.mark.parametrize("flag", [True, False])
def test_cond(flag, rng):
    x, kernel = operands(rng, "conv")

    def branches(conv):
        def f(flag, x, kernel):
            return lax.cond(flag, lambda x: conv(x, kernel), lambda x: -2 * conv(x, kernel), x)

        return lambda flag, x, kernel: jax.value_and_grad(lambda *a: f(flag, *a).sum(), (0, 1))(
            x, kernel
        )

    assert_same(branches(ours(jdeconv, "conv")), branches(lax_conv), flag, x, kernel)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
@pytest.mark.parametrize(("function", "name"), [(f, name) for f, _, name in REVERSE[:2]])
def test_export_of_the_gradient(function, name, platform, rng):
    a, b = operands(rng, name)
    gradient = jax.jit(jax.grad(loss(function), (0, 1)))
    exported = jax.export.export(gradient, platforms=[platform])(a, b)
    assert exported.platforms == (platform,)
    again = jax.export.deserialize(exported.serialize())
    if platform == "cpu":
        jax.tree.map(np.testing.assert_array_equal, again.call(a, b), gradient(a, b))
    else:
        assert "stablehlo.convolution" in exported.mlir_module()


STRIDES = ({}, {"stride": 2, "groups": 2}, {"dilation": 2, "groups": 4})


@pytest.mark.parametrize(
    ("name", "rank", "steps"), thinned(itertools.product(("conv", "deconv"), (1, 2, 3), STRIDES), 4)
)
def test_export_with_symbolic_batch(name, rank, steps, rng):
    """Forward and both gradients for three platforms at once, serialized, and run again for another batch."""
    function, groups = getattr(jdeconv, name), steps.get("groups", 1)
    into = 4 if name == "conv" else 8
    a = rng.integers(-3, 4, (5, into, *(6, 5, 4)[:rank])).astype(np.float32)
    kernel = rng.integers(-3, 4, (8, 4 // groups, *(2, 3, 1)[:rank])).astype(np.float32)

    @jax.jit
    def all_three(a, kernel):
        y, vjp = jax.vjp(lambda a, k: function(a, k, padding=1, **steps), a, kernel)
        return y, *vjp(y % 3)

    (batch,) = jax.export.symbolic_shape("batch")
    args = jax.ShapeDtypeStruct((batch, *a.shape[1:]), a.dtype), kernel
    exported = jax.export.export(all_three, platforms=["cpu", "cuda", "tpu"])(*args)
    again = jax.export.deserialize(exported.serialize())
    assert again.platforms == ("cpu", "cuda", "tpu")
    jax.tree.map(np.testing.assert_array_equal, again.call(a, kernel), all_three(a, kernel))


@pytest.mark.parametrize(("function", "reference", "name"), FORWARD)
def test_forward_mode(function, reference, name, rng):
    a, b = operands(rng, name)
    da, db = draw(rng, a.shape), draw(rng, b.shape)
    assert_same(
        *(lambda a, b, f=f: jax.jvp(f, (a, b), (da, db)) for f in (function, reference)), a, b
    )
    assert_same(
        *(lambda a, b, f=f: jax.linearize(f, a, b)[1](da, db) for f in (function, reference)), a, b
    )


@pytest.mark.parametrize(("function", "reference", "name"), FORWARD)
def test_jacfwd_and_hessian(function, reference, name, rng):
    a, b = operands(rng, name)
    weight = draw(rng, jax.eval_shape(function, a, b).shape, 1)

    def narrowed(f):
        """Few parameters, as a hessian is square in them."""
        return lambda s, t: (f(a * s, b * t.sum()) * weight).reshape(-1, 6).sum(0)

    s, t = np.array(2.0, np.float32), np.array([1.0, -2.0, 3.0], np.float32)
    assert_same(*(jax.jacfwd(narrowed(f), (0, 1)) for f in (function, reference)), s, t)
    assert_same(*(jax.jacrev(narrowed(f), (0, 1)) for f in (function, reference)), s, t)
    hessians = [
        jax.hessian(lambda s, t, f=f: (narrowed(f)(s, t) ** 2)[:2].sum(), (0, 1))
        for f in (lambda a, b: function(a, b) % 3, lambda a, b: reference(a, b) % 3)
    ]
    assert_same(*hessians, s, t)


@pytest.mark.parametrize("operand", [0, 1])
@pytest.mark.parametrize(("function", "reference", "name"), FORWARD)
def test_linear_transpose(function, reference, name, operand, rng):
    arrays = operands(rng, name)
    cotangent = draw(rng, jax.eval_shape(function, *arrays).shape)

    def transposed(f):
        def alone(a, other):
            return f(a, other) if operand == 0 else f(other, a)

        return lambda a, other: jax.linear_transpose(lambda a: alone(a, other), a)(cotangent)

    assert_same(transposed(function), transposed(reference), arrays[operand], arrays[1 - operand])


@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_custom_vjp_has_no_forward_mode(function, reference, name, rng):
    a, b = operands(rng, name)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(function, (a, b), (a, b))
    assert reference(a, b).shape == function(a, b).shape


DUALS = {
    "conv": {"jdeconv_deconv", "jdeconv_kernel_grad"},
    "deconv": {"jdeconv_conv", "jdeconv_kernel_grad"},
    "kernel_grad": {"jdeconv_deconv", "jdeconv_conv"},
}


@pytest.mark.parametrize(("function", "reference", "name"), REVERSE)
def test_each_is_a_custom_vjp_whose_gradient_is_its_duals(function, reference, name, rng):
    a, b = operands(rng, name)
    forward = primitives(jax.make_jaxpr(function)(a, b))
    assert forward.count("custom_vjp_call") == 1
    assert [p for p in forward if p.startswith("jdeconv")] == [f"jdeconv_{name}"]
    _, vjp = jax.vjp(function, a, b)
    backward = primitives(jax.make_jaxpr(vjp)(reference(a, b)))
    assert {p for p in backward if p.startswith("jdeconv")} == DUALS[name]
    assert len([p for p in backward if p.startswith("jdeconv")]) == 2


def primitives(jaxpr):
    """The names of all primitives in a jaxpr, those of inner jaxprs included."""
    names = []
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        names.append(equation.primitive.name)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=has_equations):
            if has_equations(value):
                names += primitives(value)
    return names


def has_equations(value):
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")


def test_the_gradient_of_jnp_code_around_it(rng):
    """A network of both, as users write it, in bfloat16 with a bias and a channels-last layout."""
    layout = ("NHWC", "HWIO", "NHWC")
    x, kernel = draw(rng, (2, 6, 5, 4)), draw(rng, (3, 3, 4, 3))
    bias = draw(rng, (3,))

    def net(x, kernel, bias):
        h = jax.nn.relu(
            jdeconv.conv(x, kernel, bias, stride=2, padding=1, dimension_numbers=layout)
        )
        return jdeconv.deconv(
            h, kernel, stride=2, padding=1, output_size=(6, 5), dimension_numbers=layout
        )

    def reference(x, kernel, bias):
        h = lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)
        h = jax.nn.relu(h + bias.reshape(1, 1, 1, -1))
        return jax.linear_transpose(
            lambda x: lax.conv_general_dilated(
                x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout
            ),
            x,
        )(h)[0]

    gradients = [jax.grad(lambda *a, f=f: (f(*a) % 11).sum(), (0, 1, 2)) for f in (net, reference)]
    assert_same(*gradients, *map(jnp.asarray, (x, kernel, bias)))


@pytest.mark.parametrize("channels", [(2, 3), (12, 14)], ids=str)
@pytest.mark.parametrize("lowering", [None, *LOWERINGS])
def test_a_batch_of_nothing(lowering, channels):
    c, o = channels
    x, kernel, y = (np.ones(s, np.float32) for s in ((0, c, 9, 8), (o, c, 3, 3), (0, o, 7, 6)))
    assert jdeconv.conv(x, kernel, lowering=lowering).shape == y.shape
    assert jdeconv.deconv(y, kernel, lowering=lowering).shape == x.shape
    grad = jdeconv.kernel_grad(x, y, (3, 3), lowering=lowering)
    assert grad.shape == kernel.shape
    assert not grad.any()


@pytest.mark.parametrize("lowering", [None, "nhwc"])
@pytest.mark.parametrize("shapes", [("n, c, 9, 8", "16, c, 3, 3"), ("n, 16, 9, 8", "o, 16, 3, 3")])
def test_export_with_symbolic_channels(shapes, lowering, rng):
    x, kernel = (
        jax.ShapeDtypeStruct(jax.export.symbolic_shape(s, scope=scope), np.float32)
        for scope in (jax.export.SymbolicScope(),)
        for s in shapes
    )
    layer = partial(jdeconv.conv, lowering=lowering)
    gradient = jax.jit(jax.grad(lambda x, k: (layer(x, k) ** 2).sum(), (0, 1)))
    exported = jax.export.export(gradient, platforms=["cpu"])(x, kernel)
    x, kernel = draw(rng, (3, 16, 9, 8)), draw(rng, (16, 16, 3, 3))
    jax.tree.map(np.testing.assert_array_equal, exported.call(x, kernel), gradient(x, kernel))
