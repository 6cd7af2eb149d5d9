"""python -m jdeconv demo: a 2x super-resolution network, trained on real photographs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import jax
import numpy as np

PATCH, BATCH, TILE = 24, 16, 96


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Describe the command."""
    parser = commands.add_parser(
        "demo",
        help="train a small super-resolution network on photographs",
        description="Train a small network that doubles the size of photographs: three convs, then a deconv of "
        "stride 2 that starts as bilinear interpolation. It trains on scikit-image's photographs. Then the "
        "command compares the network with bicubic interpolation on other photographs, compares the time of a "
        "training step with jax.lax, and writes a picture. This takes about a minute on two cores.",
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="PATH",
        help="a picture of your own; the command writes it at twice its size to DIR/NAME-2x.png",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("jdeconv-demo"),
        metavar="DIR",
        help="the folder for the pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=1500,
        help="the number of training steps (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, help="the seed of weights and patches (default: 0)"
    )
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 2**32 - 1")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Train, compare and time the network; returns 0, or 2 for a bad argument."""
    try:
        import tqdm
        from PIL import Image, UnidentifiedImageError

        from jdeconv.cli import network, photographs
    except ImportError as error:
        return _refuse(f"{error.name} is missing; in the source tree: pip install '.[demo]'")
    if options.steps < 1:
        return _refuse(f"--steps {options.steps}: must be at least 1")
    own = None
    if options.image is not None:
        try:
            own = photographs.opened(options.image)
        except UnidentifiedImageError:
            return _refuse(
                f"--image {options.image}: this file is not a picture that Pillow can read"
            )
        except (OSError, Image.DecompressionBombError) as error:
            return _refuse(f"--image {options.image}: {error}")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _refuse(f"--output {options.output}: {error}")

    params = network.init(jax.random.key(options.seed))
    batches = photographs.patches(
        photographs.TRAINING, PATCH, BATCH, np.random.default_rng(options.seed)
    )
    print(f"training on {', '.join(photographs.TRAINING)}")
    with tqdm.tqdm(total=options.steps, unit="step") as bar:
        for step in network.train(params, batches, options.steps):
            params, loss = step
            bar.update()
            if bar.n % 50 == 0:
                bar.set_postfix(loss=f"{loss:.5f}")

    upscaler = jax.jit(network.apply)

    def enlarge(picture):
        return photographs.upscale(
            picture, lambda tile: upscaler(params, tile), TILE, network.REACH
        )

    print(f"\n{'PSNR in dB, unseen':<22}{'bicubic':>9}{'network':>9}{'gain':>8}")
    rows, gains = [], []
    for name in photographs.HELD_OUT:
        truth = photographs.load(name)
        low = photographs.halved(truth)
        rows.append((low, photographs.doubled(low), enlarge(low), truth))
        bicubic, ours = (photographs.psnr(picture, truth) for picture in rows[-1][1:3])
        gains.append(ours - bicubic)
        print(f"{name:<22}{bicubic:>9.2f}{ours:>9.2f}{gains[-1]:>+8.2f}")
    print(f"{'mean gain':<40}{np.mean(gains):>+8.2f}")

    seconds = compare_steps(network, params, *next(batches))
    print(
        f"\ntraining step, forward and gradients, batch {BATCH}: jdeconv {1e3 * seconds[0]:.1f} ms, "
        f"jax.lax {1e3 * seconds[1]:.1f} ms (lax / jdeconv = {seconds[1] / seconds[0]:.2f})"
    )
    picture = options.output / "comparison.png"
    photographs.comparison(rows, picture)
    print(f"wrote {picture}")
    if own is not None and options.image is not None:
        picture = options.output / f"{options.image.stem}-2x.png"
        enlarge(own).save(picture)
        print(f"wrote {picture}")
    return 0


def compare_steps(network, params, low, high, rounds: int = 7) -> tuple[float, float]:
    """Returns the median seconds of a training step with jdeconv and with jax.lax.

    Their results are compared first. The two take turns.
    """
    steps = [network.gradient(layers) for layers in (network.JDECONV, network.LAX)]
    results = [jax.block_until_ready(step(params, low, high)) for step in steps]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *results)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for step, times in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(step(params, low, high))
            times.append(time.perf_counter() - start)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def _refuse(text: str) -> int:
    print(f"jdeconv demo: {text}", file=sys.stderr)
    return 2
