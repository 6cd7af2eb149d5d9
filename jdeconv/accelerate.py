"""A function, and the same function with jdeconv's contractions in place of XLA's convolutions.

The function is traced, and in its jaxpr, and in every jaxpr inside of that (of jit, scan, while, cond, remat,
custom_jvp, custom_vjp, shard_map), each convolution is replaced by a jitted call of the contraction that it is.
Nothing else is touched, so names, donated buffers and custom derivatives stay.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv._jax import (
    ClosedJaxpr,
    Jaxpr,
    JaxprEqn,
    conv_general_dilated_p,
    jaxpr_as_fun,
    type_like,
)
from jdeconv.checks import refused, reporting, shown
from jdeconv.xla import Convolution


@reporting()
def accelerate(function: Callable) -> Callable:
    """Returns a function that computes the same, with every XLA convolution in it evaluated by jdeconv.

    Args:
      function: any function that JAX can trace. Its arguments may be pytrees of arrays and other values. The
        function gets values that are no arrays (flags, strings, numbers, functions) unchanged.

    Returns:
      A function with the same arguments and results. All transformations of JAX work on it and inside of it.
      ``jax.grad(accelerate(f))`` is as fast as ``accelerate(jax.grad(f))``, because `accelerate` also replaces
      the convolutions that JAX made for the gradient. Outside of jit, JAX traces the function at every call, so
      jit it: ``jax.jit(accelerate(f))``. A function that is jitted already keeps its name and its donated
      arguments, and is compiled once.

    Raises:
      TypeError: if `function` cannot be called.
      ValueError: if `function` changes its arguments in place, because such changes would be lost. A train step
        of a Flax nnx model must take and return its state: ``nnx.split``, ``nnx.merge`` and ``nnx.state``. If
        the model has layers that write into a state, such as nnx.remat, nnx.jit or Dropout, use
        ``nnx.merge(graph, state, copy=True)``.

    Differentiation: as for `function`, in forward and reverse mode, to any order.

    Numbers: sums are taken in another order than in XLA, so float results agree up to rounding. Integer
    results are equal. XLA still evaluates a convolution if a spatial axis has size zero or a symbolic
    size, or if an explicit mesh shards its spatial axes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jax import lax
      >>> def f(x, k):
      ...     return lax.conv_transpose(x, k, (2,), "SAME", dimension_numbers=("NCH", "OIH", "NCH"))
      >>> x, k = jnp.array([[[1, 2, 3]]]), jnp.array([[[1, 10]]])
      >>> accelerate(f)(x, k).tolist() == f(x, k).tolist()
      True
      >>> "conv_general_dilated" in str(jax.make_jaxpr(accelerate(f))(x, k))
      False
    """
    if not callable(function):
        raise refused("function", f"must be a function, got {shown(function)}", TypeError)

    @functools.wraps(function)
    def accelerated(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays, rest = _parted(leaves)
        left = {}

        def traced(arrays: list) -> list:
            given = _joined(arrays, rest)
            args, kwargs = jax.tree.unflatten(tree, given)
            leaves, left["tree"] = jax.tree.flatten(function(*args, **kwargs))
            results, left["rest"] = _parted(leaves)
            _check_kept(function, (args, kwargs), given, leaves)
            return results

        results = jaxpr_as_fun(_rewritten(jax.make_jaxpr(traced)(arrays)))(*arrays)
        return jax.tree.unflatten(left["tree"], _joined([*map(_put, results)], left["rest"]))

    return accelerated


def _check_kept(function: Callable, arguments: tuple, given: list, results: list) -> None:
    """What the function wrote into its arguments, it must return: here they are copies."""
    kept = set(map(id, (*given, *results)))
    if not all(id(leaf) in kept for leaf in jax.tree.leaves(arguments)):
        raise ValueError(
            f"accelerate: function {shown(function)} changes its arguments in place, and such "
            "changes are lost; return the new values (for a Flax nnx model: nnx.state after nnx.merge), or "
            "change a copy: nnx.merge(graph, state, copy=True), which nnx.remat, nnx.jit and Dropout need"
        )


def _parted(leaves: list) -> tuple[list, list]:
    """The arrays among the leaves, and the leaves with None, which no leaf is, in their places."""
    arrays = [leaf for leaf in leaves if _is_array(leaf)]
    return arrays, [None if _is_array(leaf) else leaf for leaf in leaves]


def _joined(arrays: list, rest: list) -> list:
    """The inverse of `_parted`."""
    remaining = iter(arrays)
    return [next(remaining) if leaf is None else leaf for leaf in rest]


def _put(result: Any) -> Any:
    """As an array on a device: a result that is a constant comes from a jaxpr in another kind of array."""
    return result if result.dtype == jax.dtypes.float0 else jnp.asarray(result)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


# Jaxprs. What JAX has traced once it keeps, and compiles once; so must we, or every call would compile again.

_KNOWN: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # to the new one; None if unchanged


def _rewritten(jaxpr: Any) -> Any:
    """The jaxpr, closed or not, with its convolutions replaced; itself if there is none."""
    if jaxpr not in _KNOWN:
        inner = getattr(jaxpr, "jaxpr", jaxpr)  # since jax 0.12.0.1, a closed one is its own
        if inner is not jaxpr:
            new: dict[str, Any] = {"jaxpr": _rewritten(inner)}
            same = new["jaxpr"] is inner
        else:
            new = {"eqns": [_equation(eqn) for eqn in jaxpr.eqns]}
            same = all(a is b for a, b in zip(new["eqns"], jaxpr.eqns, strict=True))
        _KNOWN[jaxpr] = None if same else jaxpr.replace(**new)
    return _KNOWN[jaxpr] or jaxpr


def _equation(eqn: JaxprEqn) -> JaxprEqn:
    if eqn.primitive is conv_general_dilated_p:
        return _convolution(eqn)
    params = {name: _parameter(value) for name, value in eqn.params.items()}
    if eqn.primitive.name == "custom_jvp_call":
        params["jvp_jaxpr_fun"] = params["jvp_jaxpr_fun"].wrap(_rule_rewritten, (), None)
    elif eqn.primitive.name == "custom_vjp_call":
        params["fwd_jaxpr_thunk"] = params["fwd_jaxpr_thunk"].wrap(_rule_rewritten, (), None)
        params["bwd"] = params["bwd"].wrap(_rule_accelerated, (), None)
    if all(params[name] is value for name, value in eqn.params.items()):
        return eqn
    return eqn.replace(params=params)


def _parameter(value: Any) -> Any:
    """Whatever jaxprs an equation carries: one, a tuple of branches, a named tuple of solvers."""
    if isinstance(value, ClosedJaxpr | Jaxpr):
        return _rewritten(value)
    if isinstance(value, tuple | list):
        new = [_parameter(item) for item in value]
        if all(a is b for a, b in zip(new, value, strict=True)):
            return value
        return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)
    return value


def _rule_rewritten(rule: Callable, *args: Any) -> tuple:
    """A rule that JAX has traced to a jaxpr and what belongs to it."""
    jaxpr, *rest = rule(*args)
    return _rewritten(jaxpr), *rest


def _rule_accelerated(rule: Callable, *args: Any) -> Any:
    """A rule that JAX has not traced yet."""
    return accelerate(rule)(*args)


def _convolution(eqn: JaxprEqn) -> JaxprEqn:
    avals: list[Any] = [var.aval for var in (*eqn.invars, *eqn.outvars)]
    lhs, rhs, out = avals
    convolution = Convolution.of(lhs, rhs, out.shape, eqn.params)
    if convolution is None:
        return eqn
    sides = zip(avals, (convolution.lhs, convolution.rhs, convolution.out), strict=True)
    if any(aval.sharding.spec[axis] for aval, side in sides for axis in side.axes[2:]):
        return eqn  # XLA exchanges what neighbors need; our contractions would gather it
    static = convolution, np.dtype(out.dtype), out.sharding
    with jax.sharding.use_abstract_mesh(out.sharding.mesh):
        (call,) = jax.make_jaxpr(jdeconv_contraction, static_argnums=(2, 3, 4))(
            *(type_like(aval, aval.shape) for aval in (lhs, rhs)), *static
        ).eqns
    return eqn.replace(primitive=call.primitive, params=call.params, effects=call.effects)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def jdeconv_contraction(
    lhs, rhs, convolution: Convolution, dtype: np.dtype, sharding: Any
) -> jax.Array:
    """Under a name that profiles show."""
    result = convolution(lhs, rhs, dtype)
    same = jax.typeof(result).sharding.spec == sharding.spec
    return result if same else jax.sharding.reshard(result, sharding)  # out_sharding
