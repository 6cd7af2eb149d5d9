"""What a user wrote, read into plain values, or refused in a sentence that begins with the argument's name.

A check raises `refused(argument, reason)`. The decorator `reporting` of a public function adds the name of the
call and what it was given, once.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.export import is_symbolic_dim

Ints = int | Sequence[int]
Pair = tuple[int, int]
Padding = Ints | Sequence[Pair] | str
F = TypeVar("F", bound=Callable)

MOST = 2**31 - 1  # positions on an axis, since JAX counts in int32
MAX_CELLS = 2**40  # in an array, beyond any one memory

# XLA's CPU backend refuses some dtypes of fewer than 8 bits, and crashes on others. Some of 8 have no zero.
INTEGERS = tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u"))
EIGHTHS = ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
FLOATS = (*(f"float8_{kind}" for kind in EIGHTHS), "bfloat16", "float16", "float32", "float64")
DTYPES = frozenset(map(np.dtype, (*INTEGERS, *FLOATS, "complex64", "complex128")))

NAMED_PADDINGS = ("SAME", "SAME_LOWER", "VALID", "CAUSAL", "FULL")


def refused(
    argument: str, reason: str, kind: type[Exception] = ValueError, remedy: Mapping | None = None
) -> Exception:
    """The error that says what is wrong with an argument: "{argument} {reason}".

    Programs may read its attributes `argument` and `reason`. `remedy` holds arguments that would likely help;
    `reporting` names those that the public function has.
    """
    error = kind(f"{argument} {reason}")
    vars(error).update(argument=argument, reason=reason, remedy=remedy or {})
    return error


def reporting(**names: str) -> Callable[[F], F]:
    """Return a decorator of public functions: errors name the function and what it was given.

    `names` maps an argument's name in a function that is called inside to this function's, such as x="input".
    The outermost function writes the text last, so its names remain.
    """

    def decorate(function: Any) -> Any:
        @wraps(function)
        def reported(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except (TypeError, ValueError, NotImplementedError) as error:
                try:
                    given = inspect.signature(reported).bind(*args, **kwargs).arguments
                except TypeError as wrong:  # Python's own error would speak of the functions inside
                    raise TypeError(f"{reported.__name__}() {wrong}") from None
                if hasattr(error, "remedy"):
                    _report(error, reported, names, given)
                raise

        return reported

    return decorate


def _report(error: Any, function: Callable, names: dict[str, str], given: dict[str, Any]) -> None:
    """Write the error's text anew, in the names of a function."""
    parameters = inspect.signature(function).parameters
    passed_on = inspect.Parameter.VAR_KEYWORD
    given = {k: v for k, v in given.items() if parameters[k].kind is not passed_on}
    known = {*parameters}
    given.pop("cls", None)
    owner = given.pop("self", None)
    call = function.__qualname__ if owner is None else type(owner).__name__
    if dataclasses.is_dataclass(owner):  # a record, whose fields are arguments too
        fields = [f for f in dataclasses.fields(owner) if f.repr and hasattr(owner, f.name)]
        known |= {f.name for f in fields}
        changed = [f.name for f in fields if getattr(owner, f.name) is not f.default]
        given = {name: getattr(owner, name) for name in changed} | given
    error.argument = names.get(error.argument, error.argument)
    error.remedy = {names.get(name, name): value for name, value in error.remedy.items()}
    text = f"{call}: {error.argument} {error.reason}"
    for name, value in error.remedy.items():
        text += f"; pass {name}={value!r}" if name in known else ""
    specs = given.get("dimension_numbers")
    specs = (specs,) if isinstance(specs, str) else _entries(specs) or ()
    specs = iter(specs[:2])  # a bias has no layout
    shown_values = [
        f"{k} {_lettered(v, next(specs, None))}" if _is_array(v) else f"{k}={shown(v)}"
        for k, v in given.items()
    ]
    error.args = (f"{text}\n{call} got {', '.join(shown_values)}",)


def _lettered(a: Any, spec: Any) -> str:
    """An array's dtype and shape, with the letter by which each axis was read."""
    letters = spec if isinstance(spec, str) else ""
    if len(letters) == len(a.shape) + 1:
        letters = letters.replace("N", "")
    if len(letters) != len(a.shape):
        return shown(a)
    axes = zip(letters, a.shape, strict=True)
    return f"{a.dtype}[{','.join(f'{letter}={size}' for letter, size in axes)}]"


