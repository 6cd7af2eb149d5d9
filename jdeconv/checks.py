"""What a user wrote, read into plain values, or refused in words that name the call and the argument."""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Ints = int | Sequence[int]
Pair = tuple[int, int]
Padding = Ints | Sequence[Pair] | Literal["SAME", "SAME_LOWER", "VALID"]

MOST = 2**31 - 1  # positions on an axis, since JAX counts in int32
MAX_CELLS = 2**40  # in an array, beyond any one memory
MAX_FINITE = sys.float_info.max

# Those that have a zero and that XLA's CPU evaluates: of fewer than 8 bits it refuses some, and dies of others.
INTEGERS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))
EIGHTHS = ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
FLOATS = (*(f"float8_{kind}" for kind in EIGHTHS), "bfloat16", "float16", "float32", "float64")
DTYPES = frozenset((*INTEGERS, *FLOATS, "complex64", "complex128"))

NAMED_PADDINGS = ("SAME", "SAME_LOWER", "VALID")


def refused(
    call: str, argument: str, value: object, reason: str, kind: type[Exception] = ValueError
) -> Exception:
    """The error for a bad argument: which call, which argument, what came, and what would do."""
    error = kind(f"{call}({argument}={_shown(value)}): {reason}")
    vars(error)["refusal"] = argument, value, reason
    return error


def refusal(error: Exception) -> tuple[str, object, str] | None:
    """Argument, value and reason of an error that `refused` made; None of another."""
    return vars(error).get("refusal")


@contextmanager
def speaking(call: str, **names: str) -> Iterator[None]:
    """Inside, what is refused is refused in the name of `call` and in its own names for arguments.

    `names` are from jdeconv's words, such as x and kernel, to those of `call`; spaces are underscores.
    """
    words = {name.replace("_", " "): word for name, word in names.items()} | names
    pattern = re.compile(rf"\b({'|'.join(sorted(words, key=len, reverse=True))})\b")
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        found = refusal(error)
        if found is None:
            raise
        argument, value, reason = found
        reason = pattern.sub(lambda word: words[word[0]], reason) if words else reason
        raise refused(call, names.get(argument) or argument, value, reason, type(error)) from None


def integer(call: str, argument: str, value: object, least: int | None = None) -> int:
    """One static int, at least `least`."""
    number = _index(value)
    if number is None:
        raise refused(call, argument, value, "expected an int", TypeError)
    if least is not None and number < least:
        raise refused(call, argument, value, f"must be at least {least}")
    return _bounded(call, argument, value, (number,))[0]


def number(call: str, argument: str, value: Any) -> float:
    """One static number, real and finite."""
    if isinstance(value, jax.Array | np.ndarray) and value.ndim == 0:
        if isinstance(value, Tracer):
            reason = "expected a number that is known while tracing"
            raise refused(call, argument, value, reason, TypeError)
        value = value.item() if jnp.issubdtype(value.dtype, jnp.number) else None
    if isinstance(value, np.generic) and _is_of_numbers(value.dtype):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise refused(call, argument, value, "expected a real number", TypeError)
    if not abs(value) <= MAX_FINITE:  # NaN neither; an int may be beyond any float
        raise refused(call, argument, value, "must be finite")
    return value


def number_dtype(value: Any) -> np.dtype | None:
    """The dtype of numbers that is meant, or None."""
    is_array = hasattr(value, "shape") and not isinstance(value, type | np.dtype)
    if is_array:  # which has a dtype and is none
        return None
    try:
        dtype = jnp.dtype(value)
    except (TypeError, ValueError):  # numpy raises either, by what the value is
        return None
    return dtype if _is_of_numbers(dtype) else None


def _is_of_numbers(dtype: Any) -> bool:
    """Whether it is one of DTYPES; numpy also has other byte orders, and JAX dtypes that are not numpy's."""
    return isinstance(dtype, np.dtype) and dtype.isnative and dtype.name in DTYPES


