"""jdeconv.layers.nnx beside Flax's own layers, exactly, on small integers."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from layer_checks import MODES, assert_same, integers, refuses
from thinned import thinned

nnx = pytest.importorskip("flax.nnx")
layers = pytest.importorskip("jdeconv.layers.nnx")


def filled(layer, seed=0):
    """The layer with small integers for parameters."""
    rng = np.random.default_rng(seed)
    params = nnx.state(layer, nnx.Param)
    nnx.update(layer, jax.tree.map(lambda a: integers(rng, *a.shape, dtype=a.dtype), params))
    return layer


def evaluated(layer, x):
    """What the layer returns, and the gradients of a weighted sum of that by parameters and by x."""
    graph, state = nnx.split(layer)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(state, x):
        y = nnx.merge(graph, state)(x)
        weights = (jnp.arange(y.size) % 7 - 3).reshape(y.shape)
        return (y * weights).sum(), y

    return jax.tree.leaves(gradients(state, x))


def drawn(seed):
    """Arguments of both layers, those of Conv alone, those of ConvTranspose alone, and inputs."""
    rng = np.random.default_rng(seed)
    rank, groups = int(rng.choice([1, 1, 2, 2, 3])), int(rng.integers(1, 4))

    def each(low, high):
        return [int(n) for n in rng.integers(low, high, rank)]

    pads = [[int(n) for n in rng.integers(0, 3, 2)] for _ in range(rank)]
    padding = [
        *("SAME", "VALID", "CIRCULAR", 1, each(0, 3)),
        [tuple(pair) for pair in pads],
    ][seed % 6]
    options = {
        "in_features": 2 * groups,
        "out_features": 3 * groups,
        "kernel_size": each(1, 5) if rank > 1 or seed % 2 else int(rng.integers(1, 5)),
        "strides": [None, 2, each(1, 4)][seed % 3],
        "padding": padding,
        "kernel_dilation": [None, each(1, 3)][rng.integers(2)],
        "use_bias": bool(rng.integers(2)),
        "precision": [None, "highest", ("default", "high")][rng.integers(3)],
        "dtype": [None, jnp.float32][rng.integers(2)],
    }
    conv = {"feature_group_count": groups}
    if rng.integers(2) and not isinstance(padding, str):
        conv["input_dilation"] = each(1, 3)
    elif rank == 1 and seed % 5 == 0:
        conv["padding"] = "CAUSAL"
    elif seed % 5 == 1:
        conv["padding"] = "REFLECT"
    transpose = {"transpose_kernel": bool(rng.integers(2))}
    batch = (2, 3)[: rng.integers(3)]
    x = integers(rng, *batch, *[int(n) for n in rng.integers(6, 9, rank)], 2 * groups)
    return options, conv, transpose, x


def pair(name, seed, **options):
    """Our layer and Flax's, from the same key; with a mask now and then."""
    theirs = getattr(nnx, name)(**options, rngs=nnx.Rngs(seed))
    if seed % 4 == 0:
        rng = np.random.default_rng(seed)
        options["mask"] = jnp.asarray(rng.integers(0, 2, theirs.kernel_shape), jnp.float32)
        theirs = getattr(nnx, name)(**options, rngs=nnx.Rngs(seed))
    return getattr(layers, name)(**options, rngs=nnx.Rngs(seed)), theirs


@pytest.mark.parametrize("seed", thinned(range(120), 7))
@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_values_and_gradients_are_those_of_flax(name, seed):
    options, conv, transpose, x = drawn(seed)
    ours, theirs = pair(name, seed, **options | (conv if name == "Conv" else transpose))
    assert jax.tree.structure(nnx.state(ours)) == jax.tree.structure(nnx.state(theirs))
    assert_same(jax.tree.leaves(nnx.state(ours)), jax.tree.leaves(nnx.state(theirs)))
    assert isinstance(ours, type(theirs))
    assert_same(evaluated(filled(ours), x), evaluated(filled(theirs), x))


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_groups_are_layers_side_by_side(rng, transpose_kernel):
    options = {"kernel_size": (3, 2), "strides": (2, 1), "transpose_kernel": transpose_kernel}
    ours = layers.ConvTranspose(6, 9, feature_group_count=3, **options, rngs=nnx.Rngs(0))
    filled(ours)
    x = integers(rng, 2, 4, 5, 6)
    parts = []
    for g in range(3):
        theirs = nnx.ConvTranspose(2, 3, **options, rngs=nnx.Rngs(0))
        inside = slice(2 * g, 2 * g + 2) if transpose_kernel else slice(3 * g, 3 * g + 3)
        theirs.kernel[...] = ours.kernel[..., inside]
        theirs.bias[...] = ours.bias[3 * g : 3 * g + 3]
        parts.append(theirs(x[..., 2 * g : 2 * g + 2]))
    assert (
        ours.kernel.shape == ours.kernel_shape == (3, 2, *((3, 6) if transpose_kernel else (2, 9)))
    )
    np.testing.assert_array_equal(ours(x), jnp.concatenate(parts, -1))