class Entry(NamedTuple):
    """The argument that an entry belongs to: what it must be, and what was passed."""

    what: str
    whole: Any

    def refused(self, argument: str, kind: type[Exception] = ValueError) -> Exception:
        """The error that shows the whole."""
        return refused(argument, f"must be {self.what}, got {shown(self.whole)}", kind)


def integer(
    argument: str,
    value: Any,
    least: int | None = None,
    *,
    symbolic: bool = False,
    of: Entry | None = None,
) -> Any:
    """One static int, at least `least`, alone or an entry `of` more; `symbolic` lets sizes of exports pass."""
    if is_symbolic_dim(value):
        if not symbolic:
            raise refused(argument, f"must be known while tracing, got {value}", TypeError)
        return value
    number = None
    with suppress(TypeError):  # a float, text, a traced value
        number = operator.index(value)
    if number is None or isinstance(value, bool):
        raise (of or Entry("an int", value)).refused(argument, TypeError)
    if least is not None and number < least:
        raise refused(argument, f"must be at least {least}, got {number}")
    if abs(number) > MOST:
        raise refused(argument, f"must lie within 2**31 - 1 of zero, got {number}")
    return number


def number(argument: str, value: Any) -> float:
    """One static number, real and finite."""
    is_array = isinstance(value, jax.Array | np.ndarray | np.generic)
    is_scalar = is_array and value.shape == () and not isinstance(value, Tracer)
    found = value.item() if is_scalar and value.dtype in DTYPES else value
    if isinstance(found, bool) or not isinstance(found, float | int):
        reason = f"must be a real number that is known while tracing, got {shown(value)}"
        raise refused(argument, reason, TypeError)
    if not abs(found) <= sys.float_info.max:  # NaN neither; an int may be beyond any float
        raise refused(argument, f"must be finite, got {shown(value)}")
    return found


def number_dtype(argument: str, value: Any, kind: Any = jnp.number) -> np.dtype:
    """The dtype of numbers that is meant, of this kind."""
    dtype: Any = None
    if not _is_array(value):  # which has a dtype and is none
        with suppress(TypeError, ValueError):  # numpy raises either, by what the value is
            dtype = jnp.dtype(value)
    if dtype in DTYPES and jnp.issubdtype(dtype, kind):
        return dtype
    what = {jnp.number: "numbers", jnp.inexact: "floats or complex numbers"}.get(kind, "floats")
    raise refused(argument, f"must be a dtype of {what}, got {shown(value)}", TypeError)


