"""What a user passes, brought to what the primitives take, and their answer brought back.

Each of the three templates here takes the contraction to call: `functional` passes a `custom_vjp`
function, `bilinear` the bare primitive, and both get the same arguments, checks and conventions.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    sizes,
    space,
    speaking,
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
    call.check_groups(x=call.channels("x")[1], kernel=outer)
    call.check_channels("kernel", "I", inner, "x", call.channels("x")[1] // call.groups)
    call.check_bias(outer)
    with speaking("conv"):
        window = Window.of_conv(call.space("x"), call.space("kernel"), **options.steps)
    x = call.extended(window)
    y = contract(x, call.arrays["kernel"], call.form(window), call.dtype)
    return call.finished(y)


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
    call.check_groups(y=call.channels("y")[1])
    call.check_channels("kernel", "O", outer, "y", call.channels("y")[1])
    call.check_bias(call.groups * inner)
    sizes: dict[str, Any] = {"output_padding": output_padding, "output_size": output_size}
    with speaking("deconv", small="input"):
        window = Window.of_deconv(call.space("y"), call.space("kernel"), **options.steps, **sizes)
    if not call.extends:
        return call.finished(
            contract(call.arrays["y"], call.arrays["kernel"], call.form(window), call.dtype)
        )
    wide = accumulator(call.dtype)  # the sum is not at its end
    x = contract(call.arrays["y"], call.arrays["kernel"], call.form(window), wide)
    return call.finished(
        pad_transpose(x, window, call.layout.x[2:], options.padding_mode).astype(call.dtype)
    )


def kernel_grad(
    contract: Contract, x: Any, y: Any, kernel_size: Sequence[int], options: Options
) -> jax.Array:
    """The kernel's gradient by way of `contract`: (x, y) -> kernel."""
    call = _Call.of("kernel_grad", options, {"x": x, "y": y}, kernel_size)
    call.check_groups(x=call.channels("x")[1], y=call.channels("y")[1])
    if call.channels("x")[0] != call.channels("y")[0]:
        reason = f"x has batch size {call.channels('x')[0]}, y {call.channels('y')[0]}"
        raise refused("kernel_grad", "y", y, reason)
    with speaking("kernel_grad", big="x", small="y"):
        window = Window.of_kernel_grad(
            call.space("x"), call.space("y"), kernel_size, **options.steps
        )
    return contract(call.extended(window), call.arrays["y"], call.form(window), call.dtype)


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
        one_of(name, "padding_mode", options.padding_mode, MODES)
        if options.lowering is not None:
            one_of(name, "lowering", options.lowering, LOWERINGS)
        arrays = {k: array(name, k, v) for k, v in arrays.items() if k != "bias" or v is not None}
        rank = _rank(name, arrays, kernel_size)
        layout = Layout.of(name, options.dimension_numbers, rank)
        sides = [role for role in arrays if role in ("x", "y")]
        batched, *others = [has_batch(name, role, arrays[role], rank) for role in sides]
        if others and others != [batched]:
            reason = f"x has {arrays['x'].ndim} axes; give both a batch axis, or neither"
            raise refused(name, "y", arrays["y"], reason)
        dtype = _common_dtype(name, arrays)
        arrays = {role: a.astype(dtype) for role, a in arrays.items()}
        # Outside of any custom_vjp, so that its backward pass meets a replicated kernel's psum in shard_map.
        arrays = dict(zip(arrays, aligned(*arrays.values()), strict=True))
        if not batched:
            for role in sides:
                arrays[role] = jnp.expand_dims(arrays[role], getattr(layout, role)[0])
        groups = integer(name, "groups", options.groups, 1)
        dtype = _result_dtype(name, dtype, options.preferred_element_type)
        return cls(name, options, layout, groups, arrays, batched, dtype)

    @property
    def extends(self) -> bool:
        return self.options.padding_mode != "zeros"

    def channels(self, role: str) -> tuple[int, int]:
        outer, inner, *_ = getattr(self.layout, role)
        return self.arrays[role].shape[outer], self.arrays[role].shape[inner]

    def space(self, role: str) -> tuple[int, ...]:
        return space(self.name, role, self.arrays[role], getattr(self.layout, role)[2:])

    def check_groups(self, **channels: int) -> None:
        for role, count in channels.items():
            if count % self.groups:
                raise refused(
                    self.name, "groups", self.groups, f"must divide {role}'s {count} channels"
                )

    def check_channels(self, role: str, letter: str, count: int, other: str, wanted: int) -> None:
        if count != wanted:
            reason = (
                f"axis {letter} has {count} channels; {other}'s {self.channels(other)[1]} channels "
                f"in {self.groups} group{'s' * (self.groups > 1)} need {wanted}"
            )
            raise refused(self.name, role, self.arrays[role], reason)

    def check_bias(self, size: int) -> None:
        bias = self.arrays.get("bias")
        if bias is not None and bias.shape != (size,):
            raise refused(self.name, "bias", bias, f"needs shape ({size},), one number per channel")

    def form(self, window: Window) -> Form:
        window = window.padded if self.extends else window
        precision = _precision(self.name, self.options.precision)
        form = Form(window, self.groups, self.layout, precision, self.options.lowering)
        first, second, result = CONTRACTIONS[self.name]
        p = Problem.of(self.name, form, self.arrays[first], self.arrays[second], self.dtype)
        cells(self.name, second, self.arrays[second], p.shape(result))
        if form.lowering is not None and (reason := LOWERINGS[form.lowering].refuses(p)):
            raise refused(self.name, "lowering", form.lowering, reason, NotImplementedError)
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


