"""Every interface of JAX that is used here and that JAX does not document as stable, in one file.

All were tried with jax 0.10.0, 0.10.2, 0.11.2 and 0.12.0.1.

    Primitive, ad, batching, mlir    a `custom_vjp` function has no forward mode and cannot say how it batches
    ClosedJaxpr, Jaxpr, JaxprEqn,    `accelerate` replaces equations; it also knows the parameters of the
    jaxpr_as_fun,                    equations of custom_jvp and custom_vjp functions, and wraps their rules
    conv_general_dilated_p
    jet                              its table of rules, and its rule of a bilinear primitive
    set_xla_metadata                 XLA evaluates the operands of a call once, but only if it keeps the call
    custom_partitioning              the one interface by which a library takes part in XLA's partitioning
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import jet
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Primitive, jaxpr_as_fun
from jax.extend.core.primitives import conv_general_dilated_p
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

__all__ = [
    "ClosedJaxpr",
    "Jaxpr",
    "JaxprEqn",
    "Primitive",
    "ad",
    "batching",
    "conv_general_dilated_p",
    "custom_partitioning",
    "is_divided",
    "jaxpr_as_fun",
    "mlir",
    "pass_jet",
    "transposed",
    "type_like",
    "uses_shardy",
    "varying",
    "written",
]


def written(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, as XLA's CPU backend writes them to memory.

    Where an array is read more than once, XLA would evaluate what made it at each reading. The operands of a
    call are evaluated once, and nothing is copied. XLA keeps a call only with this mark.
    """
    with set_xla_metadata(inlineable="false"):
        return _unchanged(*arrays)


@jax.jit
def _unchanged(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    return arrays


def pass_jet(primitive: Primitive) -> None:
    """Let `jax.experimental.jet` pass through a primitive that is linear in each of two operands."""
    jet.jet_rules[primitive] = functools.partial(jet._bilinear_taylor_rule, primitive)


def varying(a: Any) -> frozenset:
    """The manual mesh axes over which an array varies, within `jax.shard_map`."""
    return jax.typeof(a).manual_axis_type.varying


def type_like(
    aval: Any, shape: Sequence[int], axes: Sequence[int] | None = None
) -> jax.ShapeDtypeStruct:
    """The type of an array of another shape that lies on the same devices as one of the type `aval`.

    It is sharded as that is, or as these axes of that are.
    """
    sharding = None if aval.sharding.mesh.empty else aval.sharding
    if sharding is not None and axes is not None:
        spec = PartitionSpec(*(sharding.spec[axis] for axis in axes))
        sharding = NamedSharding(sharding.mesh, spec)
    manual = aval.manual_axis_type
    return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=sharding, manual_axis_type=manual)


def transposed(
    linear: Callable, a: jax.Array, shape: Sequence[int], axes: Sequence[int] | None = None
) -> jax.Array:
    """The result, for `a`, of the transpose of a function that is linear in an array of this shape.

    The result is sharded as `a` is, or as these axes of `a` are.
    """
    (x,) = jax.linear_transpose(linear, type_like(jax.typeof(a), shape, axes))(a)
    return x


def uses_shardy() -> bool:
    """Whether XLA's partitioner takes rules: Shardy does, which is JAX's default; GSPMD did not."""
    return getattr(jax.config, "jax_use_shardy_partitioner", True)


def is_divided(ctx: Any) -> bool:
    """Whether XLA's partitioner divides what is lowered over a mesh, and in this process.

    In `jax.shard_map` it has been divided already, and an export cannot take our part in it along.
    """
    context = ctx.module_context.axis_context
    devices = getattr(context, "abstract_mesh", None)
    has_devices = getattr(context, "device_assignment", None) is not None
    is_kept = ctx.module_context.lowering_parameters.for_export
    return devices is not None and devices.size > 1 and has_devices and not is_kept
