"""Solvers beside plain loops that follow Caffe's own code line by line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_loops import Caffes

from jdeconv.compat import caffe

SHAPES = {"bn": [(2,)], "conv": [(3, 2, 2), (3,)], "score": [(2, 3)]}  # as pytrees sort names
LR_MULT = {"bn": [0.0], "conv": [1.0, 2.0], "score": [10.0]}
DECAY_MULT = {"bn": [1.0], "conv": [1.0, 0.0], "score": [0.5]}
STEPS = 7


def blobs(seed, spread=1.0):
    rng = np.random.default_rng(seed)
    return {
        name: [(spread * rng.normal(size=shape)).astype(np.float32) for shape in shapes]
        for name, shapes in SHAPES.items()
    }


def followed(solver, lr_mult=LR_MULT, decay_mult=DECAY_MULT):
    """Both, over some iterations; gradients follow the weights, so that a wrong step is seen later too."""
    pytest.importorskip("optax")
    optimizer = solver.optimizer(lr_mult, decay_mult)
    params = blobs(0)
    theirs, state = Caffes(solver, params, lr_mult, decay_mult), optimizer.init(params)

    @jax.jit
    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    for i in range(STEPS * solver.iter_size):
        noise = blobs(i + 1, 2.0)
        gradients = jax.tree.map(lambda w, b: np.asarray(w) - b, params, noise)
        params, state = step(params, state, gradients)
        theirs.backward(gradients)
        if (i + 1) % solver.iter_size == 0:
            theirs.apply_update()
        for ours, caffes in zip(jax.tree.leaves(params), theirs.data, strict=True):
            np.testing.assert_allclose(ours, caffes, rtol=2e-5, atol=2e-6)
    assert theirs.iter == STEPS
    assert int(state.calls) == STEPS * solver.iter_size
    assert np.array_equal(params["bn"][0], blobs(0)["bn"][0])
    assert np.abs(params["score"][0] - blobs(0)["score"][0]).max() > 1e-3
    return params


@pytest.mark.parametrize(
    "solver",
    [
        caffe.Solver(base_lr=0.05, momentum=0.9, weight_decay=0.1, lr_policy="step", gamma=0.1, stepsize=3),
        caffe.Solver(base_lr=0.05, momentum=0.8, clip_gradients=3.0, iter_size=3, weight_decay=0.2,
                     regularization_type="L1", lr_policy="multistep", gamma=0.5, stepvalue=(2, 5)),
        caffe.Solver(base_lr=0.05, clip_gradients=1e6),
        caffe.Solver("Nesterov", 0.05, momentum=0.9, weight_decay=0.1, lr_policy="inv", gamma=0.1, power=0.75),
        caffe.Solver("AdaGrad", 0.05, weight_decay=0.01, delta=1e-3, lr_policy="exp", gamma=0.9),
        caffe.Solver("RMSProp", 0.02, weight_decay=0.01, rms_decay=0.9, lr_policy="poly", power=2, max_iter=9),
        caffe.Solver("AdaDelta", 1.0, momentum=0.9, delta=1e-3, weight_decay=0.1),
        caffe.Solver("Adam", 0.05, momentum=0.9, momentum2=0.99, weight_decay=0.1, iter_size=2,
                     lr_policy="sigmoid", gamma=0.5, stepsize=3),
    ],
    ids=lambda solver: f"{solver.type}-{solver.lr_policy}",
)  # fmt: skip
def test_updates_are_caffes(solver):
    followed(solver)


POLICIES = (
    'lr_policy: "fixed"',
    'lr_policy: "step" gamma: 0.1 stepsize: 4',
    'lr_policy: "exp" gamma: 0.9',
    'lr_policy: "inv" gamma: 0.0001 power: 0.75',
    'lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 3 stepvalue: 2 stepvalue: 11',
    'lr_policy: "multistep" gamma: 0.5 stepvalue: 0 stepvalue: 9',
    'lr_policy: "poly" power: 0.9 max_iter: 20',
    'lr_policy: "sigmoid" gamma: 0.5 stepsize: 8',
)


@pytest.mark.parametrize("policy", POLICIES)
def test_rates_are_caffes(policy):
    pytest.importorskip("google.protobuf")
    solver = caffe.load_solver(f"base_lr: 0.01 {policy}")
    theirs, rates = Caffes(solver, {}, {}, {}), []
    for theirs.iter in range(20):
        rates.append(theirs.learning_rate())
    np.testing.assert_allclose(solver.rate(np.arange(20)), rates, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(solver.rate)(7), rates[7], rtol=1e-6)


WHOLE = """
# The solver of a fully convolutional net.
net: "train_val.prototxt"
test_iter: 736  test_interval: 999999999
display: 20  average_loss: 20
lr_policy: "fixed"  base_lr: 1e-14  momentum: 0.99  iter_size: 1
max_iter: 100000  weight_decay: 0.0005
train_state { phase: TRAIN }  test_state { stage: "held-out" }
snapshot: 4000  snapshot_prefix: "snapshot/train"  snapshot_format: HDF5
test_initialization: false  solver_mode: GPU  device_id: 1  debug_info: true
"""


def test_a_whole_file_is_read(tmp_path):
    pytest.importorskip("google.protobuf")
    path = tmp_path / "solver.prototxt"
    path.write_text(WHOLE)
    solver = caffe.load_solver(path)
    assert solver == caffe.load_solver(WHOLE)
    assert (solver.type, solver.max_iter, solver.snapshot, solver.test_iter) == (
        "SGD",
        100000,
        4000,
        (736,),
    )
    assert (solver.net, solver.snapshot_prefix) == ("train_val.prototxt", "snapshot/train")
    nets = (
        'net_param { layer { type: "Data" data_param { x: "}" } } } test_net_param: { layer { } }\n'
    )
    assert caffe.load_solver(nets + WHOLE) == solver
    assert solver.base_lr == np.float32(1e-14)
    assert solver.momentum == np.float32(0.99)
    assert caffe.load_solver('train_net: "a" lr_policy: "fixed"').net == "a"
    old = caffe.load_solver('solver_type: NESTEROV lr_policy: "fixed" momentum: 0.5')
    assert (old.type, old.momentum, old.delta) == ("Nesterov", 0.5, np.float32(1e-8))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('lr_policy: "fixed" train_state { stage: "a" }', "train_state chooses layers of the net"),
        ('lr_policy: "fixed" train_state { level: 1 }', "train_state chooses layers of the net"),
        ('lr_policy: "fixed" train_state { phase: TEST }', "train_state has the phase TEST"),
        ("base_lr: 0.1", "the text: lr_policy is needed, one of fixed, step, exp"),
        ('lr_policy: "plateau"', "the text: lr_policy must be one of fixed, step"),
        ('lr_policy: "Fixed"', "did you mean 'fixed'"),
        ('lr_policy: "step"', "the text: stepsize must be at least 1, got 0"),
        ('lr_policy: "sigmoid"', "the text: stepsize must be at least 1, got 0"),
        ('net_param { layer {\n} }\nlr_policy: "fixed" larc: 1', "definition: 3:20 .* field named"),
        ('lr_policy: "poly"', "the text: max_iter must be at least 1, got 0"),
        ('lr_policy: "exp" gamma: -1', "the text: gamma must be at least 0, got -1"),
        ('lr_policy: "fixed" type: "Sgd"', "type must be one of SGD, .* did you mean 'SGD'"),
        ('lr_policy: "fixed" type: "LARS"', "type must be one of SGD, Nesterov, AdaGrad"),
        ('lr_policy: "fixed" type: "AdaGrad" momentum: 0.9', "momentum cannot be used with AdaGrad, got"),
        ('lr_policy: "fixed" type: "RMSProp" rms_decay: 1', "rms_decay must be less than 1, got 1"),
        ('lr_policy: "fixed" type: "Adam" momentum: 1', "momentum must be less than 1, got 1"),
        ('lr_policy: "fixed" type: "SGD" solver_type: SGD', "type came together with solver_type"),
        ('lr_policy: "fixed" regularization_type: "L3"', "regularization_type must be one of L2, L1"),
        ('lr_policy: "fixed" iter_size: 0', "iter_size must be at least 1, got 0"),
        ('lr_policy: "fixed" base_lr: nan', "base_lr must be finite, got nan"),
        ('lr_policy: "fixed" larc: true', 'the text is no solver.s definition: 1:20 .* field named "larc"'),
        ('layer { name: "a" }', 'the text is no solver.s definition: 1:1 .* no field named "layer"'),
    ],
)  # fmt: skip
def test_what_a_definition_refuses(text, reason):
    pytest.importorskip("google.protobuf")
    with pytest.raises(ValueError, match=reason) as caught:
        caffe.load_solver(text)
    assert str(caught.value).startswith("load_solver: prototxt the text")


def test_an_optimizer_says_what_it_lacks(monkeypatch):
    pytest.importorskip("optax")
    params = blobs(0)
    optimizer = caffe.Solver(base_lr=1, weight_decay=0.1).optimizer()
    with pytest.raises(ValueError, match="Optimizer: params are needed by weight_decay"):
        optimizer.update(params, optimizer.init(params))
    optimizer = caffe.Solver(base_lr=1).optimizer(lr_mult={"conv": [1, 2]})
    with pytest.raises(
        ValueError, match="Optimizer: lr_mult must have the structure of the gradients, got"
    ):
        optimizer.update(params, optimizer.init(params))
    monkeypatch.setitem(__import__("sys").modules, "optax", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'optimizer needs optax: pip install "\.\[caffe\]"'
    ):
        caffe.Solver().optimizer()


def test_half_precision_is_updated_in_float32():
    """The history keeps what half precision would round away; beside optax's own pieces."""
    optax = pytest.importorskip("optax")
    optimizer = optax.chain(
        caffe.Solver(base_lr=2**-12, momentum=0.5).optimizer(), optax.scale(1.0)
    )
    w = jnp.ones(3, jnp.bfloat16)
    state = optimizer.init(w)
    update, state = optimizer.update(jnp.full(3, 1 + 2**-7, jnp.bfloat16), state, w)
    assert update.dtype == jnp.bfloat16
    assert state[0].history[0].dtype == jnp.float32
    with jax.enable_x64(True):
        optimizer = caffe.Solver("Adam", 0.1, iter_size=2).optimizer()
        state = optimizer.init(np.ones(3))
        update, state = optimizer.update(np.ones(3), state)
        assert update.dtype == state.gradients.dtype == np.float64
