"""What a user passes, brought to what the primitives take, and their answer brought back.

Each function here takes the contraction to call: the `custom_vjp` function or the bare primitive. Both get the
same arguments, checks and conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdeconv.checks import (
    Ints,
    Padding,
    array,
    cells,
    has_batch,
    integer,
    number_dtype,
    one_of,
    refused,
    shown,
    sizes,
    space,
)
from jdeconv.form import CONTRACTIONS, Form, Layout, accumulator
from jdeconv.lowerings import LOWERINGS
from jdeconv.mesh import aligned
from jdeconv.padding import MODES, pad, pad_transpose
from jdeconv.problem import Problem
from jdeconv.window import Window

Contract = Any  # (jax.Array, jax.Array, Form, np.dtype) -> jax.Array; a custom_vjp has no such type


@dataclass(frozen=True)
class Options:
    """The keyword arguments of a call, as the user gave them."""

    stride: Ints
    padding: Padding
    dilation: Ints
    groups: int
    dimension_numbers: Sequence[str] | None
    padding_mode: str
    precision: Any
    preferred_element_type: Any
    lowering: str | None

    @property
    def steps(self) -> dict[str, Any]:
        """Those that shape the window."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}


def conv(contract: Contract, x: Any, kernel: Any, bias: Any, options: Options) -> jax.Array:
    """Conv by way of `contract`: (x, kernel) -> y."""
    call = _Call.of("conv", options, {"x": x, "kernel": kernel, "bias": bias})
    outer, inner = call.channels("kernel")
    call.check_groups("x", "kernel")
    call.check_channels(1, inner, call.channels("x")[1] // call.groups)
    call.check_bias(outer)
    window = Window.of_conv(call.space("x"), call.space("kernel"), **options.steps)
    return call.finished(call.contracted(contract, window, call.extended(window)))


def deconv(
    contract: Contract,
    y: Any,
    kernel: Any,
    bias: Any,
    options: Options,
    output_padding: Ints,
    output_size: Ints | None,
) -> jax.Array:
    """Deconv by way of `contract`: (y, kernel) -> x."""
    call = _Call.of("deconv", options, {"y": y, "kernel": kernel, "bias": bias})
    outer, inner = call.channels("kernel")
    call.check_groups("y")
    call.check_channels(0, outer, call.channels("y")[1])
    call.check_bias(call.groups * inner)
    sizes: dict[str, Any] = {"output_padding": output_padding, "output_size": output_size}
    window = Window.of_deconv(call.space("y"), call.space("kernel"), **options.steps, **sizes)
    x = call.contracted(contract, window, call.arrays["y"])
    if call.extends:
        x = pad_transpose(x, window, call.layout.x[2:], options.padding_mode).astype(call.dtype)
    return call.finished(x)


def kernel_grad(
    contract: Contract, x: Any, y: Any, kernel_size: Sequence[int], options: Options
) -> jax.Array:
    """The kernel's gradient by way of `contract`: (x, y) -> kernel."""
    call = _Call.of("kernel_grad", options, {"x": x, "y": y}, kernel_size)
    call.check_groups("x", "y")
    (batch, _), (other, _) = call.channels("x"), call.channels("y")
    if batch != other:
        raise refused("y", f"needs batch size {batch}, as the other array has, got {other}")
    window = Window.of_kernel_grad(call.space("x"), call.space("y"), kernel_size, **options.steps)
    return call.contracted(contract, window, call.extended(window))


@dataclass(frozen=True)
class _Call:
    """One call: its arrays with batch axis and common dtype, and what they are to be read as."""

    name: str
    options: Options
    layout: Layout
    groups: int
    arrays: dict[str, jax.Array]
    batched: bool
    dtype: np.dtype

    @classmethod
    def of(
        cls,
        name: str,
        options: Options,
        arrays: dict[str, Any],
        kernel_size: Sequence[int] | None = None,
    ) -> _Call:
        one_of("padding_mode", options.padding_mode, MODES)
        if options.lowering is not None:
            one_of("lowering", options.lowering, LOWERINGS)
        arrays = {k: array(k, v) for k, v in arrays.items() if k != "bias" or v is not None}
        rank = _rank(arrays, kernel_size)
        layout = Layout.of(name, options.dimension_numbers, rank)
        sides = [role for role in arrays if role in ("x", "y")]
        batched, *others = [has_batch(role, arrays[role], rank) for role in sides]
        if others and others != [batched]:
            reason = f"has {arrays['y'].ndim} axes, and the other array {arrays['x'].ndim}"
            raise refused("y", f"{reason}; give both a batch axis, or neither")
        dtype = _common_dtype(arrays)
        arrays = {role: a.astype(dtype) for role, a in arrays.items()}
        # Outside of any custom_vjp, so that its backward pass meets a replicated kernel's psum in shard_map.
        arrays = dict(zip(arrays, aligned(*arrays.values()), strict=True))
        if not batched:
            for role in sides:
                arrays[role] = jnp.expand_dims(arrays[role], getattr(layout, role)[0])
        groups = integer("groups", options.groups, 1)
        dtype = _result_dtype(dtype, options.preferred_element_type)
        return cls(name, options, layout, groups, arrays, batched, dtype)

    @property
    def extends(self) -> bool:
        return self.options.padding_mode != "zeros"

    def channels(self, role: str) -> tuple[int, int]:
        outer, inner, *_ = getattr(self.layout, role)
        return self.arrays[role].shape[outer], self.arrays[role].shape[inner]

    def space(self, role: str) -> tuple[int, ...]:
        return space(role, self.arrays[role], getattr(self.layout, role)[2:])

    def check_groups(self, *roles: str) -> None:
        for role in roles:
            count = self.channels(role)[role != "kernel"]
            if count % self.groups:
                reason = f"must divide {count} channels, got {self.groups}"
                raise refused("groups", reason, remedy=self.remedy())

    def check_channels(self, index: int, count: int, needed: int) -> None:
        """Whether the kernel's axis O (0) or I (1) fits the other operand."""
        if count == needed:
            return
        other = self.channels(CONTRACTIONS[self.name][0])[1]
        groups = "1 group" if self.groups == 1 else f"{self.groups} groups"
        reason = (
            f"has size {count} on axis {self.layout.kernel[index]}, "
            f"but {other} channels in {groups} need {needed}"
        )
        remedy = self.remedy()
        groups, rest = divmod(other, count or 1)
        if (
            index == 1
            and not remedy
            and groups
            and not rest
            and not self.channels("kernel")[0] % groups
        ):
            remedy = {"groups": groups}
        raise refused("kernel", reason, remedy=remedy)

    def remedy(self) -> dict[str, Any]:
        """Layouts with channels last that fit the arrays, as an argument to pass; empty if there are none."""
        rank = len(self.layout.x) - 2
        if self.options.dimension_numbers is not None or rank > 3 or "kernel" not in self.arrays:
            return {}
        space, kernel = "DHW"[-rank:], self.arrays["kernel"].shape
        count = self.arrays[CONTRACTIONS[self.name][0]].shape[-1]
        for spec in (f"{space}IO", f"OI{space}"):
            outer, inner = (kernel[spec.index(letter)] for letter in "OI")
            fits = inner * self.groups == count if self.name == "conv" else outer == count
            if fits and not outer % self.groups:
                return {"dimension_numbers": (f"N{space}C", spec, f"N{space}C")}
        return {}

    def check_bias(self, size: int) -> None:
        bias = self.arrays.get("bias")
        if bias is not None and bias.shape != (size,):
            reason = f"needs shape ({size},), one number per output channel, got {bias.shape}"
            raise refused("bias", reason)

    def contracted(self, contract: Contract, window: Window, first: jax.Array) -> jax.Array:
        """The contraction of `first` and the call's second operand."""
        form = self.form(window)
        second = self.arrays[CONTRACTIONS[self.name][1]]
        is_sum = self.name == "deconv" and self.extends  # pad_transpose adds to it later
        try:
            return contract(first, second, form, accumulator(self.dtype) if is_sum else self.dtype)
        except TypeError as error:
            if "forward-mode" in str(error):
                error.add_note(f"jdeconv.bilinear.{self.name} is this function with forward mode.")
            raise

    def form(self, window: Window) -> Form:
        window = window.padded if self.extends else window
        precision = _precision(self.options.precision)
        form = Form(window, self.groups, self.layout, precision, self.options.lowering)
        first, second, result = CONTRACTIONS[self.name]
        p = Problem.of(self.name, form, self.arrays[first], self.arrays[second], self.dtype)
        cells(second, p.shape(result))
        if p.has_symbolic_space and form.lowering not in (None, "im2col"):
            reason = f"{form.lowering!r} needs spatial sizes that are known while tracing"
            raise refused("lowering", reason, NotImplementedError)
        if form.lowering is not None and (reason := LOWERINGS[form.lowering].refuses(p)):
            reason = f"{form.lowering!r} cannot serve: {reason}"
            raise refused("lowering", reason, NotImplementedError)
        return form

    def extended(self, window: Window) -> jax.Array:
        x = self.arrays["x"]
        return pad(x, window, self.layout.x[2:], self.options.padding_mode) if self.extends else x

    def finished(self, result: jax.Array) -> jax.Array:
        """The result with its bias, and without a batch axis that nobody passed."""
        batch_axis, channel_axis, *_ = getattr(self.layout, CONTRACTIONS[self.name][-1])
        if "bias" in self.arrays:
            shape = [1] * result.ndim
            shape[channel_axis] = result.shape[channel_axis]
            result = result + self.arrays["bias"].astype(result.dtype).reshape(shape)
        return result if self.batched else jnp.squeeze(result, batch_axis)


def _rank(arrays: dict[str, jax.Array], kernel_size: Sequence[int] | None) -> int:
    if "kernel" in arrays:
        rank = arrays["kernel"].ndim - 2
        if rank < 1:
            reason = "needs two channel axes and at least one spatial axis"
            raise refused("kernel", f"{reason}, got {shown(arrays['kernel'])}")
        return rank
    rank = len(sizes("kernel_size", kernel_size))
    if rank < 1:
        raise refused("kernel_size", "needs at least one spatial axis, got ()")
    return rank


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
        return np.dtype(dtype)
    wanted = number_dtype("preferred_element_type", preferred)
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        reason = f"needs jax_enable_x64, got {wanted}"
        raise refused("preferred_element_type", reason, TypeError)
    if not _holds(wanted, dtype):
        reason = f"must hold a result of {np.dtype(dtype)} operands, got {wanted}"
        raise refused("preferred_element_type", reason, TypeError)
    return wanted


def _holds(wide: np.dtype, narrow: np.dtype) -> bool:
    try:
        with jax.numpy_dtype_promotion("standard"):
            return jnp.promote_types(narrow, wide) == wide
    except ValueError:  # 8-bit floats and smaller types promote to nothing
        return False


def _precision(precision: Any) -> lax.Precision | None:
    config: Any = jax.config
    wanted = config.jax_default_matmul_precision if precision is None else precision
    is_name = isinstance(wanted, str | lax.Precision)
    if is_name:
        with suppress(ValueError):
            return lax.Precision(wanted)
    if precision is None:  # dot and convolution look up an algorithm's name themselves
        return None
    reason = f"must be None, a jax.lax.Precision or its name, got {shown(precision)}"
    raise refused("precision", reason, ValueError if is_name else TypeError)
