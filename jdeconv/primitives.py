"""Three sister primitives, closed under differentiation and vmap.

    conv         (x, k) -> y
    deconv       (y, k) -> x
    kernel_grad  (x, y) -> k

The transpose of each, in either operand, is one of the other two; mapping any set of arrays folds the new
axis into an axis that the form already has. So no transformation ever leaves the family.

This is the one file that uses JAX's extension interfaces (`jax.extend.core`, `jax.interpreters`): a
`custom_vjp` function has no forward mode and cannot say how it batches, a primitive can do both. Their
parameter `partition` is for jit's eyes only; `mesh.probe` says why.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, NamedSharding

from jdeconv import mesh
from jdeconv.axes import reshaped
from jdeconv.checks import refused
from jdeconv.choose import choose
from jdeconv.form import CONTRACTIONS, INDICES, Form, accumulator, shared_index
from jdeconv.lowerings import LOWERINGS

conv_p = Primitive("jdeconv_conv")
deconv_p = Primitive("jdeconv_deconv")
kernel_grad_p = Primitive("jdeconv_kernel_grad")

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def conv(
    x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype, like: Any = None
) -> jax.Array:
    """(x, k) -> y, of the given dtype."""
    return _bind(conv_p, x, kernel, form, dtype, like)


def deconv(
    y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype, like: Any = None
) -> jax.Array:
    """(y, k) -> x, of the given dtype."""
    return _bind(deconv_p, y, kernel, form, dtype, like)


def kernel_grad(
    x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype, like: Any = None
) -> jax.Array:
    """(x, y) -> k, of the given dtype."""
    return _bind(kernel_grad_p, x, y, form, dtype, like)


def _bind(primitive: Primitive, a, b, form: Form, dtype: np.dtype, like: Any) -> jax.Array:
    """The result lies on a mesh with explicit axes as `like`, an array's type: a gradient as its primal."""
    a, b = mesh.aligned(a, b)
    result = primitive.bind(a, b, form=form, dtype=np.dtype(dtype), partition=mesh.probe())
    sharding = jax.typeof(result).sharding
    if like is None or sharding.spec == like.sharding.spec:
        return result
    return jax.sharding.reshard(result, like.sharding)


# Differentiation. T(x, k, y) is linear in each array: a cotangent takes the place of the result, and the
# operand that is wanted becomes the new result.

ad.defbilinear(
    conv_p,
    lambda y, x, k, *, form, dtype, **_: deconv(y, k, form, x.aval.dtype, x.aval),
    lambda y, x, k, *, form, dtype, **_: kernel_grad(x, y, form, k.aval.dtype, k.aval),
)
ad.defbilinear(
    deconv_p,
    lambda x, y, k, *, form, dtype, **_: conv(x, k, form, y.aval.dtype, y.aval),
    lambda x, y, k, *, form, dtype, **_: kernel_grad(x, y, form, k.aval.dtype, k.aval),
)
ad.defbilinear(
    kernel_grad_p,
    lambda k, x, y, *, form, dtype, **_: deconv(y, k, form, x.aval.dtype, x.aval),
    lambda k, x, y, *, form, dtype, **_: conv(x, k, form, y.aval.dtype, y.aval),
)


# Batching. The arrays that are mapped, the result among them, share exactly one index of the form; the
# new axis becomes its outer part.


def _batch(contraction: str, bind, operands, dims, *, form: Form, dtype: np.dtype, **_):
    *roles, result = CONTRACTIONS[contraction]
    mapped = [role for role, dim in zip(roles, dims, strict=True) if dim is not None]
    index = shared_index(*mapped, result)
    count = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
    if count == 0:
        shapes = [
            tuple(size for axis, size in enumerate(a.shape) if axis != d)
            for a, d in zip(operands, dims, strict=True)
        ]
        return jnp.zeros((0, *form.result_shape(contraction, *shapes)), dtype), 0
    operands = [
        a if dim is None else _fold_in(a, dim, role, index, form)
        for a, dim, role in zip(operands, dims, roles, strict=True)
    ]
    wider = dataclasses.replace(form, groups=count * form.groups) if index == "g" else form
    return _fold_out(bind(*operands, wider, dtype), count, result, index, form)


def _place(role: str, index: str, form: Form) -> tuple[int, bool]:
    """The axis of `role` that carries the index, and whether the group stands outside of it there."""
    which = next(i for i, word in enumerate(INDICES[role]) if index in word)
    return getattr(form.layout, role)[which], INDICES[role][which].index(index) == 1


