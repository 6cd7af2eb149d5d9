"""An array that a lowering reads for more than one tap is evaluated once on a CPU, whatever made it."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from benchmarks import hlo
from jdeconv import conv

MOVED = {"bitcast", "broadcast", "convert", "copy", "pad", "reshape", "slice", "transpose"}
KERNELS = {  # x's channels and the kernel
    "taps": (3, (3, 3, 3, 3)),
    "taps of groups": (6, (6, 1, 3, 3)),
    "im2col": (5, (5, 5, 3, 3)),
    "nhwc": (16, (16, 16, 3, 3)),
}


def evaluated_again(compiled):
    """What the kernels of the compiled program read more than once in slices, and compute for each anew."""
    program, _ = hlo.computations(compiled.as_text())
    kernels = {o.named(r"calls=%?([\w.-]+)") for own in program.values() for o in own.values()}
    read = Counter()
    for name in kernels & program.keys():
        for operation in (o for o in program[name].values() if o.code == "slice"):
            source = operation
            while source.code in MOVED:
                source = program[name][source.operands[0]]
            if source.code not in ("parameter", "constant"):
                read[name, source.name] += operation.results[0].size
    return [(k, name) for (k, name), n in read.items() if n > program[k][name].results[0].size]


def stack(name, layers=3):
    """The sum of some layers, each made of cheap arithmetic and a conv, and its operands."""
    channels, shape = KERNELS[name]
    options = {"padding": 1, "groups": channels // shape[1]}

    def loss(x, kernel):
        for _ in range(layers):
            x = x + 2 * conv(x, kernel, **options)
        return x.sum()

    rng = np.random.default_rng(0)
    x, kernel = (rng.integers(-2, 3, s) for s in ((2, channels, 9, 8), shape))
    return loss, jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def compiled(function, *args):
    return jax.jit(function).lower(*args).compile()


def growth(name):
    """How many times more arithmetic the gradients of three layers take than those of one."""
    flops = []
    for layers in (1, 3):
        loss, x, kernel = stack(name, layers)
        program = compiled(jax.value_and_grad(loss, (0, 1)), x, kernel)
        flops.append(program.cost_analysis()["flops"])
    return flops[1] / flops[0]


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_is_evaluated_again(name):
    loss, x, kernel = stack(name)
    assert not evaluated_again(compiled(jax.value_and_grad(loss, (0, 1)), x, kernel))
    assert growth(name) < 4


def test_the_fault_is_seen(monkeypatch):
    """Without the call, XLA evaluates a layer once more for every tap of the next."""
    monkeypatch.setattr("jdeconv._jax.written", lambda *arrays: arrays)
    jax.clear_caches()
    assert growth("taps") > 5
    jax.clear_caches()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8", "int32", "complex64", "uint16"])
def test_in_every_dtype(dtype):
    loss, x, kernel = stack("taps", layers=2)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    assert not evaluated_again(compiled(loss, x, kernel))


def test_in_scan_and_shard_map():
    loss, x, kernel = stack("taps", layers=2)
    gradient = jax.grad(loss, (0, 1))

    def scanned(x, kernel):
        return jax.lax.scan(lambda x, _: (x + gradient(x, kernel)[0], None), x, length=3)

    mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P("i"), P()), "out_specs": (P("i"), P())}
    sharded = jax.shard_map(gradient, mesh=mesh, **specs)
    for function in (scanned, sharded):
        assert not evaluated_again(compiled(function, x, kernel))
    jax.tree.map(np.testing.assert_array_equal, jax.jit(sharded)(x, kernel), gradient(x, kernel))
