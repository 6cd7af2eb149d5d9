"""One call with all that shapes it, its random integers and their layout, as one line of JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jdeconv.form import CONTRACTIONS
from jdeconv.lowerings import LOWERINGS
from jdeconv.window import Window
from tests import geometry

LETTERS = "WHDT"
FLOATS = ("float32", "float16", "bfloat16", "float64", "complex64", "complex128")
DTYPES = (*FLOATS, "int8", "int32", "uint8", "int64")
WIDE = ("float64", "complex128", "int64")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """All that determines a call and its random integers; as text, one line of JSON.

    Args:
      call: conv, deconv or kernel_grad.
      gradient: whether its two gradients are asked for, and not its value.
      big, kernel, stride, dilation: one int per spatial axis.
      padding: a (low, high) pair per axis, or a name.
      padding_mode, dtype, lowering: as in the call.
      groups, n, c, o: groups, batch, and channels of both sides in a group; n None for no batch axis.
      layout: strings for x, kernel and y.
      maps: for each vmap, the outermost first, the mapped axis of both operands; None is not mapped.
      mapped: the size of every mapped axis.
      seed: of the integers.
    """

    call: str
    gradient: bool
    big: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...] | str
    padding_mode: str = "zeros"
    groups: int = 1
    n: int | None = 1
    c: int = 1
    o: int = 1
    layout: tuple[str, str, str]
    dtype: str
    lowering: str | None = None
    maps: tuple[tuple[int | None, int | None], ...] = ()
    mapped: int = 1
    seed: int = 0

    def __str__(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, text: str) -> Problem:
        """The inverse of `str`."""
        return cls(**{name: _frozen(value) for name, value in json.loads(text).items()})

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.big)

    @property
    def spans(self) -> tuple[int, ...]:
        """Cells from the first tap to the last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """The (low, high) pairs that `padding` stands for."""
        if not isinstance(self.padding, str):
            return self.padding
        if self.padding == "VALID":
            return ((0, 0),) * self.rank
        pairs = []
        for b, s, span in zip(self.big, self.stride, self.spans, strict=True):
            total = max((-(-b // s) - 1) * s + span - b, 0)
            pairs.append((total // 2, total - total // 2))
        return tuple(p if self.padding == "SAME" else p[::-1] for p in pairs)

    @property
    def small(self) -> tuple[int, ...]:
        """Spatial sizes of y."""
        axes = zip(self.big, self.pads, self.spans, self.stride, strict=True)
        return tuple((b + sum(pad) - span) // s + 1 for b, pad, span, s in axes)

    @property
    def geometry(self) -> dict[str, Any]:
        """What shapes the window, beside sizes."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    @property
    def steps(self) -> dict[str, Any]:
        """Keyword arguments of all three calls."""
        numbers: dict[str, str] = dict(zip(("x", "kernel", "y"), self.layout, strict=True))
        return self.geometry | {
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "dimension_numbers": tuple(numbers[role] for role in CONTRACTIONS[self.call]),
            "lowering": self.lowering,
        }

    def letters(self, role: str) -> str:
        """The axes of x, y or the kernel in the order of the definition."""
        space = self.layout[1].replace("O", "").replace("I", "")  # sizes follow the kernel's order
        return ("OI" if role == "kernel" else "NC") + space

    def draw(self, role: str, count: int = 1) -> np.ndarray:
        """Integers for `count` arrays, as the definition has them."""
        space = {"x": self.big, "y": self.small, "kernel": self.kernel}[role]
        n = 1 if self.n is None else self.n
        outer, inner = {
            "x": (n, self.groups * self.c),
            "y": (n, self.groups * self.o),
            "kernel": (self.groups * self.o, self.c),
        }[role]
        rng = np.random.default_rng([self.seed, *role.encode()])
        least = 0 if self.dtype.startswith("u") else -4
        shape = count, outer, inner, *space
        values = rng.integers(least, 5, shape).astype(np.float64)
        return values + 1j * rng.integers(-4, 5, shape) if "complex" in self.dtype else values

    def arranged(self, values: np.ndarray, role: str) -> np.ndarray:
        """Arrays of the definition in the call's layout, without a batch axis where it has none."""
        layout = self.layout[("x", "kernel", "y").index(role)]
        axes = [self.letters(role).index(letter) for letter in layout]
        values = values.transpose(0, *(axis + 1 for axis in axes))
        if self.n is None and role != "kernel":
            values = values.squeeze(1 + layout.index("N"))
        return values

    def cast(self, values: np.ndarray) -> np.ndarray:
        """Numbers in the call's dtype; integers wrap around."""
        with np.errstate(over="ignore"):
            integers = jnp.issubdtype(jnp.dtype(self.dtype), jnp.integer)
            return (values.astype(np.int64) if integers else values).astype(jnp.dtype(self.dtype))

    @property
    def window(self) -> Window:
        """Its geometry."""
        low = tuple(low for low, _ in self.pads)
        return Window(self.big, self.small, self.kernel, self.stride, self.dilation, low)

    def serving(self) -> list[str]:
        """The lowerings that take it."""
        window = self.window if self.padding_mode == "zeros" else self.window.padded
        p = geometry.problem(window, self.groups, self.c, self.o, dtype=self.dtype)
        return [name for name, lowering in LOWERINGS.items() if lowering.refuses(p) is None]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
