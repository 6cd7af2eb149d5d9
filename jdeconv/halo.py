"""Images and volumes larger than a device: spatial axes sharded over a mesh, halos exchanged by neighbors.

    conv   = exchange, then the conv of the shard
    deconv = the deconv of the shard, then add

All gradients are of this form, since each is the backward pass of the other. The sum of a kernel's gradient
over the devices is `jax.shard_map`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from jdeconv import api, primitives
from jdeconv.checks import array, one_of, refused, reporting, shown
from jdeconv.exchange import Halo, add, devices, exchange, shards
from jdeconv.form import CONTRACTIONS, Form, accumulator
from jdeconv.padding import MODES, pad, pad_transpose

__all__ = ["Halo", "add", "conv", "deconv", "exchange"]


@reporting(big="x")
@api.with_options_of(api.conv_by)
def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    spec: PartitionSpec | None = None,
    padding_mode: str = "zeros",
    **options: Any,
) -> jax.Array:
    """Returns `jdeconv.conv` of an x whose spatial axes are sharded, within `jax.set_mesh(mesh)`.

    Every device gets from its neighbors only the cells that its windows read. If the shards of x and y are
    aligned, as with "SAME", these are span - stride positions on each axis.

    Shapes: those of `jdeconv.conv`, with a batch axis. On a sharded axis the sizes of x and of the result must
    both be multiples of the devices.

    Args:
      x: the array, sharded over batch and space; the kernel and the bias are the same on all devices.
      spec: which mesh axes shard which axes of x; None takes it from x, which knows it on a mesh with explicit
        axes and outside of jit. Over a spatial axis it may name one mesh axis or several.
      padding_mode: as in `jdeconv.conv`. With "circular" the first and the last device are neighbors.
      **options: the other arguments of `jdeconv.conv`.

    Returns:
      The result, sharded like x.

    Raises:
      ValueError: for a spec that shards channels, names axes that the mesh lacks, or cannot be found; for
        sizes that do not divide, with those that fit. The errors of `jdeconv.conv` come besides.

    Differentiation: forward and reverse mode, to any order; the backward pass is `deconv` here.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = jax.make_mesh((1,), ("h",))
      >>> with jax.set_mesh(mesh):
      ...     y = conv(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10, 0]]]), padding=1,
      ...              spec=PartitionSpec(None, None, "h"))
      >>> y.tolist()
      [[[10, 21, 32, 43]]]
    """
    contract = _sharded("conv", x, kernel, spec, padding_mode)
    return api.conv_by(contract, x, kernel, bias, **options)


@reporting(small="y")
@api.with_options_of(api.deconv_by)
def deconv(
    y: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    spec: PartitionSpec | None = None,
    padding_mode: str = "zeros",
    **options: Any,
) -> jax.Array:
    """Returns `jdeconv.deconv` of a y whose spatial axes are sharded: the adjoint of `halo.conv`.

    Arguments, results and errors: those of `jdeconv.deconv` and of `conv` here.

    Differentiation: forward and reverse mode, to any order; the backward pass is `conv` here.

    Example:
      >>> import jax.numpy as jnp
      >>> mesh = jax.make_mesh((1,), ("h",))
      >>> with jax.set_mesh(mesh):
      ...     x = deconv(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), stride=2,
      ...                spec=PartitionSpec(None, None, "h"))
      >>> x.tolist()
      [[[1, 10, 2, 20]]]
    """
    contract = _sharded("deconv", y, kernel, spec, padding_mode)
    return api.deconv_by(contract, y, kernel, bias, **options)


def _sharded(contraction: str, a: Any, kernel: Any, spec: Any, mode: str) -> Callable:
    """The contraction of a sharded first array; the spec, or else the array, says how it is sharded."""
    role = CONTRACTIONS[contraction][0]
    one_of("padding_mode", mode, MODES)
    a, kernel = array(role, a), array("kernel", kernel)
    if a.ndim != kernel.ndim:
        reason = f"needs {kernel.ndim} axes, as the kernel has: batch, channels and space"
        raise refused(role, f"{reason}, got {shown(a)}")
    mesh, is_traced = jax.sharding.get_abstract_mesh(), isinstance(a, Tracer)
    found = jax.typeof(a).sharding if is_traced else a.sharding
    if isinstance(found, NamedSharding):
        mesh = found.mesh if mesh.empty else mesh
        if spec is None and (any(found.spec) or not is_traced):  # a type may leave it to XLA
            spec = found.spec
    if mesh.empty:
        raise refused("spec", "needs a mesh; call it within jax.set_mesh(mesh)")
    if spec is None:
        reason = f"is needed, since {role}'s type does not say how it is sharded"
        raise refused("spec", f"{reason}; pass its PartitionSpec")
    if not isinstance(spec, PartitionSpec):
        reason = f"must be a PartitionSpec of {role}'s axes, got {shown(spec)}"
        raise refused("spec", reason, TypeError)
    entries = (*spec, *[None] * (a.ndim - len(spec)))
    names = [e if isinstance(e, tuple) else (e,) if e else () for e in entries]
    for name in sum(names, ()):
        if name not in mesh.axis_names:
            raise refused("spec", f"names {name!r}, but the mesh has {mesh.axis_names}")
    return partial(_contract, contraction, mode, mesh, names)


def _contract(contraction, mode, mesh, names, a, kernel, form: Form, dtype) -> jax.Array:
    """The contraction, on every device that of its shard; `names` are the mesh axes of each axis of `a`."""
    role, _, result = CONTRACTIONS[contraction]
    batch, channels, *space = (names[axis] for axis in getattr(form.layout, role))
    if channels:
        raise refused("spec", f"must not shard channels together with space, got {channels}")
    entries = dict(zip(getattr(form.layout, result), (batch, None, *space), strict=True))
    out = PartitionSpec(*(entries[axis] for axis in range(a.ndim)))
    specs = PartitionSpec(*names), PartitionSpec()
    if AxisType.Explicit in mesh.axis_types:
        places = [NamedSharding(mesh, spec) for spec in specs]
        a, kernel = map(jax.sharding.reshard, (a, kernel), places)
    steps, form = _steps(role, mode, mesh, space, form)
    shard = partial(_conv if contraction == "conv" else _deconv, steps, form, dtype)
    return jax.shard_map(shard, mesh=mesh, in_specs=specs, out_specs=out)(a, kernel)


def _steps(role, mode, mesh, space, form: Form) -> tuple[list[tuple[Callable, Callable]], Form]:
    """Linear maps of a shard of x, with their adjoints, and the form of the contraction that remains."""
    w = form.window
    for i, names in enumerate(space):
        count = devices(mesh, names)
        sizes = (w.big[i], w.small[i]) if role == "x" else (w.small[i], w.big[i])
        for what, size in zip(("has", "gives a result of"), sizes, strict=True):
            if size % count:
                least = size // count * count
                fit = f"{least} and {least + count} fit" if least else f"{count} fits"
                of_mesh = f"the {count} devices of mesh axis {' and '.join(map(repr, names))}"
                reason = (
                    f"{what} size {size} on spatial axis {i}, not a multiple of {of_mesh}; {fit}"
                )
                raise refused(role, reason)
    halos, w = shards(w, form.layout.x[2:], mesh, space, mode)
    steps = [(partial(exchange, halo=halo), partial(add, halo=halo)) for halo in halos]
    if mode != "zeros":  # on the axes that are not sharded
        axes = {"window": w, "axes": form.layout.x[2:], "mode": mode}
        steps.append((partial(pad, **axes), partial(pad_transpose, **axes)))
        w = w.padded
    return steps, replace(form, window=w)


def _conv(steps, form: Form, dtype, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The conv of a shard; the parts of the gradient of x are added in the accumulator's dtype."""

    def contracted(x: jax.Array, kernel: jax.Array, operands: Any) -> jax.Array:
        return primitives.conv(x.astype(operands), kernel.astype(operands), form, dtype)

    narrow = x.dtype
    x = x.astype(accumulator(narrow))
    for step, _ in steps:
        x = step(x)
    return _wide_on_cpu(contracted, x, kernel, narrow)


def _deconv(steps, form: Form, dtype, y: jax.Array, kernel: jax.Array) -> jax.Array:
    """The deconv of a shard; its parts of sums are added in the accumulator's dtype."""

    def terms(y: jax.Array, kernel: jax.Array, part: Any) -> jax.Array:
        return primitives.deconv(y, kernel, form, part).astype(accumulator(dtype))

    x = _wide_on_cpu(terms, y, kernel, dtype)
    for _, adjoint in reversed(steps):
        x = adjoint(x)
    return x.astype(dtype)


def _wide_on_cpu(function: Callable, a: jax.Array, b: jax.Array, dtype: Any) -> jax.Array:
    """The function of two arrays and a dtype, which is wide on CPU; accelerators multiply in the narrow one."""
    wide = accumulator(dtype)
    if dtype == wide:
        return function(a, b, dtype)
    return lax.platform_dependent(
        a, b, cpu=lambda a, b: function(a, b, wide), default=lambda a, b: function(a, b, dtype)
    )
