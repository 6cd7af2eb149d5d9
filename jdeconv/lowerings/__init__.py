"""How a contraction is evaluated: one idea a file, and a table that lists them.

A lowering has `conv`, `deconv` and `kernel_grad`, each of two arrays of one dtype, a `Form` and the dtype
in which to accumulate and answer; and `refuses(form)`, the reason in words why it cannot serve, or None.
"""

from jdeconv.lowerings import im2col, native

LOWERINGS = {
    "im2col": im2col,
    "native": native,
}
