"""python -m docs.examples.caffe_fcn: train a fully convolutional net from Caffe's own files, and take it back.

The net and the solver are read from fcn/train_val.prototxt and fcn/solver.prototxt. It learns to tell three
photographed textures apart, pixel by pixel, in mosaics of them. Then it is saved as a caffemodel, which
fcn/deploy.prototxt reads, and draws what it finds in a mosaic that it never saw.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdeconv.compat import caffe

NEEDS = ("PIL", "optax", "orbax.checkpoint", "skimage", "tqdm")
FOLDER = Path(__file__).parent / "fcn"
TEXTURES = ("brick", "grass", "gravel")
COLORS = np.array([[200, 80, 60], [70, 160, 70], [90, 110, 200]], np.uint8)
IGNORED = 255  # the label of what lies on a border; the net's file says so too
BORDER = 2  # pixels from it
TRAINING_ROWS = 320  # of each photograph's 512; the others are held out
POINTS = 6  # whose neighborhoods are a mosaic's pieces

Arrays = dict[str, np.ndarray]


@functools.cache
def textures() -> np.ndarray:
    """The photographs, (3, 512, 512), each of mean 0 and deviation 1, so that brightness tells nothing."""
    from skimage import data

    found = np.stack([getattr(data, name)() for name in TEXTURES]).astype(np.float32)
    mean, deviation = (f(found, axis=(1, 2), keepdims=True) for f in (np.mean, np.std))
    return (found - mean) / deviation


def mosaics(seed: int, count: int, size: int, held_out: bool = False) -> Arrays:
    """Pictures (count, 1, size, size) of pieces of textures, and their labels; the same for the same seed."""
    rng = np.random.default_rng((seed, held_out))
    rows = slice(TRAINING_ROWS, None) if held_out else slice(TRAINING_ROWS)
    photographs = textures()[:, rows]
    data = np.empty((count, 1, size, size), np.float32)
    labels = np.empty((count, 1, size, size), np.float32)
    y, x = np.mgrid[:size, :size]
    for i in range(count):
        centers = rng.uniform(0, size, (POINTS, 2, 1, 1))
        nearest = ((y - centers[:, 0]) ** 2 + (x - centers[:, 1]) ** 2).argmin(0)
        label = rng.permutation(np.arange(POINTS) % len(TEXTURES))[nearest]
        corners = [rng.integers(extent - size + 1) for extent in photographs.shape[1:]]
        cut = photographs[:, corners[0] : corners[0] + size, corners[1] : corners[1] + size]
        data[i, 0] = np.take_along_axis(cut, label[None], 0)[0]
        around = np.pad(label, BORDER, "edge")
        shifts = [np.roll(around, hop, axis) for hop in (-BORDER, BORDER) for axis in (0, 1)]
        inside = np.s_[BORDER:-BORDER, BORDER:-BORDER]
        differs = np.any([shifted[inside] != label for shifted in shifts], 0)
        labels[i, 0] = np.where(differs, IGNORED, label)
    return {"data": data, "label": labels}


def stepper(net: caffe.Net, optimizer) -> Callable:
    """The function of one gradient: (params, state), inputs and a key to the next pair and the loss."""

    @jax.jit
    def step(held: tuple, inputs: Arrays, key: jax.Array) -> tuple:
        params, state = held
        losses = jax.value_and_grad(net.loss, has_aux=True)
        (loss, new), gradients = losses(params, inputs, key=key)
        updates, state = optimizer.update(gradients, state, params)
        return (jax.tree.map(jnp.add, new, updates), state), loss

    return step


def trained(
    net: caffe.Net,
    solver: caffe.Solver,
    inputs: Callable[[int], Arrays],
    steps: int,
    snapshots: Path,
) -> Iterator[tuple[int, float | None, Any]]:
    """Iterations, losses and params, from the last snapshot on, whose loss is None."""
    import orbax.checkpoint as ocp

    optimizer = solver.optimizer(net.lr_mult, net.decay_mult)
    step = stepper(net, optimizer)
    held, first = (net.params, optimizer.init(net.params)), 0
    kept = ocp.CheckpointManagerOptions(
        save_interval_steps=solver.snapshot or steps,
        max_to_keep=2,
        enable_async_checkpointing=False,
    )
    with ocp.CheckpointManager(snapshots.absolute(), options=kept) as manager:
        if (latest := manager.latest_step()) is not None:
            held, first = manager.restore(latest, args=ocp.args.StandardRestore(held)), latest
            yield first, None, held[0]
        for iteration in range(first, steps):
            losses = []
            for call in range(iteration * solver.iter_size, (iteration + 1) * solver.iter_size):
                held, loss = step(held, inputs(call), jax.random.key(call))
                losses.append(float(loss))
            args, last = ocp.args.StandardSave(held), iteration + 1 == steps
            manager.save(iteration + 1, args=args, force=last)
            yield iteration + 1, float(np.mean(losses)), held[0]


def found(net: caffe.Net, data: np.ndarray) -> np.ndarray:
    """The class of every pixel, of a deploy net."""
    scores = jax.jit(lambda params, data: net(params, {"data": data}, ("score",)))(net.params, data)
    return np.asarray(scores["score"]).argmax(1)


def share(classes: np.ndarray, label: np.ndarray) -> float:
    """The share of pixels with the right class, borders left out."""
    counts = label != IGNORED
    return float((classes == label)[counts].mean())


def draw(path: Path, data: np.ndarray, label: np.ndarray, classes: np.ndarray) -> None:
    """Write a picture, its labels, and what the net found, side by side; borders are white."""
    from PIL import Image

    gray = np.rint((40 * data + 128).clip(0, 255)).astype(np.uint8)
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(COLORS)] = COLORS
    sides = (np.stack([gray] * 3, -1), palette[label.astype(int)], palette[classes])
    Image.fromarray(np.concatenate(sides, 1)).save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, save, read again and draw; 2 for what is missing or cannot be read."""
    options = _options(arguments)
    try:
        net, solver = _read(options)
    except ImportError as error:
        return _refuse(f"{error.name} is missing; pip install '.[examples]'")
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    print(net)
    weights, picture = options.out / "fcn.caffemodel", options.out / "fcn.png"
    net.save(_train(net, solver, options), weights)
    unseen = mosaics(0, 1, 192, held_out=True)
    classes = found(caffe.load(options.deploy, weights), unseen["data"])
    right = share(classes, unseen["label"][:, 0])
    print(f"{right:.1%} of the pixels of a mosaic that it never saw are right")
    draw(picture, unseen["data"][0, 0], unseen["label"][0, 0], classes[0])
    print(f"wrote {weights} and {picture}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked as far as they go without files."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.examples.caffe_fcn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="If a training was stopped, the command continues from its last snapshot. To start again, "
        "remove the folder.",
    )
    add, file = (
        parser.add_argument,
        functools.partial(parser.add_argument, type=Path, metavar="PATH"),
    )
    train_val, deploy, solver = (
        FOLDER / f"{name}.prototxt" for name in ("train_val", "deploy", "solver")
    )
    file(
        "--net", default=train_val, help="a train_val.prototxt with data and label (default: fcn/)"
    )
    file("--deploy", default=deploy, help="the deploy.prototxt of the same net (default: fcn/)")
    file("--solver", default=solver, help="the solver.prototxt (default: fcn/)")
    file("--weights", help="a caffemodel or .h5 to begin from; may lack layers")
    steps = "of training (default: the solver's max_iter, 300, about a minute)"
    add("--steps", type=int, help=steps)
    add("--batch", type=int, default=8, help="mosaics a step (default: 8)")
    add("--size", type=int, default=64, help="of their sides (default: 64)")
    add("--out", type=Path, default=Path("."), metavar="FOLDER", help="for all files (default: .)")
    options = parser.parse_args(arguments)
    if not 8 <= options.size <= 192:
        parser.error(f"--size {options.size}: must be from 8 to 192, the rows that are held out")
    for name in ("batch", "steps"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    return options


def _read(options: argparse.Namespace) -> tuple[caffe.Net, caffe.Solver]:
    """The net and its solver; whatever is missing for later is told now, before the training."""
    for name in NEEDS:
        importlib.import_module(name)
    shape = (options.batch, 1, options.size, options.size)
    shapes = {"data": shape, "label": shape}
    net = caffe.load(options.net, options.weights, phase="TRAIN", shapes=shapes)
    solver = caffe.load_solver(options.solver)
    caffe.load(options.deploy)
    options.out.mkdir(parents=True, exist_ok=True)
    return net, solver


def _train(net: caffe.Net, solver: caffe.Solver, options: argparse.Namespace) -> Any:
    """The params after all steps, with a progress bar and a line at each `display`."""
    from tqdm import tqdm

    steps, losses, params = options.steps or solver.max_iter, [], net.params
    inputs = functools.partial(mosaics, count=options.batch, size=options.size)
    with tqdm(total=steps, unit="step", disable=None) as bar:
        for iteration, loss, held in trained(net, solver, inputs, steps, options.out / "snapshots"):
            params = held
            bar.update(iteration - bar.n)
            if loss is None:
                bar.write(f"goes on from the snapshot of iteration {iteration}", sys.stdout)
                continue
            losses.append(loss)
            mean = np.mean(losses[-solver.average_loss or None :])
            bar.set_postfix_str(f"loss {mean:.4f}")
            if iteration == steps or (solver.display and iteration % solver.display == 0):
                rate = float(solver.rate(iteration - 1))
                bar.write(f"iteration {iteration}, lr {rate:g}, loss {mean:.4f}", sys.stdout)
    return params


def _refuse(text: str) -> int:
    print(f"docs.examples.caffe_fcn: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