def _rank(name: str, arrays: dict[str, jax.Array], kernel_size: Sequence[int] | None) -> int:
    if "kernel" in arrays:
        rank = arrays["kernel"].ndim - 2
        if rank < 1:
            reason = "needs two channel axes and at least one spatial axis"
            raise refused(name, "kernel", arrays["kernel"], reason)
        return rank
    rank = len(sizes(name, "kernel_size", kernel_size))
    if rank < 1:
        raise refused(name, "kernel_size", kernel_size, "needs at least one spatial axis")
    return rank


def _common_dtype(name: str, arrays: dict[str, jax.Array]) -> np.dtype:
    try:
        return jnp.result_type(*arrays.values())
    except ValueError:  # 8-bit floats and smaller types promote to nothing, nor does strict mode
        first, *others = arrays
        role = next(role for role in others if arrays[role].dtype != arrays[first].dtype)
        reason = f"JAX knows no common dtype for this and {first}'s {arrays[first].dtype}; cast one"
        raise refused(name, role, arrays[role], reason, TypeError) from None


def _result_dtype(name: str, dtype: np.dtype, preferred: Any) -> np.dtype:
    if preferred is None:
        return np.dtype(dtype)
    wanted = number_dtype(preferred)
    if wanted is None:
        reason = "expected a dtype of integers, floats or complex numbers"
        raise refused(name, "preferred_element_type", preferred, reason, TypeError)
    if jax.dtypes.canonicalize_dtype(wanted) != wanted:
        reason = "needs 64-bit types; set jax_enable_x64"
        raise refused(name, "preferred_element_type", preferred, reason, TypeError)
    if not _holds(wanted, dtype):
        reason = f"cannot hold a result of {np.dtype(dtype).name} operands"
        raise refused(name, "preferred_element_type", preferred, reason, TypeError)
    return wanted


def _holds(wide: np.dtype, narrow: np.dtype) -> bool:
    try:
        with jax.numpy_dtype_promotion("standard"):
            return jnp.promote_types(narrow, wide) == wide
    except ValueError:  # 8-bit floats and smaller types promote to nothing
        return False


def _precision(name: str, precision: Any) -> lax.Precision | None:
    if precision is None:
        try:
            config: Any = jax.config
            return lax.Precision(config.jax_default_matmul_precision)
        except (
            ValueError
        ):  # None, or an algorithm's name, which dot and convolution look up themselves
            return None
    reason = "expected None, a jax.lax.Precision or its name, one for all three contractions"
    if not isinstance(precision, str | lax.Precision):
        raise refused(name, "precision", precision, reason, TypeError)
    try:
        return lax.Precision(precision)
    except ValueError:
        raise refused(name, "precision", precision, reason) from None
