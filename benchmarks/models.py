"""Small networks for the training steps, written once on the operations that every peer has.

A model is a function of (operations, image, kernels). Shapes are channels first, O before I.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def dcgan(ops: Any, z: Any, kernels: Sequence) -> Any:
    """The generator behind its dense layer: four deconvs, each doubling the picture."""
    *inner, last = kernels
    x = z
    for kernel in inner:
        x = ops.relu(ops.deconv(x, kernel, stride=2, padding=1))
    return ops.tanh(ops.deconv(x, last, stride=2, padding=1))


def unet(ops: Any, x: Any, kernels: Sequence) -> Any:
    """Two levels down and up, with skips."""
    outer_in, down, inner, up, outer_out, head = kernels
    skip = ops.relu(ops.conv(x, outer_in, padding=1))
    x = ops.relu(ops.conv(skip, down, stride=2, padding=1))
    x = ops.relu(ops.conv(x, inner, padding=1))
    x = ops.relu(ops.deconv(x, up, stride=2))
    x = ops.relu(ops.conv(ops.concatenate(skip, x), outer_out, padding=1))
    return ops.conv(x, head)


def convnext(ops: Any, x: Any, kernels: Sequence) -> Any:
    """Blocks of depthwise 7x7, norm, and two 1x1 with four times the channels in between."""
    for spatial, widen, narrow in zip(*[iter(kernels)] * 3, strict=True):
        h = ops.conv(x, spatial, padding=3, groups=ops.channels(x))
        h = ops.gelu(ops.conv(ops.norm(h), widen))
        x = x + ops.conv(h, narrow)
    return x


def mobilenet(ops: Any, x: Any, kernels: Sequence) -> Any:
    """Inverted residuals: 1x1 to six times the channels, depthwise 3x3, 1x1 back."""
    for widen, spatial, narrow in zip(*[iter(kernels)] * 3, strict=True):
        h = ops.relu(ops.conv(x, widen))
        h = ops.relu(ops.conv(h, spatial, padding=1, groups=ops.channels(h)))
        x = x + ops.conv(h, narrow)
    return x


def hifigan(ops: Any, x: Any, kernels: Sequence) -> Any:
    """Two upsamplings by 8 of a spectrogram, each before residual dilated convs."""
    for up, *dilated in zip(*[iter(kernels)] * 4, strict=True):
        x = ops.relu(ops.deconv(x, up, stride=8, padding=4))
        for kernel, dilation in zip(dilated, (1, 3, 5), strict=True):
            x = x + ops.relu(ops.conv(x, kernel, padding=dilation, dilation=dilation))
    return x


def vnet(ops: Any, x: Any, kernels: Sequence) -> Any:
    """A volume down by two and up again, with a skip."""
    outer_in, down, inner, up, outer_out = kernels
    skip = ops.relu(ops.conv(x, outer_in, padding=1))
    x = ops.relu(ops.conv(skip, down, stride=2))
    x = x + ops.relu(ops.conv(x, inner, padding=1))
    x = ops.relu(ops.deconv(x, up, stride=2, padding=1, output_padding=1))
    return ops.conv(ops.concatenate(skip, x), outer_out, padding=1)


MODELS = {
    "DCGAN": (
        dcgan,
        (16, 512, 4, 4),
        ((512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 3, 4, 4)),
    ),
    "U-Net": (
        unet,
        (4, 3, 64, 64),
        (
            (32, 3, 3, 3),
            (64, 32, 3, 3),
            (64, 64, 3, 3),
            (64, 32, 2, 2),
            (32, 64, 3, 3),
            (2, 32, 1, 1),
        ),
    ),
    "ConvNeXt": (
        convnext,
        (4, 64, 28, 28),
        ((64, 1, 7, 7), (256, 64, 1, 1), (64, 256, 1, 1)) * 2,
    ),
    "MobileNetV2": (
        mobilenet,
        (4, 24, 28, 28),
        ((144, 24, 1, 1), (144, 1, 3, 3), (24, 144, 1, 1)) * 2,
    ),
    "HiFi-GAN": (
        hifigan,
        (2, 128, 32),
        ((128, 64, 16), *((64, 64, 3),) * 3, (64, 32, 16), *((32, 32, 3),) * 3),
    ),
    "V-Net": (
        vnet,
        (1, 1, 32, 32, 32),
        (
            (16, 1, 3, 3, 3),
            (32, 16, 2, 2, 2),
            (32, 32, 3, 3, 3),
            (32, 16, 3, 3, 3),
            (2, 32, 3, 3, 3),
        ),
    ),
}
