"""Three primitives, whose derivatives and vmaps are these three primitives again.

    conv         (x, k) -> y
    deconv       (y, k) -> x
    kernel_grad  (x, y) -> k

The transpose of each, in either operand, is one of the other two, as `pair.py` says. Mapping any set of arrays
folds the new axis into an axis that the form already has.

A `custom_vjp` function has no forward mode and cannot say how it batches; a primitive can do both. The
parameter `partition` is read by jit only; `mesh.probe` says why.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.sharding import AxisType, NamedSharding

from jdeconv import _jax, mesh
from jdeconv._jax import Primitive, batching, mlir
from jdeconv.axes import padded, reshaped
from jdeconv.checks import cells, refused
from jdeconv.evaluate import evaluate
from jdeconv.form import CONTRACTIONS, INDICES, Form, shared_index
from jdeconv.problem import Problem

conv_p = Primitive("jdeconv_conv")
deconv_p = Primitive("jdeconv_deconv")
kernel_grad_p = Primitive("jdeconv_kernel_grad")

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def conv(x: jax.Array, kernel: jax.Array, form: Form, result: Any) -> jax.Array:
    """(x, kernel) -> y. `result` is its dtype, or a type whose dtype and sharding it gets."""
    return _bind(conv_p, x, kernel, form, result)


def deconv(y: jax.Array, kernel: jax.Array, form: Form, result: Any) -> jax.Array:
    """(y, kernel) -> x."""
    return _bind(deconv_p, y, kernel, form, result)


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, result: Any) -> jax.Array:
    """(x, y) -> kernel."""
    return _bind(kernel_grad_p, x, y, form, result)


def _bind(primitive: Primitive, a: jax.Array, b: jax.Array, form: Form, result: Any) -> jax.Array:
    a, b = mesh.aligned(a, b)
    is_type = isinstance(result, ShapedArray)
    dtype = np.dtype(result.dtype if is_type else result)
    found = primitive.bind(a, b, form=form, dtype=dtype, partition=mesh.probe())
    if not is_type or jax.typeof(found).sharding.spec == result.sharding.spec:
        return found
    return jax.sharding.reshard(found, result.sharding)


# Batching. The arrays that are mapped, the result among them, share exactly one index of the form. The new
# axis becomes the outer part of this index. For c and o, the order in memory is (group, new, c).


def _batch(contraction: str, bind, operands, dims, *, form: Form, dtype: np.dtype, **_):
    *roles, result = CONTRACTIONS[contraction]
    mapped = [role for role, dim in zip(roles, dims, strict=True) if dim is not None]
    index = shared_index(*mapped, result)
    count = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
    if count == 0:  # map over one of zeros, and drop its result
        pairs = zip(operands, dims, strict=True)
        operands = [a if d is None else padded(a, d, 0, 1) for a, d in pairs]
        found, dim = _batch(contraction, bind, operands, dims, form=form, dtype=dtype)
        return padded(found, dim, 0, -1), dim
    operands = [
        a if dim is None else _fold_in(a, dim, *_place(role, index, form))
        for a, dim, role in zip(operands, dims, roles, strict=True)
    ]
    wider = dataclasses.replace(form, groups=count * form.groups) if index == "g" else form
    return _fold_out(bind(*operands, wider, dtype), count, *_place(result, index, form))


def _place(role: str, index: str, form: Form) -> tuple[int, int]:
    """The axis of `role` that holds the index, and how many groups stand before the index there, 1 if none."""
    which = next(i for i, word in enumerate(INDICES[role]) if index in word)
    is_inside = INDICES[role][which].index(index) == 1
    return getattr(form.layout, role)[which], form.groups if is_inside else 1


def _fold_in(a: jax.Array, dim: int, axis: int, groups: int) -> jax.Array:
    a = jnp.moveaxis(a, dim, axis)
    count, size = a.shape[axis : axis + 2]
    a = reshaped(a, axis + 1, 1, (groups, size // groups))
    return reshaped(jnp.moveaxis(a, axis, axis + 1), axis, 3, (count * size,))


def _fold_out(a: jax.Array, count: int, axis: int, groups: int) -> tuple[jax.Array, int]:
    size = a.shape[axis] // count
    a = reshaped(a, axis, 1, (groups, count, size // groups))
    return reshaped(jnp.moveaxis(a, axis + 1, axis), axis + 1, 2, (size,)), axis


# Shapes, raised while tracing, and evaluation, registered for each platform.


def _abstract_eval(contraction: str, a, b, *, form: Form, dtype: np.dtype, **_):
    _, second, result = CONTRACTIONS[contraction]
    shape = Problem.of(contraction, form, a, b, dtype).shape(result)
    cells(second, shape)
    return ShapedArray(
        shape,
        dtype,
        sharding=_sharding(contraction, a, b, form),
        manual_axis_type=a.manual_axis_type,
    )


def _sharding(contraction: str, a, b, form: Form) -> NamedSharding | None:
    """The result's sharding on a mesh with explicit axes: each index keeps the sharding it came with.

    Indices that are summed over may be sharded, as the batch is in a kernel's gradient; spatial axes not.
    """
    devices = b.sharding.mesh if a.sharding.mesh.empty else a.sharding.mesh
    if devices.empty:
        return None
    *roles, _ = CONTRACTIONS[contraction]
    for role, operand in zip(roles, (a, b), strict=True):
        space = [operand.sharding.spec[axis] for axis in getattr(form.layout, role)[2:]]
        if any(space):
            reason = f"has spatial axes sharded over {[s for s in space if s]}; reshard them"
            raise refused(role, reason)
    return mesh.Division(contraction, form).places(devices, a, b)[-1]


def _evaluate(contraction: str, platform: str | None, is_divided: bool, a, b, *, form, dtype, **_):
    """`evaluate`, divided among devices as far as the mesh and its partitioner are known."""
    local = partial(evaluate, contraction, platform)
    if any(AxisType.Explicit in jax.typeof(o).sharding.mesh.axis_types for o in (a, b)):
        return mesh.mapped(local, contraction, form, dtype, a, b)
    if is_divided and _jax.uses_shardy():
        return mesh.partitioned(local, contraction, form, dtype, a, b)
    return local(a, b, form=form, dtype=dtype)


_run = jax.jit(_evaluate, static_argnums=(0, 1, 2), static_argnames=("form", "dtype"))


def _lower(contraction: str, platform: str | None, ctx, a, b, **static):
    run = partial(_evaluate, contraction, platform, _jax.is_divided(ctx), **static)
    return mlir.lower_fun(run, multiple_results=False)(ctx, a, b)


def _eager(contraction: str, a, b, *, form: Form, dtype: np.dtype, **_) -> jax.Array:
    """Outside of jit. It must not bind the primitive: disable_jit and debug_nans would come back here."""
    a, b = jnp.asarray(a), jnp.asarray(b)  # what a vjp saved may be numpy's
    _abstract_eval(contraction, jax.typeof(a), jax.typeof(b), form=form, dtype=dtype)
    device = next(iter(a.devices())).platform
    platform = {"gpu": "cuda"}.get(device, device)  # on ROCm too; it only decides how to evaluate
    places = [o.sharding for o in (a, b)]
    is_divided = any(isinstance(at, NamedSharding) and at.mesh.size > 1 for at in places)
    return _run(contraction, platform, is_divided, a, b, form=form, dtype=dtype)


for _name, _primitive, _function in (
    ("conv", conv_p, conv),
    ("deconv", deconv_p, deconv),
    ("kernel_grad", kernel_grad_p, kernel_grad),
):
    _primitive.def_impl(partial(_eager, _name))
    _primitive.def_abstract_eval(partial(_abstract_eval, _name))
    _jax.pass_jet(_primitive)
    batching.primitive_batchers[_primitive] = partial(_batch, _name, _function)
    for _platform in (*PLATFORMS, None):
        mlir.register_lowering(_primitive, partial(_lower, _name, _platform), platform=_platform)
