"""What a user wrote, read into plain values, or refused in words that name the call and the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Ints = int | Sequence[int]
Pair = tuple[int, int]
Padding = Ints | Sequence[Pair] | Literal["SAME", "SAME_LOWER", "VALID"]

NAMED_PADDINGS = ("SAME", "SAME_LOWER", "VALID")


def refused(
    call: str, argument: str, value: object, reason: str, kind: type[Exception] = ValueError
) -> Exception:
    """The error for a bad argument: which call, which argument, what came, and what would do."""
    return kind(f"{call}({argument}={_shown(value)}): {reason}")


def integer(call: str, argument: str, value: object, least: int | None = None) -> int:
    """One static int, at least `least`."""
    number = _index(value)
    if number is None:
        raise refused(call, argument, value, "expected an int", TypeError)
    if least is not None and number < least:
        raise refused(call, argument, value, f"must be at least {least}")
    return number


def one_of(call: str, argument: str, value: object, names: Iterable[str]) -> str:
    """One of the names."""
    if not isinstance(value, str):
        raise refused(call, argument, value, f"expected one of {', '.join(names)}", TypeError)
    if value not in names:
        raise refused(call, argument, value, f"the names are {', '.join(names)}")
    return value


def array(call: str, argument: str, value: object) -> jax.Array:
    """An array of numbers."""
    if not (
        isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__jax_array__")
    ):
        raise refused(call, argument, value, "expected a jax or numpy array", TypeError)
    if isinstance(value, np.ndarray) and value.dtype.kind not in "biufcV":
        raise refused(call, argument, value, "expected an array of numbers", TypeError)
    converted = jnp.asarray(value)
    if not jnp.issubdtype(converted.dtype, jnp.number):
        reason = "expected an array of integers, floats or complex numbers"
        raise refused(call, argument, converted, reason, TypeError)
    return converted


def integers(
    call: str, argument: str, value: object, rank: int, least: int | None = None
) -> tuple[int, ...]:
    """One static int per axis; a single int serves every axis."""
    single = _index(value)
    numbers = (single,) * rank if single is not None else _sequence(value)
    if numbers is not None:
        numbers = tuple(_index(number) for number in numbers)
    if numbers is None or None in numbers:
        raise refused(call, argument, value, f"expected an int or {_per_axis(rank)}", TypeError)
    if len(numbers) != rank:
        raise refused(
            call, argument, value, f"expected an int or {_per_axis(rank)}, got {len(numbers)}"
        )
    if least is not None and min(numbers, default=least) < least:
        raise refused(call, argument, value, f"must be at least {least}")
    return numbers


def paddings(call: str, value: object, rank: int) -> tuple[Pair, ...] | str:
    """A (low, high) pair per axis, or one of NAMED_PADDINGS."""
    if isinstance(value, str):
        return one_of(call, "padding", value, NAMED_PADDINGS)
    expected = (
        f"expected an int, a name, {_per_axis(rank)} or {_per_axis(rank, '(low, high) pair')}"
    )
    single = _index(value)
    entries = (single,) * rank if single is not None else _sequence(value)
    if entries is None:
        raise refused(call, "padding", value, expected, TypeError)
    pairs = tuple(_pair(entry) for entry in entries)
    if None in pairs:
        raise refused(call, "padding", value, expected, TypeError)
    if len(pairs) != rank:
        raise refused(call, "padding", value, f"{expected}, got {len(pairs)}")
    return pairs


def _pair(entry: object) -> Pair | None:
    number = _index(entry)
    if number is not None:
        return number, number
    pair = tuple(_index(part) for part in _sequence(entry) or ())
    return pair if len(pair) == 2 and None not in pair else None


def _index(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:  # a float, text, a traced value
        return None


def _sequence(value: object) -> tuple | None:
    if isinstance(value, str | bytes) or not hasattr(value, "__len__"):
        return None
    try:
        return tuple(value)
    except TypeError:  # an array without axes
        return None


def _per_axis(rank: int, what: str = "int") -> str:
    return f"one {what} for the single axis" if rank == 1 else f"one {what} for each of {rank} axes"


def _shown(value: object) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
