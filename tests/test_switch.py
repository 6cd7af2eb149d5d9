"""accelerate on models of other libraries, as their users write them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdeconv
from benchmarks import switch
from jdeconv.compat import lax as compat

RESULTS = Path(switch.__file__).parent / "results"
MODULES = {"flax.linen": "flax", "flax.nnx": "flax"}


@pytest.fixture(autouse=True)
def as_the_libraries_expect():
    """Ranks promote; and 32 bits, since equinox would draw weights of 64 for pictures of 32."""
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        yield


@pytest.fixture
def library(request, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(MODULES.get(request.param, request.param))
    return request.param


@pytest.mark.parametrize("model", switch.INPUTS)
@pytest.mark.parametrize("library", switch.LIBRARIES, indirect=True)
def test_loss_and_gradients(library, model):
    step, params, x = switch.setting(library, model)
    x = x[:2]
    fast = jdeconv.accelerate(step)
    assert "conv_general_dilated" in str(jax.make_jaxpr(step)(params, x))
    text = str(jax.make_jaxpr(fast)(params, x))
    assert "conv_general_dilated" not in text
    assert "jdeconv_kernel_grad" in text
    expected, result = jax.jit(step)(params, x), jax.jit(fast)(params, x)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    assert switch.difference(result, expected) < switch.TOLERANCE
    if model != "DCGAN":
        return
    in_the_other_order = jax.jit(jax.value_and_grad(jdeconv.accelerate(lambda p: step(p, x)[0])))
    assert switch.difference(in_the_other_order(params), expected) < switch.TOLERANCE


def test_a_difference_is_seen():
    zeros, ones = jnp.zeros(3), jnp.array([0.0, 0.5, 1.0])
    assert switch.difference((ones, zeros), (ones, ones)) == 1.0


def test_nnx_takes_the_convolution_by_argument():
    nnx = pytest.importorskip("flax.nnx")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 8, 4)), jnp.float32)
    options = {"kernel_size": (3, 2), "strides": (2, 1), "feature_group_count": 2}
    own, given = (
        nnx.Conv(4, 6, rngs=nnx.Rngs(0), **options, **more)
        for more in ({}, {"conv_general_dilated": compat.conv_general_dilated})
    )
    np.testing.assert_allclose(given(x), own(x), rtol=1e-5, atol=1e-5)
    assert "jdeconv_conv" in str(jax.make_jaxpr(lambda x: given(x))(x))


def test_equinox_filters():
    eqx = pytest.importorskip("equinox")
    up = eqx.nn.ConvTranspose2d(3, 2, 4, 2, padding=1, key=jax.random.key(0))
    model = eqx.nn.Sequential([up, eqx.nn.Lambda(jax.nn.relu)])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)

    def loss(model, x):
        return (model(x) ** 2).sum()

    own, fast = (eqx.filter_value_and_grad(f)(model, x) for f in (loss, jdeconv.accelerate(loss)))
    assert switch.difference(jax.tree.leaves(fast), jax.tree.leaves(own)) < 1e-5


def test_readme_has_the_table_of_the_committed_run():
    committed = (RESULTS / "switch.txt").read_text().split("\n\n")[0]
    readme = (RESULTS.parents[1] / "README.md").read_text()
    assert readme.split("<!-- switch -->")[1].split("<!-- /switch -->")[0].strip() == committed


def test_an_nnx_train_step_keeps_its_state():
    nnx, optax = pytest.importorskip("flax.nnx"), pytest.importorskip("optax")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 3)), jnp.float32)

    def made():
        rngs = nnx.Rngs(0)
        layers = [nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)]
        model = nnx.Sequential(*layers, nnx.ConvTranspose(4, 3, (2, 2), rngs=rngs))
        return model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    def step(model, optimizer, x):
        loss, gradients = nnx.value_and_grad(lambda model: (model(x) ** 2).mean())(model)
        optimizer.update(model, gradients)
        return loss

    definition, state = nnx.split(made())

    @jax.jit
    @jdeconv.accelerate
    def fast(state, x):
        model, optimizer = nnx.merge(definition, state)
        loss = step(model, optimizer, x)
        return loss, nnx.state((model, optimizer))

    model, optimizer = made()
    for _ in range(3):
        loss, state = fast(state, x)
        np.testing.assert_allclose(loss, nnx.jit(step)(model, optimizer, x), rtol=1e-4)
    expected = nnx.split((model, optimizer))[1]
    for mine, yours in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-3, atol=1e-5)
    for lossy in (jdeconv.accelerate(nnx.jit(step)), nnx.jit(jdeconv.accelerate(step))):
        with pytest.raises(ValueError, match="changes its arguments in place"):
            lossy(*made(), x)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_model_fits_as_before(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)

    def losses(switched):
        keras.utils.set_random_seed(0)
        layers = [
            keras.layers.Conv2D(4, 3, 2, "same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Conv2DTranspose(3, 3, 2, "same"),
        ]
        model = keras.Sequential([keras.Input((6, 6, 3)), *layers])
        model.compile("adam", "mse")
        if switched:
            model.stateless_call = jdeconv.accelerate(model.stateless_call)
        history = model.fit(x, x, batch_size=4, epochs=3, shuffle=False, verbose=0)
        return history.history["loss"], [keras.ops.convert_to_numpy(w) for w in model.weights]

    (ours, weights), (theirs, their_weights) = losses(True), losses(False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for mine, yours in zip(weights, their_weights, strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-3, atol=1e-5)


def test_the_table_and_what_is_refused(tmp_path, capsys, monkeypatch):
    pytest.importorskip("equinox")
    monkeypatch.setattr(switch, "INPUTS", {"MobileNet": (1, 8, 8, 32)})
    monkeypatch.setattr(switch, "ROUNDS", 1)
    table = tmp_path / "switch.txt"
    monkeypatch.setattr("sys.argv", ["switch", "equinox", "--table", str(table)])
    assert switch.main() == 0
    assert table.read_text() == capsys.readouterr().out
    assert "| equinox | MobileNet |" in table.read_text()
    monkeypatch.setattr("sys.argv", ["switch", "tensorflow"])
    with pytest.raises(SystemExit):
        switch.main()
    assert "the libraries are flax.linen, flax.nnx" in capsys.readouterr().err
    monkeypatch.setattr(switch, "TOLERANCE", 0.0)
    with pytest.raises(SystemExit, match="equinox MobileNet: results differ by"):
        switch.measured("equinox", "MobileNet")
