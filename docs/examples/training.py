"""What the examples that train on photographs share: options, a progress bar, data, a picture at the end."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from jdeconv.cli import photographs

HEADER = 14  # pixels for a row of titles


def options(
    module: str, text: str, arguments: Sequence[str] | None, steps: int, quick_steps: int
) -> argparse.Namespace:
    """The command line's options; `steps` and `quick_steps` are the defaults of --steps."""
    name = module.rpartition(".")[2]
    parser = argparse.ArgumentParser(prog=f"python -m docs.examples.{name}", description=text)
    default = f"(default: {steps}, or {quick_steps} with --quick)"
    parser.add_argument("--steps", type=int, help=f"the number of training steps {default}")
    parser.add_argument(
        "--quick", action="store_true", help="train a small network for some seconds"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the seed of all random numbers (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(f"{name}.png"),
        help=f"the picture to write (default: {name}.png)",
    )
    found = parser.parse_args(arguments)
    if found.steps is None:
        found.steps = quick_steps if found.quick else steps
    if found.steps < 1:
        parser.error(f"--steps {found.steps}: must be at least 1")
    return found


def batches(patch: int, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Random patches of the photographs to train on: (count, 1, patch, patch) of luminance, from 0 to 1."""
    for _, photos in photographs.patches(photographs.TRAINING, patch // 2, count, rng):
        yield photos


def finished(steps: Iterator[tuple[Any, float]], count: int) -> Any:
    """What the last of the training's steps gives beside the loss; shows a bar, and prints the losses."""
    losses, model = [], None
    with tqdm(steps, total=count, unit="step", disable=None) as bar:
        for result in bar:
            model, loss = result
            losses.append(loss)
            bar.set_postfix_str(f"loss {loss:.5f}", refresh=False)
    print(f"loss {np.mean(losses[:5]):.5f} at first, {np.mean(losses[-5:]):.5f} at last")
    return model


def held_out(size: int) -> dict[str, np.ndarray]:
    """The middle of each photograph that no training sees: at most (size, size) of luminance."""
    found = {}
    for name in photographs.HELD_OUT:
        gray = photographs.luminance(photographs.load(name))
        top, left = (max(extent - size, 0) // 2 for extent in gray.shape)
        found[name] = gray[top : top + size, left : left + size]
    return found


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels, where 1 is white.

    Example:
      >>> round(psnr(np.zeros(4), np.full(4, 0.1)), 6)
      20.0
    """
    return float(-10 * np.log10(np.square(image - truth).mean()))


def write(rows: Sequence[Mapping[str, np.ndarray]], path: Path) -> None:
    """Write a picture with the images of a row side by side, and their titles above each row."""
    width = max(sum(image.shape[1] for image in row.values()) for row in rows)
    heights = [HEADER + max(image.shape[0] for image in row.values()) for row in rows]
    picture, top = Image.new("L", (width, sum(heights)), "white"), 0
    draw = ImageDraw.Draw(picture)
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for title, image in row.items():
            draw.text((left, top), title, fill="black")
            gray = np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)
            picture.paste(Image.fromarray(gray), (left, top + HEADER))
            left += image.shape[1]
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    print(f"wrote {path}")
