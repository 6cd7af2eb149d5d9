"""The lowerings: each file in the table evaluates the three contractions with one algorithm.

A lowering has the functions `conv`, `deconv` and `kernel_grad` of two arrays and a `Problem`. Its function
`refuses(problem)` returns the reason why it cannot serve, or None. `evaluate.py` says in which order and in
which pieces a lowering gets arrays. A lowering may have `enter_kernel(kernel, problem)`, which is called once,
before any loop.
"""

from jdeconv.lowerings import fft, im2col, nhwc, taps, vendor

LOWERINGS = {
    "im2col": im2col,
    "taps": taps,
    "fft": fft,
    "nhwc": nhwc,
    "vendor": vendor,
}
