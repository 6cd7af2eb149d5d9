"""Images and volumes larger than a device: spatial axes sharded over a mesh, halos exchanged by neighbors.

    exchange   a shard of x -> the same with what the windows of its shard of y see of the shards around it
    add        the adjoint: what lies in a halo is added to where it came from

    conv   = exchange, then the conv of the shard
    deconv = the deconv of the shard, then add

`exchange` and `add` are each other's backward pass, as conv and deconv are, so all gradients are of this form.
The zeros of the padding cost nothing: what the first and the last device receive from nobody is zero. The sum
of a kernel's gradient over the devices is `jax.shard_map`'s.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.lax import PrecisionLike
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from jdeconv import api
from jdeconv.axes import padded
from jdeconv.checks import Ints, Padding, array, integer, refused, reporting, shown, space
from jdeconv.form import CONTRACTIONS, Layout, accumulator
from jdeconv.window import Window

__all__ = ["Halo", "add", "conv", "deconv", "exchange"]


@reporting(big="x")
def conv(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    spec: PartitionSpec | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    dimension_numbers: Sequence[str] | None = None,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    lowering: str | None = None,
) -> jax.Array:
    """`jdeconv.conv` of an x whose spatial axes are sharded, within `jax.set_mesh(mesh)`.

    Every device exchanges with its neighbors only what its windows see: span - stride positions on an axis
    where shards of x and y lie side by side, as with "SAME".

    Shapes: those of `jdeconv.conv`, with a batch axis. On a sharded axis the sizes of x and of the result must
    both be multiples of the devices.

    Args:
      x: the array, sharded over batch and space; the kernel and the bias are the same on all devices.
      spec: which mesh axes shard which axes of x; None takes it from x, which knows it on a mesh with explicit
        axes and outside of jit. Over a spatial axis it may name one mesh axis or several.
      stride, padding, dilation, groups, dimension_numbers, precision, preferred_element_type, lowering: as in
        `jdeconv.conv`.

    Returns:
      The result, sharded like x.

    Raises:
      ValueError: for a spec that shards channels, names axes that the mesh lacks, or cannot be found; for
        sizes that do not divide, with those that fit; beside the errors of `jdeconv.conv`.

    Differentiation: reverse mode, to any order; the backward pass is `deconv` here.

    Example:
      >>> mesh = jax.make_mesh((1,), ("h",))
      >>> with jax.set_mesh(mesh):
      ...     y = conv(jnp.array([[[1, 2, 3, 4]]]), jnp.array([[[1, 10, 0]]]), padding=1,
      ...              spec=PartitionSpec(None, None, "h"))
      >>> y.tolist()
      [[[10, 21, 32, 43]]]
    """
    shards = _Shards.of("conv", x, kernel, spec, dimension_numbers)
    steps: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    window = Window.of_conv(shards.space, shards.kernel, **steps)
    halos = shards.halos(window, window.big, window.small)
    options: dict[str, Any] = {
        "stride": stride,
        "padding": shards.local(window),
        "dilation": dilation,
        "groups": groups,
        "dimension_numbers": dimension_numbers,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
        "lowering": lowering,
    }

    def shard(x: jax.Array, kernel: jax.Array, *bias: jax.Array) -> jax.Array:
        for halo in halos:
            x = exchange(x, halo)
        return api.conv(x, kernel, *bias, **options)

    return shards.mapped(shard, x, kernel, bias, shards.layout.y)


@reporting(small="y")
def deconv(
    y: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    spec: PartitionSpec | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    output_padding: Ints = 0,
    output_size: Ints | None = None,
    dimension_numbers: Sequence[str] | None = None,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    lowering: str | None = None,
) -> jax.Array:
    """`jdeconv.deconv` of a y whose spatial axes are sharded: the adjoint of `conv` here.

    Arguments, results and errors: those of `jdeconv.deconv` and of `conv` here.

    Differentiation: reverse mode, to any order; the backward pass is `conv` here.

    Example:
      >>> mesh = jax.make_mesh((1,), ("h",))
      >>> with jax.set_mesh(mesh):
      ...     x = deconv(jnp.array([[[1, 2]]]), jnp.array([[[1, 10]]]), stride=2,
      ...                spec=PartitionSpec(None, None, "h"))
      >>> x.tolist()
      [[[1, 10, 2, 20]]]
    """
    shards = _Shards.of("deconv", y, kernel, spec, dimension_numbers)
    steps: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    sizes: dict[str, Any] = {"output_padding": output_padding, "output_size": output_size}
    window = Window.of_deconv(shards.space, shards.kernel, **steps, **sizes)
    halos = shards.halos(window, window.small, window.big)
    options: dict[str, Any] = {
        "stride": stride,
        "padding": shards.local(window),
        "dilation": dilation,
        "groups": groups,
        "output_size": shards.seen(window),
        "dimension_numbers": dimension_numbers,
        "precision": precision,
        "preferred_element_type": preferred_element_type,
        "lowering": lowering,
    }

    def shard(y: jax.Array, kernel: jax.Array, *bias: jax.Array) -> jax.Array:
        whole = jax.eval_shape(functools.partial(api.deconv, **options), y, kernel, *bias)
        wide = accumulator(whole.dtype)  # until all parts of the sum are together
        x = _parts(functools.partial(api.deconv, **options), y, kernel, whole.dtype, wide)
        for halo in halos:
            x = add(x, halo)
        x = x.astype(whole.dtype)
        for b in bias:  # one or none
            channel = shards.layout.x[1]
            x = x + b.astype(x.dtype).reshape([-1 if i == channel else 1 for i in range(x.ndim)])
        return x

    return shards.mapped(shard, y, kernel, bias, shards.layout.x)


def _parts(
    deconv: Callable, y: jax.Array, kernel: jax.Array, dtype: np.dtype, wide: np.dtype
) -> jax.Array:
    """What a shard adds to the sums, in the wide dtype; accelerators multiply in their narrow one."""
    if dtype == wide:
        return deconv(y, kernel)
    return lax.platform_dependent(
        y,
        kernel,
        cpu=lambda *arrays: deconv(*arrays, preferred_element_type=wide),
        default=lambda *arrays: deconv(*arrays).astype(wide),
    )


@dataclass(frozen=True)
class Halo:
    """What the shards of one axis exchange.

    Device r has positions r*shard to (r + 1)*shard of x. Its windows see `length` of them, beginning with
    r*(shard - step) - low. So they begin low + r*step positions before its own.

    Args:
      axis: of the array.
      name: of the mesh axis, or several.
      count: of the devices.
      shard: positions of x on each.
      length, low, step: as above. The step is 0 where shards of x and y lie side by side.

    Example: shards of 4 whose windows see one position on either side.
      >>> halo = Halo(axis=2, name="h", count=8, shard=4, length=6, low=1, step=0)
      >>> halo.before, halo.behind
      (1, 1)
    """

    axis: int
    name: Any
    count: int
    shard: int
    length: int
    low: int
    step: int

    @reporting()
    def __post_init__(self) -> None:
        for name in ("axis", "count", "shard", "length", "low", "step"):
            least = 1 if name in ("count", "shard", "length") else 0 if name == "axis" else None
            integer(name, getattr(self, name), least)
        names = self.name if isinstance(self.name, tuple) else (self.name,)
        if not all(isinstance(name, str) for name in names):
            reason = f"must be the name of a mesh axis, or a tuple of names, got {shown(self.name)}"
            raise refused("name", reason, TypeError)

    @property
    def before(self) -> int:
        """The most positions that any device receives from those before it."""
        return max(0, self.low, self.low + (self.count - 1) * self.step)

    @property
    def behind(self) -> int:
        """The most positions that any device receives from those behind it."""
        rest = self.length - self.low - self.shard
        return max(0, rest, rest - (self.count - 1) * self.step)

    @reporting()
    def hops(self, positions: int) -> list[tuple[int, int]]:
        """So many positions come from neighbors (hop, positions), the nearest first."""
        positions = integer("positions", positions, 0)
        hops = range(-(-positions // self.shard))
        return [(hop + 1, min(self.shard, positions - hop * self.shard)) for hop in hops]

    @reporting()
    def shifted(self, a: jax.Array, hop: int) -> jax.Array:
        """What the device `hop` places before has; zeros where there is none."""
        a, hop = array("a", a), integer("hop", hop)
        pairs = [(i, i + hop) for i in range(self.count) if 0 <= i + hop < self.count]
        return lax.ppermute(a, self.name, pairs) if pairs else jnp.zeros_like(a)

    @property
    def start(self) -> Any:
        """Where the windows of this device begin among what it has with all that it received."""
        return self.before - self.low - self.step * (lax.axis_index(self.name) if self.step else 0)


@reporting()
def _exchange(x: jax.Array, halo: Halo) -> jax.Array:
    """A shard of x with what its windows see of the shards around it, within `jax.shard_map`.

    Formula: device r has ``x[r*shard : (r + 1)*shard]`` and gets the `length` positions of x from
    ``r*(shard - step) - low`` on, zeros outside of x.

    Shapes: x, with `shard` positions on `halo.axis` -> the same with `length`.

    Args:
      x: the shard.
      halo: what is exchanged.

    Differentiation: a `jax.custom_vjp` function, to any order; the backward pass is `add`.

    Example: a single device, which gets nothing from anybody.
      >>> halo = Halo(axis=0, name="h", count=1, shard=3, length=5, low=1, step=0)
      >>> specs = {"in_specs": PartitionSpec("h"), "out_specs": PartitionSpec("h")}
      >>> mesh = jax.make_mesh((1,), ("h",), axis_types=(AxisType.Auto,))
      >>> wider = jax.shard_map(lambda x: exchange(x, halo), mesh=mesh, **specs)
      >>> wider(jnp.array([1, 2, 3])).tolist()
      [0, 1, 2, 3, 0]
    """
    axis, shard = _read("x", x, halo).axis, halo.shard
    parts = [x]
    for hop, size in halo.hops(halo.before):
        parts.insert(0, halo.shifted(lax.slice_in_dim(x, shard - size, shard, axis=axis), hop))
    for hop, size in halo.hops(halo.behind):
        parts.append(halo.shifted(lax.slice_in_dim(x, 0, size, axis=axis), -hop))
    wide = jnp.concatenate(parts, axis)
    return lax.dynamic_slice_in_dim(wide, halo.start, halo.length, axis)


@reporting()
def _add(seen: jax.Array, halo: Halo) -> jax.Array:
    """The adjoint of `exchange`: what lies in a halo is added to where it came from.

    Formula: device r adds ``seen[i]`` to position ``r*(shard - step) - low + i`` of x, whosever that is.

    Shapes: seen, with `length` positions on `halo.axis` -> the same with `shard`.

    Args:
      seen: what the windows of this shard add up.
      halo: what is exchanged.

    Differentiation: a `jax.custom_vjp` function, to any order; the backward pass is `exchange`.

    Example: a single device, whose halo lies outside of x.
      >>> halo = Halo(axis=0, name="h", count=1, shard=3, length=5, low=1, step=0)
      >>> specs = {"in_specs": PartitionSpec("h"), "out_specs": PartitionSpec("h")}
      >>> mesh = jax.make_mesh((1,), ("h",), axis_types=(AxisType.Auto,))
      >>> added = jax.shard_map(lambda x: add(x, halo), mesh=mesh, **specs)
      >>> added(jnp.array([9, 1, 2, 3, 9])).tolist()
      [1, 2, 3]
    """
    axis, shard, before = _read("seen", seen, halo).axis, halo.shard, halo.before
    shape = list(seen.shape)
    shape[axis] = before + shard + halo.behind
    wide = lax.dynamic_update_slice_in_dim(jnp.zeros(shape, seen.dtype), seen, halo.start, axis)
    part = lambda start, size: lax.slice_in_dim(wide, start, start + size, axis=axis)  # noqa: E731
    x = part(before, shard)
    for hop, size in halo.hops(before):
        piece = halo.shifted(part(before - (hop - 1) * shard - size, size), -hop)
        x = x + padded(piece, axis, shard - size, 0)
    for hop, size in halo.hops(halo.behind):
        piece = halo.shifted(part(before + hop * shard, size), hop)
        x = x + padded(piece, axis, 0, shard - size)
    return x


def _read(role: str, a: jax.Array, halo: Any) -> Halo:
    """The halo, if it is one and the array has what it exchanges."""
    if not isinstance(halo, Halo):
        raise refused("halo", f"must be a Halo, got {shown(halo)}", TypeError)
    length = {"x": halo.shard, "seen": halo.length}[role]
    a = array(role, a)
    if halo.axis >= a.ndim or a.shape[halo.axis] != length:
        raise refused(role, f"needs {length} positions on axis {halo.axis}, got {shown(a)}")
    return halo


def _dual(forward: Callable, backward: Callable) -> Callable:
    """A linear function whose backward pass is its adjoint, by name."""
    function = jax.custom_vjp(forward, nondiff_argnums=(1,))
    function.defvjp(
        lambda a, halo: (function(a, halo), None),
        lambda halo, _, a_bar: (backward(a_bar, halo),),
    )
    return function


exchange = _dual(_exchange, lambda seen, halo: add(seen, halo))
add = _dual(_add, lambda x, halo: exchange(x, halo))


@dataclass(frozen=True)
class _Shards:
    """How an operand lies on the mesh: names of mesh axes for its batch and each spatial axis."""

    role: str
    mesh: Any
    layout: Layout
    type: Any
    kernel: tuple[int, ...]
    batch: Any
    names: tuple[Any, ...]

    @classmethod
    def of(cls, contraction: str, a: Any, kernel: Any, spec: Any, numbers: Any) -> _Shards:
        role = CONTRACTIONS[contraction][0]
        a, kernel = array(role, a), array("kernel", kernel)
        rank = kernel.ndim - 2
        if rank < 1 or a.ndim != rank + 2:
            reason = f"needs {kernel.ndim} axes, as the kernel has: batch, channels and space"
            raise refused(role, f"{reason}, got {shown(a)}")
        layout = Layout.of(contraction, numbers, rank)
        space(role, a, getattr(layout, role)[2:])
        mesh, found = _placed(a)
        if mesh.empty:
            raise refused("spec", "needs a mesh; call it within jax.set_mesh(mesh)")
        spec = found if spec is None else spec
        if spec is None:
            reason = f"is needed, since {role}'s type does not say how it is sharded"
            raise refused("spec", f"{reason}; pass its PartitionSpec")
        if not isinstance(spec, PartitionSpec):
            reason = f"must be a PartitionSpec of {role}'s axes, got {shown(spec)}"
            raise refused("spec", reason, TypeError)
        entries = (*spec, *[None] * (a.ndim - len(spec)))
        for entry in entries:
            for axis in entry if isinstance(entry, tuple) else (entry,):
                if axis is not None and axis not in mesh.axis_names:
                    raise refused("spec", f"names {axis!r}, but the mesh has {mesh.axis_names}")
        batch, channel, *names = (entries[axis] for axis in getattr(layout, role))
        if channel is not None:
            raise refused("spec", f"must not shard channels together with space, got {spec}")
        taps = tuple(kernel.shape[axis] for axis in layout.kernel[2:])
        return cls(role, mesh, layout, jax.typeof(a), taps, batch, tuple(names))

    @property
    def space(self) -> tuple[int, ...]:
        return tuple(self.type.shape[axis] for axis in getattr(self.layout, self.role)[2:])

    def count(self, name: Any) -> int:
        """Devices along the mesh axes that shard an array's axis."""
        names = name if isinstance(name, tuple) else (name,)
        return math.prod(self.mesh.shape[n] for n in names if n is not None)

    def halos(self, w: Window, mine: Sequence[int], others: Sequence[int]) -> list[Halo]:
        """One for each sharded axis.

        Raises:
          ValueError: if a side's size is no multiple of the devices.
        """
        made = []
        for i, name in enumerate(self.names):
            if name is None:
                continue
            count = self.count(name)
            for what, size in (("has", mine[i]), ("gives a result of", others[i])):
                if size % count:
                    fit = [n for n in (size // count * count, -(-size // count) * count) if n]
                    reason = (
                        f"{what} size {size} on spatial axis {i}, no multiple of the {count} devices "
                        f"of mesh axis {name!r}; {' and '.join(map(str, fit))} fit{'s' * (len(fit) == 1)}"
                    )
                    raise refused(self.role, reason)
            shard, small = w.big[i] // count, w.small[i] // count
            length = (small - 1) * w.stride[i] + w.span[i]
            step = shard - small * w.stride[i]
            axis = self.layout.x[2 + i]
            made.append(Halo(axis, name, count, shard, length, w.low[i], step))
        return made

    def local(self, w: Window) -> list[tuple[int, int]]:
        """The padding of a shard: that of the whole where an axis is not sharded, none where it is."""
        return [
            pair if name is None else (0, 0)
            for pair, name in zip(w.padding, self.names, strict=True)
        ]

    def seen(self, w: Window) -> list[int]:
        """The big sizes that the windows of a shard cover."""
        return [
            big if name is None else (small // self.count(name) - 1) * s + span
            for big, small, s, span, name in zip(
                w.big, w.small, w.stride, w.span, self.names, strict=True
            )
        ]

    def mapped(
        self, shard: Callable, a: Any, kernel: Any, bias: Any, out: Sequence[int]
    ) -> jax.Array:
        """`shard` on every device, its result placed as the operand is."""
        specs = []
        for axes in (getattr(self.layout, self.role), out):
            entries = dict(zip(axes, (self.batch, None, *self.names), strict=True))
            specs.append(PartitionSpec(*(entries[axis] for axis in range(len(entries)))))
        arrays = [jnp.asarray(b) for b in (a, kernel)]
        arrays += [] if bias is None else [array("bias", bias)]
        in_specs = (specs[0], *[PartitionSpec()] * (len(arrays) - 1))
        if AxisType.Explicit in self.mesh.axis_types:
            places = [NamedSharding(self.mesh, spec) for spec in in_specs]
            arrays = list(map(jax.sharding.reshard, arrays, places))
        return jax.shard_map(shard, mesh=self.mesh, in_specs=in_specs, out_specs=specs[1])(*arrays)


def _placed(a: jax.Array) -> tuple[Any, PartitionSpec | None]:
    """The mesh at hand, and how the array lies on it, as far as that is known."""
    mesh, typed = jax.sharding.get_abstract_mesh(), jax.typeof(a).sharding
    if not typed.mesh.empty and any(entry is not None for entry in typed.spec):
        return typed.mesh, typed.spec
    if not isinstance(a, Tracer) and isinstance(a.sharding, NamedSharding):
        return (a.sharding.mesh if mesh.empty else mesh), a.sharding.spec
    return mesh, None
