"""Taylor series through jax.experimental.jet, beside those of jax.lax."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.jet import jet

import jdeconv


def series(function, x, k):
    """Three coefficients where both arguments move."""
    terms = [x + 1, x % 3, 2 * x], [k % 2, k - 1, k]
    return jax.jit(lambda x, k: jet(function, (x, k), terms))(x, k)


def test_a_taylor_series_passes(rng):
    x, k = (jnp.asarray(rng.integers(-3, 4, s), jnp.float32) for s in ((1, 2, 6), (3, 2, 3)))

    def theirs(x, k):
        return lax.conv_general_dilated(x, k, (2,), [(1, 1)])

    expected = series(theirs, x, k)
    for ours in (
        lambda x, k: jdeconv.bilinear.conv(x, k, stride=2, padding=1),
        jdeconv.accelerate(theirs),
    ):
        jax.tree.map(np.testing.assert_array_equal, series(ours, x, k), expected)