def flag(argument: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise refused(argument, f"must be True or False, got {shown(value)}", TypeError)
    return bool(value)


def listed(argument: str, value: object, what: str) -> Sequence:
    """A list, a tuple or another sequence of things."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise refused(argument, f"must be a sequence of {what}, got {shown(value)}", TypeError)
    return value


def key(value: Any) -> Any:
    """One PRNG key, of JAX's new or old kind."""
    is_array = isinstance(value, jax.Array | np.ndarray)
    is_new = is_array and jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.ndim == 0
    is_old = is_array and value.dtype == np.uint32
    if not is_new and not (is_old and value.shape == jax.eval_shape(jax.random.PRNGKey, 0).shape):
        reason = f"must be a PRNG key, such as jax.random.key(0), got {shown(value)}"
        raise refused("key", reason, TypeError)
    return value


def less(a: Any, b: Any) -> bool:
    """Whether a size is surely less than another; symbolic ones may leave it open until a program runs."""
    try:
        return bool(a < b)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def cells(argument: str, space: Sequence[int]) -> None:
    """Refuse what asks for an array of these sizes, where no memory could hold it; symbolic ones pass."""
    space = [size for size in space if isinstance(size, int)]
    if max(space, default=0) > MOST or math.prod(space) > MAX_CELLS:
        reason = f"asks for {' x '.join(map(str, space))} cells; the limits are 2**31 - 1 on an axis and 2**40"
        raise refused(argument, reason)


def one_of(argument: str, value: object, names: Iterable[str]) -> str:
    """One of the names."""
    names = tuple(names)
    if isinstance(value, str) and value in names:
        return value
    reason = f"must be one of {', '.join(names)}, got {shown(value)}"
    if not isinstance(value, str):
        raise refused(argument, reason, TypeError)
    meant = [f"; did you mean {name!r}?" for name in names if name.lower() == value.lower()]
    raise refused(argument, reason + "".join(meant))


def array(argument: str, value: object) -> jax.Array:
    """An array of numbers."""
    if isinstance(value, np.ma.MaskedArray):
        raise refused(argument, "must have no mask; fill the array first", TypeError)
    if not isinstance(value, np.ndarray | np.generic):
        if not isinstance(value, jax.Array) and not hasattr(value, "__jax_array__"):
            raise refused(argument, f"must be a jax or numpy array, got {shown(value)}", TypeError)
        value = jnp.asarray(value)
    if value.dtype not in DTYPES:  # numpy also has other byte orders
        reason = f"must hold numbers of a dtype that JAX has, of 8 bits or more, got {shown(value)}"
        raise refused(argument, reason, TypeError)
    return jnp.asarray(value)


def has_batch(argument: str, a: jax.Array, rank: int) -> bool:
    """Whether a batch axis precedes the channel axis and `rank` spatial axes."""
    if a.ndim not in (rank + 1, rank + 2):
        reason = f"needs {rank + 2} axes, {rank} of them spatial, or {rank + 1} without a batch"
        raise refused(argument, f"{reason}, got {shown(a)}")
    return a.ndim == rank + 2


def space(argument: str, a: jax.Array, axes: Sequence[int]) -> tuple[int, ...]:
    """The sizes of an array along its spatial axes."""
    found = tuple(a.shape[axis] for axis in axes)
    if 0 in found:
        raise refused(argument, f"needs a size of at least 1 on each spatial axis, got {found}")
    cells(argument, found)
    return found


def sizes(argument: str, value: object) -> tuple[int, ...]:
    """A sequence of static ints, each at least 1, whose count says how many axes there are."""
    entries = _entries(value)
    if entries is None:
        reason = f"must be a tuple with one int for each axis, got {shown(value)}"
        raise refused(argument, reason, TypeError)
    found = integers(argument, entries, len(entries), 1)
    cells(argument, found)
    return found


def integers(
    argument: str, value: object, rank: int, least: int | None = None, *, symbolic: bool = False
) -> tuple[Any, ...]:
    """One static int per axis; a single int serves every axis. `symbolic` lets an export's sizes pass."""
    of = Entry(f"an int or a sequence of {rank} ints", value)
    entries = _repeated(argument, value, rank, of)
    return tuple(integer(argument, n, least, symbolic=symbolic, of=of) for n in entries)


def paddings(value: object, rank: int) -> tuple[Pair, ...] | str:
    """A (low, high) pair per axis, or one of NAMED_PADDINGS, which may come in lower case."""
    if isinstance(value, str):
        name = value.upper() if value.islower() else value
        name = one_of("padding", name, NAMED_PADDINGS)
        if name == "CAUSAL" and rank > 1:
            raise refused("padding", f"{value!r} needs a single spatial axis, got {rank}")
        return name
    of = Entry(f"an int, a name or a sequence of {rank} ints or (low, high) pairs", value)
    pairs = [
        [integer("padding", n, of=of) for n in _repeated("padding", entry, 2, of)]
        for entry in _repeated("padding", value, rank, of)
    ]
    return tuple((low, high) for low, high in pairs)


def _repeated(argument: str, value: Any, count: int, of: Entry) -> tuple:
    """The entries of a sequence of this length; a single value is repeated."""
    entries = _entries(value)
    if entries is None:
        return (value,) * count
    if len(entries) != count:
        raise of.refused(argument)
    return entries


def _entries(value: object) -> tuple | None:
    """What a sequence holds; None for all else, an array without axes among it."""
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    if (
        is_text
        or not isinstance(value, Sequence | np.ndarray | jax.Array)
        or getattr(value, "ndim", 1) == 0
    ):
        return None
    return tuple(value)


def _is_array(value: Any) -> bool:
    """Whether it has a dtype and a shape; classes such as np.float32 have such attributes too."""
    return isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype")


class _Shortened(reprlib.Repr):
    """A repr of few words, in which an array is its dtype and shape."""

    maxlevel, maxstring, maxother, maxlong = 3, 80, 80, 80
    maxtuple = maxlist = 8

    def repr1(self, x: Any, level: int) -> str:
        """The repr of anything; short numpy arrays may be settings, and are shown."""
        is_short = isinstance(x, np.ndarray | np.generic) and x.ndim < 2 and x.size <= 8
        if _is_array(x) and not is_short:
            return f"{x.dtype}[{','.join(map(str, x.shape))}]"
        return super().repr1(x, level)


def shown(value: Any) -> str:
    """A value in few words: of an array dtype and shape, of all else the beginning of its repr."""
    return _Shortened().repr(value)
