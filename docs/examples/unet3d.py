"""python -m docs.examples.unet3d: a 3-D U-Net trained on volumes that lie in slabs over several processes.

Every process holds a slab of each volume, and exchanges with its neighbors only the halos that its windows
see: `jdeconv.halo`. The network finds balls in noise. Processes that are started here speak over the
loopback address; with `--coordinator` and `--rank` each is one of a cluster.

Checkpoints are kept on the way. When a process dies, all end with an error within seconds, and the same
command goes on from the last one.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jdeconv
from jdeconv import halo

SLABS = PartitionSpec(None, None, "depth")
CHANNELS = (8, 16, 32)
HEARTBEAT_SECONDS = 10  # after which a silent process is held dead
GRACE_SECONDS = 30  # in which the others may say so themselves
BALLS, NOISE = 3, 0.7

Params = dict[str, dict[str, jax.Array]]


def initial(key: jax.Array) -> Params:
    """Kernels by He's rule, so that relus keep the scale; biases of zero."""
    shapes = {}
    for level, (o, c) in enumerate(zip(CHANNELS, (1, *CHANNELS), strict=False)):
        shapes[f"down{level}"] = (o, c, 3, 3, 3)
    for level, (o, c) in enumerate(itertools.pairwise(CHANNELS)):
        shapes[f"up{level}"] = (c, o, 2, 2, 2)
        shapes[f"merge{level}"] = (o, 2 * o, 3, 3, 3)
    shapes["last"] = (1, CHANNELS[0], 1, 1, 1)
    params = {}
    for (name, shape), k in zip(shapes.items(), jax.random.split(key, len(shapes)), strict=True):
        o = shape[1] if name.startswith("up") else shape[0]
        params[name] = {"kernel": jdeconv.msra(k, shape), "bias": jnp.zeros(o)}
    return params


def network(params: Params, x: jax.Array) -> jax.Array:
    """(n, 1, d, h, w) to the logits of the same shape; each spatial size is halved twice."""

    def layer(function: Callable, name: str, x: jax.Array, **steps: int) -> jax.Array:
        return function(x, params[name]["kernel"], params[name]["bias"], spec=SLABS, **steps)

    levels = []
    for level in range(len(CHANNELS)):
        x = layer(halo.conv, f"down{level}", x, stride=1 if level == 0 else 2, padding=1)
        x = jax.nn.relu(x)
        levels.append(x)
    levels.pop()
    for level in reversed(range(len(CHANNELS) - 1)):
        x = jax.nn.relu(layer(halo.deconv, f"up{level}", x, stride=2))
        x = jnp.concatenate([x, levels.pop()], 1)
        x = jax.nn.relu(layer(halo.conv, f"merge{level}", x, padding=1))
    return layer(halo.conv, "last", x)


