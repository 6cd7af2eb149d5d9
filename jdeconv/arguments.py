"""Converts what a user passes to what the primitives take, and their results back.

`Call` takes the contraction to call: the `custom_vjp` function or the bare primitive. Both get the same
arguments, checks and conventions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.checks import (
    array,
    has_batch,
    integer,
    number_dtype,
    one_of,
    refused,
    shown,
    sizes,
    space,
)
from jdeconv.form import CONTRACTIONS, INDICES, Form, Layout, accumulator
from jdeconv.lowerings import LOWERINGS
from jdeconv.mesh import aligned
from jdeconv.padding import MODES, pad, pad_transpose
from jdeconv.problem import Problem
from jdeconv.window import Window

Contract = Any  # (jax.Array, jax.Array, Form, np.dtype) -> jax.Array; a custom_vjp has no such type


@dataclass(frozen=True)
class Call:
    """One call: its arrays with batch axis and common dtype, and what they are to be read as."""

    contraction: str
    layout: Layout
    groups: int
    padding_mode: str
    arrays: dict[str, jax.Array]
    batched: bool

    @classmethod
    def of(
        cls,
        contraction: str,
        groups: int,
        dimension_numbers: Any,
        padding_mode: str,
        kernel_size: Any = None,
        **arrays: Any,
    ) -> Call:
        """The call, if its arrays fit one another."""
        one_of("padding_mode", padding_mode, MODES)
        arrays = {k: array(k, v) for k, v in arrays.items() if k != "bias" or v is not None}
        if "kernel" in arrays:
            name, rank = "kernel", arrays["kernel"].ndim - 2
        else:
            name, rank = "kernel_size", len(sizes("kernel_size", kernel_size))
        if rank < 1:
            reason = "needs at least one spatial axis, beside two of channels in an array"
            raise refused(name, f"{reason}, got {shown(arrays.get(name, kernel_size))}")
        layout = Layout.of(contraction, dimension_numbers, rank)
        sides = [role for role in arrays if role in ("x", "y")]
        batched, *others = [has_batch(role, arrays[role], rank) for role in sides]
        if others and others != [batched]:
            reason = f"has {arrays['y'].ndim} axes, and the other array {arrays['x'].ndim}"
            raise refused("y", f"{reason}; give both a batch axis, or neither")
        dtype = _common_dtype(arrays)
        arrays = {role: a.astype(dtype) for role, a in arrays.items()}
        # Before the custom_vjp function, so that JAX transposes it: in shard_map that sums a kernel's gradient.
        arrays = dict(zip(arrays, aligned(*arrays.values()), strict=True))
        if not batched:
            for role in sides:
                arrays[role] = jnp.expand_dims(arrays[role], getattr(layout, role)[0])
        call = cls(contraction, layout, integer("groups", groups, 1), padding_mode, arrays, batched)
        if wrong := call.misfit(layout, call.groups):
            raise refused(*wrong, remedy=next(call.remedies(dimension_numbers is None), None))
        return call

    def window(self, **steps: Any) -> Window:
        """The geometry, from both operands' spatial sizes."""
        roles = CONTRACTIONS[self.contraction][:2]
        spaces = [space(r, self.arrays[r], getattr(self.layout, r)[2:]) for r in roles]
        return getattr(Window, f"of_{self.contraction}")(*spaces, **steps)

    def misfit(self, layout: Layout, groups: int) -> tuple[str, str] | None:
        """With this layout and groups: the argument that does not fit and the reason, or None."""
        first, second, _ = CONTRACTIONS[self.contraction]
        found: dict[str, Any] = {}
        for role in (first, second):
            for axis, word in zip(getattr(layout, role), INDICES[role], strict=False):
                size, index = self.arrays[role].shape[axis], word[-1]
                inside = groups if "g" in word else 1
                if size % inside:
                    return "groups", f"must divide {size} channels, got {groups}"
                other, needed = found.setdefault(index, (size, size // inside))
                if size != needed * inside:
                    reason = f"but the other array has {other}"
                    if index != "n":
                        within = f"{groups} group{'s' * (groups > 1)}"
                        reason = f"but {other} channels in {within} need {needed * inside}"
                    return role, f"has size {size} on axis {axis}, {reason}"
        return None

    def remedies(self, may_reorder: bool) -> Iterator[dict[str, Any]]:
        """Arguments with which the operands' sizes would fit: layouts with channels last, and groups."""
        rank = len(self.layout.x) - 2
        space = "DHW"[-rank:]
        if may_reorder and rank <= 3 and "kernel" in self.arrays:
            for kernel in (f"{space}IO", f"OI{space}"):
                numbers = (f"N{space}C", kernel, f"N{space}C")
                if not self.misfit(Layout.of(self.contraction, numbers, rank), self.groups):
                    yield {"dimension_numbers": numbers}
        if self.contraction == "conv":
            channels = self.arrays["x"].shape[self.layout.x[1]]
            groups = channels // (self.arrays["kernel"].shape[self.layout.kernel[1]] or 1)
            if groups and not self.misfit(self.layout, groups):
                yield {"groups": groups}

    def contracted(
        self,
        contract: Contract,
        window: Window,
        precision: Any,
        preferred_element_type: Any,
        lowering: str | None,
    ) -> jax.Array:
        """The contraction with its bias; without a batch axis, if the user passed none."""
        first, second, result = CONTRACTIONS[self.contraction]
        a, b = self.arrays[first], self.arrays[second]
        dtype = _result_dtype(a.dtype, preferred_element_type)
        is_padded, layout = self.padding_mode != "zeros", self.layout
        inner = window.padded if is_padded else window
        form = Form(inner, self.groups, layout, _precision(precision), lowering)
        if lowering is not None:
            _check_lowering(lowering, Problem.of(self.contraction, form, a, b, dtype))
        edges: dict[str, Any] = {"axes": layout.x[2:], "mode": self.padding_mode}
        is_sum = is_padded and result == "x"  # pad_transpose adds to it later
        if is_padded and first == "x":
            a = pad(a, window, **edges)
        try:
            found = contract(a, b, form, accumulator(dtype) if is_sum else dtype)
        except TypeError as error:
            if "forward-mode" in str(error):
                note = f"jdeconv.bilinear.{self.contraction} is this function with forward mode."
                error.add_note(note)
            raise
        if is_sum:
            found = pad_transpose(found, window, **edges).astype(dtype)
        batch_axis, channel_axis, *_ = getattr(layout, result)
        if "bias" in self.arrays:
            bias, size = self.arrays["bias"], found.shape[channel_axis]
            if bias.shape != (size,):
                reason = f"needs shape ({size},), one number per output channel, got {bias.shape}"
                raise refused("bias", reason)
            shape = [size if axis == channel_axis else 1 for axis in range(found.ndim)]
            found = found + bias.astype(dtype).reshape(shape)
        is_whole = self.batched or result == "kernel"
        return found if is_whole else jnp.squeeze(found, batch_axis)


def _check_lowering(name: str, p: Problem) -> None:
    reason = LOWERINGS[one_of("lowering", name, LOWERINGS)].refuses(p)
    if p.has_symbolic_space and name != "im2col":
        reason = "it needs spatial sizes that are known while tracing"
    if reason is not None:
        raise refused("lowering", f"{name!r} cannot serve: {reason}", NotImplementedError)


def _common_dtype(arrays: dict[str, jax.Array]) -> np.dtype:
    try:
        return jnp.result_type(*arrays.values())
    except ValueError:  # 8-bit floats and smaller types promote to nothing, nor does strict mode
        first, *others = arrays
        role = next(role for role in others if arrays[role].dtype != arrays[first].dtype)
        dtypes = f"{arrays[role].dtype}, which JAX does not combine with {arrays[first].dtype}"
        raise refused(role, f"has dtype {dtypes}; cast one", TypeError) from None


def _result_dtype(dtype: np.dtype, preferred: Any) -> np.dtype:
    if preferred is None:
        return dtype
    wanted = number_dtype("preferred_element_type", preferred)
    # 8-bit floats and smaller types promote to nothing.
    with suppress(ValueError), jax.numpy_dtype_promotion("standard"):
        if jnp.promote_types(dtype, jax.dtypes.canonicalize_dtype(wanted)) == wanted:
            return wanted
    is_known = jax.dtypes.canonicalize_dtype(wanted) == wanted
    reason = f"must hold a result of {dtype} operands" if is_known else "needs jax_enable_x64"
    raise refused("preferred_element_type", f"{reason}, got {wanted}", TypeError)


def _precision(precision: Any) -> lax.Precision | None:
    config: Any = jax.config
    wanted = config.jax_default_matmul_precision if precision is None else precision
    if isinstance(wanted, str | lax.Precision):
        with suppress(ValueError):
            return lax.Precision(wanted)
    if precision is None:  # dot and convolution look up an algorithm's name themselves
        return None
    reason = f"must be None, a jax.lax.Precision or its name, got {shown(precision)}"
    raise refused("precision", reason, ValueError if isinstance(precision, str) else TypeError)
