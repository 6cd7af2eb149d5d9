"""The same call gives the same bits: again, in another process, on other threads, from a cache."""

import functools
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from thinned import thinned

from jdeconv import conv, deconv, kernel_grad
from jdeconv.lowerings import LOWERINGS

ROOT = Path(__file__).parent.parent
SHAPES = {  # large enough for XLA to divide the work among threads; sums of up to 8192 terms
    None: ((8, 16, 32, 32), (24, 16, 3, 3), {"padding": 1}),
    "im2col": ((8, 16, 32, 32), (24, 16, 5, 5), {"stride": 2, "padding": 2}),
    "taps": ((8, 32, 32, 32), (32, 1, 3, 3), {"padding": 1, "groups": 32}),
    "fft": ((2, 2, 96, 96), (3, 2, 31, 31), {}),
    "nhwc": ((8, 16, 32, 32), (24, 16, 5, 5), {"padding": 2}),
    "vendor": ((8, 16, 32, 32), (24, 16, 3, 3), {"padding": 1}),
}
LONG = {  # whose sums XLA divides among its threads
    "taps": ((8, 96, 56, 56), (96, 1, 7, 7), {"padding": 3, "groups": 96}),
    "nhwc": ((8, 32, 56, 56), (32, 32, 5, 5), {"padding": 2}),
}


def parts(lowering, shapes=SHAPES):
    """Conv and both its gradients, and random operands."""
    x, kernel, options = shapes[lowering]
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(shape, np.float32) for shape in (x, kernel))

    def all_of(x, kernel):
        value, pullback = jax.vjp(lambda x, k: conv(x, k, lowering=lowering, **options), x, kernel)
        return value, *pullback(value)

    return all_of, (x, kernel)


def digest(lowering):
    function, operands = parts(lowering)
    results = jax.jit(function)(*operands)
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in results)).hexdigest()


@functools.cache
def first(lowering):
    return digest(lowering)


def elsewhere(*arguments, **environment):
    """The digests that another process finds, in the order of SHAPES; given a path, it saves LONG's results."""
    command, environment = [sys.executable, __file__, *arguments], os.environ | environment
    found = subprocess.run(
        command, check=True, text=True, capture_output=True, cwd=ROOT, env=environment
    )
    return dict(zip(SHAPES, found.stdout.split(), strict=True))


@pytest.mark.parametrize("lowering", SHAPES)
def test_run_to_run(lowering):
    assert digest(lowering) == first(lowering)


@pytest.mark.parametrize("lowering", thinned(SHAPES, 3))
def test_each_call_with_jit_or_without(lowering):
    """In a larger program XLA may fuse a call with its neighbors, and round a fused product once less."""
    function, (x, kernel) = parts(lowering)
    y, options = function(x, kernel)[0], SHAPES[lowering][2] | {"lowering": lowering}
    calls = (
        (functools.partial(conv, **options), (x, kernel)),
        (functools.partial(deconv, output_size=x.shape[2:], **options), (y, kernel)),
        (functools.partial(kernel_grad, kernel_size=kernel.shape[2:], **options), (x, y)),
    )
    for call, operands in calls:
        np.testing.assert_array_equal(jax.jit(call)(*operands), call(*operands))


@pytest.mark.slow
def test_process_to_process_and_whatever_the_number_of_threads():
    found = elsewhere()
    assert found == {lowering: first(lowering) for lowering in SHAPES}
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    single = elsewhere(XLA_FLAGS=flags, OMP_NUM_THREADS="1")
    assert single == found


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_on_one_core_as_on_all(tmp_path):
    one = elsewhere(str(tmp_path / "long.npz"), JDECONV_CORES="1")
    assert one == {lowering: first(lowering) for lowering in SHAPES}
    for name, found in np.load(tmp_path / "long.npz").items():
        lowering, part = name.split()
        here = long_parts(lowering)[int(part)]
        eps = np.finfo(np.float32).eps
        # By how one long sum may round, not by what it is of.
        assert np.abs(found - here).max() <= 16 * eps * np.abs(here).max(), name


@functools.cache
def long_parts(lowering):
    function, operands = parts(lowering, LONG)
    return [np.asarray(a) for a in jax.jit(function)(*operands)]


@pytest.mark.slow
def test_with_a_compilation_cache_cold_and_warm(tmp_path):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    cold = elsewhere(**cache)
    assert list(tmp_path.iterdir())
    assert cold == elsewhere(**cache) == {lowering: first(lowering) for lowering in SHAPES}


def test_many_threads_at_once():
    """Tracing, compiling and running, each thread its own functions."""
    wanted = {lowering: first(lowering) for lowering in SHAPES}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(digest, list(SHAPES) * 3))
    assert found == list(wanted.values()) * 3


def main():
    if cores := os.environ.get("JDECONV_CORES"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    assert set(SHAPES) == {None, *LOWERINGS}
    print(*map(digest, SHAPES))
    if sys.argv[1:]:
        found = {f"{lowering} {i}": long_parts(lowering)[i] for lowering in LONG for i in range(3)}
        np.savez(sys.argv[1], **found)


if __name__ == "__main__":
    main()
