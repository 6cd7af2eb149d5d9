"""Arrays as users keep them, and in the one of two orders in which a lowering computes: channels first or last.

                  x and y          kernel
    first         (N, C, *space)   (O, I, *space)
    last          (N, *space, C)   (*space, I, O)

The order is x's own, so that the common layouts are not transposed at all, unless a lowering has reasons to
ask for one of the two.
"""

from __future__ import annotations

import jax
import numpy as np
from jax import lax

from jdeconv.form import Axes, Form


def channels_last(form: Form) -> bool:
    """Whether x keeps its channels behind its spatial axes."""
    return form.layout.x[1] == form.window.rank + 1


def space(form: Form) -> Axes:
    """The spatial axes of an arranged x or y."""
    start = 1 if channels_last(form) else 2
    return tuple(range(start, start + form.window.rank))


def arrange(a: jax.Array, form: Form, role: str, last: bool | None = None) -> jax.Array:
    """The user's array in the lowering's order."""
    return lax.transpose(a, _order(form, role, last))


def restore(a: jax.Array, form: Form, role: str, last: bool | None = None) -> jax.Array:
    """The lowering's array in the user's order."""
    return lax.transpose(a, np.argsort(_order(form, role, last)))


def _order(form: Form, role: str, last: bool | None) -> Axes:
    outer, inner, *space = getattr(form.layout, role)
    if not (channels_last(form) if last is None else last):
        return outer, inner, *space
    return (*space, inner, outer) if role == "kernel" else (outer, *space, inner)
