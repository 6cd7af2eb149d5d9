"""Outputs of BVLC Caffe's own CPU layers: forward, bottom diff and weight diff."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdeconv
from jdeconv.compat import caffe

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "caffe_layers.json").read_text())
LAYERS = {"Convolution": jdeconv.conv, "Deconvolution": jdeconv.deconv}


def arrays(index):
    """Bottom, weight, bias, the top's diff, and what Caffe made of these: top, bottom's and weight's diff."""
    with np.load(GOLDEN / "caffe_layers.npz") as found:
        names = ("x", "w", "b", "dy", "y", "dx", "dw")
        return tuple(found.get(f"{index:02d}_{name}") for name in names)


def test_there_are_twelve_cases_of_both_layers_and_ranks_1_to_4():
    assert len(CASES) == 12
    assert {case["layer"] for case in CASES} == set(LAYERS)
    assert {len(case["kernel_size"]) for case in CASES} == {1, 2, 3, 4}


@pytest.mark.parametrize("lowering", [None, "im2col", "vendor"])
@pytest.mark.parametrize("index", range(len(CASES)))
def test_caffe(index, lowering):
    case, (x, w, b, dy, y, dx, dw) = CASES[index], arrays(index)
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


@pytest.mark.parametrize("index", range(len(CASES)))
def test_layers_of_compat(index):
    case, (x, w, b, dy, y, dx, dw) = CASES[index], arrays(index)
    names = ("kernel_size", "stride", "pad", "dilation", "group")
    layer = getattr(caffe, case["layer"])(
        num_output=y.shape[1], bias_term=b is not None, **{name: case[name] for name in names}
    )
    blobs = [jnp.asarray(a) for a in (w, b) if a is not None]
    assert layer.blob_shapes(x.shape) == [a.shape for a in blobs]
    (top,) = layer.forward(blobs, jnp.asarray(x))
    (weight_diff, *bias_diff), (bottom_diff,) = layer.backward(
        blobs, [jnp.asarray(x)], [jnp.asarray(dy)]
    )
    pairs = [(top, y), (bottom_diff, dx), (weight_diff, dw)]
    if bias_diff:
        pairs.append((bias_diff[0], dy.sum((0, *range(2, dy.ndim)))))
    for ours, caffes in pairs:
        assert np.abs(ours - caffes).max() <= 2e-5 * np.abs(caffes).max()