def test_initializers_see_the_kernel_that_there_is():
    seen = []

    def init(key, shape, dtype):
        seen.append(shape)
        return jnp.zeros(shape, dtype)

    layers.ConvTranspose(4, 6, 3, feature_group_count=2, kernel_init=init, rngs=nnx.Rngs(0))
    assert seen == [(3, 2, 6)]
    kernel = layers.ConvTranspose(4, 600, 3, feature_group_count=2, rngs=nnx.Rngs(0)).kernel[...]
    assert float(kernel.std()) == pytest.approx((3 * 2) ** -0.5, rel=0.05)


def plain(conv, x):
    """What a conv without bias computes, by jnp.pad and jax.lax."""
    mode = conv.padding.upper() if conv.padding in ("CIRCULAR", "REFLECT") else conv.padding_mode
    span = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.kernel_dilation, strict=True)]
    if conv.padding in ("SAME", "SAME_LOWER", "VALID"):
        pads = lax.padtype_to_pads(x.shape[1:-1], span, conv.strides, conv.padding)
    elif conv.padding == "CAUSAL":
        pads = [(n - 1, 0) for n in span]
    else:
        named = isinstance(conv.padding, str)
        pads = [((n - 1) // 2, n // 2) for n in span] if named else conv.padding
    if mode != "ZEROS":
        x, pads = jnp.pad(x, [(0, 0), *pads, (0, 0)], MODES[mode]), "VALID"
    space = "HW"[: len(span)]
    return lax.conv_general_dilated(
        x,
        conv.kernel[...],
        conv.strides,
        pads,
        rhs_dilation=conv.kernel_dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=conv.feature_group_count,
    )


PADDINGS = {
    1: ["SAME", "SAME_LOWER", "VALID", "CIRCULAR", "REFLECT", "CAUSAL", [(2, 1)]],
    2: ["SAME", "CIRCULAR", "REFLECT", [(1, 0), (2, 3)]],
}
CASES = [
    (rank, padding, mode)
    for rank in PADDINGS
    for padding, mode in itertools.product(PADDINGS[rank], ["ZEROS", *MODES])
    if mode == "ZEROS" or padding not in ("CIRCULAR", "REFLECT", "VALID")
]


@pytest.mark.parametrize(("rank", "padding", "mode"), CASES)
def test_padding_modes_and_their_adjoints(rng, rank, padding, mode):
    """Conv beside jnp.pad and jax.lax; the tied layer and ConvTranspose beside the transpose of these."""
    steps = {"strides": (2, 3)[:rank], "kernel_dilation": (1, 2)[-rank:], "padding": padding}
    options = {"padding_mode": mode, "feature_group_count": 2, "use_bias": False} | steps
    conv = filled(layers.Conv(4, 6, (4, 3)[:rank], **options, rngs=nnx.Rngs(0)))
    size = (7, 8)[:rank]
    x = integers(rng, 2, *size, 4)
    y, transposed = jax.vjp(partial(plain, conv), x)
    np.testing.assert_array_equal(conv(x), y)
    y = integers(rng, *y.shape)
    (back,) = transposed(y)
    tied = layers.TiedConvTranspose(conv, use_bias=False, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(tied(y, output_size=size), back)
    assert (conv(x) * y).sum() == (x * tied(y, size)).sum()

    if padding == "CAUSAL":  # in a ConvTranspose it looks back, which is no adjoint of the conv
        return
    options |= {"transpose_kernel": True, "rngs": nnx.Rngs(0)}
    up = layers.ConvTranspose(6, 4, (4, 3)[:rank], **options)
    up.kernel[...] = conv.kernel[...]
    if isinstance(padding, list):  # of zeros around the dilated input, as Flax has it
        spans = [d * (k - 1) for k, d in zip(up.kernel_size, up.kernel_dilation, strict=True)]
        up.padding = [(n - a, n - b) for n, (a, b) in zip(spans, padding, strict=True)]
    if padding != "CIRCULAR":  # which Flax lays elsewhere
        np.testing.assert_array_equal(up(y, output_size=size), back)


def test_causal_layers_look_back_only(rng):
    x = integers(rng, 9, 1)
    later = x.at[5:].add(1)
    for layer, factor in (
        (layers.Conv(1, 1, 3, padding="causal", kernel_dilation=2, rngs=nnx.Rngs(0)), 1),
        (layers.ConvTranspose(1, 1, 3, 2, padding="CAUSAL", rngs=nnx.Rngs(0)), 2),
    ):
        before, after = layer(x), layer(later)
        assert before.shape == (9 * factor, 1)
        np.testing.assert_array_equal(before[: 5 * factor], after[: 5 * factor])
        assert (before[5 * factor] != after[5 * factor]).all()


@pytest.mark.parametrize("padding", ["SAME", "VALID", "REFLECT", "CAUSAL", "CIRCULAR", 2])
def test_output_sizes(rng, padding):
    """Those that a conv of the same padding maps to the input's size, and output_padding beside them."""
    make = partial(layers.ConvTranspose, 2, 3, 5, 3, padding=padding, rngs=nnx.Rngs(0))
    layer, x = filled(make()), integers(rng, 4, 2)
    default = layer(x)
    least = {"VALID": 14, 2: 3 * 3 + 1}.get(padding, 3 * 3 + 1)
    assert default.shape == ({"VALID": 14, 2: 10}.get(padding, 12), 3)
    for size in range(least, least + 3):
        assert layer(x, size).shape == (size, 3)
    with pytest.raises(ValueError, match="ConvTranspose: output_size"):
        layer(x, least - 1)
    if padding in ("VALID", 2):
        longer = filled(make(output_padding=2))
        np.testing.assert_array_equal(longer(x), layer(x, len(default) + 2))


def test_the_tied_layers_share_one_parameter(rng):
    class Autoencoder(nnx.Module):
        def __init__(self, rngs):
            self.down = filled(layers.Conv(1, 2, (3, 2), 2, rngs=rngs))
            self.up = filled(layers.TiedConvTranspose(self.down, rngs=rngs), 1)

        def __call__(self, x):
            return self.up(self.down(x), x.shape[1:-1])

    model = Autoencoder(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    assert {tuple(map(str, path)) for path, _ in nnx.to_flat_state(state)} == {
        ("down", "bias"),
        ("down", "kernel"),
        ("up", "bias"),
    }
    x, weights = integers(rng, 2, 5, 6, 1), integers(rng, 2, 5, 6, 1)
    found = nnx.grad(lambda model: (model(x) * weights).sum())(model)

    def convolved(kernel, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=numbers)

    def separate(down, up, bias):
        y = convolved(down, x) + model.down.bias[...].reshape(1, 1, 1, 2)
        (back,) = jax.linear_transpose(partial(convolved, up), x)(y)
        return ((back + bias.reshape(1, 1, 1, 1)) * weights).sum()

    kernel = model.down.kernel[...]
    first, second, bias = jax.grad(separate, (0, 1, 2))(kernel, kernel, model.up.bias[...])
    np.testing.assert_array_equal(found["down"]["kernel"][...], first + second)
    np.testing.assert_array_equal(found["up"]["bias"][...], bias)
    assert found["down"]["bias"].shape == (2,)

    optimizer = nnx.Optimizer(model, pytest.importorskip("optax").sgd(1 / 64), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: (model(x) * weights).sum())(model))

    step(model, optimizer)
    assert model.up.conv.kernel is model.down.kernel
    np.testing.assert_array_equal(model.down.kernel[...], kernel - (first + second) / 64)


def test_a_tied_layer_has_its_convs_mask_and_dtypes(rng):
    mask = integers(rng, 3, 2, 3)
    conv = layers.Conv(2, 3, 3, mask=mask, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    filled(conv)
    tied = layers.TiedConvTranspose(conv, bias_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    y = integers(rng, 5, 3)
    masked = layers.Conv(2, 3, 3, rngs=nnx.Rngs(0))
    masked.kernel[...] = conv.kernel[...] * mask
    expected = layers.TiedConvTranspose(masked, use_bias=False, rngs=nnx.Rngs(0))(y) + 1
    assert tied(y).dtype == jnp.bfloat16
    np.testing.assert_array_equal(tied(y), expected)


# Training steps.


class Net(nnx.Module):
    """A conv, repeated convs by scan, and a transposed conv."""

    def __init__(self, module, rngs, remat=False, dtype=None):
        options = {"rngs": rngs, "dtype": dtype}
        self.down = filled(module.Conv(1, 4, (3, 3), 2, **options))
        self.middle = nnx.vmap(
            lambda key: module.Conv(4, 4, (3, 1), rngs=nnx.Rngs(key), dtype=dtype)
        )(jax.random.split(jax.random.key(0), 2))
        filled(self.middle)
        self.up = filled(module.ConvTranspose(4, 1, (3, 3), 2, **options))
        self.remat = remat

    def __call__(self, x):
        x = self.down(x)

        def body(x, layer):
            return layer(x)

        body = nnx.remat(body) if self.remat else body
        x = nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.middle)
        return self.up(x)


@pytest.mark.parametrize("variant", ["plain", "remat", "bfloat16", "vmap"])
def test_training_steps_are_those_of_flax(rng, variant):
    x = jnp.asarray(rng.integers(-1, 2, (2, 6, 8, 1)), jnp.float32)
    found = []
    for module in (layers, nnx):
        options = {"remat": variant == "remat"}
        options |= {"dtype": jnp.bfloat16} if variant == "bfloat16" else {}
        model = Net(module, nnx.Rngs(0), **options)

        @nnx.jit
        def step(model):
            def loss(model):
                mapped = nnx.vmap(lambda model, x: model(x), in_axes=(None, 0))
                y = mapped(model, x) if variant == "vmap" else model(x)
                return y.astype(jnp.float32).sum()

            value, grads = nnx.value_and_grad(loss)(model)
            params = nnx.state(model, nnx.Param)
            nnx.update(model, jax.tree.map(lambda p, g: p - g / 1024, params, grads))
            return value, grads

        first, (second, _) = step(model), step(model)
        found.append((jax.tree.leaves(first), second))
    (all_ours, our_second), (all_theirs, their_second) = found
    np.testing.assert_allclose(
        our_second, their_second, rtol=0.05 if variant == "bfloat16" else 1e-5
    )
    assert our_second < all_ours[0]
    for ours, theirs in zip(all_ours, all_theirs, strict=True):
        assert ours.dtype == theirs.dtype
        if variant == "bfloat16":  # Flax on CPU rounds sums on the way
            np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.05)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_half_precision_adds_up_in_single(rng):
    conv = filled(layers.Conv(8, 3, 5, dtype=jnp.bfloat16, padding="CIRCULAR", rngs=nnx.Rngs(0)))
    wide = filled(layers.Conv(8, 3, 5, padding="CIRCULAR", rngs=nnx.Rngs(0)))
    x = integers(rng, 2, 9, 8)
    assert conv.kernel.dtype == jnp.float32
    found = conv(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, wide(x).astype(jnp.bfloat16))
    result = layers.Conv(
        2, 3, 3, preferred_element_type=jnp.float32, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)
    )
    assert result(integers(rng, 5, 2)).dtype == jnp.float32


def test_forward_mode_and_second_derivatives(rng):
    layer, x = layers.ConvTranspose(2, 2, 3, 2, rngs=nnx.Rngs(0)), integers(rng, 4, 2)
    theirs = nnx.ConvTranspose(2, 2, 3, 2, rngs=nnx.Rngs(0))
    for a in (layer, theirs):
        filled(a)

    def hessian(layer):
        return jax.hessian(lambda x: (layer(x) ** 2).sum())(x)

    np.testing.assert_array_equal(hessian(layer), hessian(theirs))


def test_no_convolution_of_xla_is_left():
    x = jnp.ones((2, 7, 9, 4))
    for options in ({}, {"input_dilation": 2, "padding": 1}, {"padding": "CIRCULAR"}):
        layer = layers.Conv(4, 4, (3, 3), feature_group_count=4, **options, rngs=nnx.Rngs(0))
        assert "conv_general_dilated" not in str(jax.make_jaxpr(layer)(x))


def test_out_sharding():
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    P = jax.sharding.PartitionSpec
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(48.0).reshape(4, 6, 2), P("a", None, None))
        found = []
        for module, dilation in itertools.product((layers, nnx), (1, 2)):
            layer = module.Conv(2, 4, 3, padding=1, input_dilation=dilation, rngs=nnx.Rngs(0))
            filled(layer)
            found.append(jax.jit(partial(layer, out_sharding=P(None, None, "b")))(x))
        for ours, theirs in zip(found[:2], found[2:], strict=True):
            assert ours.sharding.spec == theirs.sharding.spec
            np.testing.assert_array_equal(ours, theirs)


# Checkpoints and errors.


def test_a_checkpoint_of_flax_loads(rng, tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    x = integers(rng, 2, 6, 8, 1)
    theirs = Net(nnx, nnx.Rngs(1))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", nnx.to_pure_dict(nnx.state(theirs)))
        checkpointer.wait_until_finished()
        model = Net(layers, nnx.Rngs(2))
        state = nnx.state(model)
        restored = checkpointer.restore(tmp_path / "state", nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(model, state)
    np.testing.assert_array_equal(model(x), theirs(x))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"in_features": 5}, "feature_group_count must divide in_features=5, got 2"),
        ({"out_features": 5}, "feature_group_count must divide out_features=5, got 2"),
        ({"in_features": 0}, "in_features must be at least 1, got 0"),
        ({"feature_group_count": 0}, "feature_group_count must be at least 1, got 0"),
        ({"kernel_size": 1.5}, "kernel_size must be a tuple with one int for each axis, got 1.5"),
        ({"strides": (1, 2)}, "strides must be an int or a sequence of 1 ints, got (1, 2)"),
        ({"kernel_dilation": 0}, "kernel_dilation must be at least 1, got 0"),
        ({"padding": "FULL"}, "padding must be one of SAME, SAME_LOWER, VALID, CIRCULAR"),
        ({"padding": [(1, 2, 3)]}, "padding must be an int, a name or a sequence"),
        ({"padding_mode": "mirror"}, "padding_mode must be one of ZEROS, REFLECT"),
        (
            {"padding": "CIRCULAR", "padding_mode": "REFLECT"},
            "padding_mode must be left out where padding is 'CIRCULAR', got 'REFLECT'",
        ),
        (
            {"mask": np.ones((3, 4, 6))},
            "mask needs the kernel's shape (3, 2, 6), got float64[3,4,6]",
        ),
    ],
)
@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_wrong_arguments_are_named(name, options, text):
    given = {"in_features": 4, "out_features": 6, "kernel_size": 3, "feature_group_count": 2}
    with pytest.raises((TypeError, ValueError), match=re.escape(f"{name}: {text}")) as caught:
        getattr(layers, name)(**given | options, rngs=nnx.Rngs(0))
    assert "Rngs" not in str(caught.value)  # what is passed on to Flax is no argument of ours


