"""jdeconv.layers.equinox beside Equinox's own layers, exactly, on small integers."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from layer_checks import MODES, assert_same, integers, refuses
from thinned import thinned

eqx = pytest.importorskip("equinox")
layers = pytest.importorskip("jdeconv.layers.equinox")

KEY = jax.random.key(0)


def filled(model, seed=0):
    """The model with small integers for parameters."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: integers(rng, *a.shape, dtype=a.dtype), model)


@eqx.filter_jit
def evaluated(layer, x):
    """What the layer returns, and the gradients of a weighted sum of that by parameters and by x."""

    def weighted(arguments):
        layer, x = arguments
        y = layer(x)
        return (y * (jnp.arange(y.size) % 7 - 3).reshape(y.shape)).sum(), y

    gradients, y = eqx.filter_grad(weighted, has_aux=True)((layer, x))
    return [*jax.tree.leaves(gradients), y]


def drawn(seed, name):
    """A layer's name, its arguments and an input."""
    rng = np.random.default_rng(seed)
    rank, groups = int(rng.choice([1, 1, 2, 2, 3])), int(rng.integers(1, 4))

    def each(low, high):
        return [int(n) for n in rng.integers(low, high, rank)]

    pads = [tuple(int(n) for n in rng.integers(0, 3, 2)) for _ in range(rank)]
    options = {
        "in_channels": 2 * groups,
        "out_channels": 3 * groups,
        "kernel_size": [each(1, 5), int(rng.integers(1, 5))][rng.integers(2)],
        "stride": [2, each(1, 4)][rng.integers(2)],
        "padding": ["SAME", "same_lower", "VALID", 1, each(0, 3), pads][seed % 6],
        "dilation": [1, each(1, 3)][rng.integers(2)],
        "groups": groups,
        "use_bias": bool(rng.integers(2)),
    }
    if name == "Conv":
        options["padding_mode"] = ["zeros", *MODES][rng.integers(4)]
    elif isinstance(options["padding"], str) and options["padding"] != "VALID" and rng.integers(2):
        options["padding_mode"] = "CIRCULAR"
    else:
        steps = np.broadcast_to(options["stride"], rank)
        options["output_padding"] = [int(rng.integers(0, step)) for step in steps]
    if rng.integers(2):
        name = f"{name}{rank}d"
    else:
        options["num_spatial_dims"] = rank
    return name, options, integers(rng, 2 * groups, *[int(n) for n in rng.integers(7, 9, rank)])


@pytest.mark.parametrize("seed", thinned(range(120), 7))
@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_values_and_gradients_are_those_of_equinox(name, seed):
    name, options, x = drawn(seed, name)
    ours, theirs = (getattr(module, name)(**options, key=KEY) for module in (layers, eqx.nn))
    assert isinstance(ours, type(theirs))
    assert vars(ours).keys() == vars(theirs).keys()
    assert_same(jax.tree.leaves(ours), jax.tree.leaves(theirs))
    assert_same(evaluated(filled(ours), x), evaluated(filled(theirs), x))


def test_arguments_by_position_are_equinoxs():
    """With output_padding before padding where the name says the number of axes, and behind it where not."""
    options = {"key": KEY}
    for name, arguments in {
        "Conv": (1, 2, 4, 3, 2, 1, 2, 2, False, "CIRCULAR", jnp.float16),
        "Conv1d": (2, 4, 3, 2, 1, 2, 2, False, "CIRCULAR", jnp.float16),
        "ConvTranspose": (1, 2, 4, 3, 2, 2, 1, 2, 2, False, "ZEROS", jnp.float16),
        "ConvTranspose1d": (2, 4, 3, 2, 1, 2, 2, 2, False, "ZEROS", jnp.float16),
    }.items():
        ours, theirs = (getattr(module, name)(*arguments, **options) for module in (layers, eqx.nn))
        for field in vars(theirs):
            assert np.all(getattr(ours, field) == getattr(theirs, field)), field


