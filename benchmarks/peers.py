"""Who does the work: jdeconv, and the peers that it is timed against.

A peer turns a case into a `Program`: arrays on its device, the work compiled, ready to run.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

import jdeconv
from benchmarks.cases import GRADIENTS, Array, Case, Layer, Zeros
from benchmarks.operations import Equinox, Jdeconv, Lax, TorchOperations
from jdeconv import choose

OURS, LAX, DEFAULT, IM2COL = "jdeconv", "jax.lax", "jax.lax's default", "im2col"


@dataclass
class Program:
    """Work ready to run.

    Args:
      start: sends the work to the device.
      wait: takes what `start` returned, and returns it when all of that is done.
      fetch: gives that as arrays, channels first, O before I.
      compile_seconds, temporary_bytes: of what is compiled.
    """

    start: Callable[[], Any]
    wait: Callable[[Any], Any]
    fetch: Callable[[Any], list[Any]]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None

    def run(self) -> Any:
        """What the work makes, when it is done."""
        return self.wait(self.start())

    def timed(self) -> tuple[float, Any]:
        """Seconds of one run, and what it made."""
        start = time.perf_counter()
        out = self.run()
        return time.perf_counter() - start, out


class JaxPeer:
    """JAX with someone's conv and deconv."""

    package = "jax"

    def __init__(self, operations: Callable) -> None:
        self.operations = operations

    def refuses(self, case: Case) -> str | None:
        """Nothing: JAX has all of the cases."""
        return None

    def enter(self, case: Case, a: Array) -> Any:
        """An array in the order in which it is timed."""
        return _laid_out(a, case.layout == "NHWC")

    def leave(self, case: Case, a: Array) -> Any:
        """And back."""
        return _laid_out(a, case.layout == "NHWC", back=True)

    def function(self, case: Case) -> Callable:
        """What is compiled."""
        return case.function(self.operations(case.layout))

    def shapes(self, case: Case, device: Any) -> list[jax.ShapeDtypeStruct]:
        """Of what the function takes, on a device."""
        arrays = [self.enter(case, a) for a in case.arrays(Zeros())]
        place = SingleDeviceSharding(device)
        return [jax.ShapeDtypeStruct(a.shape, case.dtype, sharding=place) for a in arrays]

    def program(self, case: Case, arrays: list[Array]) -> Program:
        """The case compiled by jit."""
        with jax.enable_x64(case.dtype == "float64"):
            values = [_cast(jnp.asarray(self.enter(case, a)), case.dtype) for a in arrays]
            start = time.perf_counter()
            compiled = jax.jit(self.function(case)).lower(*values).compile()
            seconds = time.perf_counter() - start

        def fetch(results):
            named = zip(jax.tree.leaves(results), case.results(), strict=True)
            return [self.leave(case, Array(role, a, mapped)) for a, (role, mapped) in named]

        memory = compiled.memory_analysis()
        temporary = None if memory is None else memory.temp_size_in_bytes
        return Program(lambda: compiled(*values), jax.block_until_ready, fetch, seconds, temporary)


def _cast(a: jax.Array, dtype: str) -> jax.Array:
    """The array in the dtype, where integers are rounded from three times the numbers."""
    return jnp.round(3 * a).astype(dtype) if jnp.issubdtype(dtype, jnp.integer) else a.astype(dtype)


class AcceleratedPeer(JaxPeer):
    """Someone's conv and deconv through `jdeconv.accelerate`."""

    def function(self, case: Case) -> Callable:
        """What is compiled."""
        return jdeconv.accelerate(super().function(case))


class Im2colPeer(AcceleratedPeer):
    """`jdeconv.accelerate` with the definition, im2col, in place of every other lowering."""

    def program(self, case: Case, arrays: list[Array]) -> Program:
        """The case compiled by jit, where the table of choices is empty."""
        with mock.patch.object(choose, "TABLE", ()):
            return super().program(case, arrays)


class Im2colLayerPeer(JaxPeer):
    """jdeconv's im2col in layers, but not where it would take minutes."""

    def refuses(self, case: Case) -> str | None:
        """Why a case is left out: its columns have more than a billion numbers."""
        work = case.work
        if not isinstance(work, Layer):
            return None
        image, _, _ = work.shapes
        columns = math.prod((*image[:2], *work.window.kernel, *work.window.small))
        return "its columns have more than a billion numbers" if columns > 10**9 else None


