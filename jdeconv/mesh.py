"""How a contraction divides among the devices of a mesh: by the indices that its arrays share.

    n, and o and c, or the groups   each device contracts what it has; over what is summed, the parts are added,
                                    and scattered where each device needs only a part of the sum
    q                               on automatic meshes only: so too, and neighbors exchange halos; the last
                                    shards may be shorter than the others, or empty

Left to itself, XLA's partitioner gathers whole activations around operations that it cannot divide: grouped
convolutions, FFTs, loops over blocks of images. Here no device needs anything of another but a sum or a halo,
and each chooses how to evaluate by what it has.

    mapped        where the types say how arrays lie, on a mesh with explicit axes: `jax.shard_map`
    partitioned   where XLA decides, while it compiles: `jax.experimental.custom_partitioning` is the one
                  interface by which JAX lets a library take part in that
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jdeconv import _jax
from jdeconv.checks import less
from jdeconv.exchange import add, devices, exchange, shards
from jdeconv.form import CONTRACTIONS, INDICES, Form, accumulator
from jdeconv.problem import Problem


def mapped(
    evaluate: Callable, contraction: str, form: Form, dtype: np.dtype, a: jax.Array, b: jax.Array
) -> jax.Array:
    """`evaluate(a, b, form=form, dtype=dtype)` on a mesh with explicit axes, by the arrays' types."""
    division, types = Division(contraction, form), (jax.typeof(a), jax.typeof(b))
    mesh = next(t.sharding.mesh for t in types if not t.sharding.mesh.empty)
    *places, place = division.places(mesh, *types)
    a, b = (jax.sharding.reshard(operand, at) for operand, at in zip((a, b), places, strict=True))
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return jax.shard_map(
        division.local(evaluate, dtype, mesh, *types),
        mesh=mesh,
        in_specs=tuple(at.spec for at in places),
        out_specs=place.spec,
        axis_names={name for name, kind in kinds if kind == AxisType.Explicit},
    )(a, b)


def partitioned(
    evaluate: Callable, contraction: str, form: Form, dtype: np.dtype, a: jax.Array, b: jax.Array
) -> jax.Array:
    """The same where XLA's partitioner decides how the arrays lie."""
    division, p = Division(contraction, form), Problem.of(contraction, form, a, b, dtype)

    def partition(mesh: Any, operands: Sequence[Any], result: Any) -> tuple:
        arrays = [_named(array, mesh) for array in (*operands, result)]
        *places, place = division.places(mesh, *arrays)
        local = division.local(evaluate, dtype, mesh, *arrays)

        def within(a: jax.Array, b: jax.Array) -> jax.Array:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # `exchange` asks for it
                return local(a, b)

        return mesh, within, place, tuple(places)

    function = _jax.custom_partitioning(lambda a, b: evaluate(a, b, form=form, dtype=dtype))
    function.def_partition(
        partition,
        sharding_rule=lambda mesh, *_: division.rule(p.c, p.o, mesh),
        decode_shardings=False,
    )
    return function(a, b)


