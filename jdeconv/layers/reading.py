"""What the layers of all frameworks share: checks of their arguments, and the deconv of a reversed kernel."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdeconv import bilinear
from jdeconv.axes import regrouped
from jdeconv.checks import array, integer, integers, one_of, refused, shown
from jdeconv.padding import MODES


def letters(rank: int) -> str:
    """Letters of so many spatial axes, for dimension_numbers."""
    return string.ascii_lowercase[:rank]


def name_in(argument: str, value: Any, names: tuple[str, ...]) -> str:
    """One of the names, in the case in which they are listed; the value may have any case."""
    listed = {name.lower(): name for name in names}
    known = isinstance(value, str) and value.lower() in listed
    return one_of(argument, listed[value.lower()] if known else value, names)


def read_mode(value: Any) -> str:
    """A mode in the frameworks' capitals."""
    return name_in("padding_mode", value, tuple(map(str.upper, MODES)))


def check_channels(groups: tuple[str, Any], **channels: Any) -> None:
    """Refuse counts of channels that are no positive ints, or that the groups do not divide."""
    name, count = groups
    integer(name, count, 1)
    for argument, number in channels.items():
        if integer(argument, number, 1) % count:
            raise refused(name, f"must divide {argument}={number}, got {count}")


def check_conv(conv: Any, kind: type) -> None:
    """Refuse what is no layer of this kind, for a tied layer to transpose."""
    if not isinstance(conv, kind):
        reason = f"must be a {kind.__module__}.{kind.__name__}, got {shown(conv)}"
        raise refused("conv", reason, TypeError)


def read_output_padding(value: Any, most: Sequence[int], padding: Any) -> tuple[int, ...]:
    """One int per axis, none of them larger than the most that the padding allows."""
    found = integers("output_padding", value, len(most), 0)
    for axis, (cells, limit) in enumerate(zip(found, most, strict=True)):
        if cells > limit:
            reason = f"must be at most {limit} on spatial axis {axis} with padding {padding!r}"
            raise refused("output_padding", f"{reason}, got {cells}")
    return tuple(found)


def check_input(argument: str, a: Any, rank: int, axis: int, channels: tuple[str, int]) -> Any:
    """The array, which has a channel axis, spatial axes, and the layer's number of channels."""
    a, (name, count) = array(argument, a), channels
    if a.ndim < rank + 1:
        reason = f"needs {rank + 1} axes or more, {rank} of them spatial"
        raise refused(argument, f"{reason}, got {shown(a)}")
    if a.shape[axis] != count:
        reason = f"needs {name}={count} channels on axis {axis}, got {shown(a)}"
        raise refused(argument, reason)
    return a


def reversed_deconv(
    y: jax.Array, kernel: jax.Array, *, groups: int, dimension_numbers: tuple, **options: Any
) -> jax.Array:
    """The deconv whose kernel is given as that of the equal conv over a dilated y.

    That conv's kernel is the deconv's with its taps reversed and its channels the other way round. The kernel's
    letters in `dimension_numbers` are those of the conv: O is the axis of the result's channels.
    """
    side, spec, _ = dimension_numbers
    channels = y.shape[side.index("C") - len(side)]  # there may be no batch
    inner = kernel.shape[spec.index("I")]
    if inner * groups != channels:
        reason = f"has {inner} channels on axis {spec.index('I')}; with {channels} channels in {groups} groups"
        raise refused("kernel", f"{reason}, {channels // groups} are needed")
    space = [axis for axis, letter in enumerate(spec) if letter not in "OI"]
    kernel = regrouped(jnp.flip(kernel, space), groups, spec.index("O"), spec.index("I"))
    swapped = spec.translate(str.maketrans("OI", "IO"))
    numbers = side, swapped, side
    return bilinear.deconv(y, kernel, groups=groups, dimension_numbers=numbers, **options)
