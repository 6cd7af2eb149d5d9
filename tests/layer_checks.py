"""What the tests of layers share, whichever framework they are of."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

MODES = {"REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


def integers(rng, *shape, dtype=jnp.float32):
    return jnp.asarray(rng.integers(-3, 4, shape), dtype)


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def refuses(kind, text, call, *arguments, **options):
    """The call raises an error of this kind, with this text."""
    with pytest.raises(kind, match=re.escape(text)):
        call(*arguments, **options)
