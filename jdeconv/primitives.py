"""Three sister primitives, closed under differentiation and vmap.

    conv         (x, k) -> y
    deconv       (y, k) -> x
    kernel_grad  (x, y) -> k

The transpose of each, in either operand, is one of the other two; mapping any set of arrays folds the new
axis into an axis that the form already has. So no transformation ever leaves the family.

This is the one file that uses JAX's extension interfaces (`jax.extend.core`, `jax.interpreters`): a
`custom_vjp` function has no forward mode and cannot say how it batches, a primitive can do both.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jdeconv.axes import reshaped
from jdeconv.checks import refused
from jdeconv.choose import choose
from jdeconv.form import CONTRACTIONS, Form, accumulator
from jdeconv.lowerings import LOWERINGS

conv_p = Primitive("jdeconv_conv")
deconv_p = Primitive("jdeconv_deconv")
kernel_grad_p = Primitive("jdeconv_kernel_grad")

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def conv(x: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """(x, k) -> y, of the given dtype."""
    return conv_p.bind(*aligned(x, kernel), form=form, dtype=np.dtype(dtype))


def deconv(y: jax.Array, kernel: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """(y, k) -> x, of the given dtype."""
    return deconv_p.bind(*aligned(y, kernel), form=form, dtype=np.dtype(dtype))


def kernel_grad(x: jax.Array, y: jax.Array, form: Form, dtype: np.dtype) -> jax.Array:
    """(x, y) -> k, of the given dtype."""
    return kernel_grad_p.bind(*aligned(x, y), form=form, dtype=np.dtype(dtype))


def aligned(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, all varying over the same manual mesh axes, as lax's own operations see to it.

    In `jax.shard_map`, a replicated kernel that meets a sharded x becomes varying here, and the transpose
    of that step is the sum over devices that the kernel's gradient needs.
    """
    varying = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    missing = [tuple(sorted(frozenset().union(*varying) - v, key=str)) for v in varying]
    return [
        jax.lax.pcast(a, axes, to="varying") if axes else a
        for a, axes in zip(arrays, missing, strict=True)
    ]


# Differentiation. T(x, k, y) is linear in each array: a cotangent takes the place of the result, and the
# operand that is wanted becomes the new result.

ad.defbilinear(
    conv_p,
    lambda y, x, k, *, form, dtype: deconv(y, k, form, x.aval.dtype),
    lambda y, x, k, *, form, dtype: kernel_grad(x, y, form, k.aval.dtype),
)
ad.defbilinear(
    deconv_p,
    lambda x, y, k, *, form, dtype: conv(x, k, form, y.aval.dtype),
    lambda x, y, k, *, form, dtype: kernel_grad(x, y, form, k.aval.dtype),
)
ad.defbilinear(
    kernel_grad_p,
    lambda k, x, y, *, form, dtype: deconv(y, k, form, x.aval.dtype),
    lambda k, x, y, *, form, dtype: conv(x, k, form, y.aval.dtype),
)


# Batching. The arrays that are mapped, the result among them, share exactly one index of the form; the
# new axis becomes its outer part.

SHARED_INDEX = {
    frozenset(("x", "y")): "n",
    frozenset(("kernel", "y")): "o",
    frozenset(("x", "kernel")): "c",
    frozenset(("x", "kernel", "y")): "g",
}
INDICES = {"x": ("n", "gc"), "kernel": ("go", "c"), "y": ("n", "go")}


