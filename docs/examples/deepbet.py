"""python -m docs.examples.deepbet: the brain found in an MRI volume by a pretrained 3-D network.

The network is deepbet's LinkNet3d: 29 convs and, on the way back up, six transposed ones. The steps around it
are those of deepbet's `run_bet`, but for its last, which fills holes: a coarse network sees the whole volume at
128^3 and finds the brain, a fine one sees the box around it at 256^3 and outlines it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from docs.examples.packages import file_of
from docs.examples.torchscript import read_torchscript
from jdeconv import conv, deconv
from jdeconv.checks import refused, reporting

Weights = Mapping[str, jax.typing.ArrayLike]

DOWN_STRIDES = (1, 2, 2, 2)
UP_STRIDES = (2, 2, 2, 1)
TEMPLATE = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
MULTIPLE = 32  # the network halves five times


@jax.jit
@reporting()
def network(w: Weights, x: jax.Array) -> jax.Array:
    """(n, 1, d, h, w) to probabilities (n, 2, d, h, w) of the outside and the brain.

    Raises:
      ValueError: for spatial sizes that are no multiples of 32, which cannot be halved five times.
    """
    if any(size % MULTIPLE for size in x.shape[2:]):
        reason = f"needs spatial sizes that are multiples of {MULTIPLE}, got {x.shape[2:]}"
        raise refused("x", reason)
    x = max_pool(unit(w, "init.0", x, stride=2, padding=3))
    skips = []
    for i, stride in enumerate(DOWN_STRIDES):
        skips.append(x)
        x = block(w, f"down{i}.block1", x, stride)
        x = block(w, f"down{i}.block2", x, 1)
    for i, stride in enumerate(UP_STRIDES):
        x = up(w, f"up{i}", x, stride) + skips.pop()
    x = unit(w, "tp_conv1.0", x, deconv, stride=2, padding=1, output_padding=1)
    x = unit(w, "conv.0", x, padding=1)
    x = deconv(x, w["tp_conv2.weight"], w["tp_conv2.bias"], stride=2)
    return jax.nn.softmax(x, axis=1)


def block(w: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    """Two convs and a shortcut around them, which is a 1x1x1 conv where the sizes change."""
    y = unit(w, f"{name}.double_conv.0", x, stride=stride, padding=1)
    y = norm(conv(y, w[f"{name}.double_conv.3.weight"], padding=1))
    shortcut = w.get(f"{name}.downsample.0.weight")
    return jax.nn.relu(y + (x if shortcut is None else norm(conv(x, shortcut, stride=stride))))


def up(w: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    """Fewer channels, larger volume, more channels."""
    x = unit(w, f"{name}.conv1.0", x)
    x = unit(w, f"{name}.tp_conv.0", x, deconv, stride=stride, padding=1, output_padding=stride - 1)
    return unit(w, f"{name}.conv2.0", x)


def unit(w: Weights, name: str, x: jax.Array, function=conv, **steps: int) -> jax.Array:
    """A conv or deconv, normalized, rectified."""
    return jax.nn.relu(norm(function(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **steps)))


def norm(x: jax.Array) -> jax.Array:
    """Instance normalization: each channel of each volume to mean 0 and variance 1."""
    x = x - mean(x)
    return x * lax.rsqrt(mean(x * x) + 1e-5)


def mean(x: jax.Array) -> jax.Array:
    """Over space, axis after axis: all at once, rounding moved probabilities at 128^3 by 5e-3, and not 2e-5."""
    for axis in range(2, x.ndim):
        x = x.mean(axis, keepdims=True)
    return x


def max_pool(x: jax.Array) -> jax.Array:
    """The largest of 3 cells per axis, at every second."""
    ones, space = (1, 1), x.ndim - 2
    window, strides = ones + (3,) * space, ones + (2,) * space
    return lax.reduce_window(
        x, -jnp.inf, lax.max, window, strides, ((0, 0),) * 2 + ((1, 1),) * space
    )


def weights(name: str) -> dict[str, np.ndarray]:
    """Of deepbet's "bbox_model", the coarse network, or its "model", the fine one."""
    return read_torchscript(file_of("deepbet", f"data/models/{name}.pt"))


