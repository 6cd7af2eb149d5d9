"""How a contraction is evaluated: one idea a file, and a table that lists them.

A lowering has `conv`, `deconv` and `kernel_grad`, each of two arrays and a `Problem`, and `refuses(problem)`:
the reason in words why it cannot serve, or None. `evaluate.py` says in which order and in which pieces it gets
arrays. It may have `enter_kernel(kernel, problem)`, which is called once, before any loop.
"""

from jdeconv.lowerings import fft, im2col, nhwc, taps, vendor

LOWERINGS = {
    "im2col": im2col,
    "taps": taps,
    "fft": fft,
    "nhwc": nhwc,
    "vendor": vendor,
}
