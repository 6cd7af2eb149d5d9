"""A part of the quick tests, compiled as users compile: with all of XLA's optimizations.

In a process of its own, since XLA reads its flags once.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PART = (  # every lowering and contraction, gradients, a loop, a mesh, half precision, rounding,
    # memory, bits, and a call of jax.lax
    "tests/test_accelerate.py::test_gradients_in_both_orders[scanned]",
    "tests/test_arguments.py::test_half_precision_is_the_same_on_every_call",
    "tests/test_compat_lax.py::test_conv_general_dilated[0]",
    "tests/test_lowerings.py::test_a_1x1_conv_with_channels_last_is_a_product_of_matrices",
    "tests/test_lowerings.py::test_gradients",
    "tests/test_memory.py::test_a_gather_of_many_taps_goes_by_slabs",
    "tests/test_numerics.py::test_long_sums_are_within_the_bound",
    "tests/test_mesh.py::test_batch_and_channels_over_two_mesh_axes",
    "tests/test_repeatability.py::test_run_to_run",
)


@pytest.mark.slow
def test_a_part_of_the_tests_as_users_compile():
    environment = dict(os.environ)
    environment.pop("JAX_DISABLE_MOST_OPTIMIZATIONS", None)
    flags = environment.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if not flag.startswith("--xla_cpu_use_fusion_emitters=")]
    environment["XLA_FLAGS"] = " ".join(kept)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "--optimized", *PART], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
