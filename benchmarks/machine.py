"""What this machine could do, measured in the same run: the floor under every case."""

from __future__ import annotations

import dataclasses
import timeit
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Of what is measured: copies that stay in cache and that do not, and square dots of each dtype."""

    cache: int
    memory: int
    dots: dict[str, tuple[int, ...]]


SIZES = {
    "cpu": Sizes(
        2 << 20, 128 << 20, {"float32": (1024, 2048), "bfloat16": (1024,), "float64": (1024,)}
    ),
    "accelerator": Sizes(
        16 << 20, 2 << 30, {"float32": (4096, 8192), "bfloat16": (8192,), "float16": (8192,)}
    ),
}


@dataclass(frozen=True)
class Machine:
    """Peak of dot in flop/s for each dtype, and bandwidth of copy in byte/s in cache and out of it."""

    peak: dict[str, float]
    cache: float
    memory: float
    cache_bytes: int

    def floor(self, flops: float, least_bytes: float, dtype: str) -> float:
        """The seconds that so much arithmetic takes at the speed of dot, or so much traffic at that of copy."""
        bandwidth = self.cache if least_bytes <= 2 * self.cache_bytes else self.memory
        return max(flops / self.peak[dtype], least_bytes / bandwidth)

    def bound(self, flops: float, least_bytes: float, dtype: str) -> str:
        """What the floor is made of: "compute" or "memory"."""
        computing = flops / self.peak[dtype]
        return "compute" if computing >= self.floor(flops, least_bytes, dtype) else "memory"

    def better(self, other: Machine) -> Machine:
        """The faster of two measurements in everything: a shared machine is not always its best."""
        peak = {name: max(self.peak[name], other.peak[name]) for name in self.peak}
        return dataclasses.replace(
            self,
            peak=peak,
            cache=max(self.cache, other.cache),
            memory=max(self.memory, other.memory),
        )


def measure(sizes: Sizes | None = None) -> Machine:
    """The best of several dots and copies, of the sizes that suit JAX's default device."""
    platform = "cpu" if jax.default_backend() == "cpu" else "accelerator"
    sizes = SIZES[platform] if sizes is None else sizes
    peak = {}
    for dtype, dots in sizes.dots.items():
        with jax.enable_x64(dtype == "float64"):
            peak[dtype] = _peak(dtype, dots)
    return Machine(peak, _copy(sizes.cache), _copy(sizes.memory), sizes.cache)


def _peak(dtype: str, sizes: tuple[int, ...]) -> float:
    rates = []
    for size in sizes:
        a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), dtype)
        dot = jax.jit(jnp.dot)
        rates.append(2 * size**3 / _best(lambda dot=dot, a=a: dot(a, a)))
    return max(rates)


def _copy(size: int) -> float:
    step = jax.jit(lambda a: a + 1, donate_argnums=0)
    box = [jnp.zeros(size // 4, jnp.float32)]

    def run():
        box[0] = step(box[0])
        return box[0]

    return 2 * size / _best(run, 20)


def _best(run: Callable, times: int = 7) -> float:
    jax.block_until_ready(run())
    return min(timeit.repeat(lambda: jax.block_until_ready(run()), number=1, repeat=times))