def plain(conv, x):
    """What a conv without bias computes, by jnp.pad and jax.lax."""
    pads = conv.padding
    if isinstance(pads, str):
        span = [d * (k - 1) + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        pads = lax.padtype_to_pads(x.shape[1:], span, conv.stride, pads)
    if conv.padding_mode != "ZEROS":
        x, pads = jnp.pad(x, [(0, 0), *pads], MODES[conv.padding_mode]), "VALID"
    return lax.conv_general_dilated(
        x[None],
        conv.weight,
        conv.stride,
        pads,
        rhs_dilation=conv.dilation,
        feature_group_count=conv.groups,
    )[0]


PADDINGS = ["SAME", "SAME_LOWER", "VALID", ((2, 1), (0, 3))]


@pytest.mark.parametrize(
    ("padding", "mode"), [*itertools.product(PADDINGS, ["ZEROS", *MODES])], ids=str
)
def test_padding_modes_and_their_adjoints(rng, padding, mode):
    """Conv beside jnp.pad and jax.lax; the tied layer and ConvTranspose beside the transpose of these."""
    options = {"kernel_size": (4, 3), "stride": (2, 3), "dilation": (1, 2), "groups": 2}
    options |= {"padding": padding, "padding_mode": mode, "use_bias": False, "key": KEY}
    conv = filled(layers.Conv2d(4, 6, **options))
    x = integers(rng, 4, 7, 8)
    y, transposed = jax.vjp(partial(plain, conv), x)
    np.testing.assert_array_equal(conv(x), y)
    y = integers(rng, *y.shape)
    (back,) = transposed(y)
    tied = layers.TiedConvTranspose(conv, use_bias=False, key=KEY)
    np.testing.assert_array_equal(tied(y, conv, output_size=(7, 8)), back)

    up = layers.ConvTranspose2d(6, 4, **options)
    flipped = jnp.flip(conv.weight, (2, 3)).reshape(2, 3, 2, 4, 3).swapaxes(1, 2)
    up = eqx.tree_at(lambda layer: layer.weight, up, flipped.reshape(4, 3, 4, 3))
    np.testing.assert_array_equal(up(y, output_size=(7, 8)), back)


@pytest.mark.parametrize("padding", ["SAME", "SAME_LOWER", "VALID", 2])
def test_output_sizes(rng, padding):
    layer = filled(layers.ConvTranspose1d(2, 3, 5, 3, padding=padding, key=KEY))
    x = integers(rng, 2, 4)
    least = 14 if padding == "VALID" else 10
    for size in range(least, least + 3):
        assert layer(x, output_size=size).shape == (3, size)
    with pytest.raises(ValueError, match="ConvTranspose1d: output_size needs"):
        layer(x, output_size=least - 1)
    if padding in ("VALID", 2):
        longer = filled(layers.ConvTranspose1d(2, 3, 5, 3, 2, padding, key=KEY))
        np.testing.assert_array_equal(longer(x), layer(x, output_size=least + 2))
        with pytest.raises(ValueError, match="output_padding was given together with a size"):
            longer(x, output_size=least)


def test_output_padding_may_be_up_to_the_dilation(rng):
    layer = filled(layers.ConvTranspose1d(1, 1, 2, output_padding=2, dilation=3, key=KEY))
    assert layer(integers(rng, 1, 4)).shape == (1, 9)


class Autoencoder(eqx.Module):
    down: eqx.Module
    up: eqx.Module

    def __init__(self):
        self.down = filled(layers.Conv2d(1, 2, (3, 2), 2, "SAME", key=KEY))
        self.up = filled(layers.TiedConvTranspose(self.down, key=KEY), 1)

    def __call__(self, x):
        return self.up(self.down(x), self.down, output_size=x.shape[1:])


def test_the_tied_layers_share_one_weight(rng):
    model, x, weights = Autoencoder(), integers(rng, 1, 5, 6), integers(rng, 1, 5, 6)
    assert [a.shape for a in jax.tree.leaves(model)] == [(2, 1, 3, 2), (2, 1, 1), (1, 1, 1)]
    found = eqx.filter_grad(lambda model: (model(x) * weights).sum())(model)

    def convolved(weight, x):
        return lax.conv_general_dilated(x[None], weight, (2, 2), "SAME")[0]

    def separate(down, up, bias):
        y = convolved(down, x) + model.down.bias
        (back,) = jax.linear_transpose(partial(convolved, up), x)(y)
        return ((back + bias) * weights).sum()

    weight = model.down.weight
    first, second, bias = jax.grad(separate, (0, 1, 2))(weight, weight, model.up.bias)
    np.testing.assert_array_equal(found.down.weight, first + second)
    np.testing.assert_array_equal(found.up.bias, bias)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.complex64])