def volumes(step: int, count: int, size: int, depth: slice) -> tuple[np.ndarray, np.ndarray]:
    """Of the batch of a step, the slab: balls in noise, and where they are. The same for every division."""
    rng = np.random.default_rng(step)
    centers = rng.uniform(0.2, 0.8, (count, BALLS, 3)) * size
    radii = rng.uniform(0.1, 0.2, (count, BALLS)) * size
    z, y, x = np.ogrid[depth, :size, :size]
    inside = np.zeros((count, z.size, size, size), bool)
    for i in range(count):
        for (a, b, c), radius in zip(centers[i], radii[i], strict=True):
            inside[i] |= (z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 <= radius**2
    noise = [
        np.random.default_rng((step, int(i))).normal(size=(count, size, size)) for i in z.ravel()
    ]
    seen = inside + NOISE * np.stack(noise, 1)
    return seen[:, None].astype(np.float32), inside[:, None].astype(np.float32)


def batch(step: int, count: int, size: int, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """The arrays of all processes, of which each makes its own part."""
    shape, place = (count, 1, size, size, size), NamedSharding(mesh, SLABS)

    @functools.cache
    def slab(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return volumes(step, count, size, slice(start, stop))

    def part(which: int) -> Callable:
        return lambda index: slab(*index[2].indices(size)[:2])[which]

    return tuple(jax.make_array_from_callback(shape, place, part(i)) for i in range(2))


def trained(options: argparse.Namespace) -> Iterator[tuple[int, float]]:
    """Steps and losses, from the last checkpoint on."""
    import optax
    import orbax.checkpoint as ocp

    mesh = jax.make_mesh((jax.device_count(),), ("depth",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    optimizer = optax.adam(options.rate)

    @functools.partial(jax.jit, out_shardings=everywhere)
    def begun() -> tuple:
        params = initial(jax.random.key(0))
        return params, optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: tuple, x: jax.Array, target: jax.Array) -> tuple:
        def loss(params: Params) -> jax.Array:
            return optax.sigmoid_binary_cross_entropy(network(params, x), target).mean()

        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params)
        changes, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(params, changes), moments), value

    kept = ocp.CheckpointManagerOptions(
        save_interval_steps=options.every, max_to_keep=2, enable_async_checkpointing=False
    )
    with (
        jax.set_mesh(mesh),
        ocp.CheckpointManager(options.checkpoints.absolute(), options=kept) as manager,
    ):
        state, first = begun(), 0
        if (latest := manager.latest_step()) is not None:
            state, first = manager.restore(latest, args=ocp.args.StandardRestore(state)), latest
        for step in range(first, options.steps):
            state, value = update(state, *batch(step, options.batch, options.size, mesh))
            yield step + 1, float(value)
            manager.save(step + 1, args=ocp.args.StandardSave(state))


def work(options: argparse.Namespace) -> int:
    """One process of the training."""
    if options.processes > 1:
        jax.distributed.initialize(
            options.coordinator,
            options.processes,
            options.rank,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    if options.rank > 0:
        for _ in trained(options):
            pass
        return 0
    import tqdm

    with tqdm.tqdm(total=options.steps, unit="step", disable=None) as bar:
        for step, loss in trained(options):
            bar.update(step - bar.n)
            bar.set_postfix_str(f"loss {loss:.4f}")
            if bar.disable or step == options.steps:
                bar.write(f"step {step}, loss {loss!r}", file=sys.stdout)
                sys.stdout.flush()
    return 0


def launch(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """All processes on this machine; when one dies, the others end too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "docs.examples.unet3d", *arguments]
    command += ["--coordinator", f"127.0.0.1:{port}", "--rank"]
    workers = [subprocess.Popen([*command, str(rank)]) for rank in range(options.processes)]
    for rank, worker in enumerate(workers):
        print(f"process {rank} of {options.processes}: pid {worker.pid}", flush=True)
    try:
        while not (failed := [(rank, w.returncode) for rank, w in enumerate(workers) if w.poll()]):
            if all(w.returncode == 0 for w in workers):
                return 0
            time.sleep(0.1)
        rank, code = failed[0]
        end = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < end and any(w.poll() is None for w in workers):
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.kill()  # nothing, for one that has ended
            worker.wait()
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    print(
        f"process {rank} died ({cause}), and the training with it. The same command goes on from the last "
        f"checkpoint in {options.checkpoints}",
        file=sys.stderr,
    )
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; 1 if a process died, 2 for a bad argument."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m docs.examples.unet3d", description=__doc__)
    number = functools.partial(parser.add_argument, type=int)
    number(
        "--processes",
        default=2,
        metavar="N",
        help="how many processes share each volume (default: 2)",
    )
    number("--steps", default=60, help="the total number of training steps (default: 60)")
    number("--batch", default=2, help="the number of volumes in a step (default: 2)")
    number("--size", default=32, help="the size of each axis of a volume (default: 32)")
    number("--every", default=10, help="steps from one checkpoint to the next (default: 10)")
    parser.add_argument(
        "--rate", type=float, default=3e-3, help="the learning rate (default: 0.003)"
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("unet3d-checkpoints"),
        metavar="FOLDER",
        help="the folder of the checkpoints (default: unet3d-checkpoints)",
    )
    parser.add_argument(
        "--coordinator", metavar="HOST:PORT", help="on a cluster, the address of rank 0"
    )
    number("--rank", metavar="N", help="on a cluster, the rank of this process")
    options = parser.parse_args(arguments)
    for name in ("processes", "steps", "batch", "size", "every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    halvings = 2 ** (len(CHANNELS) - 1)
    if options.size % (halvings * options.processes):
        parser.error(
            f"--size {options.size}: must be a multiple of {halvings * options.processes}, since "
            f"{options.processes} processes share an axis that is halved {len(CHANNELS) - 1} times"
        )
    if (options.coordinator is None) != (options.rank is None):
        parser.error("--coordinator and --rank go together")
    return work(options) if options.rank is not None else launch(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
