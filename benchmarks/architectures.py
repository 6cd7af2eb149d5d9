"""Whole networks for training steps, at the widths of their papers, each written once.

A network is a function of a `Layers` and an array. `Layers` hands out its parameters in the order in which
the layers ask for them, so that no list of shapes has to be kept beside the network. Whoever does the
work, and in which layout, is the business of the operations that `Layers` holds (see `peers`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.cases import Step
from benchmarks.operations import Lax


class Layers:
    """Layers with parameters, on someone's operations; shapes are channels first, O before I."""

    def __init__(self, ops: Any, take: Callable[[tuple[int, ...]], Any]) -> None:
        self.ops, self.take = ops, take

    def conv(self, x: Any, features: int, size: int, *, groups=1, bias=False, **steps: int) -> Any:
        """A conv with a window of `size` on every axis."""
        window = (size,) * (x.ndim - 2)
        kernel = self.take((features, self.ops.channels(x) // groups, *window))
        return self._biased(self.ops.conv(x, kernel, groups=groups, **steps), bias)

    def deconv(self, x: Any, features: int, size: int, *, bias=False, **steps: int) -> Any:
        """A deconv with a window of `size` on every axis."""
        kernel = self.take((self.ops.channels(x), features, *(size,) * (x.ndim - 2)))
        return self._biased(self.ops.deconv(x, kernel, **steps), bias)

    def batch_norm(self, x: Any) -> Any:
        """Every channel normalized over the batch, then scaled and shifted."""
        return self._scaled(self.ops.batch_norm(x))

    def prelu(self, x: Any) -> Any:
        """The relu whose slope for negative numbers is a parameter of each channel."""
        return self.ops.prelu(x, self.take((self.ops.channels(x),)))

    def layer_norm(self, x: Any) -> Any:
        """Every position normalized over the channels, then scaled and shifted."""
        return self._scaled(self.ops.norm(x))

    def _biased(self, x: Any, bias: bool) -> Any:
        if not bias:
            return x
        return x + self.ops.per_channel(self.take((self.ops.channels(x),)), x)

    def _scaled(self, x: Any) -> Any:
        scale, shift = (self.take((self.ops.channels(x),)) for _ in range(2))
        return x * self.ops.per_channel(scale, x) + self.ops.per_channel(shift, x)


def resnet50(net: Layers, x: Any, width: int = 64, inner: int = 64, groups: int = 1) -> Any:
    """The classifier's layers before its pooling: bottlenecks of 1x1, 3x3 and 1x1 with batch norms.

    With `inner` 128 and 32 groups it is ResNeXt-50.
    """
    relu = net.ops.relu
    x = relu(net.batch_norm(net.conv(x, width, 7, stride=2, padding=3)))
    x = net.ops.max_pool(x, 3, 2, 1)
    for level, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            within, out, step = inner << level, 4 * width << level, 2 if level and not block else 1
            h = relu(net.batch_norm(net.conv(x, within, 1)))
            h = net.conv(h, within, 3, stride=step, padding=1, groups=groups)
            h = net.batch_norm(net.conv(relu(net.batch_norm(h)), out, 1))
            skip = x if block else net.batch_norm(net.conv(x, out, 1, stride=step))
            x = relu(h + skip)
    return x


def unet(net: Layers, x: Any, width: int = 64, levels: int = 4) -> Any:
    """Pairs of 3x3 convs, down by pooling and up by deconvs of kernel 2 and stride 2."""
    skips = []
    for level in range(levels):
        skips.append(_pair(net, x, width << level))
        x = net.ops.max_pool(skips[-1], 2, 2, 0)
    x = _pair(net, x, width << levels)
    for level in reversed(range(levels)):
        x = net.deconv(x, width << level, 2, stride=2, bias=True)
        x = _pair(net, net.ops.concatenate(skips.pop(), x), width << level)
    return net.conv(x, 2, 1, bias=True)


def _pair(net: Layers, x: Any, features: int) -> Any:
    for _ in range(2):
        x = net.ops.relu(net.batch_norm(net.conv(x, features, 3, padding=1)))
    return x


def dcgan(net: Layers, x: Any, width: int = 64) -> Any:
    """The generator, from noise to a picture of 64 x 64, and the discriminator behind it."""
    ops = net.ops
    x = ops.relu(net.batch_norm(net.deconv(x, 8 * width, 4)))
    for factor in (4, 2, 1):
        x = ops.relu(net.batch_norm(net.deconv(x, factor * width, 4, stride=2, padding=1)))
    x = ops.tanh(net.deconv(x, 3, 4, stride=2, padding=1))
    x = ops.leaky_relu(net.conv(x, width, 4, stride=2, padding=1))
    for factor in (2, 4, 8):
        x = ops.leaky_relu(net.batch_norm(net.conv(x, factor * width, 4, stride=2, padding=1)))
    return net.conv(x, 1, 4)


def mobilenet_v2(net: Layers, x: Any) -> Any:
    """The classifier's layers before its pooling: inverted residuals around depthwise 3x3 convs."""
    stages = ((1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 32, 3, 3, 2), (6, 64, 4, 3, 2))
    stages += ((6, 96, 3, 3, 1), (6, 160, 3, 3, 2), (6, 320, 1, 3, 1))
    return _inverted_stages(net, x, stages, net.ops.relu)


def efficientnet_b0(net: Layers, x: Any) -> Any:
    """The classifier's layers before its pooling: inverted residuals with a gate for each channel."""
    stages = ((1, 16, 1, 3, 1), (6, 24, 2, 3, 2), (6, 40, 2, 5, 2), (6, 80, 3, 3, 2))
    stages += ((6, 112, 3, 5, 1), (6, 192, 4, 5, 2), (6, 320, 1, 3, 1))
    return _inverted_stages(net, x, stages, net.ops.silu, is_gated=True)


def _inverted_stages(net: Layers, x: Any, stages, active: Callable, is_gated=False) -> Any:
    """Between two convs, inverted residuals: of each stage factor, channels, depth, kernel and stride."""
    x = active(net.batch_norm(net.conv(x, 32, 3, stride=2, padding=1)))
    for factor, out, depth, size, stride in stages:
        for block in range(depth):
            gate = net.ops.channels(x) // 4 if is_gated else 0
            h = _inverted(net, x, factor, out, size, 1 if block else stride, active, gate)
            x = x + h if block else h
    return active(net.batch_norm(net.conv(x, 1280, 1)))


def _inverted(net: Layers, x: Any, factor, out, size, step, active: Callable, gate=0) -> Any:
    """A 1x1 conv to more channels, a depthwise conv, a gate if asked for, and a 1x1 conv to `out`."""
    inner = factor * net.ops.channels(x)
    h = active(net.batch_norm(net.conv(x, inner, 1))) if factor > 1 else x
    h = net.conv(h, inner, size, stride=step, padding=size // 2, groups=inner)
    h = active(net.batch_norm(h))
    if gate:
        squeezed = active(net.conv(net.ops.average(h), gate, 1, bias=True))
        h = h * net.ops.sigmoid(net.conv(squeezed, inner, 1, bias=True))
    return net.batch_norm(net.conv(h, out, 1))


def convnext(net: Layers, x: Any, width: int = 96, depths: tuple = (3, 3, 9, 3)) -> Any:
    """ConvNeXt-T's layers before its pooling: depthwise 7x7 convs between patches and 1x1 convs."""
    for level, depth in enumerate(depths):
        features = width << level
        if level:
            x = net.conv(net.layer_norm(x), features, 2, stride=2, bias=True)
        else:
            x = net.layer_norm(net.conv(x, features, 4, stride=4, bias=True))
        for _ in range(depth):
            h = net.layer_norm(net.conv(x, features, 7, padding=3, groups=features, bias=True))
            h = net.ops.gelu(net.conv(h, 4 * features, 1, bias=True))
            x = x + net.conv(h, features, 1, bias=True)
    return x


def hifigan(net: Layers, x: Any, width: int = 512) -> Any:
    """The generator V1: deconvs, each before residual dilated convs of three sizes."""
    leaky = net.ops.leaky_relu
    x = net.conv(x, width, 7, padding=3, bias=True)
    for size, step in ((16, 8), (16, 8), (4, 2), (4, 2)):
        width //= 2
        x = net.deconv(leaky(x), width, size, stride=step, padding=(size - step) // 2, bias=True)
        total = 0
        for taps in (3, 7, 11):
            h = x
            for dilation in (1, 3, 5):
                reach = taps // 2
                a = net.conv(
                    leaky(h), width, taps, dilation=dilation, padding=reach * dilation, bias=True
                )
                h = h + net.conv(leaky(a), width, taps, padding=reach, bias=True)
            total = h + total
        x = total / 3
    return net.ops.tanh(net.conv(leaky(x), 1, 7, padding=3, bias=True))


def vnet(net: Layers, x: Any, width: int = 16, levels: int = 4) -> Any:
    """Residual pairs of 3x3x3 convs on volumes, down and up by windows of kernel 2 and stride 2."""
    relu, skips = net.ops.relu, []
    x = relu(net.conv(x, width, 3, padding=1, bias=True))
    for level in range(1, levels):
        skips.append(x)
        x = relu(net.conv(x, width << level, 2, stride=2, bias=True))
        x = relu(x + _pair(net, x, width << level))
    for level in reversed(range(levels - 1)):
        x = relu(net.deconv(x, width << level, 2, stride=2, bias=True))
        h = net.ops.concatenate(skips.pop(), x)
        x = relu(x + _pair(net, h, width << level))
    return net.conv(x, 2, 1, bias=True)


def autoencoder(net: Layers, x: Any, width: int = 32, levels: int = 4) -> Any:
    """Strided convs down and deconvs up, each with a bias and a relu."""
    colors = net.ops.channels(x)
    for level in range(levels):
        x = net.ops.relu(net.conv(x, width << level, 3, stride=2, padding=1, bias=True))
    for level in reversed(range(levels - 1)):
        x = net.ops.relu(net.deconv(x, width << level, 4, stride=2, padding=1, bias=True))
    return net.deconv(x, colors, 4, stride=2, padding=1, bias=True)


def fsrcnn(net: Layers, x: Any, d: int = 56, s: int = 12, m: int = 4, scale: int = 3) -> Any:
    """A small picture of one channel made larger: convs on few channels, and one 9x9 deconv at the end."""
    for features, size in ((d, 5), (s, 1), *((s, 3),) * m, (d, 1)):
        x = net.prelu(net.conv(x, features, size, padding=size // 2, bias=True))
    return net.deconv(x, 1, 9, stride=scale, padding=4, output_padding=scale - 1, bias=True)


def tcn(net: Layers, x: Any, width: int = 25, levels: int = 8, taps: int = 7) -> Any:
    """Residual pairs of causal convs with growing dilations on a sequence, as for sequential MNIST."""
    relu = net.ops.relu
    for level in range(levels):
        past, h = (taps - 1) << level, x
        for _ in range(2):
            h = net.conv(h, width, taps, dilation=1 << level, padding=past, bias=True)
            h = relu(net.ops.without_last(h, past))
        x = relu(h + (x if level else net.conv(x, width, 1, bias=True)))
    return x


def filters(net: Layers, x: Any, depth: int = 8) -> Any:
    """A stack of 3x3 convs of three channels, with tanh behind each."""
    for _ in range(depth):
        x = net.ops.tanh(net.conv(x, net.ops.channels(x), 3, padding=1))
    return x


def stencil(net: Layers, x: Any, times: int = 50) -> Any:
    """Explicit steps of a linear equation in time: one 3x3 kernel of one channel, in a Python loop."""
    kernel = net.take((1, 1, 3, 3))
    for _ in range(times):
        x = x + 0.1 * net.ops.conv(x, kernel, padding=1)
    return x


def recurrent(net: Layers, x: Any, times: int = 8) -> Any:
    """One 3x3 conv with tanh applied many times, in JAX by scan."""
    channels = net.ops.channels(x)
    kernel = net.take((channels, channels, 3, 3))
    return net.ops.repeat(lambda x: net.ops.tanh(net.ops.conv(x, kernel, padding=1)), x, times)


def step(network: Callable, image: tuple[int, ...], **sizes: int) -> Step:
    """The training step of a network on such images, channels first."""
    network = functools.partial(network, **sizes)
    shapes: list[tuple[int, ...]] = []

    def made(shape: tuple[int, ...]) -> jax.Array:
        shapes.append(shape)
        return jnp.zeros(shape)

    jax.eval_shape(
        lambda x: network(Layers(Lax("NCHW"), made), x), jax.ShapeDtypeStruct(image, "float32")
    )

    def model(ops: Any, x: Any, parameters: Any) -> Any:
        given: Iterator = iter(parameters)
        return network(Layers(ops, lambda _: next(given)), x)

    return Step(model, image, tuple(shapes))


@functools.cache
def steps() -> dict[str, Step]:
    """The training steps by name, with batches that fill a large GPU."""
    return {
        "ResNet-50": step(resnet50, (128, 3, 224, 224)),
        "U-Net": step(unet, (16, 3, 256, 256)),
        "DCGAN": step(dcgan, (256, 100, 1, 1)),
        "MobileNetV2": step(mobilenet_v2, (128, 3, 224, 224)),
        "ConvNeXt": step(convnext, (64, 3, 224, 224)),
        "HiFi-GAN": step(hifigan, (16, 80, 32)),
        "V-Net": step(vnet, (2, 1, 128, 128, 128)),
        "autoencoder": step(autoencoder, (128, 3, 128, 128)),
    }


@functools.cache
def small_steps() -> dict[str, Step]:
    """The training steps by name, with real widths, but inputs small enough for a few CPU cores."""
    return {
        "ResNet-50": step(resnet50, (2, 3, 64, 64)),
        "ResNeXt-50": step(resnet50, (2, 3, 64, 64), inner=128, groups=32),
        "U-Net 16-64": step(unet, (2, 3, 96, 96), width=16, levels=2),
        "U-Net 64-1024": step(unet, (1, 3, 64, 64)),
        "MobileNetV2": step(mobilenet_v2, (4, 3, 64, 64)),
        "EfficientNet-B0": step(efficientnet_b0, (4, 3, 64, 64)),
        "ConvNeXt-T": step(convnext, (1, 3, 64, 64)),
        "FSRCNN": step(fsrcnn, (4, 1, 32, 32)),
        "eight 3>3 filters": step(filters, (1, 3, 512, 512)),
        "DCGAN": step(dcgan, (4, 100, 1, 1)),
        "autoencoder": step(autoencoder, (8, 3, 64, 64)),
        "HiFi-GAN": step(hifigan, (1, 80, 2)),
        "TCN": step(tcn, (8, 1, 784)),
        "V-Net": step(vnet, (1, 1, 32, 32, 32)),
        "1>1 stencil, 50 times": step(stencil, (1, 1, 128, 128)),
        "3x3 conv through scan": step(recurrent, (4, 32, 32, 32)),
    }