@pytest.mark.parametrize(("padding", "most"), [("same", 0), ("CIRCULAR", 0), ("VALID", 1)])
def test_the_constructor_refuses_output_padding(padding, most):
    text = f"ConvTranspose: output_padding must be at most {most} on spatial axis 0 with padding"
    options = {"padding": padding, "output_padding": most + 1, "rngs": nnx.Rngs(0)}
    with pytest.raises(ValueError, match=f"{text} '{padding}', got {most + 1}"):
        layers.ConvTranspose(1, 1, 3, 2, **options)


def test_wrong_calls_are_named():
    rngs = nnx.Rngs(0)
    conv, up = layers.Conv(2, 3, (3, 3), rngs=rngs), layers.ConvTranspose(2, 3, (3, 3), rngs=rngs)
    for layer in (conv, up):
        begin = f"{type(layer).__name__}: inputs needs"
        refuses(ValueError, f"{begin} 3 axes or more, 2 of them spatial", layer, jnp.ones((4, 2)))
        refuses(
            ValueError, f"{begin} in_features=2 channels on axis -1", layer, jnp.ones((4, 4, 3))
        )

    def refuses_conv(kind, text, size, **options):
        refuses(kind, text, layers.Conv, 2, 3, size, **options, rngs=rngs)

    text = "'CAUSAL' needs one spatial axis, got kernel_size of 2"
    refuses_conv(ValueError, text, (3, 3), padding="CAUSAL")
    text = "Conv: padding must be of numbers and zeros where input_dilation is not 1"
    refuses_conv(ValueError, text, 3, padding_mode="REFLECT", input_dilation=2)
    given = {"conv_general_dilated": lax.conv_general_dilated}
    refuses_conv(TypeError, "conv_general_dilated", 3, **given)

    grouped = layers.ConvTranspose(8, 4, 3, feature_group_count=2, rngs=rngs)
    grouped.kernel = nnx.Param(jnp.ones((3, 8, 4)))
    text = "kernel has 8 channels on axis 1; with 8"
    refuses(ValueError, text, grouped, jnp.ones((1, 5, 8)))

    tie = partial(layers.TiedConvTranspose, rngs=rngs)
    text = "TiedConvTranspose: conv must be a jdeconv.layers.nnx.Conv"
    refuses(TypeError, text, tie, nnx.Conv(2, 3, 3, rngs=rngs))
    dilated = layers.Conv(2, 3, 3, padding=1, input_dilation=2, rngs=rngs)
    refuses(ValueError, "TiedConvTranspose: conv must have input_dilation 1, got 2", tie, dilated)
    text = "inputs needs out_features=3 channels on axis -1"
    refuses(ValueError, text, tie(conv), jnp.ones((4, 4, 2)))
    refuses(ValueError, "TiedConvTranspose: output_size", tie(conv), jnp.ones((4, 4, 3)), 9)
