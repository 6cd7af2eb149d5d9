"""A strict setting for every test: rank promotion raises, and data are small random integers."""

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def rng():
    return np.random.default_rng(20261122)
