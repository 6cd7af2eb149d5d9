"""One contraction with its sizes and dtypes: everything that a lowering gets with its two arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from jdeconv.form import CONTRACTIONS, INDICES, Form, Layout, accumulator
from jdeconv.window import Window

ACCELERATORS = ("cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Problem:
    """What is static about one contraction of two arrays.

    Args:
      contraction: "conv", "deconv" or "kernel_grad".
      window: the geometry.
      layout: the axes of each array.
      n, g, c, o: the sizes of these indices of the form; symbolic ones in an export.
      operands: the dtype to which both arrays are brought.
      wide: the dtype in which sums are taken.
      result: the dtype of the result.
      precision: of the products, as in `jax.lax`; None is the platform's default.
      platform: where it is evaluated; None until it is lowered.
    """

    contraction: str
    window: Window
    layout: Layout
    n: int
    g: int
    c: int
    o: int
    operands: np.dtype
    wide: np.dtype
    result: np.dtype
    precision: lax.Precision | None = None
    platform: str | None = None

    @classmethod
    def of(
        cls, contraction: str, form: Form, a: Any, b: Any, result: Any, platform: str | None = None
    ) -> Problem:
        """The contraction of `a` and `b`. Only their shapes and dtypes are read.

        Example:
          >>> from jdeconv.form import Layout
          >>> form = Form(Window.of_conv((8, 8), (3, 3)), 2, Layout.of("conv", None, 2))
          >>> x, kernel = jnp.zeros((5, 6, 8, 8)), jnp.zeros((4, 3, 3, 3))
          >>> p = Problem.of("conv", form, x, kernel, "float32")
          >>> (p.n, p.g, p.c, p.o), p.shape("y")
          ((5, 2, 3, 2), (5, 4, 6, 6))
        """
        sizes: dict[str, Any] = {"g": form.groups}
        for role, array in zip(CONTRACTIONS[contraction][:2], (a, b), strict=True):
            for axis, word in zip(getattr(form.layout, role), INDICES[role], strict=False):
                sizes[word[-1]] = array.shape[axis] // (form.groups if "g" in word else 1)
        with jax.numpy_dtype_promotion("standard"):  # a wide cotangent may meet a narrow operand
            wide = jnp.promote_types(accumulator(a.dtype), accumulator(b.dtype))
            operands = a.dtype if a.dtype == b.dtype else wide
            wide = jnp.promote_types(wide, accumulator(result))
        dtypes = {"operands": np.dtype(operands), "wide": wide, "result": np.dtype(result)}
        static = {"precision": form.precision, "platform": platform}
        return cls(contraction, form.window.reduced, form.layout, **sizes, **dtypes, **static)

    def shape(self, role: str) -> tuple:
        """The shape of x, kernel or y."""
        words = [math.prod(getattr(self, index) for index in word) for word in INDICES[role]]
        space = {"x": self.window.big, "kernel": self.window.kernel, "y": self.window.small}
        sizes = (*words, *space[role])
        return tuple(sizes[i] for i in np.argsort(getattr(self.layout, role)))

    @property
    def last(self) -> bool:
        """Whether x keeps its channels behind its spatial axes."""
        return self.layout.x[1] == self.window.rank + 1

    @property
    def is_symbolic(self) -> bool:
        """Whether channels or groups are not known until an exported program runs."""
        return not all(isinstance(size, int) for size in (self.g, self.c, self.o))

    @property
    def has_symbolic_space(self) -> bool:
        """Whether a spatial size is not known until an exported program runs."""
        return any(map(is_symbolic_dim, (*self.window.big, *self.window.small)))

    @property
    def taps(self) -> int:
        """The number of the kernel's taps."""
        return math.prod(self.window.kernel)

    @property
    def positions(self) -> int:
        """The number of y's positions."""
        return math.prod(self.window.small)

    @property
    def columns(self) -> int:
        """The number of y's positions in all images; in one, where an export does not know how many."""
        return self.positions * (self.n if isinstance(self.n, int) else 1)

    @property
    def phases(self) -> int:
        """The number of phases into which the stride divides x."""
        return math.prod(self.window.stride)

    @property
    def overlaps(self) -> bool:
        """Whether windows overlap."""
        axes = zip(self.window.kernel, self.window.stride, strict=True)
        return any(taps > step for taps, step in axes)

    @property
    def tiles(self) -> bool:
        """Whether windows lie side by side, without gaps."""
        return self.window.kernel == self.window.stride and set(self.window.dilation) == {1}

    @property
    def answer(self) -> np.dtype:
        """The dtype in which one convolution or dot of XLA answers, where nothing is added to it.

        Units of accelerators take half precision and add up in float32 by themselves. Asked for a float32
        result, XLA would widen the operands instead and multiply in float32. It does not widen operands of 8
        bits, so these get a float32 result.
        """
        is_half = self.result == self.operands and self.operands.itemsize == 2
        return self.operands if is_half and self.platform in ACCELERATORS else self.wide


def items_per_block(count: Any, bytes_per_item: Any, block_bytes: int) -> Any:
    """The most items that divide the count and whose bytes fit a block, but at least one.

    All, if items need no bytes. One, if a number is symbolic, in an export.
    """
    if bytes_per_item == 0:
        return count
    if not (isinstance(count, int) and isinstance(bytes_per_item, int)):
        return 1
    most = min(count, block_bytes // bytes_per_item)
    return max((n for n in range(1, most + 1) if count % n == 0), default=1)