def test_a_tied_layer_has_its_convs_dtype(rng, dtype):
    conv = layers.Conv1d(2, 300, 3, dtype=dtype, key=KEY)
    tied = layers.TiedConvTranspose(conv, key=KEY)
    assert tied.bias.dtype == tied(jnp.ones((300, 5), dtype), conv).dtype == dtype
    assert float(jnp.abs(tied.bias).max()) <= 1 / 30
    assert jnp.any(tied.bias != 0)


# Training steps.


class Net(eqx.Module):
    """A conv, repeated convs by scan, and a transposed conv."""

    down: eqx.Module
    middle: eqx.Module
    up: eqx.Module
    remat: bool

    def __init__(self, module, remat=False, dtype=None):
        self.down = filled(module.Conv2d(1, 4, 3, 2, "SAME", dtype=dtype, key=KEY))
        make = eqx.filter_vmap(
            lambda key: module.Conv2d(4, 4, (3, 1), padding=(1, 0), dtype=dtype, key=key)
        )
        self.middle = filled(make(jax.random.split(KEY, 2)))
        self.up = filled(module.ConvTranspose2d(4, 1, 3, 2, padding="SAME", dtype=dtype, key=KEY))
        self.remat = remat

    def __call__(self, x):
        arrays, rest = eqx.partition(self.middle, eqx.is_array)

        def body(x, arrays):
            return eqx.combine(arrays, rest)(x), None

        body = eqx.filter_checkpoint(body) if self.remat else body
        x, _ = lax.scan(body, self.down(x), arrays)
        return self.up(x)


@pytest.mark.parametrize("variant", ["plain", "remat", "bfloat16"])
def test_training_steps_are_those_of_equinox(rng, variant):
    """Over a batch, by vmap."""
    dtype = jnp.bfloat16 if variant == "bfloat16" else None
    x = jnp.asarray(rng.integers(-1, 2, (2, 1, 6, 8)), dtype or jnp.float32)

    @eqx.filter_jit
    def step(model):
        def loss(model):
            return jax.vmap(model)(x).astype(jnp.float32).sum()

        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates = jax.tree.map(lambda g: -g / 1024, grads)
        return (value, grads), eqx.apply_updates(model, updates)

    found = []
    for module in (layers, eqx.nn):
        first, model = step(Net(module, variant == "remat", dtype))
        (second, _), _ = step(model)
        found.append((jax.tree.leaves(first), second))
    (all_ours, our_second), (all_theirs, their_second) = found
    tolerance = 0.05 if variant == "bfloat16" else 1e-5
    np.testing.assert_allclose(our_second, their_second, rtol=tolerance)
    assert our_second < all_ours[0]
    for ours, theirs in zip(all_ours, all_theirs, strict=True):
        assert ours.dtype == theirs.dtype
        if variant == "bfloat16":  # sums are rounded on the way
            ours, theirs = np.float32(ours), np.float32(theirs)
            np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.05 * np.abs(theirs).max())
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_forward_mode_and_second_derivatives(rng):
    x = integers(rng, 2, 4)

    def hessian(module):
        layer = filled(module.ConvTranspose1d(2, 2, 3, 2, key=KEY))
        return jax.hessian(lambda x: (layer(x) ** 2).sum())(x)

    np.testing.assert_array_equal(hessian(layers), hessian(eqx.nn))


