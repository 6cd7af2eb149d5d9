"""How a contraction is evaluated: one idea a file, and a table that lists them.

A lowering has `conv`, `deconv` and `kernel_grad`, each of two arrays of one dtype, a `Form` and the dtype
in which to accumulate and answer; and `refuses(form, c, o, dtype)`, the reason in words why
it cannot serve c and o channels in a group, or None.
"""

from jdeconv.lowerings import fft, im2col, nhwc, taps, vendor, winograd

LOWERINGS = {
    "im2col": im2col,
    "taps": taps,
    "winograd": winograd,
    "fft": fft,
    "nhwc": nhwc,
    "vendor": vendor,
}
