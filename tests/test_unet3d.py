"""Several processes: they train, one is killed, the others end, and the command goes on with nothing lost."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from docs.examples import unet3d

pytest.importorskip("orbax.checkpoint")

ROOT = Path(__file__).parents[1]
STEPS = ["--steps", "8", "--every", "3", "--size", "16"]


@pytest.fixture(autouse=True)
def promotion(monkeypatch):
    """In the processes that train: optax.adam promotes."""
    monkeypatch.setenv("JAX_NUMPY_DTYPE_PROMOTION", "standard")


def command(folder, *more):
    run = [sys.executable, "-m", "docs.examples.unet3d"]
    return [*run, *STEPS, "--checkpoints", str(folder), *more]


def losses(text):
    return {int(step): float(loss) for step, loss in re.findall(r"step (\d+), loss (\S+)", text)}


def finished(folder, *more):
    done = subprocess.run(
        command(folder, *more), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return losses(done.stdout)


@pytest.mark.slow
def test_killed_and_resumed_it_reaches_the_same_loss(tmp_path):
    undisturbed = finished(tmp_path / "undisturbed")
    assert list(undisturbed) == list(range(1, 9))
    assert undisturbed[8] < 0.7 * undisturbed[1]

    folder = tmp_path / "killed"
    with subprocess.Popen(
        command(folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as launcher:
        pids = {}
        for line in launcher.stdout:
            if found := re.match(r"process (\d) of 2: pid (\d+)", line):
                pids[found[1]] = int(found[2])
            if line.startswith("step 5,"):  # the last checkpoint is that of step 3
                os.kill(pids["1"], signal.SIGKILL)
                killed = time.monotonic()
                break
        _, said = launcher.communicate(timeout=120)
    assert time.monotonic() - killed < unet3d.GRACE_SECONDS + 15
    assert launcher.returncode == 1
    assert "process 1 died (SIGKILL)" in said
    assert "goes on from the last checkpoint" in said
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    resumed = finished(folder)
    assert min(resumed) in (4, 7)  # the killed run may have kept step 6 before it noticed
    assert {step: undisturbed[step] for step in resumed} == resumed


@pytest.mark.slow
def test_it_trains_and_goes_on_from_a_checkpoint(tmp_path, monkeypatch, capsys):
    """In this process and on one device, with a network that is soon compiled."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    arguments = ["--processes", "1", "--rank", "0", "--coordinator", "unused:0", "--size", "8"]
    arguments += ["--every", "2", "--checkpoints", str(tmp_path)]
    found = []
    for steps in ("3", "5"):
        assert unet3d.main([*arguments, "--steps", steps]) == 0
        found.append(losses(capsys.readouterr().out))
    assert [list(each) for each in found] == [[1, 2, 3], [3, 4, 5]]
    assert found[0][3] == found[1][3]


def test_one_process_and_several_devices_agree():
    """The network on four slabs, beside the same on one device."""
    params = unet3d.initial(jax.random.key(1))
    x, target = unet3d.volumes(0, 2, 16, slice(0, 16))
    results = []
    for count in (1, 4):
        mesh = jax.make_mesh(
            (count,), ("depth",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
        )
        with jax.set_mesh(mesh):
            loss = jax.value_and_grad(lambda p: (unet3d.network(p, x) * target).mean())
            results.append(jax.jit(loss)(params))
    for one, four in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-6)
        assert jnp.any(one != 0)


def test_slabs_are_parts_of_the_same_volume():
    whole = unet3d.volumes(3, 2, 16, slice(0, 16))
    for i, part in enumerate(unet3d.volumes(3, 2, 16, slice(4, 12))):
        np.testing.assert_array_equal(part, whole[i][:, :, 4:12])
    assert 0 < whole[1].mean() < 0.5


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["--size", "20"], "--size 20: must be a multiple of 8"),
        (["--rank", "1"], "--coordinator and --rank go together"),
    ],
)
def test_bad_arguments(arguments, reason, ends_with_2):
    ends_with_2(unet3d.main, arguments, reason)