def test_no_convolution_of_xla_is_left():
    x = jnp.ones((4, 7, 9))
    for name in ("Conv2d", "ConvTranspose2d"):
        layer = getattr(layers, name)(4, 4, 3, groups=4, padding="SAME", key=KEY)
        assert "conv_general_dilated" not in str(jax.make_jaxpr(layer)(x))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(Autoencoder())(x[:1]))


def test_layers_stand_in_a_sequential(rng):
    nets = []
    for module in (layers, eqx.nn):
        nets.append(
            eqx.nn.Sequential(
                [
                    filled(module.Conv1d(1, 2, 3, key=KEY)),
                    eqx.nn.Lambda(jax.nn.relu),
                    filled(module.ConvTranspose1d(2, 1, 3, key=KEY)),
                ]
            )
        )
    x = integers(rng, 1, 6)
    np.testing.assert_array_equal(nets[0](x, key=KEY), nets[1](x, key=KEY))


# Checkpoints and errors.


def test_a_checkpoint_of_equinox_loads(rng, tmp_path):
    theirs, x = Net(eqx.nn), integers(rng, 1, 6, 8)
    eqx.tree_serialise_leaves(tmp_path / "net.eqx", theirs)
    blank = jax.tree.map(lambda a: 0 * a if eqx.is_array(a) else a, Net(layers))
    model = eqx.tree_deserialise_leaves(tmp_path / "net.eqx", blank)
    np.testing.assert_array_equal(model(x), theirs(x))


def test_wrong_arguments_are_named():
    def of(name):
        return partial(getattr(layers, name), key=KEY)

    conv, up, line = of("Conv2d"), of("ConvTranspose2d"), of("ConvTranspose1d")
    refuses(ValueError, "Conv2d: groups must divide out_channels=3, got 2", conv, 4, 3, 3, groups=2)
    text = "ConvTranspose2d: groups must divide"
    refuses(ValueError, f"{text} out_channels=3, got 2", up, 4, 3, 3, groups=2)
    refuses(ValueError, f"{text} in_channels=3, got 2", up, 3, 4, 3, groups=2)
    text = "ConvTranspose1d: padding_mode must be one of ZEROS"
    refuses(ValueError, text, line, 1, 1, 3, padding_mode="x")
    text = "ConvTranspose1d: output_padding must be"
    refuses(TypeError, f"{text} an int", line, 1, 1, 3, output_padding=0.5)
    text += " at most 1 on spatial axis 0 with padding 'SAME', got 2"
    refuses(ValueError, text, line, 1, 1, 3, 2, 2, "SAME")
    text = "TiedConvTranspose: conv must be a jdeconv.layers.equinox.Conv"
    refuses(TypeError, text, of("TiedConvTranspose"), 1)


def test_wrong_calls_are_named():
    conv, up = (getattr(layers, name)(2, 3, 3, key=KEY) for name in ("Conv2d", "ConvTranspose2d"))
    tied = layers.TiedConvTranspose(conv, key=KEY)
    for layer in (conv, up):
        begin = f"{type(layer).__name__}: x"
        text = f"{begin} needs in_channels=2 channels on axis 0"
        refuses(ValueError, text, layer, jnp.ones((3, 4, 4)))
        refuses(ValueError, f"{begin} needs 3 axes or more", layer, jnp.ones((2, 4)))
        text = f"{begin} needs 3 axes, got float32[2,5,4,4]; for a"
        refuses(ValueError, text, layer, jnp.ones((2, 5, 4, 4)))
        refuses(TypeError, f"{begin} must be a jax or numpy array, got 'x'", layer, "x")
    begin, y = "TiedConvTranspose:", jnp.ones((3, 4, 4))
    refuses(ValueError, f"{begin} x needs out_channels=3 channels", tied, jnp.ones((2, 4, 4)), conv)
    refuses(TypeError, f"{begin} conv must be a jdeconv", tied, y, up)
    refuses(ValueError, f"{begin} output_size needs 6", tied, y, conv, output_size=9)
    text = "Conv2d: padding is too small on spatial axis 0"
    refuses(ValueError, text, conv, jnp.ones((2, 2, 4)))
