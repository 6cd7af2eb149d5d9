"""Outputs of BVLC Caffe's own CPU layers: forward, bottom diff and weight diff."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jdeconv

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "caffe_layers.json").read_text())
LAYERS = {"Convolution": jdeconv.conv, "Deconvolution": jdeconv.deconv}


def test_there_are_twelve_cases_of_both_layers_and_ranks_1_to_4():
    assert len(CASES) == 12
    assert {case["layer"] for case in CASES} == set(LAYERS)
    assert {len(case["kernel_size"]) for case in CASES} == {1, 2, 3, 4}


@pytest.mark.parametrize("lowering", [None, "im2col", "vendor"])
@pytest.mark.parametrize("index", range(len(CASES)))
def test_caffe(index, lowering):
    case = CASES[index]
    with np.load(GOLDEN / "caffe_layers.npz") as arrays:
        names = ("x", "w", "b", "dy", "y", "dx", "dw")
        x, w, b, dy, y, dx, dw = (arrays.get(f"{index:02d}_{name}") for name in names)
    options = {"stride": case["stride"], "padding": case["pad"], "dilation": case["dilation"]}
    options |= {"groups": case["group"], "lowering": lowering}
    layer = LAYERS[case["layer"]]

    @jax.jit
    def all_of(x, w, dy):
        top, vjp = jax.vjp(lambda x, w: layer(x, w, b, **options), x, w)
        return top, *vjp(dy)

    for ours, caffes in zip(all_of(x, w, dy), (y, dx, dw), strict=True):
        assert ours.shape == caffes.shape
        assert np.abs(ours - caffes).max() <= 2e-5 * np.abs(caffes).max()