def resized(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The value of the nearest cell at each new cell's center, PyTorch's "nearest-exact".

    Example:
      >>> resized(np.array([[1, 2, 3]]), (2, 6)).tolist()
      [[1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3]]
    """
    index = [
        (np.arange(new) * 2 + 1) * old // (2 * new)
        for old, new in zip(volume.shape, shape, strict=True)
    ]
    return volume[np.ix_(*index)]


def normalized(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    """From the range low..high to the mean and deviation that the networks were trained on."""
    volume = ((volume - low) / (high - low)).clip(0, 1)
    return (0.226 * (volume - volume.mean()) / volume.std(ddof=1) + 0.449).astype(np.float32)


@reporting()
def box_around(mask: np.ndarray, shape: Sequence[int], margin: float = 0.1) -> tuple[slice, ...]:
    """Where the mask is, in a volume of `shape`, and a share of its size more on each side.

    Raises:
      ValueError: for a mask with too little in it to have a box.
    """
    box = []
    for axis, size in enumerate(shape):
        others = tuple({0, 1, 2} - {axis})
        inside = np.flatnonzero(mask.mean(others) > 0.02)
        if not len(inside):
            raise refused("mask", "has too few cells set to have a box")
        scale = size / mask.shape[axis]
        center = round((inside[0] + inside[-1] + 1) / 2 * scale)
        extent = round((inside[-1] + 1 - inside[0]) * scale * (1 + 2 * margin))
        box.append(slice(max(0, int(center - extent / 2)), min(size, int(center + extent / 2))))
    return tuple(box)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The mask without all but its largest connected part."""
    from skimage.measure import label

    parts = label(mask)
    sizes = np.bincount(parts[mask], minlength=1)
    return mask & (parts == sizes.argmax())


@reporting()
def brain(
    volume: np.ndarray, coarse: Weights, fine: Weights, sizes: Sequence[int], told=print
) -> np.ndarray:
    """The probability of brain in each cell of a volume, by both networks at their working sizes.

    `told` receives a line before each network starts.

    Raises:
      ValueError: for a volume of one value, and one where the coarse network finds next to nothing.
    """
    small = resized(volume, (sizes[0],) * 3)
    low, high = np.quantile(small, (0.005, 0.995))
    if not low < high:
        raise refused("volume", f"must be an image, but all of it is {low}")
    told(f"coarse network at {sizes[0]}^3")
    found = np.asarray(network(coarse, normalized(small, low, high)[None, None])[0, 1])
    box = box_around(largest_part(found > 0.5), volume.shape)
    told(f"fine network at {sizes[1]}^3, on cells " + ", ".join(f"{b.start}:{b.stop}" for b in box))
    inside = normalized(resized(volume[box], (sizes[1],) * 3), low, high)
    found = np.asarray(network(fine, inside[None, None])[0, 1])
    probability = np.zeros(volume.shape, np.float32)
    probability[box] = resized(found, probability[box].shape)
    return probability


@reporting()
def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A NIfTI file's first volume with its axes to the right, front and top, and a cell's size in mm.

    Raises:
      ValueError: for what nibabel cannot read or has fewer than three axes.
    """
    import nibabel

    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
    except nibabel.filebasedimages.ImageFileError as error:
        raise refused("path", f"{str(path)!r}: {error}") from None
    if len(image.shape) not in (3, 4):
        raise refused("path", f"{str(path)!r}: {image.shape}: expected 3 axes, or 4")
    volume = image.get_fdata(dtype=np.float32)
    return np.nan_to_num(volume.reshape(*volume.shape[:3], -1)[..., 0]), image.header.get_zooms()[
        :3
    ]


def draw(path: Path, volume: np.ndarray, mask: np.ndarray, zooms: Sequence[float]) -> None:
    """Four slices across each axis, the mask's outline on them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.4), layout="constrained", facecolor="black")
    panels = figure.subplots(3, 4)
    for axis, row in enumerate(panels):
        across, upward = (zooms[other] for other in range(3) if other != axis)
        for share, panel in zip((0.2, 0.4, 0.6, 0.8), row, strict=True):
            at = int(share * volume.shape[axis])
            picture, inside = (a.take(at, axis).T for a in (volume, mask))
            panel.imshow(picture, cmap="gray", origin="lower", aspect=upward / across)
            if inside.any() and not inside.all():
                panel.contour(inside, [0.5], colors="orange", linewidths=1)
            panel.set_title(f"{'xyz'[axis]} = {at}", color="white", fontsize=8)
            panel.set_axis_off()
    figure.savefig(path, dpi=100)


def main(arguments: Sequence[str] | None = None) -> int:
    """Find the brain, say how large it is, draw it; 2 for what is missing or cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m docs.examples.deepbet", description=__doc__)
    parser.add_argument(
        "--volume",
        type=Path,
        metavar="PATH",
        help="a NIfTI file (default: nilearn's MNI152 template)",
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs=2,
        default=(128, 256),
        metavar=("COARSE", "FINE"),
        help=f"the sizes of the two networks' inputs, multiples of {MULTIPLE} (default: 128 256)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("deepbet.png"),
        metavar="PATH",
        help="the picture to write (default: deepbet.png)",
    )
    options = parser.parse_args(arguments)
    if any(size < MULTIPLE or size % MULTIPLE for size in options.sizes):
        return _refuse(
            f"--sizes {' '.join(map(str, options.sizes))}: expected multiples of {MULTIPLE}"
        )
    try:
        import matplotlib  # noqa: F401  before the work, not after it
        import nibabel  # noqa: F401
        import skimage  # noqa: F401

        path = options.volume or file_of("nilearn", TEMPLATE)
        volume, zooms = read_volume(path)
        print(
            f"{path.name}: {volume.shape} cells of {' x '.join(f'{zoom:g}' for zoom in zooms)} mm"
        )
        told = partial(print, flush=True)
        mask = brain(volume, weights("bbox_model"), weights("model"), options.sizes, told) > 0.5
        mask = largest_part(mask)
        draw(options.out, volume, mask, zooms)
    except ImportError as error:
        return _refuse(f"{error.name} is missing; pip install '.[examples]'")
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    milliliters = mask.sum() * np.prod(zooms) / 1000
    print(f"brain: {mask.sum()} of {mask.size} cells, {milliliters:.1f} ml; wrote {options.out}")
    return 0


def _refuse(text: str) -> int:
    print(f"docs.examples.deepbet: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