def _batch(contraction: str, bind, operands, dims, *, form: Form, dtype: np.dtype):
    *roles, result = CONTRACTIONS[contraction]
    mapped = [role for role, dim in zip(roles, dims, strict=True) if dim is not None]
    index = SHARED_INDEX[frozenset((*mapped, result))]
    count = next(a.shape[d] for a, d in zip(operands, dims, strict=True) if d is not None)
    if count == 0:
        shapes = [
            np.delete(a.shape, [] if d is None else d) for a, d in zip(operands, dims, strict=True)
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


def _abstract_eval(contraction: str, a, b, *, form: Form, dtype: np.dtype):
    return jax.core.ShapedArray(
        form.result_shape(contraction, a.shape, b.shape),
        dtype,
        sharding=_sharding(contraction, a, b, form),
        manual_axis_type=a.manual_axis_type,
    )


def _sharding(contraction: str, a, b, form: Form) -> NamedSharding | None:
    """The result's sharding on a mesh with explicit axes: each index keeps the sharding it came with.

    Indices that are summed over may be sharded, as the batch is in a kernel's gradient; spatial axes not.
    """
    mesh = b.sharding.mesh if a.sharding.mesh.empty else a.sharding.mesh
    if mesh.empty:
        return None
    *roles, result = CONTRACTIONS[contraction]
    came = {}
    for role, operand in zip(roles, (a, b), strict=True):
        axes = getattr(form.layout, role)
        outer, inner, *space = (operand.sharding.spec[axis] for axis in axes)
        if any(space):
            reason = f"its spatial axes are sharded over {[s for s in space if s]}; reshard them"
            raise refused(contraction, role, operand.str_short(True), reason)
        came |= {(role, INDICES[role][0]): outer, (role, INDICES[role][1]): inner}
    dense = form.groups == 1
    outer, inner = {
        "y": (came.get(("x", "n")), came.get(("kernel", "go"))),
        "x": (came.get(("y", "n")), came.get(("kernel", "c")) if dense else None),
        "kernel": (came.get(("y", "go")), came.get(("x", "gc")) if dense else None),
    }[result]
    spec = [None] * (form.window.rank + 2)
    for axis, names in zip(getattr(form.layout, result)[:2], (outer, inner), strict=True):
        spec[axis] = names
    return NamedSharding(mesh, PartitionSpec(*spec))


def _evaluate(contraction: str, platform: str | None, a, b, *, form: Form, dtype: np.dtype):
    if any(isinstance(size, int) and size == 0 for size in (*a.shape, *b.shape)):
        return jnp.zeros(form.result_shape(contraction, a.shape, b.shape), dtype)
    c, o = form.channels(contraction, a.shape, b.shape)
    with jax.numpy_dtype_promotion("standard"):  # a wide cotangent may meet a narrow operand
        wide = jnp.promote_types(accumulator(a.dtype), accumulator(b.dtype))
        common = a.dtype if a.dtype == b.dtype else wide
        wide = jnp.promote_types(wide, accumulator(dtype))
    name = form.lowering
    if name is None or LOWERINGS[name].refuses(
        form, c, o, wide
    ):  # vmap may have changed what came in
        name = choose(platform, form, common, c, o)
    evaluate = getattr(LOWERINGS[name], contraction)
    return evaluate(a.astype(common), b.astype(common), form, wide).astype(dtype)


def _evaluator(contraction: str, platform: str | None, sharding, form: Form, dtype: np.dtype):
    """`_evaluate`, with a result that lies as the shape rule says."""
    evaluate = partial(_evaluate, contraction, platform, form=form, dtype=dtype)
    mesh = sharding.mesh
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    if explicit := tuple(name for name, kind in types if kind == AxisType.Explicit):
        # Inside, the partitioner follows the operands; only the place of the result is fixed.
        return jax.sharding.auto_axes(evaluate, axes=explicit, out_sharding=sharding)
    return evaluate


def _lower(contraction: str, platform: str | None, ctx, a, b, *, form: Form, dtype: np.dtype):
    sharding = ctx.avals_out[0].sharding
    evaluate = _evaluator(contraction, platform, sharding, form, dtype)
    return mlir.lower_fun(evaluate, multiple_results=False)(ctx, a, b)


@partial(jax.jit, static_argnames=("contraction", "platform", "sharding", "form", "dtype"))
def _run(contraction, platform, sharding, a, b, *, form, dtype):
    return _evaluator(contraction, platform, sharding, form, dtype)(a, b)


def _eager(contraction: str, a, b, *, form: Form, dtype: np.dtype) -> jax.Array:
    """Outside of jit. It must not bind the primitive: disable_jit and debug_nans would come back here."""
    a, b = jnp.asarray(a), jnp.asarray(b)  # what a vjp saved may be numpy's
    aval = _abstract_eval(contraction, jax.typeof(a), jax.typeof(b), form=form, dtype=dtype)
    device = next(iter(a.devices())).platform
    platform = {"gpu": "cuda"}.get(device, device)
    return _run(contraction, platform, aval.sharding, a, b, form=form, dtype=dtype)


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