def flag(call: str, argument: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise refused(call, argument, value, "expected True or False", TypeError)
    return bool(value)


def listed(call: str, argument: str, value: object, what: str) -> Sequence:
    """A list, a tuple or another sequence of things."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise refused(call, argument, value, f"expected a sequence of {what}", TypeError)
    return value


def key(call: str, value: Any) -> Any:
    """One PRNG key, of JAX's new or old kind."""
    is_array = isinstance(value, jax.Array | np.ndarray)
    is_new = is_array and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.ndim == 0
    is_old = is_array and value.dtype == np.uint32
    if not is_new and not (is_old and value.shape == jax.eval_shape(jax.random.PRNGKey, 0).shape):
        reason = "expected a PRNG key, as jax.random.key(0)"
        raise refused(call, "key", value, reason, TypeError)
    return value


def cells(call: str, argument: str, value: object, space: Sequence[int]) -> None:
    """Refuse what asks for an array of these sizes, where no memory could hold it; symbolic ones pass."""
    space = [size for size in space if isinstance(size, int)]
    if max(space, default=0) > MOST or math.prod(space) > MAX_CELLS:
        reason = f"asks for {' x '.join(map(str, space))} cells; the most are 2**31 - 1 on an axis and 2**40"
        raise refused(call, argument, value, reason)


def one_of(call: str, argument: str, value: object, names: Iterable[str]) -> str:
    """One of the names."""
    if not isinstance(value, str):
        raise refused(call, argument, value, f"expected one of {', '.join(names)}", TypeError)
    if value not in names:
        raise refused(call, argument, value, f"the names are {', '.join(names)}")
    return value


def array(call: str, argument: str, value: object) -> jax.Array:
    """An array of numbers."""
    if isinstance(value, np.ma.MaskedArray):
        raise refused(call, argument, value, "expected no mask; fill the array first", TypeError)
    if not isinstance(value, np.ndarray | np.generic):
        if not isinstance(value, jax.Array) and not hasattr(value, "__jax_array__"):
            raise refused(call, argument, value, "expected a jax or numpy array", TypeError)
        value = jnp.asarray(value)
    if not _is_of_numbers(value.dtype):
        reason = "expected an array of integers, floats or complex numbers that JAX has, of 8 bits or more"
        raise refused(call, argument, value, reason, TypeError)
    return jnp.asarray(value)


def has_batch(call: str, argument: str, a: jax.Array, rank: int) -> bool:
    """Whether a batch axis precedes the channel axis and `rank` spatial axes."""
    if a.ndim not in (rank + 1, rank + 2):
        reason = f"needs {rank + 2} axes, {rank} of them spatial, or {rank + 1} without a batch"
        raise refused(call, argument, a, reason)
    return a.ndim == rank + 2


def space(call: str, argument: str, a: jax.Array, axes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of an array along its spatial axes."""
    found = tuple(a.shape[axis] for axis in axes)
    if not all(isinstance(size, int) and size > 0 for size in found):
        reason = "each spatial axis needs a static size of at least 1"
        raise refused(call, argument, a, reason)
    cells(call, argument, a, found)
    return found


def sizes(call: str, argument: str, value: object) -> tuple[int, ...]:
    """A tuple of static ints, each at least 1, whose count says how many axes there are."""
    numbers = _indices(value) if isinstance(value, tuple | list) else None
    if numbers is None:
        raise refused(
            call, argument, value, "expected a tuple with one int for each axis", TypeError
        )
    if min(numbers, default=1) < 1:
        raise refused(call, argument, value, "must be at least 1")
    cells(call, argument, value, numbers)
    return numbers


def integers(
    call: str, argument: str, value: object, rank: int, least: int | None = None
) -> tuple[int, ...]:
    """One static int per axis; a single int serves every axis."""
    single = _index(value)
    numbers = (single,) * rank if single is not None else _indices(value)
    if numbers is None:
        raise refused(call, argument, value, f"expected an int or {_per_axis(rank)}", TypeError)
    if len(numbers) != rank:
        raise refused(
            call, argument, value, f"expected an int or {_per_axis(rank)}, got {len(numbers)}"
        )
    if least is not None and min(numbers, default=least) < least:
        raise refused(call, argument, value, f"must be at least {least}")
    return _bounded(call, argument, value, numbers)


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
    pairs = tuple(pair for pair in map(_pair, entries) if pair is not None)
    if len(pairs) != len(entries):
        raise refused(call, "padding", value, expected, TypeError)
    if len(pairs) != rank:
        raise refused(call, "padding", value, f"{expected}, got {len(pairs)}")
    _bounded(call, "padding", value, sum(pairs, ()))
    return pairs


def _bounded(call: str, argument: str, value: object, numbers: tuple[int, ...]) -> tuple[int, ...]:
    if max(map(abs, numbers), default=0) > MOST:
        raise refused(call, argument, value, "must lie within 2**31 - 1 of zero")
    return numbers


def _pair(entry: object) -> Pair | None:
    number = _index(entry)
    if number is not None:
        return number, number
    pair = _indices(entry)
    return pair if pair is not None and len(pair) == 2 else None


def _index(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:  # a float, text, a traced value
        return None


def _indices(value: object) -> tuple[int, ...] | None:
    entries = _sequence(value)
    if entries is None:
        return None
    numbers = tuple(number for number in map(_index, entries) if number is not None)
    return numbers if len(numbers) == len(entries) else None


def _sequence(value: object) -> tuple | None:
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    if is_text or not isinstance(value, Sequence | np.ndarray | jax.Array):
        return None
    try:
        return tuple(value)
    except TypeError:  # an array without axes
        return None


def _per_axis(rank: int, what: str = "int") -> str:
    return f"one {what} for the single axis" if rank == 1 else f"one {what} for each of {rank} axes"


def _shown(value: Any) -> str:
    # Classes such as np.float32 have these attributes too, and short numpy arrays may be settings.
    is_array = isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype")
    is_short = isinstance(value, np.ndarray | np.generic) and value.ndim < 2 and value.size <= 8
    if is_array and not is_short:
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
