"""What an H100 would run, read from compiled programs, beside jax.lax's; no GPU is needed (`benchmarks.h100`).

Only calls of the vendor's library, in the operands' dtype, with no more products than jax.lax and hardly more
bytes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import h100
from tests import gpu_programs

ROOT = Path(__file__).parents[1]
OURS = "jdeconv"
DENSE_GRADIENTS = {"backward-input": 1, "backward-filter": 1}
# Gradients of x for which cuDNN has no routine that XLA would find, and of 1x1, for which forward is enough.
ONLY_FILTER = ("conv 1x1", "conv 3x3 d2", "conv 1-D k7 d3", "conv grouped", "conv depthwise")
NAMES = [gpu_programs.name_of(task) for task in gpu_programs.tasks()]

if reason := h100.missing():
    pytest.skip(reason, allow_module_level=True)


def compiled(*arguments):
    """The programs, compiled in a process whose settings of JAX are its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS",)}
    kept |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.gpu_programs", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found():
    return compiled()


def expected(name):
    """The vendor's calls that there should be."""
    if name.startswith("conv"):
        if "forward" in name:
            return {"forward": 1}
        if name.startswith("conv 1x1 s2") or not name.startswith(ONLY_FILTER):
            return DENSE_GRADIENTS
        return {"forward": 1, "backward-filter": 1}
    if "forward" in name:
        return {"forward": 1} if "grouped" in name else {"backward-input": 1}
    return {"forward": 1, "backward-filter": 1}


@pytest.mark.parametrize("name", NAMES)
def test_layers(found, name):
    row = found["layers"][name]
    ours, others = row["programs"][OURS], [p for n, p in row["programs"].items() if n != OURS]
    assert others
    assert {kind: n for kind, n in ours["calls"].items() if kind != "other"} == expected(name)
    assert gpu_programs.SHORT[ours["widest"]] == row["dtype"]
    assert ours["products"] <= min(other["products"] for other in others)
    assert ours["bytes"] <= 1.03 * min(other["bytes"] for other in others)
    if name.startswith("deconv") and "backward" in name:
        assert ours["seconds"] < 0.8 * min(other["seconds"] for other in others)


@pytest.mark.parametrize("name", gpu_programs.WAYS)
def test_other_ways_stay_narrow_too(found, name):
    program = found["ways"][name]
    kinds = {kind for kind in program["calls"] if kind != "other"}
    assert program["widest"] == "bf16"
    assert kinds
    assert kinds <= {"forward", "backward-input", "backward-filter"}


def test_preferred_element_type_asks_for_what_it_does_in_lax(found):
    ours, theirs = (found["asked"][name] for name in (OURS, "jax.lax"))
    assert ours["widest"] == theirs["widest"] == "f32"
    assert ours["calls"] == theirs["calls"]
    assert ours["bytes"] == theirs["bytes"]


def test_bias_and_relu_join_the_call_as_in_lax(found):
    ours, theirs = (found["fused"][name] for name in (OURS, "jax.lax"))
    assert ours["calls"] == theirs["calls"]
    assert ours["calls"]["fused forward"] == 1
    assert ours["bytes"] == theirs["bytes"]


def test_devices_add_up_in_float32_what_they_multiply_in_bfloat16(found):
    assert found["sharded"]["collectives"] == [["all-reduce", "f32"]]
    products = [["backward-filter", "bf16"], ["forward", "bf16"]]
    assert sorted(found["sharded"]["products"]) == products


@pytest.mark.parametrize(
    ("way", "kinds"),
    [
        ("batch", {"all-reduce"}),
        ("channels", {"all-gather", "all-reduce", "all-to-all", "reduce-scatter"}),
        ("space", {"all-reduce", "collective-permute"}),
    ],
)
def test_devices_send_one_another_no_activations_that_lax_does_not(found, way, kinds):
    program = found["meshes"][way]
    assert program["faults"] == []
    assert set(program[OURS]["counts"]) == kinds
    if way == "space":
        assert program[OURS]["rows"] == 1
        assert program[OURS]["sent"] < program["jax.lax"]["sent"]


def test_the_fault_would_be_seen():
    """Asked for float32 results, XLA widens the operands, and stuffs zeros besides."""
    (row,) = compiled("--fault").values()
    ours, theirs = row["programs"][OURS], row["programs"]["jax.lax"]
    assert ours["widest"] == "f32"
    assert ours["bytes"] > 1.5 * theirs["bytes"]
