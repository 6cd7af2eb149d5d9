"""Which lowering evaluates which contraction on which platform, where the user named none.

The choice depends on shapes, dtype and platform only, so it is the same from run to run. The ratios are of
benchmarks/pair.py on two CPU cores.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jdeconv.form import Form
from jdeconv.lowerings import LOWERINGS


def choose(platform: str, form: Form, dtype: np.dtype, c: int, o: int) -> str:
    """The lowering's name, for c and o channels in a group; the first line that holds decides.

    Example:
      >>> from jdeconv.form import Layout
      >>> from jdeconv.window import Window
      >>> form = Form(Window.of_conv((8, 8), (3, 3)), 1, Layout.of("conv", None, 2))
      >>> choose("cuda", form, np.dtype("float32"), 3, 4), choose("cpu", form, np.dtype("float32"), 3, 4)
      ('native', 'im2col')
    """
    rank, floating = form.window.rank, jnp.issubdtype(dtype, jnp.floating)
    # XLA's CPU convolution is 10 to 30 times slower than the taps, and a batch of 1x1 dots 5 times.
    if platform == "cpu" and LOWERINGS["depthwise"].refuses(form, c, o) is None:
        return "depthwise"
    # XLA's CPU convolution leaves its fast path on any reversal, group or loop; the dot never does.
    if platform == "cpu":
        return "im2col"
    # Vendor libraries have convolutions of floats over 1 to 3 axes; XLA falls back to a naive loop.
    # On TPU, a compiler's estimate: explicit im2col takes 3 to 9 times the cycles of native convolution.
    vendor = platform == "tpu" or (platform in ("cuda", "rocm") and rank <= 3)
    if vendor and floating:
        return "native"
    return "im2col"