def _fold_in(a: jax.Array, dim: int, role: str, index: str, form: Form) -> jax.Array:
    axis, inside_group = _place(role, index, form)
    a = jnp.moveaxis(a, dim, axis)
    count, size = a.shape[axis : axis + 2]
    if inside_group:
        a = reshaped(a, axis + 1, 1, (form.groups, size // form.groups))
        a = jnp.moveaxis(a, axis, axis + 1)
    return reshaped(a, axis, 2 + inside_group, (count * size,))


def _fold_out(a: jax.Array, count: int, role: str, index: str, form: Form):
    axis, inside_group = _place(role, index, form)
    size = a.shape[axis] // count
    if not inside_group:
        return reshaped(a, axis, 1, (count, size)), axis
    a = reshaped(a, axis, 1, (form.groups, count, size // form.groups))
    a = jnp.moveaxis(a, axis + 1, axis)
    return reshaped(a, axis + 1, 2, (size,)), axis


# Shapes, raised while tracing, and evaluation, registered for each platform.


def _abstract_eval(contraction: str, a, b, *, form: Form, dtype: np.dtype, **_):
    return ShapedArray(
        form.result_shape(contraction, a.shape, b.shape),
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
            reason = f"its spatial axes are sharded over {[s for s in space if s]}; reshard them"
            raise refused(contraction, role, operand.str_short(True), reason)
    return mesh.Division(contraction, form).places(devices, a, b)[-1]


def _evaluate(
    contraction: str,
    platform: str | None,
    a: jax.Array,
    b: jax.Array,
    *,
    form: Form,
    dtype: np.dtype,
    to: np.dtype | None = None,
):
    """The contraction, of the given dtype; one that is added to others is converted `to` a wider one."""
    to = to or dtype
    if any(isinstance(size, int) and size == 0 for size in (*a.shape, *b.shape)):
        return jnp.zeros(form.result_shape(contraction, a.shape, b.shape), to)
    c, o = form.channels(contraction, a.shape, b.shape)
    with jax.numpy_dtype_promotion("standard"):  # a wide cotangent may meet a narrow operand
        wide = jnp.promote_types(accumulator(a.dtype), accumulator(b.dtype))
        common = a.dtype if a.dtype == b.dtype else wide
        wide = jnp.promote_types(wide, accumulator(dtype))
    # Of a step that nothing takes, a lowering would still count the phases.
    form = dataclasses.replace(
        form, window=form.window.reduced, platform=platform, result=np.dtype(dtype)
    )
    name = form.lowering
    # vmap may have made of a form that the named lowering serves one that it refuses
    if name is None or LOWERINGS[name].refuses(form, c, o, wide):
        name = choose(platform, form, common, c, o)
    evaluate = getattr(LOWERINGS[name], contraction)
    return evaluate(a.astype(common), b.astype(common), form, wide).astype(to)


def _evaluator(
    contraction: str, platform: str | None, sharding, form: Form, dtype: np.dtype, is_divided: bool
):
    """`_evaluate`, divided among devices as far as the mesh and its partitioner are known."""
    evaluate = partial(_evaluate, contraction, platform)
    if AxisType.Explicit in sharding.mesh.axis_types:
        return partial(mesh.mapped, evaluate, contraction, form, dtype)
    if is_divided and mesh.is_asked():
        return partial(mesh.partitioned, evaluate, contraction, form, dtype)
    return partial(evaluate, form=form, dtype=dtype)


def _lower(contraction: str, platform: str | None, ctx, a, b, *, form: Form, dtype: np.dtype, **_):
    sharding = ctx.avals_out[0].sharding
    evaluate = _evaluator(contraction, platform, sharding, form, dtype, _is_divided(ctx))
    return mlir.lower_fun(evaluate, multiple_results=False)(ctx, a, b)


def _is_divided(ctx) -> bool:
    """Whether XLA's partitioner divides what is lowered over a mesh, and in this process.

    In `jax.shard_map` it has been divided already, and an export cannot take our part in it along.
    """
    context = ctx.module_context.axis_context
    devices = getattr(context, "abstract_mesh", None)
    has_devices = getattr(context, "device_assignment", None) is not None
    is_kept = ctx.module_context.lowering_parameters.for_export
    return devices is not None and devices.size > 1 and has_devices and not is_kept


@partial(
    jax.jit, static_argnames=("contraction", "platform", "sharding", "form", "dtype", "is_divided")
)
def _run(contraction, platform, sharding, a, b, *, form, dtype, is_divided):
    return _evaluator(contraction, platform, sharding, form, dtype, is_divided)(a, b)


def _eager(contraction: str, a, b, *, form: Form, dtype: np.dtype, **_) -> jax.Array:
    """Outside of jit. It must not bind the primitive: disable_jit and debug_nans would come back here."""
    a, b = jnp.asarray(a), jnp.asarray(b)  # what a vjp saved may be numpy's
    aval = _abstract_eval(contraction, jax.typeof(a), jax.typeof(b), form=form, dtype=dtype)
    device = next(iter(a.devices())).platform
    platform = {"gpu": "cuda"}.get(device, device)
    is_divided = any(
        isinstance(o.sharding, NamedSharding) and o.sharding.mesh.size > 1 for o in (a, b)
    )
    return _run(
        contraction, platform, aval.sharding, a, b, form=form, dtype=dtype, is_divided=is_divided
    )


for _name, _primitive, _function in (
    ("conv", conv_p, conv),
    ("deconv", deconv_p, deconv),
    ("kernel_grad", kernel_grad_p, kernel_grad),
):
    _primitive.def_impl(partial(_eager, _name))
    _primitive.def_abstract_eval(partial(_abstract_eval, _name))
    batching.primitive_batchers[_primitive] = partial(_batch, _name, _function)
    for _platform in (*PLATFORMS, None):
        mlir.register_lowering(_primitive, partial(_lower, _name, _platform), platform=_platform)
