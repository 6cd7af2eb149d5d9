"""The photographs of the demo, which scikit-image contains, and functions that halve, cut and compare them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

TRAINING = ("astronaut", "coffee", "brick", "gravel", "coins", "cell", "retina")
HELD_OUT = ("chelsea", "camera", "rocket")
COLUMNS = ("low resolution", "bicubic", "network", "truth")


def load(name: str) -> Image.Image:
    """One of scikit-image's photographs, in RGB, cut to even sizes."""
    return even(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))


BROKEN = (
    SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, RuntimeError, MemoryError,
)  # fmt: skip
"""What Pillow's decoders raise for damaged pictures, beside OSError."""


def opened(path: Path) -> Image.Image:
    """A picture from a file, in RGB; 16-bit gray is scaled to 8, and what is transparent becomes white.

    Raises:
      OSError: If there is no such file. Its subclass UnidentifiedImageError: If the file is not a picture.
      DecompressionBombError: If the picture has 180 million pixels or more.
    """
    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):
                gray = (np.asarray(file) // 257).clip(0, 255).astype(np.uint8)
                return Image.fromarray(gray).convert("RGB")
            if not file.has_transparency_data:
                return file.convert("RGB")
            picture = file.convert("RGBA")
    except BROKEN as error:
        raise UnidentifiedImageError(f"{path}: {error}") from None
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture)
    return white


def even(picture: Image.Image) -> Image.Image:
    """The picture, without its last row if the number of rows is odd, and the same for columns."""
    return picture.crop((0, 0, picture.width // 2 * 2, picture.height // 2 * 2))


def halved(picture: Image.Image) -> Image.Image:
    """The picture at half its size, as 8-bit files hold it."""
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BICUBIC)


def doubled(picture: Image.Image) -> Image.Image:
    """The picture at twice its size, by bicubic interpolation."""
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.BICUBIC)


def luminance(picture: Image.Image) -> np.ndarray:
    """The Y of YCbCr, (h, w), from 0 to 1."""
    return np.asarray(picture.convert("YCbCr"), np.float32)[..., 0] / 255


def patches(
    names: Sequence[str], size: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of random, randomly turned patches: (count, 1, size, size) and twice that size."""
    pairs = [(luminance(halved(photo)), luminance(photo)) for photo in map(load, names)]
    while True:
        batch = [_patch(*pairs[rng.integers(len(pairs))], size, rng) for _ in range(count)]
        low, high = (np.stack(side)[:, None] for side in zip(*batch, strict=True))
        yield low, high


def _patch(low: np.ndarray, high: np.ndarray, size: int, rng: np.random.Generator):
    top, left = (int(rng.integers(extent - size + 1)) for extent in low.shape)
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    sides = (
        low[top : top + size, left : left + size],
        high[2 * top : 2 * (top + size), 2 * left : 2 * (left + size)],
    )
    turned = (np.rot90(side, turns) for side in sides)
    return tuple(np.ascontiguousarray(side.T if mirrored else side) for side in turned)


def upscale(
    picture: Image.Image, network: Callable[[np.ndarray], np.ndarray], tile: int, reach: int
):
    """The picture at twice its size: luminance by the network, tile by tile, color by bicubic.

    Args:
      picture: RGB, of any size.
      network: maps (1, 1, h, w) to (1, 1, 2h, 2w); always called with h = w = tile + 2*reach.
      tile: low-resolution pixels along a tile's side, which bounds the memory in use.
      reach: the number of pixels around a tile on which its result depends.
    """
    low = luminance(picture)
    height, width = low.shape
    edges = [(reach, -extent % tile + reach) for extent in low.shape]
    padded = np.pad(low, edges, mode="edge")
    high = np.empty((2 * (height + -height % tile), 2 * (width + -width % tile)), np.float32)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            window = padded[top : top + tile + 2 * reach, left : left + tile + 2 * reach]
            result = np.asarray(network(window[None, None]))[0, 0]
            inner = result[2 * reach : -2 * reach, 2 * reach : -2 * reach]
            high[2 * top : 2 * (top + tile), 2 * left : 2 * (left + tile)] = inner
    y = np.rint(255 * np.clip(high[: 2 * height, : 2 * width], 0, 1)).astype(np.uint8)
    _, cb, cr = doubled(picture).convert("YCbCr").split()
    return Image.merge("YCbCr", (Image.fromarray(y), cb, cr)).convert("RGB")


def psnr(picture: Image.Image, truth: Image.Image, border: int = 4) -> float:
    """Peak signal-to-noise ratio of luminance in dB, without a border, as is usual in the literature."""
    inside = np.s_[border:-border, border:-border]
    error = luminance(picture)[inside] - luminance(truth)[inside]
    return float(-10 * np.log10(np.mean(error.astype(np.float64) ** 2)))


def comparison(
    rows: Sequence[Sequence[Image.Image]], path: Path, size: int = 96, zoom: int = 3
) -> None:
    """Write a PNG: for each row of (low, bicubic, network, truth), the same detail side by side."""
    side, margin, header = size * zoom, 8, 28
    sheet = Image.new(
        "RGB",
        (margin + len(COLUMNS) * (side + margin), header + len(rows) * (side + margin)),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, title in enumerate(COLUMNS):
        draw.text((margin + column * (side + margin), 6), title, fill="black", font=font)
    for row, pictures in enumerate(rows):
        truth = pictures[-1]
        left, top = ((extent - size) // 4 * 2 for extent in truth.size)
        for column, picture in enumerate(pictures):
            scale = truth.width // picture.width
            box = left // scale, top // scale, (left + size) // scale, (top + size) // scale
            detail = picture.crop(box).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(detail, (margin + column * (side + margin), header + row * (side + margin)))
    sheet.save(path)