class EquinoxPeer(JaxPeer):
    """Equinox, where it differs from lax."""

    package = "equinox"

    def refuses(self, case: Case) -> str | None:
        """All but single deconvs in channels first."""
        work = case.work
        single = isinstance(work, Layer) and work.kind == "deconv" and work.repeats == 1
        if single and case.layout == "NCHW":
            return None
        return "equinox differs from lax in single deconvs, and has them in NCHW only"

    def enter(self, case: Case, a: Array) -> Any:
        """A kernel from (I, O/g, k), of the conv that this transposes, to (O, I/g, reversed k)."""
        return _exchanged(a.value, case.work.groups) if a.role == "kernel" else a.value

    leave = enter  # the way back is the same


class TorchPeer:
    """PyTorch's eager mode on the kind of device that JAX has, in its own memory format for each layout."""

    package = "torch"

    def refuses(self, case: Case) -> str | None:
        """What has no channels-last format, and all where torch is of another device than JAX."""
        if reason := self.lacks(case):
            return reason
        if case.layout == "NHWC" and (_rank(case) == 1 or _is_mapped(case)):
            return "torch has no channels-last format of this"
        return None

    def lacks(self, case: Case) -> str | None:
        """Why torch cannot do the work in any format."""
        import torch

        if _on_gpu() and not torch.cuda.is_available():
            return "this build of torch has no GPU"
        if _rank(case) > 3 or case.dtype == "int8":
            return "torch has no such convolution"
        return None

    def program(self, case: Case, arrays: list[Array]) -> Program:
        """The case on tensors, with cuDNN's search for algorithms; nothing is compiled."""
        import torch

        torch.backends.cudnn.benchmark = True
        is_layer, mapped = isinstance(case.work, Layer), _is_mapped(case)
        operations = TorchOperations(mapped)
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}

        def tensor(a: Array) -> torch.Tensor:
            t = torch.from_dlpack(a.value)
            t = t.to("cuda" if _on_gpu() else "cpu", getattr(torch, case.dtype), copy=True)
            if case.layout == "NHWC" and not a.mapped and t.ndim in formats:
                t = t.contiguous(memory_format=formats[t.ndim])
            return t

        values = list(map(tensor, arrays))
        # Of a layer's arrays the last is the cotangent, of a network's the first is the image.
        variables = values[:2][GRADIENTS.get(case.part, slice(None))] if is_layer else values[1:]
        for value in () if mapped or case.part == "forward" else variables:
            value.requires_grad_()
        if case.part in GRADIENTS:
            out = case.work.forward(operations, *values[:2])

            def start():
                return torch.autograd.grad(out, variables, values[2], retain_graph=True)
        else:

            def start():
                return case.function(operations)(*values)

        def wait(results):
            if _on_gpu():
                torch.cuda.synchronize()
            return results

        def fetch(results):
            with jax.enable_x64(case.dtype == "float64"):
                return [jnp.from_dlpack(t.detach().contiguous()) for t in jax.tree.leaves(results)]

        return Program(start, wait, fetch)


def _rank(case: Case) -> int:
    return case.work.rank if isinstance(case.work, Layer) else len(case.work.image) - 2


def _is_mapped(case: Case) -> bool:
    return isinstance(case.work, Layer) and bool(case.work.examples or case.work.ensemble)


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def _exchanged(kernel: np.ndarray, groups: int) -> np.ndarray:
    """The two channel axes in each other's place within each group, and space reversed."""
    outer, inner, *space = kernel.shape
    kernel = kernel.reshape(groups, outer // groups, inner, *space).swapaxes(1, 2)
    kernel = kernel.reshape(groups * inner, outer // groups, *space)
    return np.flip(kernel, range(2, kernel.ndim))


def _laid_out(a: Array, last: bool, back: bool = False) -> Any:
    """From channels first to channels last, or back; O and I change places with space for a kernel."""
    if not last or a.role == "plain":
        return a.value
    rank = a.value.ndim - a.mapped - 2
    order = [0, *range(2, rank + 2), 1] if a.role == "image" else [*range(2, rank + 2), 1, 0]
    order = [*range(a.mapped), *(a.mapped + axis for axis in order)]
    return np.transpose(a.value, np.argsort(order) if back else order)


def peers(lowering: str | None = None) -> dict[str, Any]:
    """Ours first; lax second, the measure of what is right."""
    return {
        OURS: JaxPeer(functools.partial(Jdeconv, lowering=lowering)),
        LAX: JaxPeer(Lax),
        IM2COL: Im2colLayerPeer(functools.partial(Jdeconv, lowering="im2col")),
        "equinox": EquinoxPeer(Equinox),
        "torch": TorchPeer(),
    }


def missing(peer: Any) -> bool:
    """Whether the peer's package is not installed."""
    return importlib.util.find_spec(peer.package) is None
