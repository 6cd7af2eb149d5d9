"""A solver's prototxt as an optimizer: Caffe's own update rules in the form of an optax GradientTransformation.

They differ from optax's rules of the same names. The learning rate is inside of the momentum, so that a step of
the rate takes effect slowly; weight decay is added to the gradient; AdaGrad and RMSProp add delta outside of
the root; AdaDelta's momentum is the decay of its averages.

Source: BVLC Caffe, src/caffe/solver.cpp and src/caffe/solvers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv import checks
from jdeconv.checks import integer, one_of, refused, reporting
from jdeconv.compat.caffe.definition import blocks, parsed, read_text
from jdeconv.compat.caffe.files import needed
from jdeconv.form import accumulator

POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
REGULARIZATIONS = ("L2", "L1")
NETS = ("net_param", "train_net_param", "test_net_param")


class SolverState(NamedTuple):
    """The state of a solver's optimizer, a pytree.

    Args:
      calls: how many gradients `update` has got; the iteration is calls // iter_size.
      history: Caffe's history blobs, a tuple of trees with the structure of params.
      gradients: the sum of the gradients since the last update; () for an iter_size of 1.

    Example:
      >>> state = Solver(type="Adam").optimizer().init(jnp.array([1.0, 2.0]))
      >>> int(state.calls), [blob.tolist() for blob in state.history]
      (0, [[0.0, 0.0], [0.0, 0.0]])
    """

    calls: jax.Array
    history: tuple[Any, ...]
    gradients: Any


@dataclass(frozen=True)
class Solver:
    """The fields of a SolverParameter that matter to a training, checked.

    Args:
      type: "SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta" or "Adam".
      base_lr, lr_policy: the learning rate and how it changes: "fixed", "step", "exp", "inv", "multistep",
        "poly" or "sigmoid"; see `rate`.
      gamma, power, stepsize, stepvalue, max_iter: of the policies. max_iter is also where Caffe stops.
      momentum: of "SGD" and "Nesterov", the first beta of "Adam", the decay of "AdaDelta".
      momentum2: the second beta of "Adam".
      rms_decay: of "RMSProp".
      delta: what "AdaGrad", "RMSProp", "AdaDelta" and "Adam" add so that nothing is divided by 0.
      weight_decay, regularization_type: what is added to a gradient: weight_decay * w for "L2", and
        weight_decay * sign(w) for "L1".
      clip_gradients: the most that the norm of all gradients together may be; negative for no bound.
      iter_size: how many gradients are added up for one update.
      display, average_loss, test_iter, test_interval, snapshot, snapshot_prefix, random_seed, net: what Caffe's
        own loop does apart from the updates, for your own loop; nothing here reads them.

    Example:
      >>> solver = Solver(base_lr=0.5, momentum=0.5)
      >>> optimizer = solver.optimizer()
      >>> w, gradient = jnp.array([8.0]), jnp.array([4.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     update, state = optimizer.update(gradient, state, w)
      ...     w = w + update
      ...     print(float(update[0]), float(w[0]))
      -2.0 6.0
      -3.0 3.0
      -3.5 -0.5
    """

    type: str = "SGD"
    base_lr: float = 0.0
    lr_policy: str = "fixed"
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalue: tuple[int, ...] = ()
    max_iter: int = 0
    momentum: float = 0.0
    momentum2: float = 0.999
    rms_decay: float = 0.99
    delta: float = 1e-8
    weight_decay: float = 0.0
    regularization_type: str = "L2"
    clip_gradients: float = -1.0
    iter_size: int = 1
    display: int = 0
    average_loss: int = 1
    test_iter: tuple[int, ...] = ()
    test_interval: int = 0
    snapshot: int = 0
    snapshot_prefix: str = ""
    random_seed: int = -1
    net: str = ""

    @reporting()
    def __post_init__(self) -> None:
        one_of("type", self.type, RULES)
        one_of("lr_policy", self.lr_policy, POLICIES)
        one_of("regularization_type", self.regularization_type, REGULARIZATIONS)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float":
                checks.number(field.name, value)
            elif field.type == "int":
                integer(field.name, value, -1 if field.name == "random_seed" else 0)
            elif field.type == "tuple[int, ...]":
                for number in checks.listed(field.name, value, "ints"):
                    integer(field.name, number, 0)
            elif not isinstance(value, str):
                reason = f"must be a string, got {checks.shown(value)}"
                raise refused(field.name, reason, TypeError)
        for name in ("gamma", "delta", "momentum", "momentum2", "rms_decay"):
            if getattr(self, name) < 0:
                raise refused(name, f"must be at least 0, got {getattr(self, name)}")
        integer("iter_size", self.iter_size, 1)
        if self.lr_policy in ("step", "sigmoid"):
            integer("stepsize", self.stepsize, 1)
        if self.lr_policy == "poly":
            integer("max_iter", self.max_iter, 1)
        if self.type in ("AdaGrad", "RMSProp") and self.momentum:
            raise refused("momentum", f"cannot be used with {self.type}, got {self.momentum}")
        decays = {"RMSProp": ("rms_decay",), "Adam": ("momentum", "momentum2")}
        for name in decays.get(self.type, ()):
            if getattr(self, name) >= 1:
                raise refused(name, f"must be less than 1, got {getattr(self, name)}")

    @reporting()
    def rate(self, iteration: int | jax.Array) -> jax.Array:
        """The learning rate of an iteration; the first iteration is 0.

        Formulas, with i for the iteration: "fixed" ``base_lr``, "step" ``base_lr * gamma ** (i // stepsize)``,
        "exp" ``base_lr * gamma ** i``, "inv" ``base_lr * (1 + gamma * i) ** -power``, "multistep" ``base_lr *
        gamma ** n`` with n for the number of stepvalues up to i, "poly" ``base_lr * (1 - i / max_iter) **
        power``, "sigmoid" ``base_lr / (1 + exp(-gamma * (i - stepsize)))``.

        Example:
          >>> solver = Solver(base_lr=8, lr_policy="multistep", gamma=0.5, stepvalue=(2, 3))
          >>> [float(solver.rate(i)) for i in range(5)]
          [8.0, 8.0, 4.0, 2.0, 2.0]
        """
        is_array = isinstance(iteration, jax.Array | np.ndarray | np.generic)
        i = jnp.asarray(iteration if is_array else integer("iteration", iteration, 0))
        dtype = jnp.result_type(float)
        base, gamma, power = (
            jnp.asarray(value, dtype) for value in (self.base_lr, self.gamma, self.power)
        )
        real = i.astype(dtype)
        if self.lr_policy == "step":
            return base * gamma ** (i // self.stepsize).astype(dtype)
        if self.lr_policy == "exp":
            return base * gamma**real
        if self.lr_policy == "inv":
            return base * (1 + gamma * real) ** -power
        if self.lr_policy == "multistep":
            passed = [i >= start for start in _starts(self.stepvalue)]
            return base * gamma ** sum(passed, jnp.zeros_like(i)).astype(dtype)
        if self.lr_policy == "poly":
            return base * (1 - real / self.max_iter) ** power
        if self.lr_policy == "sigmoid":
            return base / (1 + jnp.exp(-gamma * (real - self.stepsize)))
        return base

    @reporting()
    def optimizer(self, lr_mult: Any = None, decay_mult: Any = None) -> Any:
        """Returns the update rule as an ``optax.GradientTransformation``, whose updates are added to params.

        Args:
          lr_mult, decay_mult: pytrees of the structure of params, of numbers by which the learning rate and
            the weight decay of each blob are multiplied: ``net.lr_mult`` and ``net.decay_mult``. None is 1
            everywhere, and then weight decay reaches BatchNorm's statistics too, whose lr_mult is 0. As in
            Caffe, a blob whose lr_mult is 0 has no part in the norm that is clipped.

        The order is Caffe's: gradients are added up over iter_size calls, clipped, divided by iter_size and
        given their weight decay, and then the rule of `type` is applied. With an iter_size of more than 1 the
        updates are 0 until iter_size gradients have come. `update` needs params where there is weight decay.
        Everything is computed in float32 for params of half precision, and updates have the dtype of params'
        gradients. Its state is a `SolverState`.

        Raises:
          ModuleNotFoundError: without optax, which is in the extra "caffe".

        Example:
          >>> optimizer = Solver(type="AdaGrad", base_lr=1).optimizer(lr_mult={"a": 2, "b": 0})
          >>> params = {"a": jnp.array([0.0]), "b": jnp.array([0.0])}
          >>> gradients = {"a": jnp.array([3.0]), "b": jnp.array([3.0])}
          >>> updates, _ = optimizer.update(gradients, optimizer.init(params), params)
          >>> {name: round(float(update[0])) for name, update in updates.items()}
          {'a': -2, 'b': 0}
        """
        made: Any = Optimizer(self, lr_mult, decay_mult)
        with needed("optimizer needs optax"):
            import optax
        return optax.GradientTransformation(made.init, made.update)


@dataclass(frozen=True, eq=False)
class Optimizer:
    """The two functions of a solver's GradientTransformation."""

    solver: Solver
    lr_mult: Any
    decay_mult: Any

    def init(self, params: Any) -> SolverState:
        """Returns the state before the first gradient."""

        def zeros() -> Any:
            return jax.tree.map(lambda w: jnp.zeros(jnp.shape(w), _wide(w)), params)

        needed, _ = RULES[self.solver.type]
        sums = zeros() if self.solver.iter_size > 1 else ()
        return SolverState(jnp.zeros((), jnp.int32), tuple(zeros() for _ in range(needed)), sums)

    @reporting()
    def update(self, gradients: Any, state: SolverState, params: Any = None) -> tuple:
        """Returns the updates, which are to be added to params, and the next state."""
        size = self.solver.iter_size
        if params is None and self.solver.weight_decay:
            raise refused("params", "are needed by weight_decay, got None")
        leaves, structure = jax.tree.flatten(gradients)
        listed = structure.flatten_up_to
        diffs = [jnp.asarray(g).astype(_wide(g)) for g in leaves]
        if size > 1:
            diffs = [a + b for a, b in zip(listed(state.gradients), diffs, strict=True)]
        history = [listed(tree) for tree in state.history]
        weights = leaves if params is None else listed(params)
        mults = (
            _multipliers("lr_mult", self.lr_mult, structure),
            _multipliers("decay_mult", self.decay_mult, structure),
        )
        changes, *changed = _changes(
            self.solver, state.calls // size, diffs, weights, history, *mults
        )
        sums: Any = ()
        if size > 1:
            due = (state.calls + 1) % size == 0
            changes = [jnp.where(due, change, 0) for change in changes]
            changed = jax.tree.map(lambda new, old: jnp.where(due, new, old), changed, history)
            sums = structure.unflatten([jnp.where(due, 0, d) for d in diffs])
        updates = [(-c).astype(jnp.asarray(g).dtype) for c, g in zip(changes, leaves, strict=True)]
        trees = tuple(structure.unflatten(one) for one in changed)
        return structure.unflatten(updates), SolverState(state.calls + 1, trees, sums)


@reporting()
def load_solver(prototxt: str | os.PathLike) -> Solver:
    """Returns the `Solver` that a prototxt describes.

    Fields that a training on one device does not use are ignored, such as solver_mode and snapshot_format. So
    is a net that is written into the prototxt. A field that Caffe does not have raises an error. So does a
    train_state with stages or a level, because these choose layers of the net. Write them into the net's state.

    Args:
      prototxt: the path of a file, or the text itself.

    Raises:
      ValueError: for a file that cannot be read as such, with the line, and for a value that Caffe refuses.
      TypeError: for what is neither a path nor a text.
      ModuleNotFoundError: without protobuf, which is in the extra "caffe".

    Example:
      >>> solver = load_solver('''
      ...     base_lr: 0.5  lr_policy: "step"  gamma: 0.5  stepsize: 10  momentum: 0.9  solver_mode: GPU ''')
      >>> solver.type, [float(solver.rate(i)) for i in (0, 9, 10, 20)]
      ('SGD', [0.5, 0.5, 0.25, 0.125])
    """
    text, file = read_text(prototxt, "solver")
    _, rest, problem = blocks(text, NETS)  # nets are read elsewhere
    message, other = parsed("SolverParameter", rest)
    if problem or other:
        raise refused("prototxt", f"{file} is no solver's definition: {problem or other}")
    names = {field.name for field in fields(Solver)}
    values = {field.name: value for field, value in message.ListFields() if field.name in names}
    values |= {name: tuple(values[name]) for name in ("stepvalue", "test_iter") if name in values}
    try:
        if message.HasField("solver_type"):
            if message.HasField("type"):
                raise refused("type", "came together with solver_type; leave one out")
            values["type"] = list(RULES)[message.solver_type]
        state = message.train_state
        if state.stage or state.level:
            reason = 'chooses layers of the net; write it into the net, as in state { stage: "x" }'
            raise refused("train_state", reason)
        if state.HasField("phase") and state.phase:
            raise refused("train_state", "has the phase TEST, in which nothing is trained")
        if "lr_policy" not in values:
            raise refused("lr_policy", f"is needed, one of {', '.join(POLICIES)}")
        if "net" not in values:
            values["net"] = message.train_net
        return Solver(**values)
    except (TypeError, ValueError) as error:
        found: Any = vars(error)
        reason = f"{file}: {found['argument']} {found['reason']}"
        raise refused("prototxt", reason) from None


def _wide(a: Any) -> Any:
    """The dtype in which the updates of an array are computed."""
    return accumulator(jnp.result_type(a))


def _multipliers(argument: str, tree: Any, structure: Any) -> list:
    """A number for each blob."""
    if tree is None:
        return [1.0] * structure.num_leaves
    if jax.tree.structure(tree) != structure:
        reason = f"must have the structure of the gradients, got {checks.shown(tree)}"
        raise refused(argument, reason)
    return jax.tree.leaves(tree)


def _starts(stepvalues: Sequence[int]) -> list[int]:
    """The iterations at which "multistep" takes a step: Caffe takes one at most in an iteration, in order."""
    starts: list[int] = []
    for value in stepvalues:
        starts.append(max([value, *(start + 1 for start in starts[-1:])]))
    return starts


def _changes(
    solver: Solver,
    iteration: jax.Array,
    diffs: Sequence,
    weights: Sequence,
    history: Sequence[Sequence],
    lr_mults: Sequence,
    decay_mults: Sequence,
) -> list[list]:
    """What Caffe subtracts from each blob, and the history blobs: SGDSolver::ApplyUpdate."""
    diffs = [jnp.where(mult != 0, d, 0) for d, mult in zip(diffs, lr_mults, strict=True)]
    scale: Any = None
    if solver.clip_gradients >= 0:
        norm = jnp.sqrt(sum(jnp.sum(d * d) for d in diffs))
        too_long = norm > solver.clip_gradients
        scale = jnp.where(too_long, solver.clip_gradients / jnp.where(too_long, norm, 1), 1)
    force = jnp.sign if solver.regularization_type == "L1" else lambda w: w
    needed, rule = RULES[solver.type]
    rate = solver.rate(iteration)
    found = []
    for d, w, mult, decay, *past in zip(
        diffs, weights, lr_mults, decay_mults, *history, strict=True
    ):
        if scale is not None:
            d = (d * scale).astype(d.dtype)
        if solver.iter_size > 1:
            d = d / solver.iter_size
        if solver.weight_decay:
            pull = solver.weight_decay * decay * force(jnp.asarray(w).astype(d.dtype))
            d = (d + pull).astype(d.dtype)
        found.append(rule(solver, (rate * mult).astype(d.dtype), iteration, d, *past))
    return [[row[place] for row in found] for place in range(1 + needed)]


# A rule gets the solver, the blob's rate, the iteration, the gradient and the history; it returns what is to be
# subtracted, and the new history.


def _sgd(s: Solver, rate: Any, _: Any, g: Any, v: Any) -> tuple:
    v = rate * g + s.momentum * v
    return v, v


def _nesterov(s: Solver, rate: Any, _: Any, g: Any, v: Any) -> tuple:
    new = rate * g + s.momentum * v
    return (1 + s.momentum) * new - s.momentum * v, new


def _adagrad(s: Solver, rate: Any, _: Any, g: Any, h: Any) -> tuple:
    h = h + g * g
    return rate * (g / (jnp.sqrt(h) + s.delta)), h


def _rmsprop(s: Solver, rate: Any, _: Any, g: Any, h: Any) -> tuple:
    h = (1 - s.rms_decay) * g * g + s.rms_decay * h
    return rate * (g / (jnp.sqrt(h) + s.delta)), h


def _adadelta(s: Solver, rate: Any, _: Any, g: Any, h: Any, u: Any) -> tuple:
    h = (1 - s.momentum) * g * g + s.momentum * h
    change = g * jnp.sqrt((u + s.delta) / (h + s.delta))
    u = (1 - s.momentum) * change * change + s.momentum * u
    return rate * change, h, u


def _adam(s: Solver, rate: Any, iteration: Any, g: Any, m: Any, v: Any) -> tuple:
    m = (1 - s.momentum) * g + s.momentum * m
    v = (1 - s.momentum2) * g * g + s.momentum2 * v
    t = (iteration + 1).astype(g.dtype)
    one = jnp.ones((), g.dtype)
    correction = jnp.sqrt(1 - (one * s.momentum2) ** t) / (1 - (one * s.momentum) ** t)
    return rate * correction * (m / (jnp.sqrt(v) + s.delta)), m, v


RULES: dict[str, tuple[int, Callable[..., tuple]]] = {
    "SGD": (1, _sgd),
    "Nesterov": (1, _nesterov),
    "AdaGrad": (1, _adagrad),
    "RMSProp": (1, _rmsprop),
    "AdaDelta": (2, _adadelta),
    "Adam": (2, _adam),
}
"""By type, in the order of the old numbers: how many history blobs a blob has, and the rule."""
