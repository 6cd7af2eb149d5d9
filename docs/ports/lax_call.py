"""jax.lax's conv_transpose, whose kernel is not the conv's."""

import numpy as np

NEEDS = "jax"


def theirs(x, kernel):
    """The call in jax.lax."""
    from jax import lax

    return lax.conv_transpose(x, kernel, (2, 2), "SAME")


def ours(x, kernel):
    """The same with jdeconv. lax reverses the kernel, and its I is the input of the transposed conv."""
    import jdeconv

    return jdeconv.deconv(
        x,
        kernel[::-1, ::-1],
        stride=2,
        padding="SAME",
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def adapter(x, kernel):
    """The same with jdeconv and lax's signature."""
    from jdeconv.compat import lax

    return lax.conv_transpose(x, kernel, (2, 2), "SAME")


def arrays(rng):
    """Inputs: (n, h, w, c), (h, w, in, out)."""
    return [rng.integers(-4, 5, s).astype(np.float32) for s in ((2, 5, 7, 4), (3, 3, 4, 6))]
