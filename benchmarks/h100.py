"""Compiles programs for an H100, on any machine, and estimates how long they would take.

The file `h100.txt` describes the GPU to XLA. Compiling needs neither the GPU nor its driver nor CUDA's
libraries, only JAX's CUDA plugin and the assembler. Autotuning needs the GPU, so it is off.

The estimate is a roofline: each kernel takes as long as its products at the rate of its dtype, or its bytes at
the memory's, whichever is longer. It knows nothing of caches, of launches, or of how well a kernel is written.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks import hlo

PACKAGES = {
    "jax_plugins.xla_cuda12": "jax-cuda12-plugin",
    "nvidia.cuda_nvcc": "nvidia-cuda-nvcc-cu12",
}
TARGET = Path(__file__).parent / "h100.txt"
PRODUCTS = {
    "bf16": 395e12,
    "f16": 395e12,
    "f32": 200e12,
}  # a second; float32 in TF32, JAX's default
SLOW_PRODUCTS = 30e12  # a second, without tensor cores
BYTES = 3.35e12  # a second


def missing() -> str:
    """A sentence that says what to install, or nothing."""
    absent = [name for module, name in PACKAGES.items() if not _is_there(module)]
    if not absent:
        return ""
    version = jax.__version__
    return (
        f"{' and '.join(absent)} missing. To compile for an H100 on any machine, make a new environment "
        f"and run there: pip install jax-cuda12-plugin=={version} jax-cuda12-pjrt=={version} "
        "nvidia-cuda-nvcc-cu12"
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def devices(count: int = 1) -> list[Any]:
    """So many H100s that are not there. JAX's settings are changed for the rest of the process."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # of the driver and the libraries
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    os.environ.setdefault(
        "TF_CPP_MIN_LOG_LEVEL", "3"
    )  # which tells once a thread of the absent driver
    jax.config.update("jax_platforms", "cpu")
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=TARGET.read_text(), topology=f"1x1x{count}"
    )
    return topology.devices


@dataclass(frozen=True)
class Program:
    """What was found in a compiled program.

    Args:
      calls: kernels by kind; a loop's once.
      products: multiply-adds of convolutions and dots, stuffed zeros among them.
      bytes: that kernels read and write.
      temporary_bytes: of memory beside arguments and results.
      compile_seconds: lowering and compiling.
      seconds: the estimate.
      widest: the widest dtype that a convolution or dot multiplies.
    """

    calls: dict[str, int]
    products: int
    bytes: int
    temporary_bytes: int
    compile_seconds: float
    seconds: float
    widest: str


def compiled(function: Callable, shapes: Sequence[Any]) -> Any:
    """The function compiled by jit for the devices on which its arguments' shapes lie."""
    return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).compile()


def program(function: Callable, shapes: Sequence[Any]) -> Program:
    """Compile a function of one H100, and read what it became."""
    start = time.perf_counter()
    executable = compiled(function, shapes)
    taken = time.perf_counter() - start
    kernels = hlo.kernels(executable.as_text())
    calls = Counter(kernel.kind for kernel in kernels)
    multiplied = [kernel for kernel in kernels if kernel.products]
    return Program(
        calls={kind: calls[kind] for kind in hlo.KINDS if calls[kind]},
        products=sum(kernel.times * kernel.products for kernel in kernels),
        bytes=sum(kernel.times * kernel.bytes for kernel in kernels),
        temporary_bytes=executable.memory_analysis().temp_size_in_bytes,
        compile_seconds=taken,
        seconds=sum(kernel.times * seconds(kernel) for kernel in kernels),
        widest=max(
            (kernel.dtype for kernel in multiplied),
            key=lambda dtype: hlo.Array(dtype, ()).bytes,
            default="",
        ),
    )


def seconds(kernel: hlo.Kernel) -> float:
    """The estimate for one run of a kernel."""
    rate = SLOW_PRODUCTS if kernel.kind == "naive" else PRODUCTS.get(kernel.dtype, SLOW_PRODUCTS)
    return max(kernel.products / rate, kernel.bytes / BYTES)
