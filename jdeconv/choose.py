"""Which lowering evaluates which contraction on which platform, where the user named none.

The choice depends on shapes, dtype, layout and platform only, so it is the same from run to run, in a loop and
outside of one. The ratios are of `python -m jdeconv bench` on two CPU cores.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from jdeconv.form import Form, accumulator
from jdeconv.lowerings import LOWERINGS, cudnn, winograd
from jdeconv.lowerings.arrange import channels_last

FEW_CHANNELS = 8
MAX_LINE_TAPS = 10
MAX_SPECTRA = 1 << 25  # numbers


def choose(platform: str | None, form: Form, dtype: np.dtype, c: int, o: int) -> str:
    """The lowering's name, for c and o channels in a group; the first line that holds decides.

    Example:
      >>> from jdeconv.form import Layout
      >>> from jdeconv.window import Window
      >>> form = Form(Window.of_conv((8, 8), (3, 3)), 1, Layout.of("conv", None, 2))
      >>> [choose(platform, form, np.dtype("float32"), 16, 4) for platform in ("cuda", "cpu")]
      ['vendor', 'winograd']
    """
    taps, phases = math.prod(form.window.kernel), math.prod(form.window.stride)
    is_symbolic = not all(isinstance(size, int) for size in (form.groups, c, o))  # in an export

    def serves(name: str) -> bool:
        return LOWERINGS[name].refuses(form, c, o, dtype) is None

    # Vendor libraries have convolutions of floats over 1 to 3 axes; XLA falls back to a naive loop.
    # On TPU, a compiler's estimate: explicit im2col takes 3 to 9 times the cycles of XLA's convolution.
    if platform != "cpu":
        # On an H100, 4 taps took half the time of the vendor's call, and 31 twice the time.
        is_line = not is_symbolic and cudnn.is_slow_line(platform, form, c, o)
        if is_line and taps < MAX_LINE_TAPS and serves("taps"):
            return "taps"
        vendor = platform == "tpu" or (platform in ("cuda", "rocm") and form.window.rank <= 3)
        return "vendor" if vendor and jnp.issubdtype(dtype, jnp.floating) else "im2col"

    if is_symbolic:
        return "im2col"
    # XLA's CPU convolution is 10 to 30 times slower than the taps; im2col's batch of small dots 2 to 5 times.
    if serves("taps") and max(c, o) <= 4:
        return "taps"
    # XLA's own convolution has a fast path for float32 over one or two axes.
    plane = form.window.rank <= 2 and accumulator(dtype) == np.dtype("float32")
    nhwc = serves("nhwc") and plane and taps > 3
    # Group after group: half the time of a batch of small dots at 8 groups of 16 channels, 0.7 at 4 of 32.
    if nhwc and form.groups > 1 and min(c, o) >= 8 and max(c, o) <= 32:
        return "nhwc"
    # Half the time of im2col where it saves a fifth of the products, or, with channels last, where windows lie
    # apart. With few channels its transforms weigh more than the dots. With channels first it pays for
    # transposes too: beside half-empty tiles, as at 7x7, `nhwc` takes half the time.
    if serves("winograd") and c * phases >= FEW_CHANNELS:
        last = channels_last(form)
        short = winograd.products(form) <= (
            0.55 if nhwc and form.groups == 1 and not last else 0.85
        )
        apart = form.window.kernel == form.window.stride and phases > 1
        wide = form.groups == 1 or c * phases >= 16
        if (short or (apart and last)) and wide:
            return "winograd"
    # 40 to 90 times faster than im2col at 13x13 and one channel, 13 times at 8 channels; but not where windows
    # hardly overlap, or are few, or the kernel's spectra would fill memory.
    large = min(taps / phases, math.prod(form.window.small)) > 100
    spectra = form.groups * c * o * math.prod(form.window.full)
    if serves("fft") and large and c * o <= 64 and spectra <= MAX_SPECTRA:
        return "fft"
    # Twice as fast as im2col at nine taps over one axis, 1.4 to 2 times at 5x5.
    if nhwc and form.groups == 1 and min(c, o) >= 16:
        return "nhwc"
    # XLA's CPU convolution leaves its fast path on any reversal or group; the dot never does.
    return "im2col"