def aligned(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, all varying over the same manual mesh axes, as jax.lax's operations do.

    In `jax.shard_map`, a replicated kernel that meets a sharded x becomes varying here, and the transpose
    of that step is the sum over devices that the kernel's gradient needs. It is taken in float32 at least.
    """
    varying = [_jax.varying(a) for a in arrays]
    missing = [tuple(sorted(frozenset().union(*varying) - v, key=str)) for v in varying]
    return [
        lax.pcast(a.astype(accumulator(a.dtype)), axes, to="varying").astype(a.dtype) if axes else a
        for a, axes in zip(arrays, missing, strict=True)
    ]


@functools.cache
def probe() -> Any:
    """A jaxpr that holds a custom_partitioning function.

    As a parameter of a primitive, it makes jit tell the primitive's lowering of the devices. Without it, jit
    does so for JAX's own primitives only.
    """
    function = _jax.custom_partitioning(lambda a: a)
    function.def_partition(lambda *_: None, sharding_rule="->")
    return jax.make_jaxpr(function)(jax.ShapeDtypeStruct((), np.dtype("float32"))).jaxpr


@dataclasses.dataclass(frozen=True)
class Division:
    """Which mesh axes shard which index. Where arrays differ, the first array decides."""

    contraction: str
    form: Form

    @property
    def roles(self) -> tuple[str, str, str]:
        """Of both operands and the result."""
        return CONTRACTIONS[self.contraction]

    @property
    def letters(self) -> dict[str, tuple]:
        """The index by which each axis of each role may be sharded, or None.

        With groups, channels have no index that is the same on every axis. Of a spatial axis it is y's
        position, if there are several.
        """
        if self.form.groups == 1:
            letters = {role: tuple(word[-1] for word in pair) for role, pair in INDICES.items()}
        else:
            outer = {"n": "n", "gc": "g", "go": "g"}
            letters = {role: tuple(map(outer.get, pair)) for role, pair in INDICES.items()}
        sizes = enumerate(self.form.window.small)
        space = tuple(f"q{i}" if less(1, size) else None for i, size in sizes)
        return {r: pair + (space if r != "kernel" else ()) for r, pair in letters.items()}

    def places(self, mesh: Any, *arrays: Any) -> list[NamedSharding]:
        """The shardings of operands and result, by those of the operands, and of a result that is known."""
        names, places = self._names(mesh, arrays), []
        scattered = self._scattered(names, mesh, arrays)
        for role in self.roles:
            spec: list = [None] * (self.form.window.rank + 2)
            for axis, letter in self._indexed(role):
                found = names.get(letter, ())
                if role == self.roles[2] and axis == scattered:
                    found = self._over(names)
                spec[axis] = found if len(found) > 1 else next(iter(found), None)
            places.append(NamedSharding(mesh, PartitionSpec(*spec)))
        return places

    def local(self, evaluate: Callable, dtype: np.dtype, mesh: Any, *arrays: Any) -> Callable:
        """What one device does: its part of the form, and the sum over those that have other terms."""
        names = self._names(mesh, arrays)
        groups = self.form.groups // devices(mesh, names.get("g", ()))
        space = [names.get(f"q{i}", ()) for i in range(self.form.window.rank)]
        halos, window = shards(self.form.window, self.form.layout.x[2:], mesh, space, "zeros")
        form = dataclasses.replace(self.form, groups=groups, window=window)
        summed, scattered = self._over(names), self._scattered(names, mesh, arrays)
        seen, added = ((), halos[::-1]) if self.contraction == "deconv" else (halos, ())

        def part(a: jax.Array, b: jax.Array) -> jax.Array:
            a, b = aligned(self._cleared(0, a, space), self._cleared(1, b, space))
            for halo in seen:
                a = exchange(a, halo)
            if not summed and not added:
                return evaluate(a, b, form=form, dtype=dtype)
            terms = evaluate(a, b, form=form, dtype=dtype, to=accumulator(dtype))
            for halo in added:
                terms = add(terms, halo)
            if scattered is not None:
                terms = lax.psum_scatter(terms, summed, scatter_dimension=scattered, tiled=True)
            elif summed:
                terms = lax.psum(terms, summed)
            return terms.astype(dtype)

        return part

    def rule(self, c: int, o: int, mesh: Any) -> tuple[str, dict[str, Any]]:
        """For Shardy, which hands shardings on from operands to the result and back."""
        words, sizes = {role: pair[:2] for role, pair in self.letters.items()}, {}
        if self.form.groups > 1 and any(self.form.groups % size for size in mesh.shape.values()):
            # It would shard groups by a part of a mesh axis, which has no name.
            words = {"x": ("n", "c"), "kernel": ("o", "i"), "y": ("n", "p")}
        elif self.form.groups > 1:  # the group stands outside of the channels; no factor may be 1
            x, y = "g" if c == 1 else "(g c)", "g" if o == 1 else "(g o)"
            words = {"x": ("n", x), "kernel": (y, "i"), "y": ("n", y)}
            sizes = {letter: size for letter, size in (("c", c), ("o", o)) if size != 1}
            if len(sizes) == 2:  # else the group is an axis by itself, whose size is known
                sizes["g"] = self.form.groups
        arrays, window = [], self.form.window
        for role in self.roles:
            space = [f"{role}{i}" for i in range(window.rank)]
            for i, letter in enumerate(self.letters[role][2:]):
                space[i] = letter or space[i]
            order = np.argsort(getattr(self.form.layout, role))
            arrays.append(" ".join([*words[role], *space][axis] for axis in order))
        first, second, result = arrays
        return f"{first}, {second} -> {result}", {"reduction_factors": self._summed, **sizes}

    def _cleared(self, operand: int, a: jax.Array, space: Sequence[tuple[str, ...]]) -> jax.Array:
        """The shard of an operand, with zeros behind the end of the array, where XLA leaves anything."""
        role, window = self.roles[operand], self.form.window
        if role == "kernel":
            return a
        sizes = window.big if role == "x" else window.small
        axes = getattr(self.form.layout, role)[2:]
        for axis, size, names in zip(axes, sizes, space, strict=True):
            if names and size % lax.axis_size(names):
                first = lax.axis_index(names) * a.shape[axis]
                is_inside = first + lax.broadcasted_iota(first.dtype, a.shape, axis) < size
                a = jnp.where(is_inside, a, jnp.zeros((), a.dtype))
        return a

    @property
    def _summed(self) -> tuple[str, ...]:
        """The indices of both operands that the result lacks."""
        first, second, result = (set(self.letters[role]) for role in self.roles)
        return tuple(sorted((first & second) - result - {None}))

    def _over(self, names: dict) -> tuple[str, ...]:
        """The mesh axes over which the parts of a sum lie."""
        return tuple(itertools.chain(*(names.get(index, ()) for index in self._summed)))

    def _indexed(self, role: str) -> list[tuple[int, str]]:
        """Axes that have an index, and the index."""
        pairs = zip(getattr(self.form.layout, role), self.letters[role], strict=False)
        return [(axis, letter) for axis, letter in pairs if letter]

    def _scattered(self, names: dict, mesh: Any, arrays: Sequence[Any]) -> int | None:
        """The axis on which each device wants only its own part of the sums, or None."""
        summed = self._over(names)
        for array in arrays[2:]:  # the result, where it is known how it lies
            for axis, letter in self._indexed(self.roles[2]):
                entry = _entry(array, axis)
                is_whole = array.shape[axis] % devices(mesh, entry) == 0
                if entry and entry == summed and letter not in names and is_whole:
                    return axis
        return None

    def _names(self, mesh: Any, arrays: Sequence[Any]) -> dict[str, tuple[str, ...]]:
        names: dict[str, tuple[str, ...]] = {}
        whole: dict[str, Any] = {"g": self.form.groups}  # what devices must divide, if not the axis
        for role, array in zip(self.roles, arrays, strict=False):
            for axis, letter in self._indexed(role):
                entry = _entry(array, axis)
                is_whole = whole.get(letter, array.shape[axis]) % devices(mesh, entry) == 0
                taken = {name for found in names.values() for name in found}
                is_free = letter not in names and not taken.intersection(entry)
                if entry and is_free and (is_whole or letter.startswith("q")):
                    names[letter] = entry
        return names


def _named(array: Any, mesh: Any) -> jax.ShapeDtypeStruct:
    """The array, sharded by names of mesh axes; not sharded, if XLA shards it by a part of a mesh axis."""
    rank, found = len(array.shape), array.sharding
    for place in _all_places(mesh, rank):
        if found is None or place.is_equivalent_to(found, rank):
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)
    return _named(jax.ShapeDtypeStruct(array.shape, array.dtype), mesh)


def _all_places(mesh: Any, rank: int) -> Iterator[NamedSharding]:
    """Every way in which mesh axes can shard an array of so many axes; first that they do not."""
    names = [name for name, size in mesh.shape.items() if size > 1]
    for axes in itertools.product([None, *range(rank)], repeat=len(names)):
        for order in itertools.permutations(zip(names, axes, strict=True)):
            entries = [tuple(name for name, at in order if at == axis) for axis in range(rank)]
            yield NamedSharding(mesh, PartitionSpec(*(entry or None for entry in entries)))


def _entry(array: Any, axis: int) -> tuple[str, ...]:
    """The mesh axes that shard an array's axis."""
    entry = array.sharding.spec[axis] or ()
    return entry if isinstance(entry, tuple) else (entry,)
